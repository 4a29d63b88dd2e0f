/*
 * Sessions: what a client sends to a program, and the container's own streams for those who are attached to them. What
 * an attached client does not take in time is left out and counted for it (LOST); the log has everything. Its leaving
 * changes nothing for the container; its INPUT_END is the end of the container's input, for all.
 */
#include "base/fd.h"
#include "shim/request.h"
#include "shim/shim.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

void shim_input_poll(const struct shim_input *in, struct shim_poll *p)
{
    if (in->waiting.n)
        shim_poll_add(p, in->fd, POLLOUT);
}

void shim_input_done(struct shim_input *in)
{
    in->fd = zl_close(in->fd);
    zl_buf_done(&in->waiting);
}

/* A terminal has no end: its character for it is typed. */
static void type_end(int fd)
{
    struct termios t;
    if (tcgetattr(fd, &t) == 0 && (t.c_lflag & ICANON) && write(fd, &t.c_cc[VEOF], 1) < 0)
        return; /* its program is gone, or does not read: there is nobody to tell */
}

void shim_input_step(struct shim_input *in, bool tty)
{
    while (in->fd >= 0 && in->waiting.n) {
        ssize_t n = write(in->fd, in->waiting.p, in->waiting.n);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) /* the program reads no more: what it is sent goes nowhere, as into a closed pipe */
            in->fd = zl_close(in->fd);
        else
            zl_buf_drop(&in->waiting, (size_t)n);
    }
    if (in->fd < 0 || !in->waiting.n)
        zl_buf_done(&in->waiting);
    if (in->ended && in->fd >= 0) {
        if (tty)
            type_end(in->fd);
        in->fd = zl_close(in->fd);
    }
}

static bool is_starting(const struct shim_exec *e)
{
    return e->tty && e->console >= 0; /* its terminal is on its way */
}

bool shim_session_open(const struct shim *s, const struct shim_conn *c)
{
    if (c->exec)
        return c->exec->session && !is_starting(c->exec) && c->exec->in.waiting.n < SHIM_IN_MAX;
    return !c->attached || s->in.waiting.n < SHIM_IN_MAX;
}

static void resize(int terminal, unsigned rows, unsigned columns)
{
    struct winsize w = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
    (void)ioctl(terminal, TIOCSWINSZ, &w); /* a program that has just ended has no size */
}

int shim_session_frame(struct shim *s, struct shim_conn *c, const struct zl_frame *f)
{
    struct shim_input *in = c->exec ? &c->exec->in : &s->in;
    bool tty = c->exec ? c->exec->tty : s->job.terminal != 0;
    struct zl_str data;
    unsigned rows, columns;
    int r;
    switch (f->type) {
    case ZL_SH_INPUT:
        r = shim_request_input(f->body, &data);
        if (r == 0 && in->ended)
            return ZL_E_CONFLICT;
        if (r == 0 && !c->exec && !c->attached_input)
            return ZL_E_CONFLICT;
        if (r == 0 && in->fd >= 0)
            zl_buf_add_str(&in->waiting, data);
        shim_input_step(in, tty);
        return r;
    case ZL_SH_INPUT_END:
        if (!c->exec && !c->attached_input)
            return ZL_E_CONFLICT;
        in->ended = true;
        shim_input_step(in, tty);
        return 0;
    case ZL_SH_RESIZE:
        r = shim_request_resize(f->body, &rows, &columns);
        if (r == 0 && tty)
            resize(c->exec ? c->exec->out[0] : s->setup.out, rows, columns);
        return r;
    default:
        return ZL_E_CONFLICT;
    }
}

void shim_attach(struct shim *s, struct shim_conn *c, struct zl_str body)
{
    bool input = false;
    int r = shim_request_attach(body, &input);
    if (r < 0) {
        shim_conn_error(c, r, "make sense of the request");
        c->closing = r == ZL_E_PROTOCOL;
        return;
    }
    if (input && s->in.fd < 0) {
        shim_conn_error(c, ZL_E_CONFLICT, "send input: the container's is not open");
        return;
    }
    c->attached = true;
    c->attached_input = input;
    shim_conn_reply(c, ZL_SH_SESSION);
}

/* Says what was lost, if there is room to. */
static bool say_lost(struct shim_conn *c, unsigned stream)
{
    if (c->lost[stream] == 0)
        return true;
    if (c->out.n >= SHIM_OUT_MAX / 2)
        return false;
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_LOST);
    zl_record_add_u64(&c->out, ZL_SH_R_STREAM, stream + 1);
    zl_record_add_u64(&c->out, ZL_SH_R_COUNT, c->lost[stream]);
    zl_frame_end(&c->out, f);
    c->lost[stream] = 0;
    return true;
}

void shim_attach_step(struct shim_conn *c)
{
    for (unsigned i = 0; i < 2; i++)
        (void)say_lost(c, i);
}

void shim_attach_output(struct shim *s, unsigned stream, struct zl_str bytes)
{
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0 || !c->attached || c->closing)
            continue;
        if (c->out.n >= SHIM_OUT_MAX || !say_lost(c, stream)) {
            c->lost[stream] += bytes.n;
            continue;
        }
        size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_OUTPUT);
        zl_record_add_u64(&c->out, ZL_SH_R_STREAM, stream + 1);
        zl_record_add_str(&c->out, ZL_SH_R_DATA, bytes);
        zl_frame_end(&c->out, f);
    }
}

int shim_receive_terminal(int console, int *ret)
{
    char text[64];
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec data = { text, sizeof text };
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space
    };
    ssize_t n = recvmsg(console, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (n < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        return -EPROTO;
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    int r = zl_set_nonblock(fd, true);
    if (r < 0) {
        zl_close(fd);
        return r;
    }
    *ret = fd;
    return 0;
}
