/*
 * The documents of image archives: index.json of an OCI layout (image-spec, image-layout.md) with the names that tools
 * give its images, and manifest.json of `docker save`. Thread: any. Owns: what is parsed belongs to the arena.
 * Fails: ZL_E_BAD_IMAGE with a message that names the field.
 */
#pragma once

#include "codec/fields.h"
#include "oci/manifest.h"

enum { ZL_OCI_ARCHIVE_IMAGES_MAX = 1000 };

/* The file oci-layout: of version 1.0.x, else refused. */
int zl_oci_layout_check(struct zl_arena *arena, struct zl_str text, struct zl_err *err) ZL_MUST;

struct zl_oci_layout {
    struct zl_oci_manifest index;
    const char **names; /* one for each of its entries: a reference, a bare tag, or "" */
};
int zl_oci_layout_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_layout *ret,
                        struct zl_err *err) ZL_MUST;

/* One image of manifest.json; the names of files in the archive are as they stand there. */
struct zl_docker_image {
    const char *config;
    struct zl_strings layers, tags;
};
/* `ret` gets struct zl_docker_image pointers. */
int zl_docker_archive_parse(struct zl_arena *arena, struct zl_str text, struct zl_items *ret,
                            struct zl_err *err) ZL_MUST;

/* The digest that a file's name among an OCI layout's blobs says: "blobs/sha256/<hex>"; false: it is no such name. */
bool zl_oci_blob_name(const char *path, char digest[72]);
