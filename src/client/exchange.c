#include "client/exchange.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024 };

int zl_socket_connect(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    const char *slash = strrchr(path, '/');
    zl_auto_close int dir = -EBADF;
    if (strlen(path) < sizeof a.sun_path) {
        memcpy(a.sun_path, path, strlen(path) + 1);
    } else { /* a longer path is reached through a descriptor of its folder */
        zl_auto_buf folder = ZL_BUF_INIT;
        zl_buf_add(&folder, path, slash ? (size_t)(slash - path) : 0);
        dir = zl_openat(AT_FDCWD, folder.n ? folder.p : "/", O_PATH | O_DIRECTORY, 0);
        if (dir < 0)
            return dir;
        int n = snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", dir, slash ? slash + 1 : path);
        if (n < 0 || n >= (int)sizeof a.sun_path)
            return -ENAMETOOLONG;
    }
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r;
    do
        r = connect(fd, (struct sockaddr *)&a, sizeof a);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : ZL_TAKE_FD(fd);
}

static int closed(struct zl_err *err)
{
    return zl_fail(err, ZL_E_CLOSED, "the agent closed the connection");
}

/* More bytes into x->raw: their number, 0 at the end, -EAGAIN, -EINTR, -errno. */
static ssize_t fill(struct zl_exchange *x, int timeout_ms)
{
    struct pollfd p = { .fd = x->fd, .events = POLLIN };
    int r = poll(&p, 1, timeout_ms);
    if (r <= 0)
        return r < 0 ? -errno : -EAGAIN;
    zl_buf_reserve(&x->raw, READ_SIZE);
    ssize_t n = recv(x->fd, x->raw.p + x->raw.n, READ_SIZE, MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    x->raw.n += (size_t)n;
    x->raw.p[x->raw.n] = 0;
    x->began |= n > 0;
    return n;
}

/* A head that is all there: 1, dropped from x->raw; 0 when more must come. */
static int take_head(struct zl_exchange *x, size_t *scanned, struct zl_err *err)
{
    struct zl_http_head head;
    ssize_t n = x->raw.n ? zl_http_parse_response(zl_buf_view(&x->raw), scanned, false, &head) : 0;
    if (n < 0)
        return zl_hint(err, zl_fail(err, ZL_E_PROTOCOL, "what answers on the socket is no zlayer agent"),
                       "is another program listening there?");
    if (n == 0)
        return 0;
    zl_buf_drop(&x->raw, (size_t)n);
    *scanned = 0;
    if (head.status / 100 == 1)
        return take_head(x, scanned, err);
    x->status = (int)head.status;
    x->framing = head.body;
    x->left = head.content_length;
    x->ended = head.body == ZL_HTTP_BODY_NONE || (head.body == ZL_HTTP_BODY_LENGTH && !x->left);
    zl_chunked_init(&x->chunked);
    return 1;
}

/* -EAGAIN: the time is up; a signal does not end the wait for a head, the caller's command has barely begun. */
int zl_exchange_head(struct zl_exchange *x, int timeout_ms, struct zl_err *err)
{
    uint64_t deadline = zl_clock_mono_ms() + (uint64_t)ZL_MAX(timeout_ms, 0);
    size_t scanned = 0;
    for (;;) {
        int e = take_head(x, &scanned, err);
        if (e != 0)
            return e < 0 ? e : 0;
        uint64_t now = zl_clock_mono_ms();
        int left = timeout_ms < 0 ? -1 : now >= deadline ? 0 : (int)(deadline - now);
        ssize_t n = fill(x, left);
        if (n == -EINTR || (n == -EAGAIN && (timeout_ms < 0 || zl_clock_mono_ms() < deadline)))
            continue;
        if (n == -EAGAIN)
            return zl_hint(err, zl_fail(err, ZL_E_TIMEOUT, "the agent does not answer"),
                           "see agent.log in the data dir");
        if (n <= 0)
            return closed(err);
    }
}

int zl_exchange_start(struct zl_exchange *x, const char *socket, const char *method, const char *path,
                      struct zl_str body, int timeout_ms, struct zl_err *err)
{
    x->fd = zl_socket_connect(socket);
    if (x->fd < 0)
        return zl_fail(err, x->fd, "connect to %s", socket);
    zl_auto_buf request = ZL_BUF_INIT;
    zl_buf_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", method, path);
    if (body.n)
        zl_buf_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body.n);
    else if (!zl_streq(method, "GET"))
        zl_buf_puts(&request, "Content-Length: 0\r\n");
    zl_buf_puts(&request, "\r\n");
    zl_buf_add_str(&request, body);
    int e = zl_write_full(x->fd, request.p, request.n);
    if (e < 0 && e != -EPIPE && e != -ECONNRESET)
        return zl_fail(err, e, "send to the agent");
    /* An agent that refuses a body answers before it has read all of it, so the reply is looked for in any case. */
    return zl_exchange_head(x, timeout_ms, err);
}

/* Decodes what x->raw holds of the body. */
static int decode(struct zl_exchange *x, struct zl_err *err)
{
    struct zl_str in = zl_buf_view(&x->raw), data;
    int r = 0;
    if (x->framing == ZL_HTTP_BODY_CHUNKED) {
        while ((r = zl_chunked_next(&x->chunked, &in, &data)) == ZL_CHUNKED_DATA)
            zl_buf_add_str(&x->body, data);
        x->ended = r == ZL_CHUNKED_END;
    } else {
        size_t n = x->framing == ZL_HTTP_BODY_LENGTH ? (size_t)ZL_MIN(x->left, (uint64_t)in.n) : in.n;
        zl_buf_add(&x->body, in.p, n);
        in.n -= n;
        x->left -= x->framing == ZL_HTTP_BODY_LENGTH ? n : 0;
        x->ended |= x->framing == ZL_HTTP_BODY_LENGTH && !x->left;
    }
    zl_buf_drop(&x->raw, x->raw.n - in.n);
    return r < 0 ? zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed chunk") : 0;
}

int zl_exchange_read(struct zl_exchange *x, int timeout_ms, struct zl_err *err)
{
    size_t before = x->body.n;
    if (x->raw.n && !x->ended) {
        int e = decode(x, err);
        if (e < 0)
            return e;
        if (x->body.n > before)
            return 1;
    }
    while (!x->ended) {
        ssize_t n = fill(x, timeout_ms);
        if (n == -EAGAIN || n == -EINTR)
            return (int)n;
        if (n < 0)
            return closed(err);
        if (n == 0 && x->framing != ZL_HTTP_BODY_CLOSE)
            return closed(err);
        if (n == 0)
            x->ended = true;
        int e = decode(x, err);
        if (e < 0)
            return e;
        if (x->body.n > before)
            return 1;
    }
    return 0;
}

void zl_exchange_done(struct zl_exchange *x)
{
    x->fd = zl_close(x->fd);
    zl_buf_done(&x->raw);
    zl_buf_done(&x->body);
}
