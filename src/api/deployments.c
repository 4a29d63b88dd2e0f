/* Routes that change deployments, and the two streams that follow one. */
#include "api/api_priv.h"

#include "codec/base64.h"

#include <stdio.h>

static void put_done(void *arg, const struct zl_err *err)
{
    struct api_request *q = arg;
    if (!q->x) {
        api_request_free(q);
        return;
    }
    if (err->code) {
        api_fail(q, err);
    } else {
        struct zl_value *v = zl_value_new(&q->arena, ZL_MAP);
        struct zl_value *d = zl_agent_show_deployment(q->api->agent, &q->arena, q->param);
        if (d)
            zl_value_set(&q->arena, v, "deployment", d);
        zl_value_set(&q->arena, v, "created", zl_value_bool(&q->arena, q->created));
        zl_value_set(&q->arena, v, "plan", q->plan);
        api_reply(q, q->created ? 201 : 200, v);
    }
    api_request_free(q);
}

void api_deployment_put(struct api_request *q)
{
    struct zl_err err = { 0 };
    struct zl_decoder d;
    struct zl_spec *spec;
    const struct zl_deploy_request *b = q->body;
    zl_decoder_init(&d, &q->arena);
    if (zl_spec_parse(&d, zl_str(b->spec), &spec, &err) == 0) {
        for (unsigned i = 0; b->pull && i < spec->services.n; i++)
            ((struct zl_service *)spec->services.v[i])->image.policy = b->pull - 1;
        q->plan = zl_agent_plan(q->api->agent, &q->arena, spec);
        if (b->dry_run) {
            struct zl_value *v = zl_value_new(&q->arena, ZL_MAP);
            zl_value_set(&q->arena, v, "plan", q->plan);
            api_reply(q, 200, v);
        } else {
            struct zl_agent_deploy put = { spec, b->owner ? b->owner : "" };
            q->param = spec->deployment;
            q->created = !zl_agent_has_deployment(q->api->agent, spec->deployment);
            api_watch_gone(q);
            zl_agent_deploy(q->api->agent, &put, put_done, q);
            zl_decoder_done(&d);
            return;
        }
    }
    if (q->x)
        api_fail_problems(q, &err, &d);
    zl_decoder_done(&d);
    api_request_free(q);
}

static void accepted(void *arg, const struct zl_err *err)
{
    struct api_request *q = arg;
    if (err->code)
        api_fail(q, err);
    else
        api_reply(q, 202, zl_value_new(&q->arena, ZL_MAP));
    api_request_free(q);
}

void api_deployment_delete(struct api_request *q)
{
    const char *timeout = api_query(q, "timeout_s");
    uint64_t seconds = 0;
    struct zl_err err = { 0 };
    if (timeout && zl_parse_u64(zl_str(timeout), 0, 86400, &seconds) < 0) {
        zl_fail(&err, ZL_E_INVALID, "'timeout_s' must be 0 to 86400");
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    api_watch_gone(q);
    zl_agent_stop(q->api->agent, q->param, timeout && seconds == 0, seconds * 1000, accepted, q);
}

void api_deployment_stop(struct api_request *q)
{
    const struct zl_stop_request *b = q->body;
    api_watch_gone(q);
    zl_agent_scale_down(q->api->agent, q->param, b->service ? b->service : "",
                        (uint64_t)ZL_MAX(b->timeout_s, INT64_C(1)) * 1000, accepted, q);
}

/* --- streams that follow a deployment --- */

struct follow {
    struct api_request *q;
    struct zl_agent_watch *watch;
};

static void follow_free(struct follow *f)
{
    zl_agent_watch_free(f->watch);
    api_request_free(f->q);
    free(f);
}

static void follow_gone(void *arg)
{
    struct follow *f = arg;
    f->q->x = NULL;
    follow_free(f);
}

static void on_event(void *arg, const char *name, struct zl_str data, bool last)
{
    struct follow *f = arg;
    zl_auto_buf text = ZL_BUF_INIT;
    zl_buf_printf(&text, "event: %s\ndata: %.*s\n\n", name, ZL_STR_FMT(data));
    size_t waiting = zl_http_reply_write(f->q->x, zl_buf_view(&text));
    if (!last && waiting < (1u << 20)) /* a reader that does not read is let go */
        return;
    zl_http_reply_end(f->q->x);
    follow_free(f);
}

void api_deployment_events(struct api_request *q)
{
    struct zl_err err = { 0 };
    if (!zl_agent_show_deployment(q->api->agent, &q->arena, q->param)) {
        zl_fail(&err, ZL_E_NOT_FOUND, "there is no deployment '%.70s'", q->param);
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    struct follow *f = zl_xcalloc(1, sizeof *f);
    f->q = q;
    zl_http_on_gone(q->x, follow_gone, f);
    zl_http_reply_begin(q->x, 200, "text/event-stream");
    f->watch = zl_agent_watch_new(q->api->agent, q->param, on_event, f);
}

static void lease_gone(void *arg)
{
    struct api_request *q = arg;
    ZL_IGNORE(zl_agent_lease(q->api->agent, q->param, q->owner, false, NULL)); /* one that is gone needs no lease */
    q->x = NULL;
    api_request_free(q);
}

void api_deployment_lease(struct api_request *q)
{
    struct zl_err err = { 0 };
    const char *owner = api_query(q, "owner");
    if (zl_agent_lease(q->api->agent, q->param, owner ? owner : "", true, &err) < 0) {
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    q->owner = owner ? owner : "";
    zl_http_on_gone(q->x, lease_gone, q);
    zl_http_reply_begin(q->x, 200, "application/x-ndjson");
    (void)zl_http_reply_write(q->x, ZL_STR("{\"held\":true}\n"));
}

/* --- exec --- */

static void exec_done(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct api_request *q = arg;
    if (err->code || !q->x) {
        api_fail(q, err);
        api_request_free(q);
        return;
    }
    struct zl_value *v = zl_value_new(&q->arena, ZL_MAP);
    zl_auto_buf out = ZL_BUF_INIT, errs = ZL_BUF_INIT;
    zl_base64_encode(&out, reply->exec.out);
    zl_base64_encode(&errs, reply->exec.err);
    zl_value_set(&q->arena, v, "exit_code", zl_value_int(&q->arena, reply->exec.code));
    zl_value_set(&q->arena, v, "stdout", zl_value_string(&q->arena, zl_buf_view(&out)));
    zl_value_set(&q->arena, v, "stderr", zl_value_string(&q->arena, zl_buf_view(&errs)));
    zl_value_set(&q->arena, v, "truncated", zl_value_bool(&q->arena, reply->exec.truncated));
    api_reply(q, 200, v);
    api_request_free(q);
}

struct pick {
    const char *service;
    int64_t replica;
    char id[ZL_ID_HEX_SIZE];
};

static void pick_instance(void *arg, const char *id, const char *service, unsigned slot, bool running)
{
    struct pick *p = arg;
    if (running && (!*p->service || zl_streq(p->service, service)) && (p->replica == 0 || p->replica == slot) &&
        !p->id[0])
        snprintf(p->id, sizeof p->id, "%s", id);
}

void api_deployment_exec(struct api_request *q)
{
    struct zl_err err = { 0 };
    const struct zl_exec_request *b = q->body;
    struct pick p = { .service = b->service ? b->service : "", .replica = b->replica };
    zl_agent_each_instance(q->api->agent, q->param, pick_instance, &p);
    if (!p.id[0]) {
        zl_hint(&err,
                zl_fail(&err, ZL_E_NOT_FOUND, "no running replica of '%.70s%s%.70s'", q->param, *p.service ? "." : "",
                        p.service),
                "`zlayer ps -c` lists what runs");
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    struct zl_rt_exec exec = { .argv = b->command.v, .nargv = b->command.n };
    api_watch_gone(q);
    (void)zl_runtime_exec(zl_agent_runtime(q->api->agent), p.id, &exec, exec_done, q);
}
