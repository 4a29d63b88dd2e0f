#include "proxyd/worker_priv.h"

#include <errno.h>
#include <stdio.h>

enum { HEAD_LIMIT = 2 * ZL_HTTP_HEAD_MAX };

struct out {
    struct buf_pool *pool;
    struct buf *b;
    int error;
};

static void put(struct out *o, const char *p, size_t n)
{
    if (o->error)
        return;
    if (n > buf_room(o->b)) {
        uint32_t want = buf_len(o->b) + (uint32_t)n;
        if (n > HEAD_LIMIT || want > HEAD_LIMIT || !buf_grow(o->pool, o->b, want * 2)) {
            o->error = -EMSGSIZE;
            return;
        }
    }
    memcpy(o->b->p + o->b->end, p, n);
    o->b->end += (uint32_t)n;
}

static void put_str(struct out *o, struct zl_str s)
{
    put(o, s.p, s.n);
}

#define put_text(o, literal) put((o), (literal), sizeof(literal) - 1)

static void put_header(struct out *o, struct zl_str name, struct zl_str value)
{
    put_str(o, name);
    put_text(o, ": ");
    put_str(o, value);
    put_text(o, "\r\n");
}

/* What belongs to one connection and is never passed on (RFC 9110, 7.6.1), and what we write ourselves. */
static bool is_ours(struct zl_str name, bool request)
{
    switch (name.n) {
    case 2:
        return zl_str_eq_nocase(name, ZL_STR("te"));
    case 4:
        return request && zl_str_eq_nocase(name, ZL_STR("host"));
    case 7:
        return zl_str_eq_nocase(name, ZL_STR("upgrade")) || zl_str_eq_nocase(name, ZL_STR("trailer"));
    case 10:
        return zl_str_eq_nocase(name, ZL_STR("connection")) || zl_str_eq_nocase(name, ZL_STR("keep-alive"));
    case 15:
        return request && zl_str_eq_nocase(name, ZL_STR("x-forwarded-for"));
    case 16:
        return (request && zl_str_eq_nocase(name, ZL_STR("x-forwarded-host"))) ||
               zl_str_eq_nocase(name, ZL_STR("proxy-connection"));
    case 17:
        return request && zl_str_eq_nocase(name, ZL_STR("x-forwarded-proto"));
    case 18:
        return zl_str_eq_nocase(name, ZL_STR("proxy-authenticate"));
    case 19:
        return zl_str_eq_nocase(name, ZL_STR("proxy-authorization"));
    default:
        return false;
    }
}

/* Named by a Connection header. Framing can't be taken away that way: a body must keep its length. */
static bool is_named(const struct zl_http_head *h, struct zl_str name)
{
    if (!h->connection_extra || zl_str_eq_nocase(name, ZL_STR("content-length")) ||
        zl_str_eq_nocase(name, ZL_STR("transfer-encoding")))
        return false;
    for (unsigned i = 0; i < h->nheaders; i++) {
        if (!zl_str_eq_nocase(h->headers[i].name, ZL_STR("connection")))
            continue;
        struct zl_str list = h->headers[i].value, item;
        while (zl_http_list_next(&list, &item))
            if (zl_str_eq_nocase(item, name))
                return true;
    }
    return false;
}

static void put_headers(struct out *o, const struct zl_http_head *h, bool request)
{
    for (unsigned i = 0; i < h->nheaders; i++) {
        struct zl_str name = h->headers[i].name;
        if (!is_ours(name, request) && !is_named(h, name))
            put_header(o, name, h->headers[i].value);
    }
}

static void put_upgrade(struct out *o, const struct zl_http_head *h)
{
    const struct zl_http_header *u = zl_http_find(h, "upgrade");
    if (u) {
        put_header(o, ZL_STR("Upgrade"), u->value);
        put_text(o, "Connection: upgrade\r\n");
    }
}

int rewrite_request(struct conn *c, const struct zl_http_head *h, struct zl_str host, struct zl_str target)
{
    struct out o = { .pool = &c->worker->bufs, .b = &c->req };
    if (!buf_get(o.pool, o.b))
        return -ENOMEM;
    put_str(&o, h->method);
    put_text(&o, " ");
    put_str(&o, target);
    if (c->http10)
        put_text(&o, " HTTP/1.0\r\n");
    else
        put_text(&o, " HTTP/1.1\r\n");
    if (host.p)
        put_header(&o, ZL_STR("Host"), host);
    put_headers(&o, h, true);
    /* Who asks is what we saw, not what the client says: no peer is trusted yet. */
    put_header(&o, ZL_STR("X-Forwarded-For"), zl_str(c->peer));
    put_text(&o, "X-Forwarded-Proto: http\r\n");
    if (host.p && host.n)
        put_header(&o, ZL_STR("X-Forwarded-Host"), host);
    if (c->upgrade)
        put_upgrade(&o, h);
    else if (c->http10)
        put_text(&o, "Connection: close\r\n");
    put_text(&o, "\r\n");
    return o.error;
}

int rewrite_reply(struct conn *c, const struct zl_http_head *h)
{
    struct out o = { .pool = &c->worker->bufs, .b = &c->resp };
    char line[24];
    if (!buf_get(o.pool, o.b))
        return -ENOMEM;
    int n = snprintf(line, sizeof line, "HTTP/1.1 %03u ", h->status);
    put(&o, line, (size_t)n);
    put_str(&o, h->reason);
    put_text(&o, "\r\n");
    put_headers(&o, h, false);
    if (h->status == 101)
        put_upgrade(&o, h);
    else if (h->status >= 200 && !c->keep_alive)
        put_text(&o, "Connection: close\r\n");
    else if (h->status >= 200 && c->http10)
        put_text(&o, "Connection: keep-alive\r\n");
    put_text(&o, "\r\n");
    return o.error;
}

int write_refusal(struct conn *c, unsigned status, const char *code, const char *text)
{
    struct out o = { .pool = &c->worker->bufs, .b = &c->resp };
    if (!buf_get(o.pool, o.b))
        return -ENOMEM;
    char body[512], head[256];
    int n = snprintf(body, sizeof body, "{\"error\":\"%s\",\"code\":\"%s\"}\n", text, code);
    int m =
        snprintf(head, sizeof head, "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n",
                 status, zl_http_reason(status), n, c->keep_alive ? "" : "Connection: close\r\n");
    put(&o, head, (size_t)m);
    if (!c->is_head)
        put(&o, body, (size_t)n);
    return o.error;
}
