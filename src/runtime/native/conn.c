#include "runtime/native/conn.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "runtime/native/protocol.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

struct zl_rt_conn {
    int fd;
    struct zl_watch *watch;
    struct zl_buf in, out;
    zl_rt_conn_fn fn;
    void *arg;
    bool held;
    void (*drained)(void *arg);
    bool *freed; /* set when the callback frees the connection under our feet */
};

void zl_rt_socket_address(int dir, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/shim.sock", dir);
}

/* Hands over one frame or the end; false when the connection is gone afterwards. */
static bool hand_over(struct zl_rt_conn *c, const struct zl_frame *f, int error)
{
    bool freed = false;
    c->freed = &freed;
    if (f || !c->drained || error != 1)
        c->fn(c->arg, f, error);
    else
        c->drained(c->arg);
    if (!freed)
        c->freed = NULL;
    return !freed;
}

static void over(struct zl_rt_conn *c, int error)
{
    zl_watch_set(c->watch, 0);
    (void)hand_over(c, NULL, error);
}

static int send_out(struct zl_rt_conn *c)
{
    while (c->out.n) {
        ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        zl_buf_drop(&c->out, (size_t)n);
    }
    return 0;
}

/* What is there in whole frames. 0, -errno, or 1: the connection is gone. */
static int deliver(struct zl_rt_conn *c)
{
    struct zl_frame f;
    ssize_t size = 0;
    while (!c->held && (size = zl_frame_parse(zl_buf_view(&c->in), ZL_SH_MAGIC, ZL_SH_REPLY_MAX, &f)) > 0) {
        if (!hand_over(c, &f, 0))
            return 1;
        zl_buf_drop(&c->in, (size_t)size);
    }
    return size < 0 ? (int)size : 0;
}

static void listen_on(struct zl_rt_conn *c)
{
    zl_watch_set(c->watch, (c->held ? 0 : ZL_READABLE) | (c->out.n ? ZL_WRITABLE : 0));
}

static void ready(void *arg, int events)
{
    struct zl_rt_conn *c = arg;
    char piece[16384];
    bool had = c->out.n > 0;
    int r = send_out(c);
    (void)events;
    if (had && c->out.n == 0 && c->drained && !hand_over(c, NULL, 1))
        return;
    int e = deliver(c);
    for (int turns = 0; turns < 16 && e == 0 && !c->held; turns++) {
        ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            over(c, n < 0 ? -errno : 0);
            return;
        }
        zl_buf_add(&c->in, piece, (size_t)n);
        e = deliver(c);
    }
    if (e > 0)
        return;
    if (e < 0 || (r < 0 && !c->held))
        over(c, e < 0 ? e : r);
    else
        listen_on(c);
}

void zl_rt_conn_send(struct zl_rt_conn *c, const struct zl_buf *frames)
{
    zl_buf_add_str(&c->out, zl_buf_view(frames));
    listen_on(c);
}

size_t zl_rt_conn_queued(const struct zl_rt_conn *c)
{
    return c->out.n;
}

void zl_rt_conn_on_drained(struct zl_rt_conn *c, void (*fn)(void *arg))
{
    c->drained = fn;
}

void zl_rt_conn_hold(struct zl_rt_conn *c, bool on)
{
    c->held = on;
    zl_watch_set(c->watch, on ? (c->out.n ? ZL_WRITABLE : 0) : ZL_READABLE | ZL_WRITABLE); /* frames may wait in `in` */
}

int zl_rt_conn_open(struct zl_loop *loop, int containers, const char *id, struct zl_buf *request, zl_rt_conn_fn fn,
                    void *arg, struct zl_rt_conn **ret)
{
    struct sockaddr_un a;
    zl_auto_close int dir = zl_openat(containers, id, O_PATH | O_DIRECTORY, 0);
    if (dir < 0)
        return dir;
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    zl_rt_socket_address(dir, &a);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return -errno;
    struct zl_rt_conn *c = zl_xcalloc(1, sizeof *c);
    int r = zl_watch_new(loop, fd, ZL_READABLE | ZL_WRITABLE, ready, c, &c->watch);
    if (r < 0) {
        free(c);
        return r;
    }
    c->fd = ZL_TAKE_FD(fd);
    c->out = *request;
    *request = (struct zl_buf)ZL_BUF_INIT;
    c->fn = fn;
    c->arg = arg;
    *ret = c;
    return 0;
}

struct zl_rt_conn *zl_rt_conn_free(struct zl_rt_conn *c)
{
    if (c) {
        if (c->freed)
            *c->freed = true;
        zl_watch_free(c->watch);
        zl_close(c->fd);
        zl_buf_done(&c->in);
        zl_buf_done(&c->out);
        free(c);
    }
    return NULL;
}
