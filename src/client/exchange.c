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

enum { HEAD_MAX = 32 * 1024, READ_SIZE = 64 * 1024 };
enum framing { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

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

static int header(struct zl_exchange *x, struct zl_str line, struct zl_err *err)
{
    struct zl_str value, name = zl_str_cut(line, ':', &value);
    if (!value.p || !name.n)
        return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed header");
    value = zl_str_trim(value);
    if (zl_str_eq_nocase(name, ZL_STR("transfer-encoding"))) {
        if (!zl_str_eq_nocase(value, ZL_STR("chunked")))
            return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has an unknown transfer encoding");
        x->chunked = true;
    } else if (zl_str_eq_nocase(name, ZL_STR("content-length"))) {
        if (zl_parse_u64(value, 0, UINT64_C(1) << 40, &x->left) < 0)
            return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed length");
        x->counted = true;
    }
    return 0;
}

static int parse_head(struct zl_exchange *x, struct zl_str head, struct zl_err *err)
{
    struct zl_str rest, line = zl_str_cut(head, '\n', &rest);
    uint64_t status;
    if (!zl_str_starts(line, ZL_STR("HTTP/1.1 ")) || line.n < 12 ||
        zl_parse_u64(zl_str_n(line.p + 9, 3), 100, 599, &status) < 0)
        return zl_hint(err, zl_fail(err, ZL_E_PROTOCOL, "what answers on the socket is no zlayer agent"),
                       "is another program listening there?");
    x->status = (int)status;
    while (rest.p && rest.n) {
        line = zl_str_cut(rest, '\n', &rest);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        int e = line.n ? header(x, line, err) : 0;
        if (e < 0)
            return e;
    }
    if (x->chunked)
        x->counted = false;
    x->ended = x->status == 204 || x->status == 304 || (x->counted && !x->left);
    return 0;
}

/* -EAGAIN: the time is up; a signal does not end the wait for a head, the caller's command has barely begun. */
static int read_head(struct zl_exchange *x, int timeout_ms, struct zl_err *err)
{
    uint64_t deadline = zl_clock_mono_ms() + (uint64_t)timeout_ms;
    for (;;) {
        const char *end = x->raw.n ? memmem(x->raw.p, x->raw.n, "\r\n\r\n", 4) : NULL;
        if (end) {
            size_t n = (size_t)(end - x->raw.p);
            int e = parse_head(x, zl_str_n(x->raw.p, n), err);
            zl_buf_drop(&x->raw, n + 4);
            if (e >= 0 && x->status / 100 == 1)
                continue;
            return e;
        }
        if (x->raw.n > HEAD_MAX)
            return zl_fail(err, ZL_E_PROTOCOL, "the head of the agent's reply is too long");
        uint64_t now = zl_clock_mono_ms();
        int left = timeout_ms < 0 ? -1 : now >= deadline ? 0 : (int)(deadline - now);
        ssize_t n = fill(x, left);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN && (timeout_ms < 0 || zl_clock_mono_ms() < deadline))
            continue;
        if (n == -EAGAIN)
            return zl_hint(err, zl_fail(err, ZL_E_TIMEOUT, "the agent does not answer"),
                           "see agent.log in the data dir");
        if (n <= 0)
            return closed(err);
    }
}

int zl_exchange_start(struct zl_exchange *x, const char *socket, const char *method, const char *path,
                      struct zl_str body, const char *request_id, int timeout_ms, struct zl_err *err)
{
    x->fd = zl_socket_connect(socket);
    if (x->fd < 0)
        return zl_fail(err, x->fd, "connect to %s", socket);
    zl_auto_buf request = ZL_BUF_INIT;
    zl_buf_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: %s\r\n", method,
                  path, request_id);
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
    return read_head(x, timeout_ms, err);
}

/* Decodes what x->raw holds of a chunked body. */
static int unchunk(struct zl_exchange *x, struct zl_err *err)
{
    while (!x->ended && x->raw.n) {
        if (x->framing == CHUNK_DATA) {
            size_t n = (size_t)ZL_MIN(x->left, (uint64_t)x->raw.n);
            zl_buf_add(&x->body, x->raw.p, n);
            zl_buf_drop(&x->raw, n);
            x->left -= n;
            if (!x->left)
                x->framing = CHUNK_END;
            continue;
        }
        const char *end = memmem(x->raw.p, x->raw.n, "\r\n", 2);
        if (!end)
            return x->raw.n > 4096 ? zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed chunk") : 0;
        size_t n = (size_t)(end - x->raw.p);
        if (x->framing == CHUNK_SIZE) {
            uint64_t size = 0;
            size_t i = 0;
            for (; i < n && i < 12; i++) {
                const char *hex = "0123456789abcdef", *at = memchr(hex, x->raw.p[i] | 0x20, 16);
                if (!at || x->raw.p[i] < '0')
                    break;
                size = size * 16 + (uint64_t)(at - hex);
            }
            if (!i || (i < n && x->raw.p[i] != ';'))
                return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed chunk");
            x->left = size;
            x->framing = size ? CHUNK_DATA : TRAILER;
        } else if (x->framing == CHUNK_END) {
            if (n)
                return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed chunk");
            x->framing = CHUNK_SIZE;
        } else if (!n) {
            x->ended = true;
        }
        zl_buf_drop(&x->raw, n + 2);
    }
    return 0;
}

static int decode(struct zl_exchange *x, struct zl_err *err)
{
    if (x->chunked)
        return unchunk(x, err);
    size_t n = x->counted ? (size_t)ZL_MIN(x->left, (uint64_t)x->raw.n) : x->raw.n;
    zl_buf_add(&x->body, x->raw.p, n);
    zl_buf_drop(&x->raw, n);
    x->left -= x->counted ? n : 0;
    x->ended |= x->counted && !x->left;
    return 0;
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
        if (n == 0 && (x->chunked || x->counted))
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
