/*
 * What requests carry: a struct and a field table a kind, by which senders print and receivers decode it. The image
 * job's request is here, too: the API passes one on. Thread: any. Owns: the arena of the decoder owns what is decoded.
 * Fails: zl_body_decode, with the first problem of the body.
 */
#pragma once

#include "spec/spec.h"

enum zl_body { ZL_BODY_NONE, ZL_BODY_DEPLOY, ZL_BODY_STOP, ZL_BODY_EXEC, ZL_BODY_PULL, ZL_BODY_IMPORT, ZL_BODY_COUNT };

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

enum zl_image_verb { ZL_IMAGE_PULL, ZL_IMAGE_IMPORT, ZL_IMAGE_REMOVE };

struct zl_image_request {
    int verb;
    const char *reference;
    /* of pull */
    int policy;      /* enum zl_pull_policy */
    int64_t stall_s; /* how long a registry may send nothing */
    /* of import; source: a tar file or a folder. The rest is the image's config. */
    const char *source;
    struct zl_strings cmd, entrypoint, env, ports;
    const char *workdir, *user;
    /* of remove */
    bool force;
};

extern const struct zl_type *const zl_body_types[ZL_BODY_COUNT]; /* of ZL_BODY_NONE: NULL */
extern const struct zl_type zl_type_image_request;               /* all of it, as zl-image takes it */

/* Decodes JSON; no text is an empty map. ZL_E_INVALID with the first problem's hint; d keeps them all. */
int zl_body_decode(struct zl_decoder *d, const struct zl_type *type, struct zl_str text, void **ret,
                   struct zl_err *err) ZL_MUST;
