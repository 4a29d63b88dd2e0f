/*
 * What a layer says that can be done only when all its entries are placed and the layers below are there: whiteouts
 * hide what the layers below show and never what this layer has; hard links to files below bring a copy up; folders get
 * owner, mode and times, those that the layer only implies from the layers below. It is noted in the order of the
 * entries, in memory and, beyond a few hundred KiB, in a file.
 * Thread: one at a time. Owns: the notes, until _done. Fails: -errno; ZL_E_BAD_IMAGE, ZL_E_LIMIT.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"
#include "imagejob/lowers.h"

#include <sys/stat.h>
#include <time.h>

struct zl_settle {
    int aside;          /* a folder of the caller's for what does not belong into the layer: files <name>.* */
    const char *name;   /* the caller's */
    int file;           /* one of them, without a name; 0: none yet */
    uint64_t file_size; /* what of the notes is in it; the rest is in `text` */
    struct zl_buf text;
    unsigned copies, kinds; /* kinds: a bit each of those that were noted */
};

/* While entries are placed, folders have this mode, or their own when it has no fewer rights for the owner and no bits
 * beyond 0777; the sticky bit marks those that no entry has named so far. */
enum { ZL_SETTLE_FOLDER = 0700, ZL_SETTLE_IMPLIED = 01700 };

void zl_settle_init(struct zl_settle *s, int aside, const char *name);
void zl_settle_done(struct zl_settle *s);
int zl_settle_whiteout(struct zl_settle *s, const char *path) ZL_MUST;
int zl_settle_opaque(struct zl_settle *s, const char *folder) ZL_MUST;
int zl_settle_implied(struct zl_settle *s, const char *folder) ZL_MUST;
/* The last one that is said of a folder counts. */
int zl_settle_folder(struct zl_settle *s, const char *folder, const struct stat *st) ZL_MUST;
/* `target` is in a layer below. Puts an empty file in its place (dir, name), to which links can be made already. */
int zl_settle_copy(struct zl_settle *s, const char *target, const char *link, int dir, const char *name) ZL_MUST;

/* Such an empty file, by its looks; a further link to it is to be noted, as what it stands for may be no regular file.
 */
bool zl_settle_is_placeholder(const struct stat *st);
int zl_settle_link(struct zl_settle *s, const char *target, const char *link) ZL_MUST;

/* *bytes grows by what was copied up, up to `limit`. */
int zl_settle(struct zl_settle *s, int root, const struct zl_lowers *lowers, uint64_t *bytes, uint64_t limit,
              struct zl_err *err) ZL_MUST;
