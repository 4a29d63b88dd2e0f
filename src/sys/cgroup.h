/*
 * Control groups on every layout: v2, v1, and hybrid (v1 controllers beside a v2 tree). A container's group is
 * `<parent>/<id>` in each hierarchy that is used. cgroups(7), the kernel's admin-guide/cgroup-v2.
 * Thread: any. Owns: plain values. Fails: -errno; -EOPNOTSUPP when a limit is asked that no hierarchy can hold.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum zl_cgroup_layout { ZL_CGROUP_NONE, ZL_CGROUP_V1, ZL_CGROUP_HYBRID, ZL_CGROUP_V2 };
enum zl_controller {
    ZL_CONTROLLER_UNIFIED, /* the v2 tree, alone or beside v1 */
    ZL_CONTROLLER_MEMORY,
    ZL_CONTROLLER_CPU,
    ZL_CONTROLLER_CPUACCT,
    ZL_CONTROLLER_PIDS,
    ZL_CONTROLLER_FREEZER,
    ZL_CONTROLLER_DEVICES, /* this one only where zl_cgroup_find_all is asked, the rest where it names them */
    ZL_CONTROLLER_BLKIO,
    ZL_CONTROLLER_CPUSET,
    ZL_CONTROLLER_HUGETLB,
    ZL_CONTROLLER_NET_CLS,
    ZL_CONTROLLER_NET_PRIO,
    ZL_CONTROLLER_RDMA,
    ZL_CONTROLLER_COUNT
};

struct zl_cgroup {
    enum zl_cgroup_layout layout;
    size_t unified_root;                /* how much of that folder's name is where the v2 tree is mounted */
    char dir[ZL_CONTROLLER_COUNT][320]; /* of the group in that hierarchy; "" when the machine has none */
};

#define ZL_CGROUP_ANY UINT64_MAX /* a limit that is lifted */

/* 0: not said. memory_bytes, cpu_quota_us and pids may be ZL_CGROUP_ANY. */
struct zl_cgroup_limits {
    uint64_t memory_bytes;
    int64_t memory_total;                 /* memory and swap; 0: no swap; -1: any */
    uint64_t cpu_quota_us, cpu_period_us; /* a period that is not said stays: 100,000 µs at first */
    uint64_t cpu_shares;                  /* as v1 counts them, 2 to 262144 */
    uint64_t pids;
    uint32_t controllers; /* 1 << zl_controller: others that zl_cgroup_set will write to */
};

/* A file of one controller's and what is written to it, on v1 and on v2; NULL: there is no such there. */
struct zl_cgroup_value {
    enum zl_controller controller;
    const char *v1, *text1, *v2, *text2;
    const char *what;    /* for who asked */
    bool may_be_missing; /* then nothing is written */
    bool or_next;        /* the next one is for where this one is missing, only */
};

struct zl_cgroup_stats {
    uint64_t cpu_usec, memory_bytes, memory_limit, pids; /* memory_limit UINT64_MAX: none */
};

/* As v1 calls it in mount options and paths; "" for the v2 tree. */
const char *zl_controller_name(enum zl_controller c);
/* Where the group is or would be; makes nothing. `parent` may be "", or more than one level. */
int zl_cgroup_find(const char *parent, const char *id, struct zl_cgroup *ret) ZL_MUST;
/* With the devices', and `more`: 1 << zl_controller. */
int zl_cgroup_find_all(const char *parent, const char *id, uint32_t more, struct zl_cgroup *ret) ZL_MUST;
/* The topmost group that belongs to the calling user, on the way to the own one, as a parent for those above; -ENOENT:
 * none does. In the v2 tree, or on a machine without one in the first hierarchy of v1. */
int zl_cgroup_delegated(char ret[200]) ZL_MUST;
int zl_cgroup_create(const struct zl_cgroup *g, const struct zl_cgroup_limits *limits) ZL_MUST;
/* Processor time in each period as it is; *quota_us -1: any. */
int zl_cgroup_quota(const struct zl_cgroup *g, int64_t *quota_us, uint64_t *period_us) ZL_MUST;
/* Changes the limits of a group that is there; those that are 0 stay as they are. *refused: the file
 * that could not be written, when one could not. */
int zl_cgroup_update(const struct zl_cgroup *g, const struct zl_cgroup_limits *limits, const char **refused) ZL_MUST;
/* Writes values one after another; *failed: the one that could not be. -EOPNOTSUPP: there is no such controller or
 * file here. */
int zl_cgroup_set(const struct zl_cgroup *g, const struct zl_cgroup_value *values, unsigned n,
                  const struct zl_cgroup_value **failed) ZL_MUST;
/* One file of a group's folder. */
int zl_cgroup_write(const char *dir, const char *file, const char *text) ZL_MUST;
/* v1's 2 to 262144 on v2's 1 to 10000, as runc and crun do. */
uint64_t zl_cgroup_cpu_weight(uint64_t shares);
/* Lets a new group of the cpuset hierarchy take processes. */
int zl_cgroup_fill_cpuset(const char *dir) ZL_MUST;
/* Gives a running group one in a v1 hierarchy that it was made without, with its processes. */
int zl_cgroup_extend(const struct zl_cgroup *g, enum zl_controller c) ZL_MUST;
/* The calling process, of one thread, enters the group. `unified`: also in the v2 tree, in which it may be already. */
int zl_cgroup_enter(const struct zl_cgroup *g, bool unified) ZL_MUST;
/* The group's folder in the v2 tree, for a process to be made in (CLONE_INTO_CGROUP); -ENOENT when there is none. */
int zl_cgroup_open_unified(const struct zl_cgroup *g) ZL_MUST;
/* The calling process enters the v2 group that this is. */
int zl_cgroup_enter_at(int unified) ZL_MUST;
/* 1: frozen, 0: not. */
int zl_cgroup_frozen(const struct zl_cgroup *g) ZL_MUST;
/* Freezes or thaws; -EOPNOTSUPP where there is no freezer. */
int zl_cgroup_freeze(const struct zl_cgroup *g, bool on) ZL_MUST;
/* SIGKILL to every process in it; once is not enough where cgroup.kill is missing: see zl_cgroup_destroy. */
int zl_cgroup_kill(const struct zl_cgroup *g);
/* Any signal, to every process that is in it now. */
int zl_cgroup_signal(const struct zl_cgroup *g, int signum);
/* 1: no process is left, 0: there is one. */
int zl_cgroup_empty(const struct zl_cgroup *g) ZL_MUST;
/* Kills, waits until it is proven empty, at most timeout_ms; the groups stay. */
int zl_cgroup_clear(const struct zl_cgroup *g, unsigned timeout_ms) ZL_MUST;
/* Kills, waits until it is proven empty (at most timeout_ms), removes. -EBUSY when something would not die. */
int zl_cgroup_destroy(const struct zl_cgroup *g, unsigned timeout_ms) ZL_MUST;
/* Removes the parent when nothing is below it any more. */
void zl_cgroup_remove_parent(const char *parent);
int zl_cgroup_stats(const struct zl_cgroup *g, struct zl_cgroup_stats *ret) ZL_MUST;
/* How many processes of the group the kernel's OOM killer has ended. */
int zl_cgroup_oom_kills(const struct zl_cgroup *g, uint64_t *ret) ZL_MUST;
/* A descriptor that polls readable (v1: an eventfd, read it; v2: inotify, read it) when that number may have grown. */
int zl_cgroup_oom_fd(const struct zl_cgroup *g) ZL_MUST;
