/*
 * What the files of the native back end share.
 *
 *   instance: creating → created → starting → running → exited → (removed)
 *             (failed create: removed)     any state → lost → exited(runtime_error)
 *
 * Thread: the control loop's; jobs work on the pool with copies of what they need. Owns: see the structs.
 * Fails: by calls' errors.
 */
#pragma once

#include "aio/child.h"
#include "base/alloc.h"
#include "runtime/native/conn.h"
#include "runtime/native/disk.h"
#include "runtime/native/native.h"

#include <pthread.h>

struct native;
struct instance;

/* One submitted request until its completion has run. */
struct call {
    struct call *next;
    struct native *n;
    uint64_t number;
    enum zl_rt_kind kind;
    char id[ZL_ID_HEX_SIZE];
    zl_rt_done done; /* NULL: has run */
    void *arg;
    bool finished;
    struct zl_err err;
    struct zl_rt_reply reply;
    struct zl_rt_conn *conn;
    struct zl_buf out, errs; /* of exec */
    uint64_t output_max;
    bool resumes; /* a kill that a paused instance does not outlast */
};

enum instance_phase { I_CREATING, I_CREATED, I_STARTING, I_RUNNING, I_EXITED };

struct instance {
    struct native *n;
    struct zl_arena arena; /* of info's strings */
    struct zl_rt_instance info;
    enum instance_phase phase;
    bool removing, settling, reported; /* reported: its event was given */
    int gate;
    struct zl_watch *gate_watch;
    struct zl_buf gate_in;
    struct call *create, *start; /* that wait for the gate */
    struct zl_err failure;       /* of a create */
    struct shim_ref *shim;       /* while it is a child of ours that has not been reaped */
    struct zl_rt_conn *wait;
    struct zl_timer *probe; /* of a shim that does not answer */
    unsigned probe_ms;
};

/* A shim that is our child, to be reaped whether or not its instance is still known. */
struct shim_ref {
    struct shim_ref *next;
    struct native *n;
    struct instance *i; /* NULL: removed */
    struct zl_child *child;
};

enum job_kind { JOB_SCAN, JOB_SETTLE, JOB_REMOVE };

struct job {
    struct job *next;
    struct native *n;
    enum job_kind kind;
    struct zl_rt_disk disk;
    char id[ZL_ID_HEX_SIZE];
    struct call *call; /* may be NULL */
    struct zl_err err;
    struct zl_rt_outcome outcome;
    bool alive;
    struct instance **found; /* of a scan: whole instances, not yet in the table */
    unsigned nfound;
};

struct native {
    struct zl_runtime base;
    struct zl_loop *loop;
    struct zl_pool *pool;
    char *cgroup_parent;
    const struct zl_inside *inside;
    int containers, shim;
    /* Compiled by a thread of its own from the opening on, as that takes 11 ms; ours once native_filter has joined it.
     */
    struct zl_buf seccomp;
    struct zl_err seccomp_err;
    pthread_t compiler;
    bool compiling;
    uint64_t nofile;
    struct instance **instances;
    unsigned ninstances, cap;
    struct call *calls;
    struct shim_ref *shims;
    uint64_t last_number;
    zl_rt_watch watch;
    void *watch_arg;
    bool scanned, closed;
    struct job *stalled; /* the pool was full */
    struct zl_timer *retry;
    unsigned refs; /* jobs and completions under way, and the opener's */
};

/* native.c */
void native_unref(struct native *n);
/* Waits until the system-call filter is there; fails when it can't be had. */
int native_filter(struct native *n, struct zl_err *err) ZL_MUST;
struct call *call_new(struct native *n, enum zl_rt_kind kind, const char *id, zl_rt_done done, void *arg);
/* The completion runs later in this turn of the loop, with c->err and c->reply as they are now. */
void call_finish(struct call *c);
void call_fail(struct call *c, int code, const char *fmt, ...) ZL_PRINTF(3, 4);
struct job *job_new(struct native *n, enum job_kind kind, const char *id, struct call *c);
void job_submit(struct job *j);

/* instance.c */
struct instance *instance_new(struct native *n);
void instance_free(struct instance *i);
struct instance *instance_find(struct native *n, const char *id);
void instance_add(struct instance *i);
void instance_drop(struct instance *i);
/* It has ended: the event, once. */
void instance_ended(struct instance *i, const struct zl_rt_outcome *o);
/* Waits for its end by its shim; a shim that can't be asked is looked after. */
void instance_wait(struct instance *i);
void instance_lost(struct instance *i);
void instance_close_gate(struct instance *i);
/* Removal on the pool; c may be NULL. */
void instance_remove(struct native *n, const char *id, struct call *c);

/* create.c */
void native_create(struct native *n, const struct zl_rt_spec *spec, struct call *c);
/* Takes what the shim has said on the gate, before its end is acted on. */
void native_read_gate(struct instance *i);
/* Unlinks and frees; a child that still runs goes on. */
void shim_ref_drop(struct shim_ref *ref);
void native_start(struct native *n, struct call *c);

/* ask.c: one request through shim.sock. */
void native_kill(struct native *n, struct call *c, int signum, bool all);
void native_exec(struct native *n, struct call *c, const struct zl_rt_exec *exec);
/* A request without a body, of an instance that runs. */
void native_ask(struct native *n, struct call *c, uint16_t request);
/* An EXEC frame; session NULL: buffered. */
int native_exec_request(struct zl_buf *b, const struct zl_rt_exec *exec, const struct zl_rt_session_spec *session,
                        struct zl_err *err) ZL_MUST;

/* session.c */
struct zl_rt_session *native_session(struct zl_runtime *rt, const char *id, const struct zl_rt_session_spec *spec,
                                     const struct zl_rt_session_events *events, void *arg);
