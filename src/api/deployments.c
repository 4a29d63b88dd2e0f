/* Routes that change deployments, and the two streams that follow one. */
#include "api/api_priv.h"

#include "base/id.h"
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
        struct zl_value *plan = q->body; /* where api_deployment_put left it */
        struct zl_value *d = zl_agent_show_deployment(q->api->agent, &q->arena, q->param);
        if (d)
            zl_value_set(&q->arena, v, "deployment", d);
        zl_value_set(&q->arena, v, "created", zl_value_bool(&q->arena, q->created));
        zl_value_set(&q->arena, v, "plan", plan);
        api_reply(q, q->created ? 201 : 200, v);
    }
    api_request_free(q);
}

static void set_policy(struct zl_spec *spec, struct zl_str policy)
{
    static const char *const names[] = { "if_not_present", "always", "never", "newer" };
    for (int p = 0; p < (int)ZL_ARRAY_LEN(names); p++)
        for (unsigned i = 0; zl_str_is(policy, names[p]) && i < spec->services.n; i++)
            ((struct zl_service *)spec->services.v[i])->image.policy = p;
}

void api_deployment_put(struct api_request *q)
{
    struct zl_err err = { 0 };
    struct zl_decoder d;
    struct zl_spec *spec;
    struct zl_str text = zl_value_str(q->body, "spec");
    const char *owner = zl_value_cstr(q->body, "owner");
    zl_decoder_init(&d, &q->arena);
    if (!text.p)
        zl_fail(&err, ZL_E_INVALID, "the body needs the key 'spec' with the document's text");
    else if (*owner && !zl_id_valid(owner))
        zl_fail(&err, ZL_E_INVALID, "'owner' must be 32 hex digits");
    else if (zl_spec_parse(&d, text, &spec, &err) == 0) {
        if (zl_value_str(q->body, "pull").p)
            set_policy(spec, zl_value_str(q->body, "pull"));
        struct zl_value *plan = zl_agent_plan(q->api->agent, &q->arena, spec);
        if (zl_value_true(q->body, "dry_run")) {
            struct zl_value *v = zl_value_new(&q->arena, ZL_MAP);
            zl_value_set(&q->arena, v, "plan", plan);
            api_reply(q, 200, v);
        } else {
            struct zl_agent_deploy put = { spec, owner };
            q->param = spec->deployment;
            q->created = !zl_agent_has_deployment(q->api->agent, spec->deployment);
            q->body = plan;
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
    uint64_t seconds = zl_value_u64(q->body, "timeout_s", 30);
    api_watch_gone(q);
    zl_agent_scale_down(q->api->agent, q->param, zl_value_cstr(q->body, "service"), ZL_MAX(seconds, (uint64_t)1) * 1000,
                        accepted, q);
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
    /* q->body: where api_deployment_lease left the owner. A deployment that is gone needs none. */
    ZL_IGNORE(zl_agent_lease(q->api->agent, q->param, q->body->text.p, false, NULL));
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
    q->body = zl_value_string(&q->arena, zl_str(owner ? owner : ""));
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
    uint64_t replica;
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
    struct zl_value *command = zl_value_get(q->body, "command");
    struct pick p = { .service = zl_value_cstr(q->body, "service"), .replica = zl_value_u64(q->body, "replica", 0) };
    zl_agent_each_instance(q->api->agent, q->param, pick_instance, &p);
    if (!command || command->kind != ZL_LIST || !command->first)
        zl_fail(&err, ZL_E_INVALID, "the body needs the key 'command', a list of strings");
    else if (!p.id[0])
        zl_hint(&err,
                zl_fail(&err, ZL_E_NOT_FOUND, "no running replica of '%.70s%s%.70s'", q->param, *p.service ? "." : "",
                        p.service),
                "`zlayer ps -c` lists what runs");
    if (err.code) {
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    const char **argv = zl_arena_alloc(&q->arena, (command->count + 1) * sizeof *argv);
    unsigned n = 0;
    for (const struct zl_value *i = command->first; i; i = i->next)
        argv[n++] = i->text.p;
    struct zl_rt_exec exec = { .argv = argv, .nargv = n };
    api_watch_gone(q);
    (void)zl_runtime_exec(zl_agent_runtime(q->api->agent), p.id, &exec, exec_done, q);
}
