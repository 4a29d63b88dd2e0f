/*
 * What requests carry: a struct and a field table a kind, by which senders print and receivers decode it. The image
 * job's request is here, too: the API passes one on. Thread: any. Owns: the arena of the decoder owns what is decoded.
 * Fails: zl_body_decode, with the first problem of the body.
 */
#pragma once

#include "spec/spec.h"

enum zl_body {
    ZL_BODY_NONE,
    ZL_BODY_DEPLOY,
    ZL_BODY_STOP,
    ZL_BODY_EXEC,
    ZL_BODY_PULL,
    ZL_BODY_IMPORT,
    ZL_BODY_LOAD,
    ZL_BODY_SAVE,
    ZL_BODY_TAG,
    ZL_BODY_PRUNE,
    ZL_BODY_FSCK,
    ZL_BODY_DIFF,
    ZL_BODY_PUSH,
    ZL_BODY_COUNT
};

struct zl_deploy_request {
    const char *spec, *file, *owner; /* the document's text, where it is from; owner: 32 hex digits or NULL */
    int pull; /* 0: as the document says; else one more than the enum zl_pull_policy of all images */
    bool dry_run;
};

struct zl_stop_request {
    const char *service; /* NULL: all */
    int64_t timeout_s;
};

struct zl_exec_request {
    const char *service; /* NULL: any */
    int64_t replica;     /* from 1; 0: any that runs */
    struct zl_strings command;
};

enum zl_image_verb {
    ZL_IMAGE_PULL,
    ZL_IMAGE_IMPORT,
    ZL_IMAGE_REMOVE,
    ZL_IMAGE_PUSH,
    ZL_IMAGE_LOGIN,
    ZL_IMAGE_LOAD,
    ZL_IMAGE_SAVE,
    ZL_IMAGE_TAG,
    ZL_IMAGE_HISTORY,
    ZL_IMAGE_PRUNE,
    ZL_IMAGE_FSCK,
    ZL_IMAGE_DIFF,
    ZL_IMAGE_DF,
    ZL_IMAGE_REFERRERS,
};

enum zl_archive_format { ZL_ARCHIVE_OCI, ZL_ARCHIVE_DOCKER };

struct zl_image_request {
    int verb;
    const char *reference;
    /* of pull */
    int policy;           /* enum zl_pull_policy */
    const char *platform; /* os/architecture[/variant]; NULL: this machine's */
    /* of push; NULL: where its name says */
    const char *destination;
    int64_t chunk_bytes; /* how much of a blob goes in one request; 0: as usual */
    /* of both: for the registry, instead of what the files of the job's user hold */
    const char *username, *password, *identity_token, *registry_token;
    int64_t stall_s; /* how long a registry may send nothing */
    /* of import; source: a tar file or a folder. The rest is the image's config. */
    const char *source;
    struct zl_strings cmd, entrypoint, env, ports;
    const char *workdir, *user;
    /* of remove */
    bool force;
    bool quiet; /* of all: nobody wants to hear of progress */
    /* of load: source, and reference as the name of an archive's one image. Of save, and of tag (target: a name) */
    struct zl_strings references;
    const char *target; /* absolute path of the archive; NULL: descriptor 3 of the job */
    int format;         /* enum zl_archive_format */
    bool gzip;
    /* of prune; filters: "until=24h", "label=key", "label=key=value" */
    bool all, dry_run;
    struct zl_strings filters;
    /* of fsck; quick: layers are not compared with their blobs */
    bool repair, quick;
    /* of diff: the image that `reference` is compared with */
    const char *other;
};

extern const struct zl_type *const zl_body_types[ZL_BODY_COUNT]; /* of ZL_BODY_NONE: NULL */
/* A filter of prune: the time before which an image came (0: this one says none), or a label (else NULL). */
int zl_prune_filter(const char *text, uint64_t now_ms, int64_t *before_ms, const char **label) ZL_MUST;
extern const struct zl_type zl_type_image_request; /* all of it, as zl-image takes it */

/* Decodes JSON; no text is an empty map. ZL_E_INVALID with the first problem's hint; d keeps them all. */
int zl_body_decode(struct zl_decoder *d, const struct zl_type *type, struct zl_str text, void **ret,
                   struct zl_err *err) ZL_MUST;
