#include "runtime/native/setup.h"

#include "base/fd.h"
#include "base/phase.h"
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

void zl_setup_close_others(const int *keep, size_t n)
{
    int from = 3;
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

/* The cgroup's is made later, by the child, inside its group. */
static uint64_t new_namespaces(const struct zl_job *job)
{
    uint64_t flags = 0;
    for (uint64_t i = 0; i < job->nnamespaces; i++)
        if (!job->namespaces[i].path[0])
            flags |= job->namespaces[i].kind;
    return flags & ~(uint64_t)CLONE_NEWCGROUP;
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

/* One report: a negative errno and the step's name, or a single zero byte: at the gate. */
static int read_report(int fd, bool gate, struct zl_setup_error *err)
{
    struct zl_setup_error e;
    ssize_t n = zl_read_full(fd, &e.code, sizeof e.code);
    if (n == 0)
        return gate ? zl_setup_fail(err, -ECHILD, "the set-up process ended without a word") : 0;
    if (n != sizeof e.code)
        return zl_setup_fail(err, n < 0 ? (int)n : -EPROTO, "read the set-up's report");
    if (e.code == 0)
        return gate ? 0 : zl_setup_fail(err, -EPROTO, "read the set-up's report");
    n = zl_read_full(fd, e.step, sizeof e.step);
    e.step[sizeof e.step - 1] = 0;
    return zl_setup_fail(err, e.code, "%s", n == sizeof e.step ? e.step : "unknown step");
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
    r = attach_network(job, s->pid, err);
    if (r < 0)
        return r;
    r = o->created ? o->created(o->arg, s->pid, err) : 0;
    if (r < 0)
        return r;
    zl_phase("shim.attached");
    ZL_IGNORE(zl_write_full(s->gate, "g", 1)); /* a child that has given up before says why */
    return read_report(s->report, true, err);
}

/* A pid namespace is joined by the parent, for the child to be made in it; *ret_own leads back, when there was one. */
static int join_pid_namespace(const struct zl_job *job, int *ret_own, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->nnamespaces; i++) {
        const struct zl_job_namespace *n = &job->namespaces[i];
        if (n->kind != CLONE_NEWPID || !n->path[0])
            continue;
        zl_auto_close int fd = zl_openat(AT_FDCWD, n->path, O_RDONLY, 0);
        *ret_own = zl_openat(AT_FDCWD, "/proc/self/ns/pid", O_RDONLY, 0);
        if (fd < 0 || *ret_own < 0 || setns(fd, CLONE_NEWPID) < 0)
            return zl_setup_fail(err,
                                 fd < 0         ? fd
                                 : *ret_own < 0 ? *ret_own
                                                : -errno,
                                 "join the pid namespace %s", n->path);
    }
    return 0;
}

static int make_pipes(int gate[2], int report[2], int out[2], int errs[2], bool own_stdio)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0 || pipe2(report, O_CLOEXEC) < 0)
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
    struct zl_setup s = { .pidfd = -EBADF, .gate = -EBADF, .report = -EBADF, .out = -EBADF, .err = -EBADF };
    int gate[2], report[2], out[2], errs[2];
    s.cgroup = *o->cgroup;
    int r = make_pipes(gate, report, out, errs, o->own_stdio);
    if (r < 0)
        return zl_setup_fail(err, r, "make the pipes"); /* the caller ends; its descriptors with it */
    /* A descriptor's mount stays that of our namespace, which overlayfs refuses in another; the working directory is
     * carried over by the kernel. */
    if (o->dir >= 0 && fchdir(o->dir) < 0)
        return zl_setup_fail(err, -errno, "enter the instance folder");
    zl_auto_close int own_pids = -EBADF;
    r = join_pid_namespace(job, &own_pids, err);
    if (r < 0)
        return r;
    bool inside;
    int cgroup = zl_cgroup_open_unified(&s.cgroup); /* none: the child enters the others itself */
    s.pid = zl_setup_clone(new_namespaces(job), cgroup, &inside);
    if (s.pid == 0) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (!o->own_stdio && (null < 0 || dup2(null, 0) < 0 || dup2(out[1], 1) < 0 || dup2(errs[1], 2) < 0))
            _exit(1);
        zl_close(gate[0]);
        zl_setup_child(job, o, !inside, gate[1], report[1]);
    }
    zl_close(cgroup);
    if (own_pids >= 0 && setns(own_pids, CLONE_NEWPID) < 0)
        return zl_setup_fail(err, -errno, "come back from the pid namespace");
    s.gate = gate[0];
    s.report = report[0];
    s.out = out[0];
    s.err = errs[0];
    zl_close(gate[1]);
    zl_close(report[1]);
    zl_close(out[1]);
    zl_close(errs[1]);
    r = s.pid < 0 ? zl_setup_fail(err, s.pid, "make the namespaces") : parent_part(job, o, &s, err);
    if (r < 0) {
        zl_setup_abort(&s);
        return r;
    }
    *ret = s;
    return 0;
}

int zl_setup_await(int gate, int report, struct zl_setup_error *err)
{
    if (zl_write_full(gate, "s", 1) < 0)
        return zl_setup_fail(err, -EPIPE, "open the start gate");
    return read_report(report, false, err);
}

int zl_setup_start(struct zl_setup *s, struct zl_setup_error *err)
{
    int r = zl_setup_await(s->gate, s->report, err);
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
    s->pid = 0;
}

int zl_setup_enter(pid_t pid, struct zl_setup_error *err)
{
    /* User namespaces are not in use yet; the mount namespace last, as /proc is needed for the others. */
    static const struct {
        const char *name;
        int flag;
    } kinds[] = { { "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS },       { "net", CLONE_NEWNET },
                  { "pid", CLONE_NEWPID }, { "cgroup", CLONE_NEWCGROUP }, { "mnt", CLONE_NEWNS } };
    int fds[ZL_ARRAY_LEN(kinds)];
    char path[64];
    for (size_t i = 0; i < ZL_ARRAY_LEN(kinds); i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kinds[i].name);
        fds[i] = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
        if (fds[i] < 0)
            return zl_setup_fail(err, fds[i], "open the container's %s namespace", kinds[i].name);
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(kinds); i++) {
        if (setns(fds[i], kinds[i].flag) < 0)
            return zl_setup_fail(err, -errno, "enter the container's %s namespace", kinds[i].name);
        zl_close(fds[i]);
    }
    return 0;
}
