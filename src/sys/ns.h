/*
 * Network namespaces. Thread: zl_netns_enter moves the calling thread only; zl_netns_run uses a short-lived thread.
 * Owns: the caller closes descriptors. Fails: -errno.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>

/* Makes a namespace (lo up) and pins it by a bind mount on `path` (made when missing). */
int zl_netns_make(const char *path) ZL_MUST;
/* The descriptor of a pinned namespace; -ENOENT when there is none, also when the file is there and is no namespace. */
int zl_netns_open(const char *path) ZL_MUST;
int zl_netns_unpin(const char *path) ZL_MUST;
/* The calling thread's own namespace. */
int zl_netns_self(void) ZL_MUST;
int zl_netns_enter(int netns) ZL_MUST;
/* Runs fn inside the namespace on a thread of its own and returns what it returns; blocks meanwhile. */
int zl_netns_run(int netns, int (*fn)(void *arg), void *arg) ZL_MUST;
/* Writes a file below /proc ("sys/kernel/shmmni"), which is proven to be procfs' own: -EXDEV when something is mounted
 * on the way (CVE-2019-16884, CVE-2025-52881). */
int zl_proc_write(const char *path, const char *value) ZL_MUST;
/* Writes a sysctl below /proc/sys of the calling thread's namespaces ("net/ipv4/ip_forward"). */
int zl_sysctl_write(const char *name, const char *value) ZL_MUST;
/* Reads one; at most size - 1 bytes, without the newline. */
int zl_sysctl_read(const char *name, char *ret, unsigned size) ZL_MUST;

/* What holds in a namespace that leads packets between replicas; up to a name of NULL. Optional: of what a kernel may
 * be built without. */
struct zl_sysctl {
    const char *name, *value;
    bool optional;
};
extern const struct zl_sysctl zl_node_sysctls[];
