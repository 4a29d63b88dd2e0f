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

/* What is queued for a client, and what of a client's input; who does not keep up waits, and holds up nobody else. */
enum { SHIM_CONNS = 32, SHIM_EXECS = 24, SHIM_OUT_MAX = 64 * 1024, SHIM_IN_MAX = 64 * 1024 };

/* Input on its way to a program. */
struct shim_input {
    int fd; /* -EBADF: nobody reads it, it is dropped */
    bool ended;
    struct zl_buf waiting;
};

/* A command run in the container for a connection, or a reader of its processes. */
struct shim_exec {
    struct shim_conn *conn; /* NULL: its client is gone */
    bool session, tty;
    bool doomed;       /* nobody wants it: killed as soon as it is known */
    bool raw;          /* no command: its output is a whole reply */
    pid_t helper, pid; /* the helper enters the container and leaves the command behind */
    int helper_fd, pid_fd;
    int announce; /* the command's pid, from the helper */
    int console;  /* the terminal's master, from the command */
    int report;   /* why it could not run; end of file: it runs */
    int out[2];
    struct shim_input in;
    bool exited;
    int status;
};

struct shim_conn {
    int fd; /* -EBADF: free */
    bool waiting, attached, attached_input;
    bool closing;     /* what is queued is the last */
    uint64_t lost[2]; /* bytes of the container's streams that had no room */
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
    struct shim_exec *execs[SHIM_EXECS];
    struct shim_input in; /* the container's */
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
enum { SHIM_POLL_MAX = 10 + SHIM_CONNS + SHIM_EXECS * 7 };
struct shim_poll {
    struct pollfd fds[SHIM_POLL_MAX];
    unsigned n;
};
void shim_poll_add(struct shim_poll *p, int fd, short events);
void shim_server_init(struct shim *s);
void shim_server_poll(struct shim *s, struct shim_poll *p);
/* Accepts, reads, answers; whatever is ready (all calls are non-blocking). */
void shim_server_step(struct shim *s);
/* Tells the waiting and the attached ones the outcome and sends what is queued, for at most a second. */
void shim_server_finish(struct shim *s);
void shim_conn_error(struct shim_conn *c, int code, const char *text);
void shim_conn_reply(struct shim_conn *c, uint16_t type);

/* answer.c: what is answered at once. */
void shim_answer_info(struct shim *s, struct shim_conn *c);
void shim_answer_stats(struct shim *s, struct shim_conn *c);
void shim_answer_kill(struct shim *s, struct shim_conn *c, struct zl_str body);
void shim_answer_pause(struct shim *s, struct shim_conn *c, bool on);

/* top.c: writes a whole PROCESSES frame, in a process of its own, as reading of a process may wait for it. */
void shim_top_write(const struct shim *s, int fd);
/* What the processes that live now have used, where no cgroup counts: memory is what is resident, shared pages each
 * time again. */
void shim_top_count(const struct shim *s, struct zl_cgroup_stats *ret);

/* session.c: input, terminals, and the container's own streams. */
void shim_input_poll(const struct shim_input *in, struct shim_poll *p);
void shim_input_step(struct shim_input *in, bool tty);
void shim_input_done(struct shim_input *in);
/* A client's frame in a session; negative: it has no place there. */
int shim_session_frame(struct shim *s, struct shim_conn *c, const struct zl_frame *f) ZL_MUST;
/* Whether the session takes more of its client's frames now. */
bool shim_session_open(const struct shim *s, const struct shim_conn *c);
void shim_attach(struct shim *s, struct shim_conn *c, struct zl_str body);
void shim_attach_output(struct shim *s, unsigned stream, struct zl_str bytes);
/* Room again: says what was lost. */
void shim_attach_step(struct shim_conn *c);
int shim_receive_terminal(int console, int *ret) ZL_MUST;

/* exec.c */
void shim_exec_start(struct shim *s, struct shim_conn *c, struct zl_str body);
void shim_top_start(struct shim *s, struct shim_conn *c);
void shim_exec_poll(const struct shim *s, struct shim_poll *p);
/* Every command goes on as far as it can; true when one is left that has a client. */
bool shim_exec_step(struct shim *s);
/* The client is gone. A session's command goes on without a terminal; with one, it is hung up on. Any other ends. */
void shim_exec_leave(struct shim_exec *e);
