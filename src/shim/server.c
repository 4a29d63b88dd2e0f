#include "base/fd.h"
#include "base/clock.h"
#include "shim/shim.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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
}

static void drop(struct shim_conn *c)
{
    if (c->exec)
        shim_exec_drop(c);
    zl_buf_done(&c->in);
    zl_buf_done(&c->out);
    c->fd = zl_close(c->fd);
    c->waiting = c->closing = false;
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

void shim_server_poll(struct shim *s, struct shim_poll *p)
{
    bool room = false;
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0) {
            room = true;
            continue;
        }
        shim_poll_add(p, c->fd, (short)(POLLIN | (c->out.n ? POLLOUT : 0)));
        if (c->exec)
            shim_exec_poll(c, p);
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

static void reply_info(struct shim *s, struct shim_conn *c)
{
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_INFO);
    zl_record_add_u64(&c->out, ZL_SH_R_PID, (uint64_t)s->setup.pid);
    zl_record_add_u64(&c->out, ZL_SH_R_START_TIME, s->setup.start_time);
    zl_record_add_str(&c->out, ZL_SH_R_PHASE, zl_str(shim_phase_name(s->phase)));
    zl_record_add_u64(&c->out, ZL_SH_R_SHIM_PID, (uint64_t)getpid());
    zl_frame_end(&c->out, f);
}

static void reply_stats(struct shim *s, struct shim_conn *c)
{
    struct zl_cgroup_stats st = { 0 };
    uint64_t kills = s->oom_seen;
    int r = zl_cgroup_stats(&s->setup.cgroup, &st);
    if (r < 0) {
        shim_conn_error(c, r, "read the cgroup's counters");
        return;
    }
    ZL_IGNORE(zl_cgroup_oom_kills(&s->setup.cgroup, &kills));
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_STATS);
    zl_record_add_u64(&c->out, ZL_SH_R_CPU_USEC, st.cpu_usec);
    zl_record_add_u64(&c->out, ZL_SH_R_MEMORY, st.memory_bytes);
    zl_record_add_u64(&c->out, ZL_SH_R_MEMORY_LIMIT, st.memory_limit);
    zl_record_add_u64(&c->out, ZL_SH_R_PIDS, st.pids);
    zl_record_add_u64(&c->out, ZL_SH_R_OOM_KILLS, kills);
    zl_frame_end(&c->out, f);
}

static void reply_kill(struct shim *s, struct shim_conn *c, struct zl_str body)
{
    struct zl_record r;
    uint64_t signum = 0, all = 0;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_SIGNAL && zl_record_u64(&r, &signum) < 0)
            signum = 0;
        if (r.type == ZL_SH_R_ALL && zl_record_u64(&r, &all) < 0)
            all = 0;
    }
    if (signum == 0 || signum > 64) {
        shim_conn_error(c, ZL_E_INVALID, "no such signal");
        return;
    }
    if (signum == SIGKILL) {
        shim_oom_look(s); /* what the kernel killed before us was not killed by us */
        s->killed = true;
    }
    int e = 0;
    if (all)
        e = signum == SIGKILL ? zl_cgroup_kill(&s->setup.cgroup) : zl_cgroup_signal(&s->setup.cgroup, (int)signum);
    else if (syscall(SYS_pidfd_send_signal, s->setup.pidfd, (int)signum, NULL, 0) < 0 && errno != ESRCH)
        e = -errno;
    if (e < 0) {
        shim_conn_error(c, e, "send the signal");
        return;
    }
    zl_frame_end(&c->out, zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_OK));
}

static void request(struct shim *s, struct shim_conn *c, const struct zl_frame *f)
{
    switch (f->type) {
    case ZL_SH_INFO:
        reply_info(s, c);
        break;
    case ZL_SH_STATS:
        reply_stats(s, c);
        break;
    case ZL_SH_KILL:
        reply_kill(s, c, f->body);
        break;
    case ZL_SH_WAIT:
        c->waiting = true;
        break;
    case ZL_SH_EXEC:
        if (s->phase != SHIM_RUNNING)
            shim_conn_error(c, ZL_E_CONFLICT, "the container is not running");
        else if (shim_exec_start(s, c, f->body) < 0)
            shim_conn_error(c, ZL_E_RUNTIME, "begin the command");
        break;
    default:
        shim_conn_error(c, ZL_E_UNSUPPORTED, "this shim does not know that request");
        break;
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

/* Requests that came while a command runs wait in `in`; a sender that goes on regardless is cut off at the limit. */
static bool receive(struct shim *s, struct shim_conn *c)
{
    static char piece[16384];
    ssize_t n;
    while ((n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        zl_buf_add(&c->in, piece, (size_t)n);
        if (c->in.n > 2 * (size_t)ZL_SH_REQUEST_MAX)
            return false;
    }
    bool open = n < 0 && (errno == EAGAIN || errno == EINTR);
    while (!c->exec && c->out.n < SHIM_OUT_MAX) {
        struct zl_frame f;
        ssize_t size = zl_frame_parse(zl_buf_view(&c->in), ZL_SH_MAGIC, ZL_SH_REQUEST_MAX, &f);
        if (size < 0)
            return false;
        if (size == 0)
            break;
        request(s, c, &f);
        zl_buf_drop(&c->in, (size_t)size);
    }
    if (c->in.n == 0)
        zl_buf_done(&c->in);
    return open;
}

void shim_server_step(struct shim *s)
{
    accept_all(s);
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0)
            continue;
        if (c->exec)
            shim_exec_step(s, c);
        bool open = receive(s, c);
        if (!send_out(c) || !open)
            drop(c);
        else if (c->out.n == 0)
            zl_buf_done(&c->out);
    }
}

void shim_server_finish(struct shim *s)
{
    uint64_t deadline = zl_clock_mono_ms() + 1000;
    for (unsigned i = 0; i < SHIM_CONNS; i++) {
        struct shim_conn *c = &s->conns[i];
        if (c->fd < 0 || !c->waiting)
            continue;
        size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXITED);
        zl_record_add_str(&c->out, ZL_SH_R_REASON, zl_str(shim_reason_name(s->outcome.reason)));
        zl_record_add_u64(&c->out, ZL_SH_R_CODE, (uint64_t)(int64_t)s->outcome.code);
        zl_record_add_u64(&c->out, ZL_SH_R_SIGNAL, (uint64_t)s->outcome.signal);
        zl_record_add_u64(&c->out, ZL_SH_R_OOM_KILLS, s->outcome.oom_kills);
        zl_record_add_u64(&c->out, ZL_SH_R_FINISHED_MS, s->outcome.finished_ms);
        zl_frame_end(&c->out, f);
    }
    for (bool busy = true; busy && zl_clock_mono_ms() < deadline;) {
        busy = false;
        struct shim_poll p = { .n = 0 };
        for (unsigned i = 0; i < SHIM_CONNS; i++) {
            struct shim_conn *c = &s->conns[i];
            if (c->fd < 0)
                continue;
            if (c->exec)
                shim_exec_step(s, c);
            if (!send_out(c)) {
                drop(c);
                continue;
            }
            if (c->out.n)
                shim_poll_add(&p, c->fd, POLLOUT);
            if (c->exec)
                shim_exec_poll(c, &p);
            busy |= c->out.n > 0 || c->exec;
        }
        if (busy)
            (void)poll(p.fds, p.n, 100);
    }
}
