/*
 * What the layers below a new one show at a path, as overlayfs merges them. Thread: any. Owns: nothing.
 * Fails: -errno.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <sys/stat.h>

struct zl_lowers {
    const int *dirs; /* their folders, O_PATH will do; lowest first */
    unsigned n;
};

/* Opens the topmost file or folder at `path` with O_PATH, without following a link; -ENOENT when there is none or it is
 * whited out. */
int zl_lowers_open(const struct zl_lowers *l, const char *path, struct stat *st) ZL_MUST;
/* The file or folder at `path` in one layer with O_PATH, whiteouts as what they are. -ENOTDIR: something on the way is
 * no folder. */
int zl_lower_open(int dir, const char *path, struct stat *st) ZL_MUST;
/* A whiteout of overlayfs: a character device 0:0. */
bool zl_is_whiteout(const struct stat *st);
/* Calls fn with each name that any layer below has in the folder, possibly several times, until it is negative. */
int zl_lowers_each(const struct zl_lowers *l, const char *folder, int (*fn)(void *arg, const char *name),
                   void *arg) ZL_MUST;
/* Owner, mode, attributes and times of `from` (any descriptor, also O_PATH) for the file or folder `to`. */
int zl_copy_attributes(int from, int to) ZL_MUST;
