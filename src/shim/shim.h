/*
 * What the shim's files share. One struct, one thread, one poll loop:
 *
 *   loading → created (waits for START) → running → ending (drain, clean up, record) → exit
 *                  └ gate closed ───────────────────┘
 *
 * Thread: the shim's only one. Owns: the struct owns its descriptors; the process's end closes them.
 */
#pragma once

#include "base/alloc.h"
#include "base/error.h"
#include "runtime/native/protocol.h"
#include "runtime/native/setup.h"
#include "shim/log.h"

#include <poll.h>

enum shim_phase { SHIM_CREATED, SHIM_RUNNING, SHIM_ENDING };
enum shim_reason { SHIM_EXITED, SHIM_SIGNAL, SHIM_OOM_KILLED, SHIM_RUNTIME_ERROR };

struct shim_outcome {
    enum shim_reason reason;
    int code, signal;
    uint64_t oom_kills, finished_ms;
};

enum { SHIM_CONNS = 16, SHIM_OUT_MAX = 256 * 1024 };

/* A command run in the container for a connection. */
struct shim_exec {
    pid_t helper, pid; /* the helper enters the container and leaves the command behind */
    int helper_fd, pid_fd;
    int announce; /* the command's pid, from the helper */
    int report;   /* why it could not run; end of file: it runs */
    int out[2];
    bool exited;
    int status;
};

struct shim_conn {
    int fd; /* -EBADF: free */
    bool waiting, closing;
    struct zl_buf in, out;
    struct shim_exec *exec;
};

struct shim {
    struct zl_arena arena;
    struct zl_buf job_bytes;
    struct zl_job job;
    struct zl_setup setup;
    struct shim_log log;
    enum shim_phase phase;
    bool gate_open;
    int oom_fd;
    uint64_t oom_seen;        /* kills counted so far */
    uint64_t oom_watch_until; /* a kill was announced: look for its count and its victim until then */
    bool oom_first, killed;   /* the first process was the victim; we sent it SIGKILL ourselves */
    struct shim_outcome outcome;
    struct zl_buf gate_in;
    struct shim_conn conns[SHIM_CONNS];
};

/* main.c: one batch of the container's output (0 or 1), into the log; true when there may be more. */
bool shim_drain(struct shim *s, unsigned stream);

/* oom.c */
void shim_oom_start(struct shim *s);
/* Looks at the counter; after it has risen, whether the first process is the one that dies. */
void shim_oom_look(struct shim *s);
/* The outcome of a first process that ended with this status. */
void shim_oom_judge(struct shim *s, int status);

/* record.c: `state` and `exit`. */
const char *shim_phase_name(enum shim_phase p);
const char *shim_reason_name(enum shim_reason r);
int shim_record_state(const struct shim *s) ZL_MUST;
int shim_record_exit(const struct shim *s) ZL_MUST;

/* server.c: shim.sock. */
enum { SHIM_POLL_MAX = 8 + SHIM_CONNS * 6 };
struct shim_poll {
    struct pollfd fds[SHIM_POLL_MAX];
    unsigned n;
};
void shim_poll_add(struct shim_poll *p, int fd, short events);
void shim_server_init(struct shim *s);
void shim_server_poll(struct shim *s, struct shim_poll *p);
/* Accepts, reads, answers; whatever is ready (all calls are non-blocking). */
void shim_server_step(struct shim *s);
/* Tells the waiting ones the outcome and sends what is queued, for at most a second. */
void shim_server_finish(struct shim *s);
void shim_conn_error(struct shim_conn *c, int code, const char *text);

/* exec.c */
int shim_exec_start(struct shim *s, struct shim_conn *c, struct zl_str body) ZL_MUST;
void shim_exec_poll(struct shim_conn *c, struct shim_poll *p);
void shim_exec_step(struct shim *s, struct shim_conn *c);
/* The connection is gone: nobody wants the command any more. */
void shim_exec_drop(struct shim_conn *c);
