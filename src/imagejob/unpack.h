/*
 * One layer's tar into a folder. Every entry is placed under directory descriptors without following a link, so that
 * nothing is written outside, whatever came before it. Whiteouts (OCI image-spec, layer.md) become overlay whiteouts,
 * an opaque folder one for each entry that the layers below have in it, once all entries are placed. trusted.* and
 * user.overlay.* attributes are dropped. Thread: one at a time. Owns: nothing. Fails: ZL_E_BAD_IMAGE, ZL_E_LIMIT,
 * ZL_E_DISK_FULL.
 */
#pragma once

#include "base/error.h"
#include "imagejob/lowers.h"
#include "imagejob/settle.h"

#include <archive.h>
#include <stdint.h>

struct zl_unpack {
    int root; /* of the new layer, empty */
    struct zl_lowers lowers;
    uint64_t entries, bytes; /* what was placed */
    struct zl_settle settle; /* of zl_unpack */
};

int zl_unpack(struct zl_unpack *u, struct archive *tar, struct zl_err *err) ZL_MUST;
