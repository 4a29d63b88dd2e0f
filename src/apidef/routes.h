/*
 * The contract of the API: one row a route, for server, client and documents. Thread: any. Owns: constant data.
 * Fails: zl_route_find answers NULL.
 */
#pragma once

#include "apidef/bodies.h"

enum zl_handler {
    ZL_H_LIVE,
    ZL_H_STATUS,
    ZL_H_DEPLOYMENT_LIST,
    ZL_H_DEPLOYMENT_GET,
    ZL_H_DEPLOYMENT_PUT,
    ZL_H_DEPLOYMENT_DELETE,
    ZL_H_DEPLOYMENT_STOP,
    ZL_H_DEPLOYMENT_EVENTS,
    ZL_H_DEPLOYMENT_LEASE,
    ZL_H_DEPLOYMENT_LOGS,
    ZL_H_DEPLOYMENT_EXEC,
    ZL_H_CONTAINER_LIST,
    ZL_H_IMAGE_LIST,
    ZL_H_IMAGE_GET,
    ZL_H_IMAGE_DELETE,
    ZL_H_IMAGE_PULL,
    ZL_H_IMAGE_PUSH,
    ZL_H_IMAGE_IMPORT,
    ZL_H_IMAGE_LOAD,
    ZL_H_IMAGE_SAVE,
    ZL_H_IMAGE_TAG,
    ZL_H_IMAGE_PRUNE,
    ZL_H_IMAGE_FSCK,
    ZL_H_IMAGE_DIFF,
    ZL_H_IMAGE_HISTORY,
    ZL_H_IMAGE_DF,
    ZL_H_COUNT
};

enum zl_permission { ZL_PERM_NONE, ZL_PERM_READ, ZL_PERM_WRITE };

enum {
    ZL_ROUTE_STREAM = 1u << 0, /* the reply comes as it happens */
    ZL_ROUTE_ONCE = 1u << 1,   /* done twice is not the same as done once: a client must not send it again by itself */
};

struct zl_route {
    const char *method, *path; /* "{name}" matches one segment */
    enum zl_permission permission;
    unsigned flags;
    enum zl_body body;
    enum zl_handler handler;
    const char *doc;
};

extern const struct zl_route zl_routes[ZL_H_COUNT];

/* The methods that a path takes, as an Allow header says them; false when there is no such path. */
bool zl_route_methods(struct zl_str path, struct zl_buf *out);
/* `ret_param`: what the path's one {…} matched, still percent-encoded; p NULL when it has none. */
const struct zl_route *zl_route_find(struct zl_str method, struct zl_str path, struct zl_str *ret_param);
