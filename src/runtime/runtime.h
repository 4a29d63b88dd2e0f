/*
 * The Runtime: what runs containers, whatever is behind it (native shims, an in-memory fake). Calls are values
 * (struct zl_rt_req) that are submitted and completed once each; the typed wrappers below are what callers use. A call
 * that a back end does not have completes with ZL_E_UNSUPPORTED; `caps` says which it has.
 *
 * One instance is one start of a slot, named by its id. Its life: create (folder, set-up, first process waiting) →
 * start → exited → remove. An instance that exited stays listed, with its outcome, until it is removed. Stopping with
 * a grace period is the agent's composition of kill and its timer.
 *
 * Thread: the control loop's. Completions and events run on the loop, never from inside the call that caused them.
 * Owns: requests are borrowed for the call; replies and events for the callback. Fails: by the completion's zl_err.
 */
#pragma once

#include "base/error.h"
#include "base/id.h"
#include "base/str.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What create needs. Everything is borrowed for the call. Strings are NUL-terminated; NULL counts as "". */
struct zl_rt_file {
    const char *name; /* below /etc: "hosts", "resolv.conf", "hostname" */
    struct zl_str content;
};

struct zl_rt_limits {
    uint64_t memory_bytes; /* 0: none */
    uint64_t cpu_millis;   /* 1000 = one processor; 0: none */
    uint64_t pids;         /* 0: none */
};

struct zl_rt_spec {
    char id[ZL_ID_HEX_SIZE];
    /* What the instance is a start of; kept in meta.json and given back by list. */
    const char *deployment, *service;
    unsigned slot;
    uint64_t generation;
    const char *image;
    const char *note; /* the caller's own, at most 4 KiB; given back untouched */

    const char *const *layers; /* absolute paths of unpacked layers, the lowest first */
    unsigned nlayers;
    const char *const *argv; /* at least one; argv[0] is looked up in env's PATH when it has no slash */
    unsigned nargv;
    const char *const *env; /* NAME=VALUE */
    unsigned nenv;
    const char *cwd;      /* default "/"; made when missing */
    const char *user;     /* "", name, uid, name:group, uid:gid, …: resolved in the image; "" is root */
    const char *hostname; /* at most 63 bytes */
    const struct zl_rt_file *files;
    unsigned nfiles;

    const char *netns; /* path of the node's namespace; NULL: no network but lo */
    struct in_addr address, node_address;

    struct zl_rt_limits limits;
    uint64_t log_max_bytes;  /* of one file; 0: 16 MiB */
    unsigned log_max_files;  /* the current one included, at least 2; 0: 4 */
    bool unconfined_seccomp; /* no seccomp filter */
    bool open_stdin;         /* its input is what attached sessions send; else it is empty */
    bool tty;                /* a terminal instead of streams: all output is stdout's */
    unsigned rows, columns;  /* of the terminal; 0: not known yet */
};

/* The name of the node's end of an instance's link: "zr" and the first 10 digits of its id. */
enum { ZL_RT_LINK_SIZE = 16 };
void zl_rt_link_name(const char *id, char ret[ZL_RT_LINK_SIZE]);

enum zl_rt_state { ZL_RT_CREATED, ZL_RT_RUNNING, ZL_RT_EXITED };
enum zl_rt_reason { ZL_RT_REASON_EXITED, ZL_RT_REASON_SIGNAL, ZL_RT_REASON_OOM_KILLED, ZL_RT_REASON_RUNTIME_ERROR };
/* "exited", "signal", "oom_killed", "runtime_error"; "created", "running", "exited". */
const char *zl_rt_reason_name(enum zl_rt_reason reason);
const char *zl_rt_state_name(enum zl_rt_state state);

struct zl_rt_outcome {
    enum zl_rt_reason reason;
    int code;           /* 128 + n for signal n; 255 for a runtime error */
    int signal;         /* 0: none */
    uint64_t oom_kills; /* of all its processes */
    uint64_t finished_at_ms;
};

struct zl_rt_instance {
    char id[ZL_ID_HEX_SIZE];
    const char *deployment, *service; /* "" when meta.json was lost */
    unsigned slot;
    uint64_t generation;
    const char *image, *note;
    struct in_addr address; /* 0: none */
    uint64_t created_at_ms;
    enum zl_rt_state state;
    bool paused;                  /* of one that is running */
    pid_t pid;                    /* of the first process; 0 unless created or running */
    struct zl_rt_outcome outcome; /* when exited */
};

struct zl_rt_list {
    const struct zl_rt_instance *v;
    unsigned n;
};

struct zl_rt_exec {
    const char *const *argv;
    unsigned nargv;
    const char *const *env; /* beside the container's own, which it overrides; "NAME" alone takes one away */
    unsigned nenv;
    const char *cwd;           /* NULL: the container's */
    const char *user;          /* NULL: the container's */
    bool privileged;           /* every capability there is, for root; the system-call filter stays */
    uint64_t output_max_bytes; /* of both streams together; 0: 1 MiB. More is cut off and `truncated` set. */
};
struct zl_rt_exec_result {
    int code; /* 128 + n for signal n; 127 and 126 as a shell's */
    int signal;
    struct zl_str out, err;
    bool truncated;
};

/* Counters that the machine does not have are 0. */
struct zl_rt_stats {
    uint64_t cpu_usec, memory_bytes, pids;
    uint64_t memory_limit; /* UINT64_MAX: none */
    uint64_t pids_limit;   /* UINT64_MAX: none */
    uint64_t oom_kills;
    uint64_t cpu_total_ns, cpu_system_ns;
    uint32_t online_cpus;
    uint64_t net_rx_bytes, net_tx_bytes; /* of every link but lo */
    uint64_t block_read_bytes, block_write_bytes;
    uint64_t taken_at_ms; /* wall clock */
};

struct zl_rt_process {
    pid_t pid, ppid; /* as the host counts */
    uid_t uid;
    uint64_t started_at_ms, cpu_ns, memory_bytes;
    struct zl_str command; /* arguments with blanks between them, at most 512 bytes, any bytes */
};
struct zl_rt_processes {
    const struct zl_rt_process *v;
    unsigned n;
    uint64_t total; /* may be more than are told (256) */
};

/*
 * A session: a command with live streams, or the container's own streams. Its life: session → opened → output … →
 * ended, once, after which nothing comes; or closed before, which no event follows. A command without a terminal goes
 * on when its session is closed, its input at an end and its output lost; one with a terminal is hung up on (SIGHUP).
 */
struct zl_rt_session_spec {
    const struct zl_rt_exec *exec; /* NULL: the container's own; output_max_bytes is not looked at */
    bool input;                    /* the command has one; attached: input is sent */
    bool tty;                      /* of a command */
    unsigned rows, columns;
};
struct zl_rt_session_end {
    int code, signal; /* the command's or, attached, the container's */
};
struct zl_rt_session_events {
    void (*opened)(void *arg);
    void (*output)(void *arg, bool is_stderr, struct zl_str bytes);
    /* So many bytes of an attached stream are missing here: this session did not keep up (the log has them). */
    void (*lost)(void *arg, bool is_stderr, uint64_t bytes);
    void (*writable)(void *arg); /* after a write that was not taken: now one is */
    /* err->code is 0 when there is an end. The session is to be closed, now or later. */
    void (*ended)(void *arg, const struct zl_err *err, const struct zl_rt_session_end *end);
};
struct zl_rt_session;
struct zl_rt_session_ops {
    int (*write)(struct zl_rt_session *s, struct zl_str bytes);
    void (*end_input)(struct zl_rt_session *s);
    void (*resize)(struct zl_rt_session *s, unsigned rows, unsigned columns);
    void (*hold)(struct zl_rt_session *s, bool on);
    void (*close)(struct zl_rt_session *s);
};
/* The head of every back end's own struct. */
struct zl_rt_session {
    const struct zl_rt_session_ops *ops;
};

enum zl_rt_kind {
    ZL_RT_LIST,
    ZL_RT_CREATE,
    ZL_RT_START,
    ZL_RT_KILL,
    ZL_RT_REMOVE,
    ZL_RT_EXEC,
    ZL_RT_STATS,
    ZL_RT_PAUSE,
    ZL_RT_RESUME,
    ZL_RT_TOP,
    ZL_RT_SESSION, /* no request: zl_runtime_session */
    ZL_RT_KIND_COUNT
};

struct zl_rt_req {
    enum zl_rt_kind kind;
    const char *id; /* NULL for list; create's is in its spec */
    union {
        const struct zl_rt_spec *create;
        const struct zl_rt_exec *exec;
        struct {
            int signal;
            bool all; /* every process of the instance, else its first */
        } kill;
    };
};

struct zl_rt_reply {
    union {
        struct zl_rt_list list;
        struct zl_rt_exec_result exec;
        struct zl_rt_stats stats;
        struct zl_rt_processes top;
    };
};

/* err->code is 0 on success; `reply` is NULL on failure. */
typedef void (*zl_rt_done)(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply);

/* An instance has ended: by itself, by kill, or because its shim was lost (reason runtime_error). Its processes, its
 * cgroup and its link are gone by then, its exit record is on disk. Comes once an instance. */
struct zl_rt_event {
    const char *id;
    struct zl_rt_outcome outcome;
};
typedef void (*zl_rt_watch)(void *arg, const struct zl_rt_event *event);

struct zl_runtime;
struct zl_runtime_ops {
    const char *name;
    /* Bits 1u << kind. */
    unsigned (*caps)(const struct zl_runtime *rt);
    /* Returns the call's number, for cancel; never 0. `done` runs once, later. */
    uint64_t (*submit)(struct zl_runtime *rt, const struct zl_rt_req *req, zl_rt_done done, void *arg);
    /* The completion runs with ZL_E_CANCELLED, if it has not run; what the call did meanwhile is not undone, except
     * that a cancelled create leaves nothing. An unknown number is ignored. */
    void (*cancel)(struct zl_runtime *rt, uint64_t call);
    /* Only where `caps` has ZL_RT_SESSION. */
    struct zl_rt_session *(*session)(struct zl_runtime *rt, const char *id, const struct zl_rt_session_spec *spec,
                                     const struct zl_rt_session_events *events, void *arg);
    /* The one receiver of events; NULL: none. */
    void (*watch)(struct zl_runtime *rt, zl_rt_watch fn, void *arg);
    /* Containers go on. Open calls are completed with ZL_E_CANCELLED first. */
    void (*close)(struct zl_runtime *rt);
};

/* The head of every back end's own struct. */
struct zl_runtime {
    const struct zl_runtime_ops *ops;
};

static inline bool zl_runtime_has(const struct zl_runtime *rt, enum zl_rt_kind kind)
{
    return rt->ops->caps(rt) >> kind & 1;
}
/* All instances there are. The native back end's first call adopts what an earlier agent left: it connects to living
 * shims, cleans up behind dead ones, and reports what ended since as exited. Call it first. */
uint64_t zl_runtime_list(struct zl_runtime *rt, zl_rt_done done, void *arg);
/* Everything is set up and the first process waits for start. On failure nothing is left: ZL_E_NO_COMMAND,
 * ZL_E_NOT_EXECUTABLE, ZL_E_INVALID (a user that the image does not have, …), ZL_E_EXISTS, ZL_E_CREATE_FAILED. */
uint64_t zl_runtime_create(struct zl_runtime *rt, const struct zl_rt_spec *spec, zl_rt_done done, void *arg);
/* ZL_E_START_FAILED (and the two of a command): the instance is then exited, with runtime_error. */
uint64_t zl_runtime_start(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
/* Success when it has exited already. SIGKILL resumes a paused one; other signals wait for that. */
uint64_t zl_runtime_kill(struct zl_runtime *rt, const char *id, int signal, bool all, zl_rt_done done, void *arg);
/* Ends what still runs, proves the cgroup empty, removes the folder. An unknown id is success. */
uint64_t zl_runtime_remove(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
/* Buffered. ZL_E_CONFLICT when the instance does not run. */
uint64_t zl_runtime_exec(struct zl_runtime *rt, const char *id, const struct zl_rt_exec *exec, zl_rt_done done,
                         void *arg);
uint64_t zl_runtime_stats(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
/* Freezes every process. ZL_E_CONFLICT when it does not run, or is (resume: is not) paused already. */
uint64_t zl_runtime_pause(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
uint64_t zl_runtime_resume(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
/* Every process of it. */
uint64_t zl_runtime_top(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg);
/* Never NULL; what can't be is told by `ended`, later. The caller closes it before the runtime. */
struct zl_rt_session *zl_runtime_session(struct zl_runtime *rt, const char *id, const struct zl_rt_session_spec *spec,
                                         const struct zl_rt_session_events *events, void *arg) ZL_MUST;
/* All bytes are taken (0), or none (-EAGAIN: too much is waiting; `writable` will come). */
int zl_rt_session_write(struct zl_rt_session *s, struct zl_str bytes) ZL_MUST;
void zl_rt_session_end_input(struct zl_rt_session *s);
void zl_rt_session_resize(struct zl_rt_session *s, unsigned rows, unsigned columns);
/* No output until it is taken off again; a command waits then, an attached stream loses. */
void zl_rt_session_hold(struct zl_rt_session *s, bool on);
/* Takes NULL; returns NULL. May be called from its events. */
struct zl_rt_session *zl_rt_session_close(struct zl_rt_session *s);
static inline void zl_runtime_cancel(struct zl_runtime *rt, uint64_t call)
{
    rt->ops->cancel(rt, call);
}
static inline void zl_runtime_watch(struct zl_runtime *rt, zl_rt_watch fn, void *arg)
{
    rt->ops->watch(rt, fn, arg);
}
/* Takes NULL; returns NULL. */
struct zl_runtime *zl_runtime_close(struct zl_runtime *rt);
