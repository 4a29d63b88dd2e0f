#include "base/fd.h"
#include "base/clock.h"
#include "shim/shim.h"

#include <sys/socket.h>
#include <unistd.h>

void shim_poll_add(struct shim_poll *p, int fd, short events)
{
    if (fd >= 0 && p->n < SHIM_POLL_MAX)
        p->fds[p->n++] = (struct pollfd){ .fd = fd, .events = events };
}

void shim_server_init(struct shim *s)
{
    for (unsigned i = 0; i < SHIM_CONNS; i++)
        s->conns[i].fd = -EBADF;
    s->in.fd = -EBADF;
}

static void drop(struct shim_conn *c)
{
    if (c->exec)
        shim_exec_leave(c->exec);
    zl_buf_done(&c->in);
    zl_buf_done(&c->out);
    zl_close(c->fd);
    *c = (struct shim_conn){ .fd = -EBADF };
}

/* Only root and our own user may speak here; the socket's mode says so too. */
static bool allowed(int fd)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static void accept_all(struct shim *s)
{
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        if (s->conns[i].fd >= 0)
            continue;
        int fd = accept4(ZL_SH_FD_LISTEN, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (allowed(fd))
            s->conns[i].fd = fd;
        else
            zl_close(fd);
    }
}

static bool in_session(const struct shim_conn *c)
{
    return c->attached || (c->exec && c->exec->session);
}

/* Whether more of it is read now. Requests behind a command that is no session are read, up to a limit, and wait. */
static bool reads(const struct shim *s, const struct shim_conn *c)
{
    return !in_session(c) || shim_session_open(s, c);
}

void shim_server_poll(struct shim *s, struct shim_poll *p)
{
    bool room = false;
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0) {
            room = true;
            continue;
        }
        shim_poll_add(p, c->fd, (short)((reads(s, c) ? POLLIN : 0) | (c->out.n ? POLLOUT : 0)));
    }
    if (room)
        shim_poll_add(p, ZL_SH_FD_LISTEN, POLLIN);
}

void shim_conn_error(struct shim_conn *c, int code, const char *text)
{
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_ERROR);
    zl_record_add_u64(&c->out, ZL_SH_R_CODE, (uint64_t)(int64_t)code);
    zl_record_add_str(&c->out, ZL_SH_R_TEXT, zl_str(text));
    zl_frame_end(&c->out, f);
}

void shim_conn_reply(struct shim_conn *c, uint16_t type)
{
    zl_frame_end(&c->out, zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, type));
}

/* Commands and attached clients leave connections for those who ask and kill. */
static bool is_busy(const struct shim *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHIM_CONNS; i++)
        n += s->conns[i].exec || s->conns[i].attached;
    return n >= SHIM_EXECS;
}

static void request(struct shim *s, struct shim_conn *c, const struct zl_frame *f)
{
    bool runs = s->phase == SHIM_RUNNING;
    if ((f->type == ZL_SH_ATTACH || f->type == ZL_SH_EXEC || f->type == ZL_SH_TOP) && is_busy(s)) {
        shim_conn_error(c, ZL_E_LIMIT, "run more commands or attach more clients to this container");
        return;
    }
    switch (f->type) {
    case ZL_SH_INFO:
        shim_answer_info(s, c);
        return;
    case ZL_SH_STATS:
        shim_answer_stats(s, c);
        return;
    case ZL_SH_KILL:
        shim_answer_kill(s, c, f->body);
        return;
    case ZL_SH_WAIT:
        c->waiting = true;
        return;
    case ZL_SH_ATTACH: /* also before the start, so that nothing is missed */
        shim_attach(s, c, f->body);
        return;
    case ZL_SH_PAUSE:
    case ZL_SH_RESUME:
        shim_answer_pause(s, c, f->type == ZL_SH_PAUSE);
        return;
    case ZL_SH_EXEC:
    case ZL_SH_TOP:
        if (!runs)
            shim_conn_error(c, ZL_E_CONFLICT, "do that: the container is not running");
        else if (f->type == ZL_SH_EXEC)
            shim_exec_start(s, c, f->body);
        else
            shim_top_start(s, c);
        return;
    case ZL_SH_INPUT:
    case ZL_SH_INPUT_END:
    case ZL_SH_RESIZE:
        /* A session's last frames cross its end. */
        return;
    default:
        shim_conn_error(c, ZL_E_UNSUPPORTED, "do that: this shim does not know the request");
        return;
    }
}

static bool send_out(struct shim_conn *c)
{
    while (c->out.n) {
        ssize_t w = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w < 0)
            return errno == EAGAIN || errno == EINTR;
        zl_buf_drop(&c->out, (size_t)w);
    }
    return true;
}

/* Acts on every whole frame that may be acted on now. */
static void act(struct shim *s, struct shim_conn *c)
{
    while (!c->closing && (in_session(c) ? shim_session_open(s, c) : !c->exec && c->out.n < SHIM_OUT_MAX)) {
        struct zl_frame f;
        ssize_t size = zl_frame_parse(zl_buf_view(&c->in), ZL_SH_MAGIC, ZL_SH_REQUEST_MAX, &f);
        int bad = 0;
        if (size == 0)
            return;
        if (size > 0 && in_session(c))
            bad = shim_session_frame(s, c, &f);
        else if (size > 0)
            request(s, c, &f);
        if (size < 0 || bad < 0) {
            shim_conn_error(c, size < 0 ? ZL_E_PROTOCOL : bad,
                            size < 0 ? "read what is no frame" : "take that in a session");
            c->closing = true;
            return;
        }
        zl_buf_drop(&c->in, (size_t)size);
    }
}

/* False when the client has gone. */
static bool receive(struct shim *s, struct shim_conn *c)
{
    static char piece[16384];
    ssize_t n = -1;
    errno = EAGAIN;
    act(s, c);
    while (reads(s, c) && !c->closing && (n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        zl_buf_add(&c->in, piece, (size_t)n);
        act(s, c);
        if (c->in.n > 2 * (size_t)ZL_SH_REQUEST_MAX) /* a sender that goes on and on while it is to wait */
            return false;
    }
    bool open = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    struct pollfd gone = { .fd = c->fd }; /* who is not read from is seen to leave nevertheless */
    if (open && !reads(s, c) && poll(&gone, 1, 0) > 0 && gone.revents & (POLLHUP | POLLERR))
        open = false;
    if (c->in.n == 0)
        zl_buf_done(&c->in);
    return open;
}

void shim_server_step(struct shim *s)
{
    accept_all(s);
    (void)shim_exec_step(s);
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0)
            continue;
        bool open = receive(s, c);
        if (!send_out(c) || !open || c->closing) {
            drop(c);
            continue;
        }
        if (c->attached)
            shim_attach_step(c);
        if (c->out.n == 0)
            zl_buf_done(&c->out);
    }
    shim_input_step(&s->in, s->job.terminal != 0);
}

static void tell_outcome(const struct shim *s, struct shim_conn *c)
{
    const struct shim_outcome *o = &s->outcome;
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXITED);
    zl_record_add_str(&c->out, ZL_SH_R_REASON, zl_str(shim_reason_name(o->reason)));
    zl_record_add_u64(&c->out, ZL_SH_R_CODE, (uint64_t)(int64_t)o->code);
    zl_record_add_u64(&c->out, ZL_SH_R_SIGNAL, (uint64_t)o->signal);
    zl_record_add_u64(&c->out, ZL_SH_R_OOM_KILLS, o->oom_kills);
    zl_record_add_u64(&c->out, ZL_SH_R_FINISHED_MS, o->finished_ms);
    zl_frame_end(&c->out, f);
}

void shim_server_finish(struct shim *s)
{
    uint64_t deadline = zl_clock_mono_ms() + 1000;
    bool told[SHIM_CONNS] = { false };
    for (bool busy = true; busy && zl_clock_mono_ms() < deadline;) {
        struct shim_poll p = { .n = 0 };
        busy = shim_exec_step(s);
        for (unsigned i = 0; i < SHIM_CONNS; i++) {
            struct shim_conn *c = &s->conns[i];
            if (c->fd < 0)
                continue;
            if (c->attached)
                shim_attach_step(c);
            if (!told[i] && (c->waiting || c->attached) && !c->lost[0] && !c->lost[1]) {
                tell_outcome(s, c);
                told[i] = true;
            }
            if (!send_out(c)) {
                drop(c);
                continue;
            }
            if (c->out.n)
                shim_poll_add(&p, c->fd, POLLOUT);
            busy |= c->out.n > 0 || c->lost[0] || c->lost[1];
        }
        shim_exec_poll(s, &p);
        if (busy)
            (void)poll(p.fds, p.n, 100);
    }
}
