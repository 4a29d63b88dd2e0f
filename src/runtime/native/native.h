/*
 * The native back end, agent side: one zl-shim a container, started from one sealed memfd, adopted from disk after a
 * restart. docs/ARCHITECTURE.md, The shim.
 * Thread: the control loop's; folders are removed and dead shims cleaned up on the worker pool.
 * Owns: the runtime, until zl_runtime_close; loop and pool stay the caller's and outlive it. Fails: zl_err.
 */
#pragma once

#include "aio/loop.h"
#include "aio/pool.h"
#include "runtime/runtime.h"
#include "sys/inside.h"

struct zl_rt_native_config {
    struct zl_loop *loop;
    struct zl_pool *pool;
    const char *containers;    /* absolute; made when missing */
    const char *shim;          /* the binary's path */
    const char *cgroup_parent; /* "zlayer-<tag>"; "": there can be no groups, so no limits either */
    /* An ordinary user's: shims are led into the holder's namespaces. Borrowed, read on the loop's thread; NULL for
     * root. */
    const struct zl_inside *inside;
};

int zl_rt_native_open(const struct zl_rt_native_config *config, struct zl_runtime **ret, struct zl_err *err) ZL_MUST;
