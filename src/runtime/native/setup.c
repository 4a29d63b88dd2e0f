#include "runtime/native/setup_parts.h"

#include "base/fd.h"
#include "base/phase.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/veth.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int zl_setup_fail(struct zl_setup_error *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->step, sizeof err->step, fmt, ap);
    va_end(ap);
    err->code = code;
    return code;
}

void zl_setup_close_others(uint64_t preserve, const int *keep, size_t n)
{
    int from = 3 + (int)preserve;
    for (;;) {
        int next = INT_MAX;
        for (size_t i = 0; i < n; i++)
            if (keep[i] >= from && keep[i] < next)
                next = keep[i];
        if (next > from && syscall(SYS_close_range, from, next == INT_MAX ? ~0u : (unsigned)next - 1, 0) < 0)
            for (int fd = from; fd < ZL_MIN(next, 1024); fd++) /* below kernel 5.9 */
                (void)close(fd);
        if (next == INT_MAX)
            return;
        from = next + 1;
    }
}

/*
 * clone3, or clone on a kernel or under a filter that has none. Made in the group at once where the kernel can (5.7).
 */
pid_t zl_setup_clone(uint64_t flags, int cgroup, bool *inside)
{
    struct clone_args args = { .flags = flags | CLONE_INTO_CGROUP, .cgroup = (uint64_t)cgroup };
    args.exit_signal = flags & CLONE_PARENT ? 0 /* it takes ours */ : SIGCHLD;
    *inside = cgroup >= 0;
    long pid = cgroup >= 0 ? syscall(SYS_clone3, &args, sizeof args) : -1;
    if (pid >= 0)
        return (pid_t)pid;
    *inside = false;
    args.flags = flags;
    args.cgroup = 0;
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0 && (errno == ENOSYS || errno == EPERM))
        pid = syscall(SYS_clone, flags | args.exit_signal, NULL, NULL, NULL, NULL);
    return pid < 0 ? -errno : (pid_t)pid;
}

/* The cgroup's is made later, by the child, inside its group; that of the clocks earlier. */
static uint64_t new_namespaces(const struct zl_job *job)
{
    uint64_t flags = 0;
    for (uint64_t i = 0; i < job->nnamespaces; i++)
        if (!job->namespaces[i].path[0])
            flags |= job->namespaces[i].kind;
    return flags & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME);
}

static int attach_network(const struct zl_job *job, pid_t pid, struct zl_setup_error *err)
{
    if (!job->netns[0])
        return 0;
    char path[64];
    const char *step = "";
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    zl_auto_close int container = zl_netns_open(path);
    zl_auto_close int node = zl_netns_open(job->netns);
    if (container < 0 || node < 0)
        return zl_setup_fail(err, container < 0 ? container : node, "open the %s network namespace",
                             container < 0 ? "container's" : "node's");
    struct zl_veth_config c = { .node_netns = node,
                                .container_netns = container,
                                .name = job->link,
                                .addr = { (in_addr_t)job->addr },
                                .local = { (in_addr_t)job->local } };
    int r = zl_veth_replica(&c, &step);
    return r < 0 ? zl_setup_fail(err, r, "network: %s", step) : 0;
}

/* The machine's links that become the container's. A socket belongs to the namespace in which it is made. */
static int move_links(const struct zl_job *job, pid_t pid, struct zl_setup_error *err)
{
    char path[64];
    const struct zl_job_namespace *n = zl_setup_namespace(job, CLONE_NEWNET);
    if (!job->nlinks_in || !n)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    zl_auto_close int container = zl_netns_open(n->path[0] ? n->path : path);
    zl_auto_close int own = zl_netns_self();
    zl_auto_close int here = zl_netlink_open();
    int r = container < 0 ? container : own < 0 ? own : here < 0 ? here : zl_netns_enter(container);
    if (r < 0)
        return zl_setup_fail(err, r, "enter the container's network");
    zl_auto_close int there = zl_netlink_open();
    if ((r = zl_netns_enter(own)) < 0)
        return zl_setup_fail(err, r, "come back from the container's network");
    for (uint64_t i = 0; i < job->nlinks_in && r == 0; i++) {
        const struct zl_job_pair *l = &job->links_in[i];
        r = there < 0 ? there : zl_link_move(here, l->name, there, container, l->value);
        if (r < 0)
            return zl_setup_fail(err, r, "move the network device %s into the container as %s", l->name, l->value);
    }
    return 0;
}

/* One report: a negative errno and the step's name, or a single zero byte: at the gate. */
static int read_report(int fd, bool gate, struct zl_setup_error *err)
{
    struct zl_setup_error e;
    ssize_t n = zl_read_full(fd, &e.code, sizeof e.code);
    if (n == 0)
        return gate ? zl_setup_fail(err, -ECHILD, "the set-up process ended without a word") : 0;
    if (n != sizeof e.code)
        return zl_setup_fail(err, n < 0 ? (int)n : -EPROTO, "read the set-up's report");
    if (e.code == ZL_SETUP_LISTENER && !gate)
        return e.code;
    if (e.code == 0)
        return gate ? 0 : zl_setup_fail(err, -EPROTO, "read the set-up's report");
    n = zl_read_full(fd, e.step, sizeof e.step);
    e.step[sizeof e.step - 1] = 0;
    return zl_setup_fail(err, e.code, "%s", n == sizeof e.step ? e.step : "unknown step");
}

/* To the other end of the gate, which may be gone: no signal then. */
static int tell(int fd, char what)
{
    ssize_t n;
    do {
        n = send(fd, &what, 1, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : -errno;
}

static int parent_part(const struct zl_job *job, const struct zl_setup_options *o, struct zl_setup *s,
                       struct zl_setup_error *err)
{
    s->pidfd = zl_pidfd_open(s->pid);
    if (s->pidfd < 0)
        return zl_setup_fail(err, s->pidfd, "open the container's pidfd");
    int r = zl_process_start_time(s->pid, &s->start_time);
    if (r < 0)
        return zl_setup_fail(err, r, "read the container's start time");
    r = o->place ? o->place(o->arg, s->pid, err) : 0;
    s->cgroup = *o->cgroup;
    if (r == 0 && o->place)
        ZL_IGNORE(zl_write_full(s->gate, "c", 1)); /* as below */
    r = r < 0 ? r : zl_setup_write_maps(job, s->pid, err);
    r = r < 0 ? r : attach_network(job, s->pid, err);
    r = r < 0 ? r : move_links(job, s->pid, err);
    r = r < 0 ? r : zl_setup_send_trees(job, s->pid, s->gate, err);
    if (r < 0)
        return r;
    r = o->created ? o->created(o->arg, s->pid, err) : 0;
    if (r < 0)
        return r;
    zl_phase("shim.attached");
    r = tell(s->gate, 'g');
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) /* a child that has given up before says why */
        return zl_setup_fail(err, r, "open the gate");
    return read_report(s->report, true, err);
}

static int make_pipes(int gate[2], int report[2], int in[2], int out[2], int errs[2], const struct zl_job *job,
                      bool own_stdio)
{
    in[0] = in[1] = -EBADF;
    if (!own_stdio && job->open_stdin && !job->terminal && pipe2(in, O_CLOEXEC) < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, report) < 0)
        return -errno;
    if (own_stdio)
        out[0] = out[1] = errs[0] = errs[1] = -EBADF;
    else if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errs, O_CLOEXEC) < 0)
        return -errno;
    return 0;
}

int zl_setup_create(const struct zl_job *job, const struct zl_setup_options *o, struct zl_setup *ret,
                    struct zl_setup_error *err)
{
    struct zl_setup s = {
        .pidfd = -EBADF, .gate = -EBADF, .report = -EBADF, .out = -EBADF, .err = -EBADF, .in = -EBADF
    };
    int gate[2], report[2], in[2], out[2], errs[2];
    s.cgroup = *o->cgroup;
    int r = make_pipes(gate, report, in, out, errs, job, o->own_stdio);
    if (r < 0)
        return zl_setup_fail(err, r, "make the pipes"); /* the caller ends; its descriptors with it */
    /* A descriptor's mount stays that of our namespace, which overlayfs refuses in another; the working directory is
     * carried over by the kernel. */
    if (o->dir >= 0 && fchdir(o->dir) < 0)
        return zl_setup_fail(err, -errno, "enter the instance folder");
    bool inside;
    /* None: the child enters the others itself. */
    int cgroup = o->place ? -EBADF : zl_cgroup_open_unified(&s.cgroup);
    s.pid = zl_setup_clone_job(job, new_namespaces(job), cgroup, &inside, err);
    if (s.pid == 0) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (!o->own_stdio &&
            (null < 0 || dup2(in[0] < 0 ? null : in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(errs[1], 2) < 0))
            _exit(1);
        zl_close(gate[0]);
        zl_setup_child(job, o, !inside && !o->place, gate[1], report[1]);
    }
    zl_close(cgroup);
    s.gate = gate[0];
    s.report = report[0];
    s.out = out[0];
    s.err = errs[0];
    s.in = in[1];
    zl_close(gate[1]);
    zl_close(report[1]);
    zl_close(out[1]);
    zl_close(errs[1]);
    zl_close(in[0]);
    r = s.pid < 0 ? s.pid : parent_part(job, o, &s, err);
    if (r < 0) {
        zl_setup_abort(&s);
        return r;
    }
    *ret = s;
    return 0;
}

/* Takes the descriptor out of the process that has it, and lets it go on (pidfd_getfd, kernel 5.6). */
static int take_listener(int report, int number, const struct zl_setup_peer *peer, struct zl_setup_error *err)
{
    if (!peer)
        return zl_setup_fail(err, -EPROTO, "take a filter's listener");
    zl_auto_close int process = zl_pidfd_open(peer->pid);
    int fd = process < 0 ? process : (int)syscall(SYS_pidfd_getfd, process, number, 0);
    if (fd < 0)
        return zl_setup_fail(err, process < 0 ? process : -errno, "take the filter's listener");
    int r = peer->listener(peer->arg, fd);
    if (r < 0)
        return zl_setup_fail(err, r, "send the filter's listener to linux.seccomp.listenerPath");
    r = tell(report, 'k');
    return r < 0 ? zl_setup_fail(err, r, "let the process go on") : 0;
}

int zl_setup_wait_exec(int report, const struct zl_setup_peer *peer, struct zl_setup_error *err)
{
    int number;
    int r = read_report(report, false, err);
    while (r == ZL_SETUP_LISTENER) {
        if (zl_read_full(report, &number, sizeof number) != sizeof number)
            return zl_setup_fail(err, -EPROTO, "read the set-up's report");
        r = take_listener(report, number, peer, err);
        r = r < 0 ? r : read_report(report, false, err);
    }
    return r;
}

int zl_setup_await(int gate, int report, const struct zl_setup_peer *peer, struct zl_setup_error *err)
{
    int r = tell(gate, 's');
    if (r < 0)
        return zl_setup_fail(err, r, "open the start gate");
    return zl_setup_wait_exec(report, peer, err);
}

int zl_setup_start(struct zl_setup *s, const struct zl_setup_peer *peer, struct zl_setup_error *err)
{
    int r = zl_setup_await(s->gate, s->report, peer, err);
    s->gate = zl_close(s->gate);
    s->report = zl_close(s->report);
    return r;
}

void zl_setup_abort(struct zl_setup *s)
{
    s->gate = zl_close(s->gate);
    if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    ZL_IGNORE(zl_cgroup_destroy(&s->cgroup, 5000));
    s->pidfd = zl_close(s->pidfd);
    s->report = zl_close(s->report);
    s->out = zl_close(s->out);
    s->err = zl_close(s->err);
    s->in = zl_close(s->in);
    s->pid = 0;
}

static bool same_namespace(int fd, const char *name)
{
    char path[64];
    struct stat own, other;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return fstat(fd, &other) == 0 && stat(path, &own) == 0 && own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

/*
 * With rights over all of them the user namespace comes last; an ordinary user has rights over the others only when in
 * it: what was refused is tried again then. The mount namespace after the others, as paths mean something else in it;
 * our own is passed over, as the kernel refuses to enter it again.
 */
int zl_setup_enter(pid_t pid, int *cgroup, struct zl_setup_error *err)
{
    enum { KINDS = 8, USER = KINDS - 1 };
    static const struct {
        const char *name;
        int flag;
    } kinds[KINDS] = { { "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS },   { "net", CLONE_NEWNET },
                       { "pid", CLONE_NEWPID }, { "time", CLONE_NEWTIME }, { "cgroup", CLONE_NEWCGROUP },
                       { "mnt", CLONE_NEWNS },  { "user", CLONE_NEWUSER } };
    int fds[KINDS];
    char path[64];
    for (int i = 0; i < KINDS; i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kinds[i].name);
        fds[i] = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
        if (fds[i] == -ENOENT && kinds[i].flag == CLONE_NEWTIME)
            continue; /* below kernel 5.6 */
        if (fds[i] < 0)
            return zl_setup_fail(err, fds[i], "open the container's %s namespace", kinds[i].name);
        if (same_namespace(fds[i], kinds[i].name))
            fds[i] = zl_close(fds[i]);
        if (cgroup && kinds[i].flag == CLONE_NEWCGROUP)
            *cgroup = ZL_TAKE_FD(fds[i]);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < KINDS; i++) {
            if (fds[i] < 0 || (i == USER && round == 1))
                continue;
            if (setns(fds[i], kinds[i].flag) == 0)
                fds[i] = zl_close(fds[i]);
            else if (round == 1 || i == USER || errno != EPERM || fds[USER] < 0)
                return zl_setup_fail(err, -errno, "enter the container's %s namespace", kinds[i].name);
        }
    }
    return 0;
}
