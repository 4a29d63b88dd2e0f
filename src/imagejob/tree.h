/*
 * Comparing trees of files as they are on the disk: a layer with what its blob unpacks to, an image's layers merged as
 * overlayfs does with another's. Thread: one. Owns: nothing. Fails: -errno.
 */
#pragma once

#include "imagejob/lowers.h"

enum {
    ZL_TREE_ADDED = 1u << 0,   /* only in the second */
    ZL_TREE_REMOVED = 1u << 1, /* only in the first */
    ZL_TREE_KIND = 1u << 2,    /* file, folder, link, device …; the rest does not count then */
    ZL_TREE_MODE = 1u << 3,
    ZL_TREE_OWNER = 1u << 4,
    ZL_TREE_TIME = 1u << 5,
    ZL_TREE_CONTENT = 1u << 6, /* of a file, a link's target, a device's number */
    ZL_TREE_XATTR = 1u << 7,
};

struct zl_tree_diff {
    struct zl_lowers a, b;
    bool raw;           /* one layer each, and whiteouts are what they are */
    bool whole_folders; /* a folder that only one has is told, and what is in it is not */
    int (*differ)(void *arg, const char *path, unsigned what); /* negative ends it */
    void *arg;
};
int zl_tree_compare(struct zl_tree_diff *d) ZL_MUST;
