/*
 * Child programs: started by posix_spawn, held by a pidfd, reaped one by one (never waitpid(-1)).
 * Thread: the loop's. Owns: the zl_child, until its exit callback has run or it is freed; freeing lets the child run
 * on. Fails: zl_child_spawn gives -errno.
 */
#pragma once

#include "aio/loop.h"

#include <sys/types.h>

struct zl_child;

struct zl_child_fd {
    int from, to; /* from < 0: /dev/null */
};

struct zl_child_options {
    const char *path; /* absolute, or /proc/self/fd/N */
    const char *const *argv, *const *envp;
    const struct zl_child_fd *fds; /* every other descriptor is closed; 0, 1, 2 are /dev/null unless named */
    unsigned nfds;
    bool session; /* of its own */
    /* status as of waitpid. The child object is freed after this call. May be NULL: nobody wants to know. */
    void (*exited)(void *arg, int status);
    void *arg;
};

int zl_child_spawn(struct zl_loop *loop, const struct zl_child_options *options, struct zl_child **ret) ZL_MUST;
pid_t zl_child_pid(const struct zl_child *c);
/* Lets go without waiting: its callback will not run, the kernel reparents it when we end. Returns NULL. */
struct zl_child *zl_child_free(struct zl_child *c);
