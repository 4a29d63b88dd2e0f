#include "http/server.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "http/chunked.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_SIZE = 16 * 1024,
    CONNECTIONS_MAX = 1024,
    ACCEPTS_A_TURN = 64,
    ACCEPT_PAUSE_MS = 100, /* when descriptors are short */
};

/*
 * A connection:  HEAD -> BODY -> HANDLED -> HEAD …       (HANDLED: an exchange exists; what comes in is left waiting)
 * and from each to its end, when the client has gone or the reply to a bad request is out. All of it is driven by
 * conn_turn, which runs from the loop only; calls of the handler's side fill buffers and ask for a turn.
 */
enum state { READ_HEAD, READ_BODY, HANDLED };

struct conn {
    struct zl_http_server *server;
    struct conn *next, **link;
    int fd;
    struct zl_watch *watch;
    int events;
    enum state state;
    bool in_turn, scheduled, dead; /* dead: freed when the turn that was asked for comes */
    bool broken;                   /* the client has gone */
    bool close_after;              /* what is in `out` is the last */
    bool peer_waits;               /* bytes of a next request wait in the socket */
    struct zl_buf in, body, out;
    size_t scanned, head_size, sent;
    struct zl_http_head *head; /* while a request is being read or handled */
    struct zl_chunked chunked;
    struct zl_http_exchange *x;
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

struct zl_http_exchange {
    struct conn *c;
    struct zl_http_request request;
    struct zl_buf headers; /* additional ones of the reply */
    bool is_head, streaming, chunked, ended;
    bool told_drained;
    void (*gone)(void *arg);
    void *gone_arg;
    void (*drained)(void *arg);
    void *drained_arg;
};

struct zl_http_server {
    struct zl_http_server_options o;
    struct zl_watch *watch;
    struct zl_timer *pause;
    struct conn *conns;
    unsigned nconns;
    bool quiescing;
};

static void conn_turn(struct conn *c);

/* ---- the life of a connection ---- */

static void exchange_free(struct conn *c)
{
    if (!c->x)
        return;
    zl_buf_done(&c->x->headers);
    free(c->x);
    c->x = NULL;
}

static void conn_unlink(struct conn *c)
{
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->server->nconns--;
}

static void conn_release(struct conn *c)
{
    zl_buf_done(&c->in);
    zl_buf_done(&c->body);
    zl_buf_done(&c->out);
    free(c->head);
    free(c);
}

static void conn_close(struct conn *c)
{
    conn_unlink(c);
    exchange_free(c);
    c->watch = zl_watch_free(c->watch);
    c->fd = zl_close(c->fd);
    c->dead = true;
    if (!c->scheduled)
        conn_release(c);
}

static void turn_came(void *arg)
{
    struct conn *c = arg;
    c->scheduled = false;
    if (c->dead)
        conn_release(c);
    else
        conn_turn(c);
}

static void ask_turn(struct conn *c)
{
    if (c->in_turn || c->scheduled)
        return;
    c->scheduled = true;
    zl_loop_defer(c->server->o.loop, turn_came, c);
}

static void watch_fired(void *arg, int events)
{
    struct conn *c = arg;
    if ((events & ZL_READABLE) && c->state == HANDLED) {
        char byte;
        ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            c->broken = true;
        c->peer_waits = n > 0;
    }
    conn_turn(c);
}

/* ---- replies ---- */

static void put_head(struct conn *c, unsigned status, const char *content_type, const struct zl_buf *headers)
{
    zl_buf_printf(&c->out, "HTTP/1.1 %u %s\r\n", status, zl_http_reason(status));
    if (content_type)
        zl_buf_printf(&c->out, "Content-Type: %s\r\n", content_type);
    if (headers)
        zl_buf_add_str(&c->out, zl_buf_view(headers));
    if (c->close_after)
        zl_buf_puts(&c->out, "Connection: close\r\n");
}

/* An answer of the engine itself, to what never becomes an exchange; the connection ends with it. */
static void refuse(struct conn *c, unsigned status, const char *code, const char *text)
{
    char body[256];
    int n = snprintf(body, sizeof body, "{\"error\":\"%s\",\"code\":\"%s\"}\n", text, code);
    c->close_after = true;
    put_head(c, status, "application/json", NULL);
    zl_buf_printf(&c->out, "Content-Length: %d\r\n\r\n%s", n, body);
}

void zl_http_reply_header(struct zl_http_exchange *x, const char *name, struct zl_str value)
{
    zl_buf_printf(&x->headers, "%s: ", name);
    for (size_t i = 0; i < value.n; i++)
        if (zl_http_is_value(zl_str_n(value.p + i, 1)))
            zl_buf_putc(&x->headers, value.p[i]);
    zl_buf_puts(&x->headers, "\r\n");
}

void zl_http_reply(struct zl_http_exchange *x, unsigned status, const char *content_type, struct zl_str body)
{
    struct conn *c = x->c;
    zl_assert(!x->streaming && !x->ended);
    put_head(c, status, content_type, &x->headers);
    bool bodiless = status < 200 || status == 204 || status == 304;
    if (!bodiless)
        zl_buf_printf(&c->out, "Content-Length: %zu\r\n", body.n);
    zl_buf_puts(&c->out, "\r\n");
    if (!x->is_head && !bodiless)
        zl_buf_add_str(&c->out, body);
    x->ended = true;
    ask_turn(c);
}

void zl_http_reply_begin(struct zl_http_exchange *x, unsigned status, const char *content_type)
{
    struct conn *c = x->c;
    zl_assert(!x->streaming && !x->ended);
    x->streaming = true;
    x->chunked = c->head->minor > 0;
    if (!x->chunked)
        c->close_after = true;
    put_head(c, status, content_type, &x->headers);
    zl_buf_puts(&c->out, x->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    ask_turn(c);
}

size_t zl_http_reply_write(struct zl_http_exchange *x, struct zl_str data)
{
    struct conn *c = x->c;
    zl_assert(x->streaming && !x->ended);
    if (data.n && !x->is_head && !c->broken) {
        char head[ZL_CHUNKED_HEAD_SIZE];
        if (x->chunked)
            zl_buf_add(&c->out, head, zl_chunked_head(head, data.n));
        zl_buf_add_str(&c->out, data);
        if (x->chunked)
            zl_buf_puts(&c->out, "\r\n");
        x->told_drained = false;
        ask_turn(c);
    }
    return zl_http_reply_pending(x);
}

void zl_http_reply_end(struct zl_http_exchange *x)
{
    zl_assert(x->streaming && !x->ended);
    if (x->chunked && !x->is_head)
        zl_buf_puts(&x->c->out, "0\r\n\r\n");
    x->ended = true;
    ask_turn(x->c);
}

size_t zl_http_reply_pending(const struct zl_http_exchange *x)
{
    return x->c->out.n - x->c->sent;
}

void zl_http_on_gone(struct zl_http_exchange *x, void (*gone)(void *arg), void *arg)
{
    x->gone = gone;
    x->gone_arg = arg;
}

void zl_http_on_drained(struct zl_http_exchange *x, void (*drained)(void *arg), void *arg)
{
    x->drained = drained;
    x->drained_arg = arg;
    x->told_drained = true; /* called only after something was written and then taken */
}

/* ---- requests ---- */

const struct zl_http_request *zl_http_request(const struct zl_http_exchange *x)
{
    return &x->request;
}

struct zl_str zl_http_request_header(const struct zl_http_exchange *x, const char *name)
{
    const struct zl_http_header *h = zl_http_find(x->c->head, name);
    return h ? h->value : zl_str_n(NULL, 0);
}

static int hex(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch = (char)(ch | 0x20);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

int zl_http_percent_decode(struct zl_str in, bool is_query, struct zl_buf *ret)
{
    for (size_t i = 0; i < in.n; i++) {
        char ch = in.p[i];
        if (ch == '%') {
            if (in.n - i < 3 || hex(in.p[i + 1]) < 0 || hex(in.p[i + 2]) < 0)
                return -EINVAL;
            ch = (char)(hex(in.p[i + 1]) << 4 | hex(in.p[i + 2]));
            i += 2;
        } else if (ch == '+' && is_query) {
            ch = ' ';
        }
        if (!ch)
            return -EINVAL;
        zl_buf_putc(ret, ch);
    }
    return 0;
}

int zl_http_query(const struct zl_http_request *r, const char *name, struct zl_buf *ret)
{
    struct zl_str rest = r->query;
    zl_buf_clear(ret);
    while (rest.p) {
        struct zl_str value, key = zl_str_cut(zl_str_cut(rest, '&', &rest), '=', &value);
        if (zl_str_is(key, name)) {
            int e = zl_http_percent_decode(value.p ? value : ZL_STR(""), true, ret);
            return e < 0 ? e : 1;
        }
    }
    return 0;
}

/* Where path and query are: behind the authority of an absolute target. */
static void split_target(struct zl_str target, struct zl_http_request *r)
{
    if (target.n && target.p[0] != '/' && target.p[0] != '*') {
        const char *colon = memchr(target.p, ':', target.n);
        size_t skip = colon ? (size_t)(colon - target.p) + 3 : 0;
        const char *slash = skip < target.n ? memchr(target.p + skip, '/', target.n - skip) : NULL;
        target = slash ? zl_str_n(slash, (size_t)(target.p + target.n - slash)) : ZL_STR("/");
    }
    r->path = zl_str_cut(target, '?', &r->query);
    if (!r->query.p)
        r->query = ZL_STR("");
    if (r->path.n == 0 || r->path.p[0] != '/')
        r->path = ZL_STR("/");
}

static void handle(struct conn *c)
{
    struct zl_http_exchange *x = zl_xcalloc(1, sizeof *x);
    const struct zl_http_head *h = c->head;
    bool chunked = h->body == ZL_HTTP_BODY_CHUNKED;
    x->c = c;
    x->is_head = zl_str_is(h->method, "HEAD");
    x->request = (struct zl_http_request){
        .method = h->method,
        .body = chunked ? zl_buf_view(&c->body) : zl_str_n(c->in.p + c->head_size, h->content_length),
        .headers = h->headers,
        .nheaders = h->nheaders,
        .pid = c->pid,
        .uid = c->uid,
        .gid = c->gid,
    };
    split_target(h->target, &x->request);
    c->x = x;
    c->state = HANDLED;
    if (!h->keep_alive || c->server->quiescing)
        c->close_after = true;
    c->server->o.handler(c->server->o.arg, x);
}

/* True when a head is complete and fine. */
static bool read_head(struct conn *c)
{
    if (c->in.n == 0)
        return false;
    if (!c->head)
        c->head = zl_xcalloc(1, sizeof *c->head);
    ssize_t n = zl_http_parse_request(zl_buf_view(&c->in), &c->scanned, c->head);
    if (n == 0)
        return false;
    if (n < 0) {
        refuse(c, zl_http_error_status((int)n), "invalid_argument", "the request is no valid HTTP/1.1");
        return false;
    }
    if (c->head->content_length > c->server->o.body_max) {
        refuse(c, 413, "limit_exceeded", "the request's body is too large");
        return false;
    }
    c->head_size = (size_t)n;
    c->state = READ_BODY;
    zl_buf_clear(&c->body);
    zl_chunked_init(&c->chunked);
    if (c->head->expect_continue && c->head->body != ZL_HTTP_BODY_NONE)
        zl_buf_puts(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    return true;
}

/*
 * True when the body is complete. The head's views point into `in`, which therefore must not move while it is read: a
 * body that does not fit is made room for once, and the head parsed again at its new place.
 */
static bool read_body(struct conn *c)
{
    struct zl_http_head *h = c->head;
    if (h->body != ZL_HTTP_BODY_CHUNKED)
        return c->in.n - c->head_size >= h->content_length;
    struct zl_str rest = zl_str_n(c->in.p + c->head_size, c->in.n - c->head_size), data;
    int r;
    while ((r = zl_chunked_next(&c->chunked, &rest, &data)) == ZL_CHUNKED_DATA && c->body.n <= c->server->o.body_max)
        zl_buf_add_str(&c->body, data);
    size_t left = rest.n;
    memmove(c->in.p + c->head_size, rest.p, left);
    c->in.n = c->head_size + left;
    if (r < 0 || c->body.n > c->server->o.body_max) {
        if (r < 0)
            refuse(c, 400, "invalid_argument", "the request's body is no valid chunked body");
        else
            refuse(c, 413, "limit_exceeded", "the request's body is too large");
        return false;
    }
    return r == ZL_CHUNKED_END;
}

/* Reads once. False when there is nothing, or the client has gone. */
static bool read_more(struct conn *c)
{
    const char *before = c->in.p;
    size_t want = READ_SIZE;
    if (c->state == READ_BODY && c->head->body == ZL_HTTP_BODY_LENGTH)
        want = ZL_MAX(want, (size_t)c->head->content_length + c->head_size - c->in.n);
    zl_buf_reserve(&c->in, want);
    ssize_t n = recv(c->fd, c->in.p + c->in.n, want, MSG_DONTWAIT);
    if (c->state == READ_BODY && c->in.p != before) {
        size_t scanned = 0;
        ssize_t again = zl_http_parse_request(zl_str_n(c->in.p, c->head_size), &scanned, c->head);
        zl_assert(again == (ssize_t)c->head_size);
    }
    if (n > 0) {
        c->in.n += (size_t)n;
        c->in.p[c->in.n] = 0;
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->broken = true;
    return false;
}

static void flush(struct conn *c)
{
    while (c->sent < c->out.n && !c->broken) {
        ssize_t n = send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            c->sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            c->broken = true;
    }
    if (c->sent == c->out.n && c->out.n) {
        c->sent = 0;
        if (c->out.cap > 4 * READ_SIZE)
            zl_buf_done(&c->out);
        else
            zl_buf_clear(&c->out);
    } else if (c->sent > 1024 * 1024) {
        zl_buf_drop(&c->out, c->sent);
        c->sent = 0;
    }
}

/* The exchange is over: the next request, whose first bytes may be here already, starts at in's start. */
static void finish(struct conn *c)
{
    size_t used = c->head_size + (c->head->body == ZL_HTTP_BODY_CHUNKED ? 0 : (size_t)c->head->content_length);
    exchange_free(c);
    zl_buf_drop(&c->in, used);
    zl_buf_done(&c->body);
    if (c->in.n == 0) {
        zl_buf_done(&c->in);
        free(c->head);
        c->head = NULL;
    }
    c->scanned = c->head_size = 0;
    c->peer_waits = false;
    c->state = READ_HEAD;
}

static void set_events(struct conn *c)
{
    int events = c->sent < c->out.n ? ZL_WRITABLE : 0;
    if (!c->close_after || c->state == HANDLED)
        events |= c->state == HANDLED && c->peer_waits ? 0 : ZL_READABLE;
    if (events != c->events)
        zl_watch_set(c->watch, c->events = events);
}

/* Goes on as far as it can. The connection may be gone afterwards. */
static void conn_turn(struct conn *c)
{
    c->in_turn = true;
    for (;;) {
        flush(c);
        if (c->broken)
            break;
        if (c->state == HANDLED) {
            if (c->x->ended) {
                bool last = c->close_after;
                finish(c);
                if (last)
                    c->close_after = true;
                continue;
            }
            if (!c->x->drained || c->x->told_drained || c->out.n)
                break;
            c->x->told_drained = true;
            c->x->drained(c->x->drained_arg);
            continue;
        }
        if (c->close_after)
            break;
        if (c->state == READ_HEAD && read_head(c))
            continue;
        if (c->state == READ_BODY && read_body(c)) {
            handle(c);
            continue;
        }
        if (c->close_after)
            continue;
        if (!read_more(c))
            break;
    }
    c->in_turn = false;
    if (c->broken && c->x && !c->x->ended && c->x->gone)
        c->x->gone(c->x->gone_arg);
    if (c->broken || (c->close_after && c->state != HANDLED && c->out.n == 0))
        conn_close(c);
    else
        set_events(c);
}

/* ---- accepting ---- */

static void conn_new(struct zl_http_server *s, int fd)
{
    struct conn *c = zl_xcalloc(1, sizeof *c);
    c->server = s;
    c->fd = fd;
    c->uid = (uid_t)-1;
    c->gid = (gid_t)-1;
    struct ucred cred;
    socklen_t n = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 && n == sizeof cred) {
        c->pid = cred.pid;
        c->uid = cred.uid;
        c->gid = cred.gid;
    }
    if (zl_watch_new(s->o.loop, fd, c->events = ZL_READABLE, watch_fired, c, &c->watch) < 0) {
        (void)zl_close(fd);
        free(c);
        return;
    }
    c->next = s->conns;
    c->link = &s->conns;
    if (c->next)
        c->next->link = &c->next;
    s->conns = c;
    s->nconns++;
}

unsigned zl_http_server_accept_now(struct zl_http_server *s)
{
    unsigned n = 0;
    while (!s->quiescing && n < ACCEPTS_A_TURN) {
        int fd = accept4(s->o.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            zl_log_warn("the API can't accept, trying again in %d ms error=\"%s\"", ACCEPT_PAUSE_MS,
                        zl_error_text(-errno));
            zl_watch_set(s->watch, 0);
            zl_timer_set(s->pause, ACCEPT_PAUSE_MS);
            break;
        }
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            break;
        if (s->nconns >= CONNECTIONS_MAX)
            (void)zl_close(fd);
        else
            conn_new(s, fd);
        n++;
    }
    return n;
}

static void accept_fired(void *arg, int events)
{
    (void)events;
    (void)zl_http_server_accept_now(arg);
}

static void pause_over(void *arg)
{
    struct zl_http_server *s = arg;
    if (!s->quiescing)
        zl_watch_set(s->watch, ZL_READABLE);
}

int zl_http_server_new(const struct zl_http_server_options *o, struct zl_http_server **ret, struct zl_err *err)
{
    int r = zl_set_nonblock(o->listen_fd, true);
    if (r < 0)
        return zl_fail(err, r, "the API's socket");
    struct zl_http_server *s = zl_xcalloc(1, sizeof *s);
    s->o = *o;
    if (!s->o.body_max)
        s->o.body_max = ZL_HTTP_SERVER_BODY_MAX;
    r = zl_watch_new(o->loop, o->listen_fd, ZL_READABLE, accept_fired, s, &s->watch);
    if (r < 0) {
        free(s);
        return zl_fail(err, r, "watch the API's socket");
    }
    s->pause = zl_timer_new(o->loop, pause_over, s);
    *ret = s;
    return 0;
}

struct zl_http_server *zl_http_server_free(struct zl_http_server *s)
{
    if (!s)
        return NULL;
    while (s->conns) {
        struct conn *c = s->conns;
        if (c->x && !c->x->ended && c->x->gone)
            c->x->gone(c->x->gone_arg);
        conn_close(c);
    }
    zl_watch_free(s->watch);
    zl_timer_free(s->pause);
    free(s);
    return NULL;
}

unsigned zl_http_server_connections(const struct zl_http_server *s)
{
    return s->nconns;
}

void zl_http_server_quiesce(struct zl_http_server *s)
{
    s->quiescing = true;
    zl_watch_set(s->watch, 0);
    for (struct conn *c = s->conns; c; c = c->next) {
        c->close_after = c->close_after || c->state == HANDLED;
        /* Idle ones have no reply to wait for. */
        if (c->state == READ_HEAD && c->in.n == 0 && c->out.n == 0)
            c->close_after = true;
        ask_turn(c);
    }
}
