/*
 * The names inside a layer's tar (OCI image-spec, layer.md): which are allowed, and which are whiteouts. Thread: any.
 * Owns: nothing. Fails: -EINVAL.
 */
#pragma once

#include "base/str.h"

enum { ZL_OCI_PATH_SIZE = 4096, ZL_OCI_DEPTH_MAX = 512 };

/* The path below the layer's root, without a leading slash, empty and "." parts; "" is the root itself. -EINVAL: it has
 * "..", a part over 255 bytes, too many parts, or does not fit. */
int zl_oci_layer_path(const char *in, char ret[ZL_OCI_PATH_SIZE]) ZL_MUST;

enum zl_oci_whiteout {
    ZL_OCI_PLAIN,
    ZL_OCI_WHITEOUT, /* .wh.<name>: the name is gone */
    ZL_OCI_OPAQUE,   /* .wh..wh..opq: what the layers below have in the folder is gone */
    ZL_OCI_AUFS,     /* .wh..wh.<anything else>: a leftover of aufs, without meaning */
    ZL_OCI_MALFORMED /* .wh. alone, or a whiteout of "." or ".." */
};
enum zl_oci_whiteout zl_oci_whiteout_of(const char *name);
