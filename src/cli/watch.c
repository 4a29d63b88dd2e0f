#include "cli/watch.h"

#include "base/clock.h"
#include "cli/node.h"
#include "cli/output.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

static void show_service(struct zl_progress *p, const struct zl_value *e)
{
    const char *message = zl_value_cstr(e, "message"), *status = zl_value_cstr(e, "status");
    unsigned long long ready = zl_value_u64(e, "ready", 0), replicas = zl_value_u64(e, "replicas", 0);
    zl_progress_text(p, zl_value_cstr(e, "service"), "%s, %llu of %llu ready%s%s", status, ready, replicas,
                     message[0] ? ": " : "", message);
}

static void show_pull(struct zl_progress *p, const struct zl_value *e)
{
    const char *layer = zl_value_cstr(e, "layer"), *image = zl_value_cstr(e, "image");
    if (strncmp(layer, "sha256:", 7) == 0)
        layer += 7;
    char key[32];
    if (layer[0])
        snprintf(key, sizeof key, "layer %.12s", layer);
    else
        snprintf(key, sizeof key, "pull");
    uint64_t total = zl_value_u64(e, "total", 0);
    if (total)
        zl_progress_bytes(p, key, zl_value_u64(e, "current", 0), total);
    else
        zl_progress_text(p, key, "%s", image);
}

static void show_failure(struct zl_progress *p, const char *deployment, const struct zl_value *e)
{
    const struct zl_cli *cli = p->cli;
    const char *service = zl_value_cstr(e, "service"), *message = zl_value_cstr(e, "message");
    zl_progress_clear(p);
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "%s%s%s%s: ", zl_style(&cli->err, ZL_RED), deployment, service[0] ? "." : "", service);
    zl_term_clean(&b, zl_str(message[0] ? message : "failed"));
    zl_buf_printf(&b, "%s\n", zl_style(&cli->err, ZL_PLAIN));
    const struct zl_value *log = zl_value_get(e, "log");
    if (log && log->kind == ZL_LIST && log->first)
        zl_buf_puts(&b, "its last lines:\n");
    for (const struct zl_value *l = log ? log->first : NULL; l; l = l->next) {
        zl_buf_printf(&b, "%s  | ", zl_style(&cli->err, ZL_DIM));
        zl_term_clean(&b, l->text);
        zl_buf_printf(&b, "%s\n", zl_style(&cli->err, ZL_PLAIN));
    }
    zl_term_write(&cli->err, zl_buf_view(&b));
}

enum zl_outcome zl_event_show(struct zl_progress *p, const char *deployment, struct zl_str name, struct zl_str data)
{
    if (zl_str_is(name, "ready"))
        return ZL_OUTCOME_READY;
    if (zl_str_is(name, "gone"))
        return ZL_OUTCOME_GONE;
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_value *e = NULL;
    struct zl_parse_error pe;
    enum zl_outcome outcome = ZL_OUTCOME_NONE;
    if (zl_json_parse(&arena, data, &zl_limits_document, &e, &pe) < 0)
        e = NULL; /* an event that a newer agent writes in another way is not shown */
    if (zl_str_is(name, "failed")) {
        show_failure(p, deployment, e);
        outcome = ZL_OUTCOME_FAILED;
    } else if (e && zl_str_is(name, "service")) {
        show_service(p, e);
    } else if (e && zl_str_is(name, "pull")) {
        show_pull(p, e);
    }
    zl_arena_done(&arena);
    return outcome;
}

/* One stream, to its end: an outcome, or 0 when it must be opened again. */
static int follow(struct zl_stream *s, struct zl_progress *p, const char *deployment, bool until_gone,
                  uint64_t deadline, enum zl_outcome *ret, struct zl_err *err)
{
    for (;;) {
        struct zl_str name, data;
        uint64_t now = zl_clock_mono_ms();
        int left = !deadline ? -1 : now >= deadline ? 0 : (int)ZL_MIN(deadline - now, (uint64_t)INT32_MAX);
        int r = zl_stream_event(s, left, &name, &data, err);
        if (r == -EINTR)
            continue;
        if (r == -EAGAIN)
            return zl_fail(err, ZL_E_TIMEOUT, "'%s' is not %s yet", deployment, until_gone ? "gone" : "ready");
        if (r == ZL_E_CLOSED || r == 0)
            return 0;
        if (r < 0)
            return r;
        if (until_gone && zl_str_is(name, "failed"))
            continue; /* what fails while it is taken down is no news */
        enum zl_outcome o = zl_event_show(p, deployment, name, data);
        if (o == ZL_OUTCOME_GONE || (o != ZL_OUTCOME_NONE && !until_gone)) {
            *ret = o;
            return 1;
        }
    }
}

int zl_watch(struct zl_cli *cli, const char *deployment, bool until_gone, uint64_t timeout_ms, enum zl_outcome *ret,
             struct zl_err *err)
{
    uint64_t deadline = timeout_ms ? zl_clock_mono_ms() + timeout_ms : 0;
    const char *path = zl_deployment_path(cli, deployment, "/events");
    struct zl_client *c;
    int r = zl_cli_client(cli, ZL_MAY_START, &c, err);
    struct zl_progress p;
    zl_progress_init(&p, cli);
    while (r == 0) {
        ZL_AUTO(zl_stream) s = NULL;
        r = zl_stream_open(c, "GET", path, NULL, &s, err);
        if (r == ZL_E_NOT_FOUND) {
            *ret = ZL_OUTCOME_GONE;
            r = 1;
        } else if (r == 0) {
            r = follow(s, &p, deployment, until_gone, deadline, ret, err);
            if (r == 0)
                (void)poll(NULL, 0, 100); /* the agent went away; its successor needs a moment */
        }
    }
    zl_progress_done(&p);
    return r < 0 ? r : 0;
}
