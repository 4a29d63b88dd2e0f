/*
 * Container set-up: from a job to a process that waits at the start gate inside its namespaces, rooted in an overlay of
 * its layers. Linked into zl-shim (and later zl-oci): base and sys only. The caller must be single-threaded.
 * The child runs to the gate, reports, waits to be started, drops its rights and execs.
 * Owns: the caller owns the zl_setup until zl_setup_abort or the child's end. Fails: a step's name and an errno.
 */
#pragma once

#include "runtime/native/job.h"
#include "sys/cgroup.h"

#include <sys/types.h>

enum { ZL_SETUP_LISTENER = 1 }; /* a report that is no error: the filter's listener has the number that follows */

struct zl_setup_error {
    int code;       /* a negative errno */
    char step[120]; /* what failed: "mount the overlay root" */
};

struct zl_setup {
    pid_t pid;
    int pidfd;
    int gate;     /* our end: a byte starts the program, closing it ends the child */
    int report;   /* the child's errors; end of file: the program runs */
    int out, err; /* its stdout and stderr */
    int in;       /* its stdin, when the job opens it */
    struct zl_cgroup cgroup;
    uint64_t start_time;
};

struct zl_setup_options {
    int dir;                        /* the instance folder, which has upper/, work/ and merged/: it becomes the working
                                       directory; negative: the job has a rootfs */
    const struct zl_cgroup *cgroup; /* made, with its limits; with `place`: what that fills in, in memory that the
                                       child shares */
    int console;                    /* of a job with a terminal: a connected socket, over which its master is sent */
    /* Hooks, NULL or 0 to go on: `created` is called by us when the namespaces are there and nothing is mounted;
     * `in_container` by the child, when all is mounted and it is still outside the new root, and when it is started. */
    int (*created)(void *arg, pid_t pid, struct zl_setup_error *err);
    /* For groups that come into being with a process in them: called by us before all else. The process is in the v2
     * group afterwards; those of v1 it enters itself. */
    int (*place)(void *arg, pid_t pid, struct zl_setup_error *err);
    int (*in_container)(void *arg, bool starting, struct zl_setup_error *err);
    void *arg;
    bool own_stdio; /* the program gets ours, not pipes */
    bool outlives;  /* the child does not end with us */
    int starter;    /* a listening socket: the child waits there, not at the gate; the one who connects is told as by
                       zl_setup_await. Negative: the gate. */
};

/* Who gets the listener of a filter: the callback owns it. NULL where no job has one. */
struct zl_setup_peer {
    pid_t pid; /* of the process that starts */
    int (*listener)(void *arg, int fd);
    void *arg;
};

/* Makes everything up to the gate. */
int zl_setup_create(const struct zl_job *job, const struct zl_setup_options *options, struct zl_setup *ret,
                    struct zl_setup_error *err) ZL_MUST;
/* Sends the start to a gate or a connection to a starter; waits until the program runs or has failed to. */
int zl_setup_await(int gate, int report, const struct zl_setup_peer *peer, struct zl_setup_error *err) ZL_MUST;
/* Waits until the program runs or has failed to. */
int zl_setup_wait_exec(int report, const struct zl_setup_peer *peer, struct zl_setup_error *err) ZL_MUST;
/* Opens the gate and waits until the program runs or has failed to. */
int zl_setup_start(struct zl_setup *s, const struct zl_setup_peer *peer, struct zl_setup_error *err) ZL_MUST;
/* Kills and reaps the child, removes the cgroup, closes everything. */
void zl_setup_abort(struct zl_setup *s);

/* What runs in the child, which enters the group first; `unified`: in the v2 tree, too, as it was not made in there. */
ZL_NORETURN void zl_setup_child(const struct zl_job *job, const struct zl_setup_options *options, bool unified,
                                int gate, int report);
/* A fork with namespaces, in the v2 group of that descriptor; *inside: in that group from the start. -errno. */
pid_t zl_setup_clone(uint64_t flags, int cgroup, bool *inside);
/* Rights, user and program for a process that is inside the container already; returns only on failure. `report`: a
 * socket, for the filter's listener when the job has one. */
int zl_setup_exec(const struct zl_job *job, const char *const *argv, int report, struct zl_setup_error *err) ZL_MUST;
/* The job's rlimits, of the calling process. */
int zl_setup_limits(const struct zl_job *job, struct zl_setup_error *err) ZL_MUST;
/* The calling process stays on these processors, a cpu_set_t; empty: any. */
int zl_setup_affinity(struct zl_str cpus, struct zl_setup_error *err) ZL_MUST;
/* Whether there is a program to run, in the container, as root sees it. */
int zl_setup_check_program(const struct zl_job *job, struct zl_setup_error *err) ZL_MUST;
/* Enters the namespaces of a running container (for exec); the next fork is inside its pid namespace. *cgroup: its
 * cgroup namespace, when that is another, not entered yet: from inside, where v2 is mounted with nsdelegate as systemd
 * does, no process can be made in the container's group by one that is not there. -EBADF: the same. NULL: it is
 * entered. */
int zl_setup_enter(pid_t pid, int *cgroup, struct zl_setup_error *err) ZL_MUST;
/* Closes every descriptor from 3 on but the first `preserve`, and these. */
void zl_setup_close_others(uint64_t preserve, const int *keep, size_t n);
/* Sends a byte with a descriptor. */
int zl_setup_send_fd(int to, char byte, int fd) ZL_MUST;
/* Makes a terminal in the container that we are in, sends its master, and becomes its session's leader. `first`: it is
 * the container's, which /dev/console leads to. */
int zl_setup_terminal(const struct zl_job *job, int console, bool first, struct zl_setup_error *err) ZL_MUST;
/* Copies what the folder `from` holds into `to`, and its owner and mode: both of a mount's making (tmpcopyup). */
int zl_setup_copy_up(int from, int to) ZL_MUST;
int zl_setup_fail(struct zl_setup_error *err, int code, const char *fmt, ...) ZL_PRINTF(3, 4);
