/*
 * One layer's tar into a folder, in two steps: its entries are placed as they come, which needs nothing of the layers
 * below, so that layers are placed side by side; then, with the layers below there, what depends on them is settled.
 * Every entry is placed under directory descriptors. Links on the way to an entry are followed inside the layer only,
 * as if its root were the file system's, so that nothing is written outside, whatever came before it. Whiteouts (OCI
 * image-spec, layer.md) become overlay whiteouts, an opaque folder one for each entry that the layers below have in it.
 * trusted.*, user.overlay.* and security.selinux attributes are dropped. Files get their modes at birth: the umask is
 * to be 0. Thread: one at a time. Owns: what _done frees. Fails: ZL_E_BAD_IMAGE, ZL_E_LIMIT, ZL_E_DISK_FULL.
 */
#pragma once

#include "base/error.h"
#include "imagejob/lowers.h"
#include "imagejob/settle.h"
#include "oci/layer.h"

#include <archive.h>
#include <stdatomic.h>
#include <stdint.h>

struct zl_unpack {
    int root;                      /* of the new layer, empty */
    uint64_t entries, bytes;       /* what was placed */
    atomic_uint_fast64_t *written; /* counts the bytes of several layers, or NULL */
    struct zl_settle settle;
    uid_t uid; /* whom new files belong to */
    gid_t gid;
    int dir; /* the folder of the last entry, as a path said it and where it is */
    char asked[ZL_OCI_PATH_SIZE], at[ZL_OCI_PATH_SIZE];
};

/* `aside`: a folder on the same file system, in which all names <name>.* are free, for what does not belong into the
 * layer. It and the name are to stay until _done. */
void zl_unpack_init(struct zl_unpack *u, int root, int aside, const char *name);
void zl_unpack_done(struct zl_unpack *u);
int zl_unpack_place(struct zl_unpack *u, struct archive *tar, struct zl_err *err) ZL_MUST;
int zl_unpack_settle(struct zl_unpack *u, const struct zl_lowers *lowers, struct zl_err *err) ZL_MUST;
/* Whether it is an extended attribute that no file of a layer gets. */
bool zl_unpack_drops(struct zl_str name);
