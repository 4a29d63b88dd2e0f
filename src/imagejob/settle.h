/*
 * What a layer says that can be done only when all its entries are placed, whatever their order was: whiteouts hide
 * what the layers below show and never what this layer has; folders get their times. Thread: one at a time. Owns: the
 * lists, until _done. Fails: -errno.
 */
#pragma once

#include "base/str.h"
#include "imagejob/lowers.h"

#include <time.h>

struct zl_settle {
    struct zl_buf whiteouts, opaques; /* paths, each with its NUL */
    struct zl_buf folders;            /* the same, with their times beside */
    struct timespec *times;
    size_t ntimes, cap;
};

void zl_settle_done(struct zl_settle *s);
void zl_settle_whiteout(struct zl_settle *s, const char *path);
void zl_settle_opaque(struct zl_settle *s, const char *folder);
/* The last time that is said for a folder counts. */
void zl_settle_time(struct zl_settle *s, const char *folder, struct timespec mtime);

/* *where is the path that a failure was at. */
int zl_settle(struct zl_settle *s, int root, const struct zl_lowers *lowers, const char **where) ZL_MUST;
