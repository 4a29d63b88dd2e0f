/*
 * Manifests and indexes (OCI image-spec, manifest.md and image-index.md; Docker's schema 2 and manifest lists), from
 * the bytes that a registry or an archive gives. Schema 1 is refused. Of artifacts, which are no images, config and
 * layers may be of any type. Thread: any. Owns: what is parsed belongs to the arena. Fails: ZL_E_BAD_IMAGE with a
 * message that names the field.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

enum {
    ZL_OCI_DOCUMENT_MAX = 4 << 20, /* bytes of a manifest, an index or a config */
    ZL_OCI_NODES_MAX = 100000,     /* values in one */
    ZL_OCI_LAYERS_MAX = 500,       /* what overlayfs takes */
    ZL_OCI_ENTRIES_MAX = 1000,     /* of an index */
    ZL_OCI_INDEX_DEPTH_MAX = 2,    /* an index may name one more index */
};

/* Of the documents whose limits these are. */
extern const struct zl_parse_limits zl_oci_limits;

/* The value of the Accept header for all that zl_oci_manifest_parse reads. */
extern const char zl_oci_manifest_accept[];

struct zl_oci_platform {
    const char *os, *architecture, *variant; /* never NULL; "" when not said */
    const char *os_version;                  /* "10.0.17763"; NULL and "" when not said */
    struct zl_strings features;              /* os.features: what the kernel or system must have */
};

struct zl_oci_descriptor {
    const char *media_type;          /* without parameters */
    const char *digest;              /* valid: sha256: and 64 hex digits */
    int64_t size;                    /* 0 … 2^48 */
    struct zl_strings urls;          /* other places that may have it; of any form */
    bool foreign;                    /* a layer that registries need not have and are not sent */
    struct zl_oci_platform platform; /* of an index's entry */
};

enum zl_oci_kind { ZL_OCI_MANIFEST, ZL_OCI_INDEX };

struct zl_oci_manifest {
    enum zl_oci_kind kind;
    const char *media_type;          /* what it is to be sent as */
    bool artifact;                   /* a manifest whose config is none of an image */
    const char *artifact_type;       /* "" when not said; the config's type then stands for it */
    const char *subject;             /* the digest of what it refers to, or "" */
    struct zl_oci_descriptor config; /* of a manifest */
    struct zl_oci_descriptor *items; /* a manifest's layers, lowest first, or an index's entries */
    unsigned n;
};

/* `content_type` is what the server said, NULL or "" when nothing did. */
int zl_oci_manifest_parse(struct zl_arena *arena, struct zl_str text, const char *content_type,
                          struct zl_oci_manifest *ret, struct zl_err *err) ZL_MUST;
/* sha256: and 64 lower-case hex digits, the one algorithm that is used. */
bool zl_oci_digest_valid(struct zl_str digest);
/* Of a descriptor in an index: whether it can be a manifest or an index; one without a type may be. */
bool zl_oci_is_manifest_type(const char *media_type);
