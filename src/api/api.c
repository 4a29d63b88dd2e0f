#include "api/api_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef ZLAYER_VERSION
#define ZLAYER_VERSION "0"
#endif

void api_request_free(struct api_request *q)
{
    zl_arena_done(&q->arena);
    free(q);
}

static void gone(void *arg)
{
    ((struct api_request *)arg)->x = NULL;
}

void api_watch_gone(struct api_request *q)
{
    zl_http_on_gone(q->x, gone, q);
}

void api_reply(struct api_request *q, unsigned status, const struct zl_value *v)
{
    zl_auto_buf body = ZL_BUF_INIT;
    if (!q->x)
        return;
    if (v)
        zl_json_print(&body, v, 0);
    zl_http_reply(q->x, status, v ? "application/json" : NULL, zl_buf_view(&body));
    q->x = NULL;
}

void api_error_body(struct zl_buf *out, const struct zl_err *err, const struct zl_decoder *d)
{
    zl_buf_puts(out, "{\"error\":");
    zl_json_string(out, zl_str(err->text));
    zl_buf_printf(out, ",\"code\":\"%s\"", zl_error_name(err->code));
    if (err->hint[0]) {
        zl_buf_puts(out, ",\"hint\":");
        zl_json_string(out, zl_str(err->hint));
    }
    if (d && d->first)
        zl_buf_puts(out, ",\"problems\":[");
    for (const struct zl_problem *p = d ? d->first : NULL; p; p = p->next) {
        zl_buf_printf(out, "{\"code\":\"%s\",\"line\":%u,\"column\":%u,\"width\":%u,\"path\":", p->code, p->line,
                      p->column, p->width);
        zl_json_string(out, zl_str(p->path));
        zl_buf_puts(out, ",\"message\":");
        zl_json_string(out, zl_str(p->message));
        zl_buf_puts(out, ",\"hint\":");
        zl_json_string(out, zl_str(p->hint));
        zl_buf_puts(out, p->next ? "}," : "}]");
    }
    zl_buf_putc(out, '}');
}

void api_fail_problems(struct api_request *q, const struct zl_err *err, const struct zl_decoder *d)
{
    zl_auto_buf body = ZL_BUF_INIT;
    if (!q->x)
        return;
    api_error_body(&body, err, d);
    zl_http_reply(q->x, (unsigned)zl_error_http(err->code), "application/json", zl_buf_view(&body));
    q->x = NULL;
}

void api_fail(struct api_request *q, const struct zl_err *err)
{
    api_fail_problems(q, err, NULL);
}

const char *api_query(struct api_request *q, const char *name)
{
    zl_auto_buf value = ZL_BUF_INIT;
    if (zl_http_query(zl_http_request(q->x), name, &value) != 1)
        return NULL;
    return zl_arena_strdup(&q->arena, value.p ? value.p : "");
}

static void live(struct api_request *q)
{
    struct zl_value *v = zl_value_new(&q->arena, ZL_MAP);
    zl_value_set(&q->arena, v, "status", zl_value_string(&q->arena, ZL_STR("ok")));
    api_reply(q, 200, v);
    api_request_free(q);
}

static void status(struct api_request *q)
{
    struct zl_arena *a = &q->arena;
    struct zl_value *v = zl_value_new(a, ZL_MAP), *agent = zl_value_new(a, ZL_MAP);
    char started[ZL_TIME_TEXT_SIZE];
    zl_value_set(a, agent, "version", zl_value_string(a, zl_str(ZLAYER_VERSION)));
    zl_value_set(a, agent, "pid", zl_value_int(a, getpid()));
    zl_value_set(a, agent, "data_dir", zl_value_string(a, zl_str(zl_agent_home(q->api->agent)->data)));
    zl_value_set(a, agent, "started_at", zl_value_string(a, zl_str(zl_time_text_s(q->api->started_ms, started))));
    zl_value_set(a, v, "agent", agent);
    zl_value_set(a, v, "store", zl_agent_show_store(q->api->agent, a));
    zl_value_set(a, v, "deployments", zl_agent_show_deployments(q->api->agent, a));
    api_reply(q, 200, v);
    api_request_free(q);
}

static void deployment_list(struct api_request *q)
{
    api_reply(q, 200, zl_agent_show_deployments(q->api->agent, &q->arena));
    api_request_free(q);
}

static void deployment_get(struct api_request *q)
{
    struct zl_value *v = zl_agent_show_deployment(q->api->agent, &q->arena, q->param);
    struct zl_err err = { 0 };
    if (v)
        api_reply(q, 200, v);
    else {
        zl_hint(&err, zl_fail(&err, ZL_E_NOT_FOUND, "there is no deployment '%.70s'", q->param),
                "`zlayer status` lists what there is");
        api_fail(q, &err);
    }
    api_request_free(q);
}

static void container_list(struct api_request *q)
{
    api_reply(q, 200, zl_agent_show_containers(q->api->agent, &q->arena));
    api_request_free(q);
}

static const api_handler handlers[ZL_H_COUNT] = {
    [ZL_H_LIVE] = live,
    [ZL_H_STATUS] = status,
    [ZL_H_DEPLOYMENT_LIST] = deployment_list,
    [ZL_H_DEPLOYMENT_GET] = deployment_get,
    [ZL_H_DEPLOYMENT_PUT] = api_deployment_put,
    [ZL_H_DEPLOYMENT_DELETE] = api_deployment_delete,
    [ZL_H_DEPLOYMENT_STOP] = api_deployment_stop,
    [ZL_H_DEPLOYMENT_EVENTS] = api_deployment_events,
    [ZL_H_DEPLOYMENT_LEASE] = api_deployment_lease,
    [ZL_H_DEPLOYMENT_LOGS] = api_deployment_logs,
    [ZL_H_DEPLOYMENT_EXEC] = api_deployment_exec,
    [ZL_H_CONTAINER_LIST] = container_list,
    [ZL_H_IMAGE_LIST] = api_image_list,
    [ZL_H_IMAGE_GET] = api_image_get,
    [ZL_H_IMAGE_DELETE] = api_image_delete,
    [ZL_H_IMAGE_PULL] = api_image_work,
    [ZL_H_IMAGE_PUSH] = api_image_work,
    [ZL_H_IMAGE_IMPORT] = api_image_work,
    [ZL_H_IMAGE_LOAD] = api_image_work,
    [ZL_H_IMAGE_SAVE] = api_image_work,
    [ZL_H_IMAGE_TAG] = api_image_work,
    [ZL_H_IMAGE_PRUNE] = api_image_work,
    [ZL_H_IMAGE_FSCK] = api_image_work,
    [ZL_H_IMAGE_DIFF] = api_image_work,
    [ZL_H_IMAGE_HISTORY] = api_image_history,
    [ZL_H_IMAGE_DF] = api_image_df,
};

/* Root, and the data dir's owner; the socket's mode lets its group connect, which gets it no right by itself. */
static bool allowed(struct zl_api *api, const struct zl_http_request *r)
{
    struct stat st;
    return r->uid == 0 || (fstat(zl_agent_home(api->agent)->data_dir, &st) == 0 && st.st_uid == r->uid);
}

static int prepare(struct api_request *q, const struct zl_route *route, struct zl_str param, struct zl_decoder *d,
                   struct zl_err *err)
{
    const struct zl_http_request *r = zl_http_request(q->x);
    const struct zl_type *type = zl_body_types[route->body];
    zl_auto_buf decoded = ZL_BUF_INIT;
    if (route->permission != ZL_PERM_NONE && !allowed(q->api, r))
        return zl_fail(err, ZL_E_PERMISSION, "user %u may not use this agent", (unsigned)r->uid);
    if (param.p && zl_http_percent_decode(param, false, &decoded) < 0)
        return zl_fail(err, ZL_E_INVALID, "the path is not percent-encoded right");
    q->param = zl_arena_strdup(&q->arena, decoded.p ? decoded.p : "");
    if (!type && r->body.n)
        return zl_fail(err, ZL_E_INVALID, "%s %s takes no body", route->method, route->path);
    return type ? zl_body_decode(d, type, r->body, &q->body, err) : 0;
}

static void no_route(struct zl_http_exchange *x, struct zl_str path)
{
    struct zl_err err = { 0 };
    zl_auto_buf body = ZL_BUF_INIT, methods = ZL_BUF_INIT;
    bool known = zl_route_methods(path, &methods);
    zl_fail(&err, known ? ZL_E_INVALID : ZL_E_NOT_FOUND, known ? "no such method for %.*s" : "no such path: %.*s",
            (int)ZL_MIN(path.n, (size_t)200), path.p);
    api_error_body(&body, &err, NULL);
    if (known)
        zl_http_reply_header(x, "Allow", zl_buf_view(&methods));
    zl_http_reply(x, known ? 405 : 404, "application/json", zl_buf_view(&body));
}

static void handle(void *arg, struct zl_http_exchange *x)
{
    struct zl_api *api = arg;
    struct zl_err err = { 0 };
    struct zl_decoder d;
    struct zl_str param;
    const struct zl_http_request *r = zl_http_request(x);
    const struct zl_route *route = zl_route_find(r->method, r->path, &param);
    if (!route) {
        no_route(x, r->path);
        return;
    }
    struct api_request *q = zl_xcalloc(1, sizeof *q);
    q->api = api;
    q->x = x;
    zl_arena_init(&q->arena);
    zl_decoder_init(&d, &q->arena);
    bool good = prepare(q, route, param, &d, &err) == 0;
    if (!good)
        api_fail_problems(q, &err, &d);
    zl_decoder_done(&d);
    if (good)
        handlers[route->handler](q);
    else
        api_request_free(q);
}

int zl_api_new(struct zl_agent *agent, int listen_fd, uint64_t started_ms, struct zl_api **ret, struct zl_err *err)
{
    struct zl_api *api = zl_xcalloc(1, sizeof *api);
    api->agent = agent;
    api->started_ms = started_ms;
    struct zl_http_server_options o = {
        .loop = zl_agent_loop(agent), .listen_fd = listen_fd, .handler = handle, .arg = api
    };
    int r = zl_http_server_new(&o, &api->server, err);
    if (r < 0) {
        free(api);
        return r;
    }
    *ret = api;
    return 0;
}

struct zl_api *zl_api_free(struct zl_api *api)
{
    if (api) {
        zl_http_server_free(api->server);
        free(api);
    }
    return NULL;
}

unsigned zl_api_connections(const struct zl_api *api)
{
    return zl_http_server_connections(api->server);
}

unsigned zl_api_accept_now(struct zl_api *api)
{
    return zl_http_server_accept_now(api->server);
}
