#include "apidef/routes.h"

/* clang-format off */
const struct zl_route zl_routes[ZL_H_COUNT] = {
    { "GET", "/health/live", ZL_PERM_NONE, 0, ZL_BODY_NONE, ZL_H_LIVE, "whether the agent answers" },
    { "GET", "/api/v1/status", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_STATUS, "agent, store, deployments" },
    { "GET", "/api/v1/deployments", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_DEPLOYMENT_LIST, "all deployments" },
    { "GET", "/api/v1/deployments/{name}", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_DEPLOYMENT_GET, "one deployment" },
    { "POST", "/api/v1/deployments", ZL_PERM_WRITE, 0, ZL_BODY_DEPLOY, ZL_H_DEPLOYMENT_PUT, "deploy a document, or plan it" },
    { "DELETE", "/api/v1/deployments/{name}", ZL_PERM_WRITE, 0, ZL_BODY_NONE, ZL_H_DEPLOYMENT_DELETE, "stop and forget it" },
    { "POST", "/api/v1/deployments/{name}/stop", ZL_PERM_WRITE, 0, ZL_BODY_STOP, ZL_H_DEPLOYMENT_STOP, "no replicas" },
    { "GET", "/api/v1/deployments/{name}/events", ZL_PERM_READ, ZL_ROUTE_STREAM, ZL_BODY_NONE, ZL_H_DEPLOYMENT_EVENTS, "what happens to it" },
    { "GET", "/api/v1/deployments/{name}/lease", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_NONE, ZL_H_DEPLOYMENT_LEASE, "its owner is there" },
    { "GET", "/api/v1/deployments/{name}/logs", ZL_PERM_READ, ZL_ROUTE_STREAM, ZL_BODY_NONE, ZL_H_DEPLOYMENT_LOGS, "its log lines" },
    { "POST", "/api/v1/deployments/{name}/exec", ZL_PERM_WRITE, ZL_ROUTE_ONCE, ZL_BODY_EXEC, ZL_H_DEPLOYMENT_EXEC, "run a command in it" },
    { "GET", "/api/v1/containers", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_CONTAINER_LIST, "instances" },
    { "GET", "/api/v1/images", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_IMAGE_LIST, "images in the store" },
    { "GET", "/api/v1/images/{reference}", ZL_PERM_READ, 0, ZL_BODY_NONE, ZL_H_IMAGE_GET, "one image" },
    { "DELETE", "/api/v1/images/{reference}", ZL_PERM_WRITE, 0, ZL_BODY_NONE, ZL_H_IMAGE_DELETE, "remove one" },
    { "POST", "/api/v1/images/pull", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_PULL, ZL_H_IMAGE_PULL, "fetch one" },
    { "POST", "/api/v1/images/push", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_PUSH, ZL_H_IMAGE_PUSH, "send one to a registry" },
    { "POST", "/api/v1/images/import", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_IMPORT, ZL_H_IMAGE_IMPORT, "make one of a root filesystem" },
    { "POST", "/api/v1/images/load", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_LOAD, ZL_H_IMAGE_LOAD, "take the images of an archive" },
    { "POST", "/api/v1/images/save", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_SAVE, ZL_H_IMAGE_SAVE, "write images into an archive" },
    { "POST", "/api/v1/images/tag", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_TAG, ZL_H_IMAGE_TAG, "give one another name" },
    { "POST", "/api/v1/images/prune", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_PRUNE, ZL_H_IMAGE_PRUNE, "remove what is not needed" },
    { "POST", "/api/v1/images/fsck", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_FSCK, ZL_H_IMAGE_FSCK, "check every digest and layer" },
    { "POST", "/api/v1/images/diff", ZL_PERM_WRITE, ZL_ROUTE_STREAM, ZL_BODY_DIFF, ZL_H_IMAGE_DIFF, "how the files of two differ" },
    { "GET", "/api/v1/images/{reference}/history", ZL_PERM_READ, ZL_ROUTE_STREAM, ZL_BODY_NONE, ZL_H_IMAGE_HISTORY, "how one was made" },
    { "GET", "/api/v1/usage/images", ZL_PERM_READ, ZL_ROUTE_STREAM, ZL_BODY_NONE, ZL_H_IMAGE_DF, "what images take on the disk" },
};
/* clang-format on */

static bool match(const char *pattern, struct zl_str path, struct zl_str *param)
{
    struct zl_str p = zl_str(pattern);
    *param = (struct zl_str){ NULL, 0 };
    while (p.p && path.p) {
        struct zl_str want = zl_str_cut(p, '/', &p), have = zl_str_cut(path, '/', &path);
        if (want.n && want.p[0] == '{') {
            if (have.n == 0)
                return false;
            *param = have;
        } else if (!zl_str_eq(want, have)) {
            return false;
        }
    }
    return !p.p && !path.p;
}

const struct zl_route *zl_route_find(struct zl_str method, struct zl_str path, struct zl_str *ret_param)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(zl_routes); i++)
        if (zl_str_is(method, zl_routes[i].method) && match(zl_routes[i].path, path, ret_param))
            return &zl_routes[i];
    return NULL;
}

bool zl_route_methods(struct zl_str path, struct zl_buf *out)
{
    struct zl_str param;
    for (size_t i = 0; i < ZL_ARRAY_LEN(zl_routes); i++)
        if (match(zl_routes[i].path, path, &param))
            zl_buf_printf(out, "%s%s", out->n ? ", " : "", zl_routes[i].method);
    return out->n > 0;
}
