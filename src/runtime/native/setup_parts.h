/*
 * What the files of the set-up share and nobody else needs. The child prepares while it is still the caller's user
 * (whose paths the sources of mounts are), becomes the root of its user namespace, and mounts.
 */
#pragma once

#include "runtime/native/setup.h"

/* For each of the job's mounts the descriptor of what is mounted, or -EBADF: an idmapped tree from the parent, a source
 * that is opened ahead. `root`: the new root, already mounted. */
struct zl_setup_places {
    int *sources;
    int root;
};

bool zl_setup_is_new(const struct zl_job *job, uint64_t kind);
const struct zl_job_namespace *zl_setup_namespace(const struct zl_job *job, uint64_t kind);
/* Recursively: mount(2) onto a descriptor; -errno. */
int zl_setup_mount_on(int target, const char *source, const char *type, unsigned long flags, const char *data);
/* A detached mount onto a descriptor; -errno. */
int zl_setup_move(int tree, int target) ZL_MUST;
/* What the descriptor `source` is on, with what is mounted below it when `flags` have MS_REC; *top: the new mount, or
 * -EBADF where the kernel does not say. */
int zl_setup_bind(int source, int target, unsigned long flags, int *top) ZL_MUST;
/* Changes the flags of the mount that the descriptor is on; what a user namespace may not lift stays on. */
int zl_setup_remount(int at, unsigned long flags);

/* --- setup_user.c --- */
/* A process in the job's new namespaces, and in those that must be joined before. 0: in it. */
pid_t zl_setup_clone_job(const struct zl_job *job, uint64_t flags, int cgroup, bool *inside,
                         struct zl_setup_error *err);
/* The parent's part: maps of a new user namespace, then idmapped trees, sent over the gate. */
int zl_setup_write_maps(const struct zl_job *job, pid_t pid, struct zl_setup_error *err) ZL_MUST;
int zl_setup_send_trees(const struct zl_job *job, pid_t pid, int gate, struct zl_setup_error *err) ZL_MUST;
/* The child's: what comes over the gate, until it may go on. */
int zl_setup_take_trees(const struct zl_job *job, int gate, struct zl_setup_places *p,
                        struct zl_setup_error *err) ZL_MUST;
/* user_namespaces(7): where an ordinary user maps the own group only, no process changes its groups, nor gives up any.
 */
bool zl_setup_groups_are_fixed(const struct zl_job *job);
int zl_setup_become_root(const struct zl_job *job, struct zl_setup_error *err) ZL_MUST;

/* --- setup_mount.c --- */
/* Opens the sources of all bind mounts. */
int zl_setup_open_sources(const struct zl_job *job, struct zl_setup_places *p, struct zl_setup_error *err) ZL_MUST;
int zl_setup_mounts(const struct zl_job *job, const struct zl_setup_places *p, const struct zl_cgroup *g,
                    struct zl_setup_error *err) ZL_MUST;

/* --- setup_sched.c --- */
/* Scheduler, I/O priority, affinity, memory policy, personality: of the calling process. */
int zl_setup_scheduling(const struct zl_job *job, struct zl_setup_error *err) ZL_MUST;
