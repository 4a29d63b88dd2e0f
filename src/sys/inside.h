/*
 * What an ordinary user's agent and command line have run with rights of their own: the program zl-inside
 * (src/inside/main.c), which makes the user namespace, holds it together with the node's network, and leads others into
 * it. Whoever owns a user namespace has all rights in it from outside, too; only a process of one thread may enter,
 * which these programs are not.
 * Thread: any. Owns: the caller, until zl_inside_done. Fails: -errno.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stdint.h>

/* Descriptors by which zl-inside is told: of `enter`, the namespaces and the program when it has no path; of `hold` the
 * first two. Its other descriptors are those of the program that it becomes. */
enum {
    ZL_INSIDE_FD_LOCK = 3,
    ZL_INSIDE_FD_READY = 4,
    ZL_INSIDE_FD_USER = 10,
    ZL_INSIDE_FD_MNT,
    ZL_INSIDE_FD_NET,
    ZL_INSIDE_FD_PROGRAM
};

struct zl_inside {
    const char *program;       /* zl-inside, absolute */
    int user, mnt, net;        /* the holder's namespaces; -EBADF: there is no holder */
    const char *fuse_overlay;  /* the program that stacks layers, where the kernel does not; NULL: the kernel does */
    uint32_t top_uid, top_gid; /* the highest ids inside; 0: the own ones alone */
};
#define ZL_INSIDE_NONE(path)                                                          \
    (struct zl_inside)                                                                \
    {                                                                                 \
        .program = (path), .user = -EBADF, .mnt = -EBADF, .net = -EBADF, .top_gid = 0 \
    }

void zl_inside_done(struct zl_inside *in);
/* Opens the namespaces of a process, above every number of the list. */
int zl_inside_open(struct zl_inside *in, int pid) ZL_MUST;

/* A socket of the node's network. */
int zl_inside_socket(const struct zl_inside *in, int family, int type, int protocol) ZL_MUST;
/* Runs a program of the machine there, with three descriptors as its standard streams, and waits: its status. */
int zl_inside_run(const struct zl_inside *in, const char *const *argv, const char *const *envp, const int streams[3],
                  int *ret_status) ZL_MUST;
/* Runs zl-inside itself, with a descriptor as its output: its status. */
int zl_inside_spawn(const char *program, const char *const *argv, int out, int *ret_status) ZL_MUST;
/* Removes trees below a folder, whatever ids their files have. `program`: zl-inside. */
int zl_inside_remove(const char *program, int dir, const char *const *names) ZL_MUST;
