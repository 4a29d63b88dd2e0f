#include "proxyd/worker_priv.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

/*
 * An http connection, exchange by exchange:
 *
 *   HEAD ──► CONNECT ──► EXCHANGE ──► HEAD …           the usual way round
 *     │         ▲  │        │ │ └───► TUNNEL           after 101
 *     │         └──┴────────┘ │                        another backend, or a fresh connection
 *     └────► REFUSE ◄─────────┘                        a reply of our own; then HEAD, or
 *               └───────► LINGER                       the end, once the client has stopped sending
 *
 * Bodies are passed on as they come, checked but byte for byte: what a chunked body's decoder accepts reads the same
 * to every other one.
 */

enum step { WAIT, GO_ON };
enum { REPLAYS_MAX = 3 };

/* ---- bodies ---- */

static void flow_start(struct flow *f, const struct zl_http_head *h)
{
    *f = (struct flow){ .kind = h->body, .left = h->content_length };
    f->done = f->kind == ZL_HTTP_BODY_NONE || (f->kind == ZL_HTTP_BODY_LENGTH && f->left == 0);
    if (f->kind == ZL_HTTP_BODY_CHUNKED)
        zl_chunked_init(&f->chunked);
}

/* Looks at what stands in the buffer behind `ready`. */
static int flow_advance(struct flow *f, const struct buf *b)
{
    uint32_t n = buf_len(b) - f->ready;
    struct zl_str in = zl_str_n(b->p + b->start + f->ready, n), data;
    int r;
    if (f->done || n == 0)
        return 0;
    switch (f->kind) {
    case ZL_HTTP_BODY_LENGTH:
        n = n < f->left ? n : (uint32_t)f->left;
        f->left -= n;
        f->ready += n;
        f->done = f->left == 0;
        return 0;
    case ZL_HTTP_BODY_CHUNKED:
        while ((r = zl_chunked_next(&f->chunked, &in, &data)) == ZL_CHUNKED_DATA)
            ;
        if (r < 0)
            return r;
        f->ready += n - (uint32_t)in.n;
        f->done = r == ZL_CHUNKED_END;
        return 0;
    case ZL_HTTP_BODY_CLOSE:
        f->ready += n;
        return 0;
    case ZL_HTTP_BODY_NONE:
        return 0;
    }
    return 0;
}

/* Two pieces by one call: the bytes taken, 0 when none can be taken now, or an error. */
static ssize_t send_two(struct ev *ev, struct zl_str a, struct zl_str b)
{
    struct iovec iov[2] = { { (void *)(uintptr_t)a.p, a.n }, { (void *)(uintptr_t)b.p, b.n } };
    struct msghdr m = { .msg_iov = a.n ? iov : iov + 1, .msg_iovlen = (a.n ? 1u : 0u) + (b.n ? 1u : 0u) };
    for (;;) {
        ssize_t n = sendmsg(ev->fd, &m, MSG_NOSIGNAL);
        if (n >= 0)
            return n;
        if (errno == EAGAIN) {
            ev->writable = false;
            return 0;
        }
        if (errno != EINTR)
            return -errno;
    }
}

/* ---- refusing ---- */

static void refuse(struct conn *c, unsigned status, const char *code, const char *text)
{
    if (c->up)
        upstream_close(ZL_TAKE(c->up));
    bool in_order = c->body.done && !c->reply_begun;
    c->keep_alive = c->keep_alive && in_order;
    if (c->reply_begun || write_refusal(c, status, code, text) < 0) {
        conn_close(c);
        return;
    }
    c->state = CONN_REFUSE;
    timer_set(c->worker, &c->timer, TIMER_STREAM);
}

static void refuse_for_service(struct conn *c, unsigned status, const char *code, const char *what)
{
    char text[400];
    const struct service *s = table_service(c->worker->table, c->service);
    struct zl_str name = s ? s->name : ZL_STR("a removed service");
    /* Names come from the snapshot, which holds no control bytes; a quote or backslash would break the JSON. */
    int n = snprintf(text, sizeof text, "%s: %.*s", what, (int)ZL_MIN(name.n, (size_t)256), name.p);
    for (int i = 0; i < n && text[i]; i++)
        if (text[i] == '"' || text[i] == '\\')
            text[i] = '?';
    refuse(c, status, code, text);
}

static void refuse_connect(struct conn *c, int error)
{
    if (error == -EHOSTDOWN && c->ntried == 0)
        refuse_for_service(c, 503, "no_healthy_backend", "no replica is ready for");
    else if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
        refuse_for_service(c, 503, "overloaded", "the proxy is out of resources; can't reach");
    else
        refuse_for_service(c, 502, "bad_gateway", "no replica could be reached for");
}

static void connect_or_refuse(struct conn *c)
{
    int r = conn_connect(c);
    if (r < 0)
        refuse_connect(c, r);
}

/* ---- a request's head ---- */

/* An absolute target names the host; the backend gets the path only. */
static void split_absolute(struct zl_str *target, struct zl_str *host)
{
    if (target->p[0] == '/' || target->p[0] == '*')
        return;
    const char *colon = memchr(target->p, ':', target->n);
    size_t skip = (size_t)(colon - target->p) + 3;
    struct zl_str rest = zl_str_n(target->p + skip, target->n - skip);
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    *host = zl_str_n(rest.p, n);
    *target = n < rest.n && rest.p[n] == '/' ? zl_str_n(rest.p + n, rest.n - n) : ZL_STR("/");
}

static bool method_is_idempotent(struct zl_str m)
{
    static const char *const names[] = { "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE" };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(names); i++)
        if (zl_str_is(m, names[i]))
            return true;
    return false;
}

static void exchange_reset(struct conn *c)
{
    c->scanned = 0;
    c->ntried = c->replays = 0;
    c->replayable = true;
    c->fresh_only = c->reply_begun = c->reply_keep = false;
    c->reply = (struct flow){ 0 };
}

/* The head of `n` bytes at the buffer's start is in the worker's scratch. */
static void begin(struct conn *c, uint32_t n)
{
    struct worker *w = c->worker;
    const struct zl_http_head *h = &w->head;
    exchange_reset(c);
    c->is_head = zl_str_is(h->method, "HEAD");
    c->idempotent = method_is_idempotent(h->method);
    c->keep_alive = h->keep_alive;
    c->half_close_ok = !h->keep_alive;
    c->http10 = h->minor == 0;
    c->upgrade = h->upgrade;
    flow_start(&c->body, h);
    struct zl_str host = h->host, target = h->target;
    split_absolute(&target, &host);
    const struct listener *l = table_listener(w->table, c->listener);
    const struct route *r = l ? listener_route(l, host, target) : NULL;
    c->service = r ? r->service->id : 0;
    bool is_connect = zl_str_is(h->method, "CONNECT");
    int e = r && !is_connect ? rewrite_request(c, h, host, target) : 0;
    buf_drop(&c->in, n); /* the views of head, host and target end here */
    if (is_connect)
        refuse(c, 405, "method_not_allowed", "this is no forward proxy");
    else if (!l)
        refuse(c, 503, "no_listener", "this endpoint has been removed");
    else if (!r)
        refuse(c, 404, "no_route", "no route for this host and path");
    else if (e < 0)
        refuse(c, e == -ENOMEM ? 503 : 431, "limit_exceeded", "the request's head is too large");
    else
        connect_or_refuse(c);
}

static enum step read_head(struct conn *c)
{
    struct worker *w = c->worker;
    for (;;) {
        if (buf_len(&c->in)) {
            struct zl_str in = zl_str_n(c->in.p + c->in.start, buf_len(&c->in));
            ssize_t n = zl_http_parse_request(in, &c->scanned, &w->head);
            if (n > 0) {
                begin(c, (uint32_t)n);
                return GO_ON;
            }
            if (n < 0) {
                exchange_reset(c);
                c->keep_alive = c->is_head = false;
                refuse(c, zl_http_error_status((int)n), "bad_request", "the request is no valid HTTP/1.1");
                return GO_ON;
            }
        }
        if (!c->ev.readable)
            break;
        bool room = buf_get(&w->bufs, &c->in);
        if (room && buf_room(&c->in) == 0)
            room = buf_grow(&w->bufs, &c->in, c->in.start ? c->in.cap : ZL_HTTP_HEAD_MAX + BUF_SIZE);
        ssize_t n = room ? ev_read(&c->ev, &c->in) : -ENOMEM;
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            conn_close(c);
            return WAIT;
        }
        if (c->timer.class == TIMER_IDLE)
            timer_set(w, &c->timer, TIMER_HEAD);
    }
    if (buf_len(&c->in) == 0)
        buf_put(&w->bufs, &c->in);
    return WAIT;
}

/* ---- an exchange ---- */

/* Its backend has failed before a byte of the reply: once more, elsewhere or on a fresh connection, if that is safe. */
static void retry_or_refuse(struct conn *c)
{
    struct upstream *u = ZL_TAKE(c->up);
    bool again = c->replayable && (c->idempotent || !c->sent_something) && c->replays < REPLAYS_MAX;
    bool was_reused = u->reused;
    if (!was_reused) /* a pooled connection that its backend closed meanwhile is nobody's failure */
        upstream_failed(u, true);
    uint32_t slot = u->slot;
    upstream_close(u);
    if (!again) {
        refuse_for_service(c, 502, "bad_gateway", "the replica ended the connection without a reply:");
        return;
    }
    c->replays++;
    c->scanned = 0;
    if (was_reused)
        c->fresh_only = true;
    else if (c->ntried < TRIES_MAX)
        c->tried[c->ntried++] = slot;
    connect_or_refuse(c);
}

static enum step pump_request(struct conn *c)
{
    struct worker *w = c->worker;
    struct flow *f = &c->body;
    struct upstream *u = c->up;
    while (!c->up_write_broken) {
        uint32_t head = buf_len(&c->req) - c->req_sent, body = f->ready - f->sent;
        if (head || body) {
            if (!u->ev.writable)
                return WAIT;
            ssize_t n = send_two(&u->ev, zl_str_n(head ? c->req.p + c->req.start + c->req_sent : NULL, head),
                                 zl_str_n(body ? c->in.p + c->in.start + f->sent : NULL, body));
            if (n < 0) {
                /* The backend reads no more; it may have said why. What it says, or its end, is read next. */
                c->up_write_broken = true;
                u->ev.readable = true;
                return WAIT;
            }
            c->sent_something = c->sent_something || n > 0;
            uint32_t of_head = (uint32_t)n < head ? (uint32_t)n : head;
            c->req_sent += of_head;
            f->sent += (uint32_t)n - of_head;
            continue;
        }
        if (f->done)
            return WAIT;
        if (f->sent && (c->reply_begun || !c->in.p || buf_room(&c->in) == 0)) {
            buf_drop(&c->in, f->sent);
            f->ready -= f->sent;
            f->sent = 0;
            c->replayable = false;
        }
        if (buf_len(&c->in) > f->ready) {
            if (flow_advance(f, &c->in) < 0) {
                c->keep_alive = false;
                refuse(c, 400, "bad_request", "the request's body is no valid chunked body");
                return GO_ON;
            }
            continue;
        }
        if (!c->ev.readable)
            return WAIT;
        bool room = buf_get(&w->bufs, &c->in) && (buf_room(&c->in) || buf_grow(&w->bufs, &c->in, c->in.cap));
        ssize_t n = room ? ev_read(&c->ev, &c->in) : -ENOMEM;
        if (n == -EAGAIN)
            return WAIT;
        if (n <= 0) {
            conn_close(c);
            return GO_ON;
        }
    }
    return WAIT;
}

/* After 101: what is left of the reply goes before the backend's first bytes. */
static enum step become_tunnel(struct conn *c, uint32_t head_size)
{
    struct worker *w = c->worker;
    struct upstream *u = c->up;
    buf_drop(&u->in, head_size);
    uint32_t n = buf_len(&u->in);
    if (n > buf_room(&c->resp) && !buf_grow(&w->bufs, &c->resp, buf_len(&c->resp) + n)) {
        conn_close(c);
        return GO_ON;
    }
    if (n)
        memcpy(c->resp.p + c->resp.end, u->in.p + u->in.start, n);
    c->resp.end += n;
    buf_put(&w->bufs, &u->in);
    u->in = c->resp;
    c->resp = (struct buf){ 0 };
    buf_put(&w->bufs, &c->req);
    timer_stop(&c->timer);
    c->state = CONN_TUNNEL;
    return GO_ON;
}

static enum step bad_reply(struct conn *c)
{
    upstream_failed(c->up, false);
    refuse_for_service(c, 502, "bad_gateway", "the replica's reply is no valid HTTP:");
    return GO_ON;
}

/* Looks for the reply's head in what has come. WAIT: more must be read. */
static enum step reply_head(struct conn *c)
{
    struct worker *w = c->worker;
    struct upstream *u = c->up;
    struct zl_http_head *h = &w->head;
    struct zl_str in = zl_str_n(u->in.p + u->in.start, buf_len(&u->in));
    ssize_t n = zl_http_parse_response(in, &c->scanned, c->is_head, h);
    if (n == 0)
        return WAIT;
    bool switching = n > 0 && h->status == 101;
    if (n < 0 || (switching && (!c->upgrade || c->req_sent < buf_len(&c->req))) ||
        (c->http10 && h->body == ZL_HTTP_BODY_CHUNKED))
        return bad_reply(c);
    bool final = h->status >= 200;
    if (final && (h->body == ZL_HTTP_BODY_CLOSE || !c->body.done))
        c->keep_alive = false;
    if (c->http10 && !final) {
        buf_drop(&u->in, (uint32_t)n); /* an HTTP/1.0 client knows no interim replies */
        c->scanned = 0;
        return GO_ON;
    }
    if (rewrite_reply(c, h) < 0)
        return bad_reply(c);
    if (switching)
        return become_tunnel(c, (uint32_t)n);
    buf_drop(&u->in, (uint32_t)n);
    c->scanned = 0;
    if (!final)
        return GO_ON;
    c->reply_begun = true;
    c->reply_keep = h->keep_alive;
    flow_start(&c->reply, h);
    if (flow_advance(&c->reply, &u->in) < 0)
        conn_close(c);
    return GO_ON;
}

/* The backend's end, or an error, instead of more bytes. */
static enum step reply_ended(struct conn *c, ssize_t n)
{
    if (c->reply_begun) {
        if (n == 0 && c->reply.kind == ZL_HTTP_BODY_CLOSE) {
            c->reply.done = true;
            return GO_ON;
        }
        upstream_failed(c->up, false);
        conn_close(c); /* the only way left to say that the body is not whole */
        return GO_ON;
    }
    if (buf_len(&c->up->in) == 0)
        retry_or_refuse(c);
    else
        bad_reply(c);
    return GO_ON;
}

static enum step finish(struct conn *c)
{
    struct worker *w = c->worker;
    bool whole = c->body.done && c->body.sent == c->body.ready && c->req_sent == buf_len(&c->req);
    upstream_put(ZL_TAKE(c->up), whole && c->reply_keep && !c->up_write_broken && c->reply.kind != ZL_HTTP_BODY_CLOSE);
    buf_put(&w->bufs, &c->req);
    buf_put(&w->bufs, &c->resp);
    buf_drop(&c->in, c->body.ready);
    c->body.ready = c->body.sent = 0;
    if (whole && c->keep_alive) {
        c->state = CONN_HEAD;
        c->scanned = 0;
        if (buf_len(&c->in) == 0)
            buf_put(&w->bufs, &c->in);
        timer_set(w, &c->timer, buf_len(&c->in) ? TIMER_HEAD : TIMER_IDLE);
        return GO_ON;
    }
    if (whole && !c->ev.readable && buf_len(&c->in) == 0) {
        conn_close(c);
        return GO_ON;
    }
    (void)shutdown(c->ev.fd, SHUT_WR);
    c->state = CONN_LINGER;
    timer_set(w, &c->timer, TIMER_LINGER);
    return GO_ON;
}

static enum step pump_reply(struct conn *c)
{
    struct worker *w = c->worker;
    struct upstream *u = c->up;
    struct flow *f = &c->reply;
    for (;;) {
        if (buf_len(&c->resp) || f->ready) {
            if (!c->ev.writable)
                return WAIT;
            uint32_t head = buf_len(&c->resp);
            ssize_t n =
                send_two(&c->ev, zl_str_n(c->resp.p + c->resp.start, head), zl_str_n(u->in.p + u->in.start, f->ready));
            if (n < 0) {
                conn_close(c);
                return GO_ON;
            }
            uint32_t of_head = (uint32_t)n < head ? (uint32_t)n : head;
            if (of_head)
                buf_drop(&c->resp, of_head);
            if ((uint32_t)n > of_head) {
                buf_drop(&u->in, (uint32_t)n - of_head);
                f->ready -= (uint32_t)n - of_head;
            }
            continue;
        }
        if (c->reply_begun && f->done)
            return finish(c);
        if (buf_len(&u->in)) {
            if (!c->reply_begun) {
                if (reply_head(c) == GO_ON) {
                    if (c->state != CONN_EXCHANGE || c->ev.kind == EV_DEAD)
                        return GO_ON;
                    continue;
                }
            } else if (flow_advance(f, &u->in) < 0) {
                conn_close(c);
                return GO_ON;
            } else {
                continue;
            }
        }
        if (!u->ev.readable)
            return WAIT;
        bool room = buf_get(&w->bufs, &u->in);
        if (room && buf_room(&u->in) == 0)
            room = buf_grow(&w->bufs, &u->in, u->in.start ? u->in.cap : ZL_HTTP_HEAD_MAX + BUF_SIZE);
        ssize_t n = room ? ev_read(&u->ev, &u->in) : -ENOMEM;
        if (n == -EAGAIN)
            return WAIT;
        if (n <= 0 && reply_ended(c, n) == GO_ON) {
            if (c->state != CONN_EXCHANGE || c->ev.kind == EV_DEAD)
                return GO_ON;
        }
    }
}

/* A client that has stopped writing behind a whole request does not wait for the reply, unless it said that it would.
 */
static bool client_is_gone(const struct conn *c)
{
    return c->ev.err || (c->ev.hup && c->body.done && !c->half_close_ok);
}

static enum step exchange(struct conn *c)
{
    if (client_is_gone(c)) {
        conn_close(c);
        return WAIT;
    }
    enum step s = pump_request(c);
    if (s == WAIT)
        s = pump_reply(c);
    if (s == WAIT)
        timer_set(c->worker, &c->timer, c->reply_begun || !c->body.done ? TIMER_STREAM : TIMER_REPLY);
    return s;
}

static enum step connecting(struct conn *c)
{
    if (client_is_gone(c)) {
        conn_close(c);
        return WAIT;
    }
    int r = conn_connected(c);
    if (r == 0)
        return WAIT;
    if (r > 0) {
        c->state = CONN_EXCHANGE;
        return GO_ON;
    }
    uint32_t slot = c->up->slot;
    upstream_failed(c->up, true);
    upstream_close(ZL_TAKE(c->up));
    c->tried[c->ntried++] = slot;
    connect_or_refuse(c);
    return GO_ON;
}

/* ---- the ends ---- */

static enum step refusing(struct conn *c)
{
    struct worker *w = c->worker;
    while (buf_len(&c->resp)) {
        if (!c->ev.writable)
            return WAIT;
        ssize_t n = send_two(&c->ev, zl_str_n(c->resp.p + c->resp.start, buf_len(&c->resp)), zl_str_n(NULL, 0));
        if (n < 0) {
            conn_close(c);
            return WAIT;
        }
        buf_drop(&c->resp, (uint32_t)n);
    }
    buf_put(&w->bufs, &c->resp);
    buf_put(&w->bufs, &c->req);
    if (c->keep_alive) {
        buf_drop(&c->in, c->body.ready);
        c->body.ready = c->body.sent = 0;
        c->scanned = 0;
        c->state = CONN_HEAD;
        timer_set(w, &c->timer, buf_len(&c->in) ? TIMER_HEAD : TIMER_IDLE);
        return GO_ON;
    }
    (void)shutdown(c->ev.fd, SHUT_WR);
    c->state = CONN_LINGER;
    timer_set(w, &c->timer, TIMER_LINGER);
    return GO_ON;
}

/* A close with unread bytes would reset the connection and might take our last reply with it. */
static void linger(struct conn *c)
{
    struct worker *w = c->worker;
    for (;;) {
        c->in.start = c->in.end = 0;
        ssize_t n = c->ev.readable && buf_get(&w->bufs, &c->in) ? ev_read(&c->ev, &c->in) : -EAGAIN;
        if (n == -EAGAIN) {
            buf_put(&w->bufs, &c->in);
            return;
        }
        if (n <= 0) {
            conn_close(c);
            return;
        }
    }
}

void http_run(struct conn *c)
{
    enum step s = GO_ON;
    while (s == GO_ON && c->ev.kind != EV_DEAD) {
        switch (c->state) {
        case CONN_HEAD:
            s = read_head(c);
            break;
        case CONN_CONNECT:
            s = connecting(c);
            break;
        case CONN_EXCHANGE:
            s = exchange(c);
            break;
        case CONN_REFUSE:
            s = refusing(c);
            break;
        case CONN_LINGER:
            linger(c);
            return;
        case CONN_TUNNEL:
            relay_run(c);
            return;
        }
    }
}

void http_timeout(struct conn *c, enum timer_class class)
{
    switch (class) {
    case TIMER_CONNECT:
    case TIMER_CONNECT_FAST:
        connect_or_refuse(c);
        break;
    case TIMER_REPLY:
        upstream_failed(c->up, false);
        c->keep_alive = false;
        refuse_for_service(c, 504, "gateway_timeout", "no reply in time from");
        break;
    case TIMER_HEAD:
        if (buf_len(&c->in) == 0) {
            conn_close(c);
            return;
        }
        exchange_reset(c);
        c->keep_alive = c->is_head = false;
        refuse(c, 408, "request_timeout", "the request's head did not come in time");
        break;
    case TIMER_IDLE:
    case TIMER_STREAM:
    case TIMER_LINGER:
    case TIMER_BACKEND_IDLE:
    case TIMER_CLASSES:
        conn_close(c);
        return;
    }
    http_run(c);
}
