/*
 * Instance folders as the agent reads and ends them: meta.json, the records that shims write, the lock that says
 * whether a shim lives. docs/ARCHITECTURE.md, The shim.
 * Thread: any (they block: worker pool), one at a time an instance. Owns: strings are in the caller's arena.
 * Fails: zl_err.
 */
#pragma once

#include "base/alloc.h"
#include "runtime/runtime.h"

struct zl_rt_disk {
    int containers;            /* the folder of instance folders */
    const char *cgroup_parent; /* "zlayer-<tag>"; "": no groups, a container's first process ends all of it */
    const char *inside;        /* zl-inside, for files of other ids, of an ordinary user; else NULL */
};

/* meta.json of a new instance. */
void zl_rt_meta_print(struct zl_buf *out, const struct zl_rt_spec *spec, uint64_t created_at_ms);

/* What is on disk of one instance. `alive`: a shim holds its lock and has not recorded the end. Else the state is
 * EXITED: what was left of it has been ended (cgroup killed and proven empty, link removed) and its `exit` written if
 * it had none. */
int zl_rt_disk_load(const struct zl_rt_disk *d, const char *id, struct zl_arena *arena, struct zl_rt_instance *ret,
                    bool *ret_alive, struct zl_err *err) ZL_MUST;
/* 1: nobody holds it (any more), 0: a shim does. */
int zl_rt_disk_lock_free(const struct zl_rt_disk *d, const char *id) ZL_MUST;
/* Kills what runs, waits for its shim to end, removes the folder. Success when there is none (ret is untouched then).
 */
int zl_rt_disk_remove(const struct zl_rt_disk *d, const char *id, unsigned timeout_ms, struct zl_rt_outcome *ret,
                      struct zl_err *err) ZL_MUST;
/* Removes an entry of the folder that a killed removal left; leaves all others alone. */
void zl_rt_disk_sweep(const struct zl_rt_disk *d, const char *name);
