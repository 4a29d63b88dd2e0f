#include "client.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "http/chunked.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024, CALL_BODY_MAX = 64 * 1024 * 1024, LINE_MAX_BYTES = 16 * 1024 * 1024 };

struct zl_http_client {
    int fd;
    int timeout_ms;
    bool interruptible;
    bool used;   /* a request was sent */
    bool failed; /* nothing more can be sent or read here */
    bool ended;  /* the body is over */
    struct zl_buf head_bytes;
    struct zl_http_head head;
    uint64_t left; /* of a body with a length */
    struct zl_chunked chunked;
    struct zl_buf line;  /* the part of a line that came with earlier pieces */
    struct zl_str piece; /* what zl_http_client_line has not used yet */
    size_t in_start, in_end;
    char in[READ_SIZE];
};

/* ---- connecting ---- */

static int fill_address(const char *path, struct sockaddr_un *sa, int *ret_dir)
{
    memset(sa, 0, sizeof *sa);
    sa->sun_family = AF_UNIX;
    *ret_dir = -EBADF;
    size_t n = strlen(path);
    if (n < sizeof sa->sun_path) {
        memcpy(sa->sun_path, path, n + 1);
        return 0;
    }
    /* Too long for an address: through its folder's descriptor. */
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(slash) > 64)
        return -ENAMETOOLONG;
    zl_auto_free char *dir = zl_xstrndup(path, (size_t)(slash - path));
    int fd = open(*dir ? dir : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    snprintf(sa->sun_path, sizeof sa->sun_path, "/proc/self/fd/%d/%s", fd, slash + 1);
    *ret_dir = fd;
    return 0;
}

static int connect_error(struct zl_err *err, int r, const char *path)
{
    if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR) {
        zl_fail_errno(err, ZL_E_NO_AGENT, r, "no agent listens on %s", path);
        return zl_hint(err, ZL_E_NO_AGENT, "`zlayer up` starts one, `zlayer serve` runs one in the foreground");
    }
    if (r == -EACCES || r == -EPERM) {
        zl_fail_errno(err, ZL_E_PERMISSION, r, "connect to %s", path);
        return zl_hint(err, ZL_E_PERMISSION, "run as root, or as a member of the group that owns the socket");
    }
    return zl_fail_errno(err, ZL_E_NO_AGENT, r, "connect to %s", path);
}

int zl_http_client_open(const struct zl_http_client_options *o, struct zl_http_client **ret, struct zl_err *err)
{
    struct sockaddr_un sa;
    zl_auto_close int dir = -EBADF;
    int r = fill_address(o->socket_path, &sa, &dir);
    if (r < 0)
        return connect_error(err, r, o->socket_path);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return zl_fail(err, -errno, "make a socket");
    while (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        if (errno != EINTR)
            return connect_error(err, -errno, o->socket_path);
    r = zl_set_nonblock(fd, true);
    if (r < 0)
        return zl_fail(err, r, "connect to %s", o->socket_path);
    struct zl_http_client *c = zl_xcalloc(1, sizeof *c);
    c->fd = ZL_TAKE_FD(fd);
    c->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : -1;
    c->interruptible = o->interruptible;
    *ret = c;
    return 0;
}

struct zl_http_client *zl_http_client_free(struct zl_http_client *c)
{
    if (!c)
        return NULL;
    (void)zl_close(c->fd);
    zl_buf_done(&c->head_bytes);
    zl_buf_done(&c->line);
    free(c);
    return NULL;
}

/* ---- bytes ---- */

static int wait_for(struct zl_http_client *c, short events, struct zl_err *err)
{
    for (;;) {
        struct pollfd p = { .fd = c->fd, .events = events };
        int n = poll(&p, 1, c->timeout_ms);
        if (n > 0)
            return 0;
        if (n == 0) {
            c->failed = true;
            return zl_fail(err, ZL_E_TIMEOUT, "the agent did not answer within %d ms", c->timeout_ms);
        }
        if (errno != EINTR || c->interruptible)
            return errno == EINTR ? -EINTR : zl_fail(err, -errno, "wait for the agent");
    }
}

static int closed(struct zl_http_client *c, int cause, bool before_reply, struct zl_err *err)
{
    c->failed = true;
    if (before_reply)
        return zl_fail_errno(err, ZL_E_NO_AGENT, cause, "the agent closed the connection before it replied");
    return zl_fail_errno(err, ZL_E_CLOSED, cause, "the agent closed the connection in the middle of its reply");
}

/* Some bytes more: their number, 0 at the end of the connection. */
static ssize_t more(struct zl_http_client *c, bool before_reply, struct zl_err *err)
{
    if (c->in_start == c->in_end)
        c->in_start = c->in_end = 0;
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->in_end, sizeof c->in - c->in_end, 0);
        if (n >= 0) {
            c->in_end += (size_t)n;
            return n;
        }
        if (errno == EAGAIN) {
            int r = wait_for(c, POLLIN, err);
            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return closed(c, -errno, before_reply, err);
        }
    }
}

/* -EPIPE when the other end has stopped reading: its reply, if there is one, says why. */
static int send_all(struct zl_http_client *c, struct zl_str data, struct zl_err *err)
{
    while (data.n) {
        ssize_t n = send(c->fd, data.p, data.n, MSG_NOSIGNAL);
        if (n >= 0) {
            data = zl_str_n(data.p + n, data.n - (size_t)n);
        } else if (errno == EAGAIN) {
            int r = wait_for(c, POLLOUT, err);
            if (r == -EINTR)
                continue; /* a request that is half sent would be of no use */
            if (r < 0)
                return r;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return -EPIPE;
        } else if (errno != EINTR) {
            return closed(c, -errno, true, err);
        }
    }
    return 0;
}

/* ---- a request ---- */

static void write_request(const struct zl_http_call *call, struct zl_buf *b)
{
    zl_buf_printf(b, "%s %s HTTP/1.1\r\nHost: zlayer\r\n", call->method, call->target);
    for (unsigned i = 0; i < call->nheaders; i++) {
        const struct zl_http_header *h = &call->headers[i];
        if (zl_http_is_token(h->name) && zl_http_is_value(h->value))
            zl_buf_printf(b, "%.*s: %.*s\r\n", ZL_STR_FMT(h->name), ZL_STR_FMT(h->value));
    }
    if (call->body.n)
        zl_buf_printf(b, "Content-Type: %s\r\n", call->content_type ? call->content_type : "application/json");
    if (call->body.n || !zl_streq(call->method, "GET"))
        zl_buf_printf(b, "Content-Length: %zu\r\n", call->body.n);
    zl_buf_puts(b, "\r\n");
    zl_buf_add_str(b, call->body);
}

static int read_head(struct zl_http_client *c, bool is_head, struct zl_err *err)
{
    size_t scanned = 0;
    zl_buf_clear(&c->head_bytes);
    for (;;) {
        if (c->in_start == c->in_end) {
            ssize_t n = more(c, c->head_bytes.n == 0, err);
            c->failed = c->failed || n < 0; /* a signal too: half a head can't be gone on from */
            if (n < 0)
                return (int)n;
            if (n == 0)
                return closed(c, -ECONNRESET, c->head_bytes.n == 0, err);
        }
        size_t had = c->head_bytes.n;
        zl_buf_add(&c->head_bytes, c->in + c->in_start, c->in_end - c->in_start);
        ssize_t n = zl_http_parse_response(zl_buf_view(&c->head_bytes), &scanned, is_head, &c->head);
        if (n < 0) {
            c->failed = true;
            return zl_fail_errno(err, ZL_E_PROTOCOL, (int)n, "the reply is no HTTP");
        }
        if (n == 0) {
            c->in_start = c->in_end;
            continue;
        }
        c->in_start += (size_t)n - had;
        if (c->head.status >= 200)
            return 0;
        zl_buf_clear(&c->head_bytes); /* 100 Continue and the like */
        scanned = 0;
    }
}

int zl_http_client_send(struct zl_http_client *c, const struct zl_http_call *call, struct zl_err *err)
{
    if (c->failed || (c->used && !(c->ended && c->head.keep_alive)))
        return zl_fail(err, ZL_E_CLOSED, "the connection is at its end");
    c->used = true;
    c->ended = false;
    zl_buf_clear(&c->line);
    c->piece = zl_str_n(NULL, 0);
    zl_auto_buf b = ZL_BUF_INIT;
    write_request(call, &b);
    int r = send_all(c, zl_buf_view(&b), err);
    if (r < 0 && r != -EPIPE)
        return r;
    r = read_head(c, zl_streq(call->method, "HEAD"), err);
    if (r < 0)
        return r;
    c->left = c->head.content_length;
    zl_chunked_init(&c->chunked);
    c->ended = c->head.body == ZL_HTTP_BODY_NONE || (c->head.body == ZL_HTTP_BODY_LENGTH && c->left == 0);
    return (int)c->head.status;
}

/* ---- a reply's body ---- */

/* A piece of what is here already: 1, 0 when there is none yet (or the end has come), or an error. */
static int take(struct zl_http_client *c, struct zl_str *ret, struct zl_err *err)
{
    struct zl_str in = zl_str_n(c->in + c->in_start, c->in_end - c->in_start);
    if (c->ended || in.n == 0)
        return 0;
    if (c->head.body != ZL_HTTP_BODY_CHUNKED) {
        if (c->head.body == ZL_HTTP_BODY_LENGTH) {
            in.n = in.n < c->left ? in.n : (size_t)c->left;
            c->left -= in.n;
            c->ended = c->left == 0;
        }
        c->in_start += in.n;
        *ret = in;
        return 1;
    }
    int r = zl_chunked_next(&c->chunked, &in, ret);
    c->in_start = c->in_end - in.n;
    if (r < 0) {
        c->failed = true;
        return zl_fail_errno(err, ZL_E_PROTOCOL, r, "the reply's body is no chunked body");
    }
    c->ended = r == ZL_CHUNKED_END;
    return r == ZL_CHUNKED_DATA;
}

ssize_t zl_http_client_read(struct zl_http_client *c, struct zl_str *ret, struct zl_err *err)
{
    for (;;) {
        int r = take(c, ret, err);
        if (r < 0)
            return r;
        if (r > 0)
            return (ssize_t)ret->n;
        if (c->ended)
            return 0;
        if (c->failed)
            return zl_fail(err, ZL_E_CLOSED, "the connection is at its end");
        ssize_t n = more(c, false, err);
        if (n < 0)
            return n;
        if (n == 0) {
            if (c->head.body != ZL_HTTP_BODY_CLOSE)
                return closed(c, -ECONNRESET, false, err);
            c->ended = c->failed = true;
        }
    }
}

int zl_http_client_line(struct zl_http_client *c, struct zl_str *ret, struct zl_err *err)
{
    /* A line given out last time stands at the buffer's start; its newline was cut off then. */
    if (c->line.n && c->line.p[c->line.n - 1] == '\n')
        zl_buf_clear(&c->line);
    for (;;) {
        if (c->piece.n == 0) {
            ssize_t n = zl_http_client_read(c, &c->piece, err);
            if (n < 0)
                return (int)n;
            if (n == 0 && c->line.n == 0)
                return 0;
            if (n == 0) {
                *ret = zl_buf_view(&c->line);
                zl_buf_putc(&c->line, '\n');
                return 1;
            }
        }
        const char *lf = memchr(c->piece.p, '\n', c->piece.n);
        size_t n = lf ? (size_t)(lf - c->piece.p) : c->piece.n;
        if (lf && c->line.n == 0) {
            *ret = zl_str_n(c->piece.p, n);
            c->piece = zl_str_n(lf + 1, c->piece.n - n - 1);
            return 1;
        }
        if (c->line.n + n > LINE_MAX_BYTES)
            return zl_fail(err, ZL_E_LIMIT, "a line of the reply is longer than %d bytes", LINE_MAX_BYTES);
        zl_buf_add(&c->line, c->piece.p, n);
        c->piece = lf ? zl_str_n(lf + 1, c->piece.n - n - 1) : zl_str_n(NULL, 0);
        if (lf) {
            size_t whole = c->line.n;
            zl_buf_putc(&c->line, '\n');
            *ret = zl_str_n(c->line.p, whole);
            return 1;
        }
    }
}

int zl_http_client_body(struct zl_http_client *c, size_t limit, struct zl_buf *ret, struct zl_err *err)
{
    struct zl_str piece;
    ssize_t n;
    size_t start = ret->n;
    while ((n = zl_http_client_read(c, &piece, err)) != 0) {
        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        if (piece.n > limit - (ret->n - start))
            return zl_fail(err, ZL_E_LIMIT, "the reply is larger than %zu bytes", limit);
        zl_buf_add_str(ret, piece);
    }
    return 0;
}

int zl_http_client_fd(const struct zl_http_client *c)
{
    return c->fd;
}

bool zl_http_client_buffered(const struct zl_http_client *c)
{
    return c->ended || c->failed || c->in_start != c->in_end || c->piece.n;
}

struct zl_str zl_http_client_header(const struct zl_http_client *c, const char *name)
{
    const struct zl_http_header *h = zl_http_find(&c->head, name);
    return h ? h->value : zl_str_n(NULL, 0);
}

int zl_http_call(const struct zl_http_client_options *options, const struct zl_http_call *call, struct zl_buf *ret_body,
                 struct zl_err *err)
{
    ZL_AUTO(zl_http_client) c = NULL;
    zl_buf_clear(ret_body);
    int r = zl_http_client_open(options, &c, err);
    if (r < 0)
        return r;
    int status = zl_http_client_send(c, call, err);
    if (status < 0)
        return status;
    r = zl_http_client_body(c, CALL_BODY_MAX, ret_body, err);
    return r < 0 ? r : status;
}

void zl_http_percent_encode(struct zl_buf *b, struct zl_str in)
{
    static const char plain[] = "-._~";
    for (size_t i = 0; i < in.n; i++) {
        unsigned char ch = (unsigned char)in.p[i];
        if ((ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
            (ch && strchr(plain, ch)))
            zl_buf_putc(b, (char)ch);
        else
            zl_buf_printf(b, "%%%02X", ch);
    }
}
