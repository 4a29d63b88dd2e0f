#include "client/client_priv.h"

#include "apidef/routes.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { HEAD_TIMEOUT_MS = 120 * 1000, BODY_MAX = 64 * 1024 * 1024, TRIES = 6 };
static const struct zl_parse_limits reply_limits = { .bytes = BODY_MAX, .depth = 32, .nodes = 2000000 };

int zl_error_from_body(const struct zl_client *c, struct zl_arena *arena, struct zl_str body, int status,
                       struct zl_err *err)
{
    struct zl_value *tree;
    struct zl_parse_error pe;
    if (zl_json_parse(arena, zl_str_trim(body), &reply_limits, &tree, &pe) < 0)
        return zl_fail(err, ZL_E_PROTOCOL, "the agent's answer (status %d) can't be read: %s", status, pe.text);
    const char *message = zl_value_cstr(tree, "error"), *hint = zl_value_cstr(tree, "hint");
    if (!message[0])
        return 0;
    int code = zl_error_by_name(zl_value_cstr(tree, "code"));
    if (!code)
        code = status == 404 ? ZL_E_NOT_FOUND : status == 403 ? ZL_E_PERMISSION : ZL_E_INTERNAL;
    (void)zl_fail(err, code, "%s", message);
    if (hint[0])
        (void)zl_hint(err, code, "%s", hint);
    const struct zl_value *problems = zl_value_get(tree, "problems");
    for (const struct zl_value *p = problems ? problems->first : NULL; p && c->problem; p = p->next)
        c->problem(c->arg, p);
    return code;
}

static int error_reply(struct zl_client *c, struct zl_exchange *x, struct zl_err *err)
{
    int e;
    while ((e = zl_exchange_read(x, 5000, NULL)) == 1 && x->body.n < BODY_MAX)
        ;
    struct zl_arena arena;
    zl_arena_init(&arena);
    e = x->body.n ? zl_error_from_body(c, &arena, zl_buf_view(&x->body), x->status, err) : 0;
    zl_arena_done(&arena);
    if (e == 0 || e == ZL_E_PROTOCOL)
        e = zl_fail(err, x->status == 404 ? ZL_E_NOT_FOUND : ZL_E_INTERNAL, "the agent answered with status %d",
                    x->status);
    return e;
}

/* Whether it is worth sending again: nobody was there, or who was there went away without a word. */
static bool agent_went(const struct zl_exchange *x, int e)
{
    return e == -ENOENT || e == -ENOTDIR || e == -ECONNREFUSED || (e == ZL_E_CLOSED && !x->began);
}

static int unreachable(const struct zl_client *c, int e, struct zl_err *err)
{
    struct zl_err why = { 0 };
    enum zl_agent_state state = zl_client_probe(&c->place, &why);
    if (state == ZL_AGENT_REACHABLE)
        return e;
    if (err)
        *err = why;
    return why.code;
}

int zl_client_exchange(struct zl_client *c, struct zl_exchange *x, const char *method, const char *path,
                       const struct zl_value *body, struct zl_err *err)
{
    zl_auto_buf json = ZL_BUF_INIT;
    if (body)
        zl_json_print(&json, body, 0);
    struct zl_str param, rest;
    const struct zl_route *route = zl_route_find(zl_str(method), zl_str_cut(zl_str(path), '?', &rest), &param);
    bool once = route && (route->flags & ZL_ROUTE_ONCE);
    for (int try = 0;; try++) {
        struct zl_err why = { 0 };
        int e = zl_exchange_start(x, c->place.socket, method, path, zl_buf_view(&json), HEAD_TIMEOUT_MS, &why);
        if (e >= 0)
            return x->status / 100 == 2 ? 0 : error_reply(c, x, err);
        bool again = agent_went(x, e);
        if (e == ZL_E_CLOSED && once) {
            zl_exchange_done(x);
            *x = (struct zl_exchange)ZL_EXCHANGE_INIT;
            return zl_hint(err,
                           zl_fail(err, e, "the agent went away before it answered: whether it was done is not known"),
                           "look before you do it again");
        }
        zl_exchange_done(x);
        *x = (struct zl_exchange)ZL_EXCHANGE_INIT;
        if (!again || try == TRIES) {
            if (err)
                *err = why;
            return again || e == -EACCES || e == -EPERM ? unreachable(c, e, err) : e;
        }
        if (!c->may_start) { /* an agent that was just ending, or being replaced, is looked for once more */
            if (e != ZL_E_CLOSED || try > 0) {
                if (err)
                    *err = why;
                return unreachable(c, e, err);
            }
            continue;
        }
        e = zl_client_start_agent(c, err);
        if (e == ZL_E_CLOSED)
            continue;
        if (e == ZL_E_LOCKED) { /* another client has started one, which serves its socket any moment now */
            (void)poll(NULL, 0, 20 << try);
            continue;
        }
        if (e < 0)
            return e;
    }
}

int zl_client_call(struct zl_client *c, struct zl_arena *arena, const char *method, const char *path,
                   const struct zl_value *body, struct zl_value **ret, struct zl_err *err)
{
    struct zl_exchange x = ZL_EXCHANGE_INIT;
    int e = zl_client_exchange(c, &x, method, path, body, err);
    while (e >= 0 && (e = zl_exchange_read(&x, HEAD_TIMEOUT_MS, err)) == 1)
        if (x.body.n > BODY_MAX)
            e = zl_fail(err, ZL_E_LIMIT, "the agent's reply is too long");
    if (e == -EAGAIN)
        e = zl_fail(err, ZL_E_TIMEOUT, "the agent's reply does not end");
    struct zl_value *tree = NULL;
    if (e >= 0 && ret && x.body.n) {
        struct zl_parse_error pe;
        char *text = zl_arena_strndup(arena, x.body.p, x.body.n);
        if (zl_json_parse(arena, zl_str_n(text, x.body.n), &reply_limits, &tree, &pe) < 0)
            e = zl_fail(err, ZL_E_PROTOCOL, "the agent's reply can't be read: %s", pe.text);
    }
    zl_exchange_done(&x);
    if (e < 0)
        return e;
    if (ret)
        *ret = tree;
    return 0;
}

void zl_path_segment(struct zl_buf *path, const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-_.~", *c))
            zl_buf_putc(path, *c);
        else
            zl_buf_printf(path, "%%%02X", (unsigned char)*c);
    }
}
