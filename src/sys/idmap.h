/*
 * The ids that an ordinary user may give to a user namespace: the own one as its root, and behind it the ranges that
 * /etc/subuid and /etc/subgid name, which newuidmap(1) and newgidmap(1) write. subuid(5), user_namespaces(7).
 * Thread: any; the programs are waited for. Owns: plain values. Fails: -errno.
 */
#pragma once

#include "base/str.h"

#include <stdint.h>
#include <sys/types.h>

enum { ZL_IDMAP_SIZE = 2048 };

/* Maps in the form of /proc/PID/uid_map. */
struct zl_idmap {
    char uids[ZL_IDMAP_SIZE], gids[ZL_IDMAP_SIZE];
    uint32_t top_uid, top_gid; /* the highest id inside; 0: the own one is all there is */
};

/* The calling user's, with every range that the files give: or the own ids alone, when one of the files names none, or
 * one of the programs is not there. */
void zl_idmap_own(struct zl_idmap *ret);
/* Whether newuidmap and newgidmap are there. */
bool zl_idmap_programs(void);
/* The lines of subuid(5) for a user, by name or number, as a map behind `own`; the highest id inside. Pure. */
uint32_t zl_idmap_take(struct zl_str text, const char *name, uint32_t user, uint32_t own, char ret[ZL_IDMAP_SIZE]);

/* Writes the maps of a new user namespace that `pid` is alone in: by the kernel, and where it refuses an ordinary user,
 * by the programs. *failed says which: "users" or "groups". */
int zl_idmap_write(pid_t pid, const char *uids, const char *gids, const char **failed) ZL_MUST;

/* Of the calling process's namespace: whether an id of the namespace exists outside. */
bool zl_idmap_has(const char *file, uint32_t id);
/* Whether the calling process is in another user namespace than the machine's first. */
bool zl_idmap_inside(void);
