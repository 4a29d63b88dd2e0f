#include "net/proxy/wire.h"

#include "base/fd.h"

#include <poll.h>
#include <stdalign.h>
#include <sys/socket.h>

enum { MAGIC = 0x58504c5a /* "ZLPX" */, VERSION = 1, SEND_WAIT_MS = 2000 };

static int send_frame(int sock, const struct zl_buf *b, int fd)
{
    struct iovec iov = { b->p, b->n };
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (fd >= 0) {
        m.msg_control = control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    for (;;) {
        if (sendmsg(sock, &m, MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno == EAGAIN) {
            struct pollfd p = { .fd = sock, .events = POLLOUT };
            if (poll(&p, 1, SEND_WAIT_MS) == 0)
                return -ETIMEDOUT;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
}

int zl_px_send(int sock, uint16_t type, uint16_t record, uint64_t value, const char *text, int fd)
{
    zl_auto_buf b = ZL_BUF_INIT;
    size_t at = zl_frame_begin(&b, MAGIC, VERSION, type);
    if (record)
        zl_record_add_u64(&b, record, value);
    if (text)
        zl_record_add_str(&b, ZL_PX_R_TEXT, zl_str_n(text, strnlen(text, 255)));
    zl_frame_end(&b, at);
    return send_frame(sock, &b, fd);
}

int zl_px_send_hello(int sock, uint64_t pid, uint64_t threads, uint64_t number)
{
    zl_auto_buf b = ZL_BUF_INIT;
    size_t at = zl_frame_begin(&b, MAGIC, VERSION, ZL_PX_HELLO);
    zl_record_add_u64(&b, ZL_PX_R_PID, pid);
    zl_record_add_u64(&b, ZL_PX_R_THREADS, threads);
    zl_record_add_u64(&b, ZL_PX_R_NUMBER, number);
    zl_frame_end(&b, at);
    return send_frame(sock, &b, -EBADF);
}

/* Keeps the first descriptor and closes what else came. */
static int take_fds(struct msghdr *m)
{
    int kept = -EBADF;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (kept < 0)
                kept = fd;
            else
                (void)zl_close(fd);
        }
    }
    return kept;
}

static int read_records(struct zl_str body, struct zl_px_in *in)
{
    struct zl_record r;
    int e;
    while ((e = zl_record_next(&body, &r)) == 1) {
        switch (r.type) {
        case ZL_PX_R_ID:
            e = zl_record_u64(&r, &in->id);
            break;
        case ZL_PX_R_NUMBER:
            e = zl_record_u64(&r, &in->number);
            break;
        case ZL_PX_R_PID:
            e = zl_record_u64(&r, &in->pid);
            break;
        case ZL_PX_R_THREADS:
            e = zl_record_u64(&r, &in->threads);
            break;
        case ZL_PX_R_TEXT:
            if (r.bytes.n >= sizeof in->text)
                return -EPROTO;
            memcpy(in->text, r.bytes.p, r.bytes.n);
            in->text[r.bytes.n] = 0;
            break;
        default: /* a later version's */
            break;
        }
        if (e < 0)
            return e;
    }
    return e;
}

int zl_px_receive(int sock, struct zl_px_in *ret)
{
    alignas(8) char bytes[ZL_PX_WIRE_MAX];
    alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
    struct iovec iov = { bytes, sizeof bytes };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    ssize_t n;
    do
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    zl_auto_close int fd = take_fds(&m);
    if (n == 0)
        return -ECONNRESET;
    if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return -EPROTO;
    struct zl_frame f;
    ssize_t size = zl_frame_parse(zl_str_n(bytes, (size_t)n), MAGIC, sizeof bytes, &f);
    if (size != n)
        return -EPROTO;
    memset(ret, 0, sizeof *ret);
    ret->fd = -EBADF;
    ret->type = f.type;
    ret->version = f.version;
    int r = read_records(f.body, ret);
    if (r < 0)
        return r;
    ret->fd = ZL_TAKE_FD(fd);
    return 0;
}
