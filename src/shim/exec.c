/*
 * A command in the running container. Entering a pid namespace needs a fork, and the shim itself must not enter: a
 * helper joins the cgroup and the namespaces and leaves the command behind as the shim's own child (CLONE_PARENT), so
 * that it is held and reaped like the first process. Everything is polled: a frozen container stops the helper, never
 * the shim.
 */
#include "base/fd.h"
#include "shim/shim.h"
#include "sys/process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXEC_STRINGS_MAX = 4096 };

struct command {
    struct zl_job job; /* the container's, with what the request changes */
    const char **argv;
};

static bool same_variable(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && (b[n] == '=' || !b[n]);
}

static void set_variable(const char **env, size_t *n, const char *entry)
{
    for (size_t i = 0; i < *n; i++) {
        if (same_variable(entry, env[i])) {
            env[i] = entry;
            return;
        }
    }
    env[(*n)++] = entry;
}

/* Runs in the helper: what it allocates goes with it. */
static int decode(const struct shim *s, struct zl_str body, struct command *ret)
{
    struct zl_arena arena;
    struct zl_record r;
    size_t argc = 0, n = 0, old = 0;
    zl_arena_init(&arena);
    while (s->job.env[old])
        old++;
    ret->job = s->job;
    ret->argv = zl_arena_alloc(&arena, (EXEC_STRINGS_MAX + 1) * sizeof *ret->argv);
    const char **env = zl_arena_alloc(&arena, (old + EXEC_STRINGS_MAX + 1) * sizeof *env);
    for (; n < old; n++)
        env[n] = s->job.env[n];
    int more;
    while ((more = zl_record_next(&body, &r)) > 0) {
        if (r.bytes.n && memchr(r.bytes.p, 0, r.bytes.n))
            return -EPROTO;
        const char *text = zl_arena_strndup(&arena, r.bytes.n ? r.bytes.p : "", r.bytes.n);
        if (argc >= EXEC_STRINGS_MAX || n >= old + EXEC_STRINGS_MAX)
            return -E2BIG;
        if (r.type == ZL_SH_R_ARG)
            ret->argv[argc++] = text;
        else if (r.type == ZL_SH_R_ENV && strchr(text, '='))
            set_variable(env, &n, text);
        else if (r.type == ZL_SH_R_CWD)
            ret->job.cwd = text;
        else if (r.type == ZL_SH_R_USER)
            ret->job.user = text;
    }
    ret->job.env = env;
    return more;
}

static ZL_NORETURN void give_up(int report, const struct zl_setup_error *err)
{
    ZL_IGNORE(zl_write_full(report, err, sizeof *err));
    _exit(err->code == ZL_E_NO_COMMAND ? 127 : 126);
}

static ZL_NORETURN void command(const struct command *cmd, int report)
{
    struct zl_setup_error err = { 0 };
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)setsid();
    umask(0022);
    ZL_IGNORE(zl_setup_exec(&cmd->job, cmd->argv, -EBADF, &err));
    give_up(report, &err);
}

static ZL_NORETURN void helper(const struct shim *s, struct zl_str body, int announce, int report, const int out[2])
{
    struct zl_setup_error err = { 0 };
    struct command cmd;
    const int keep[] = { announce, report };
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    /* Not for a process of the container to look into or to hold, while it is on its way in (CVE-2016-9962). */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out[0], 1) < 0 ||
        dup2(out[1], 2) < 0)
        _exit(1);
    zl_setup_close_others(0, keep, ZL_ARRAY_LEN(keep));
    int r = decode(s, body, &cmd);
    if (r < 0)
        ZL_IGNORE(zl_setup_fail(&err, r, "read the request"));
    if (r == 0 && (r = zl_cgroup_enter(&s->setup.cgroup, true)) < 0)
        ZL_IGNORE(zl_setup_fail(&err, r, "enter the container's cgroup"));
    r = r < 0 ? r : zl_setup_limits(&s->job, &err);
    if (r == 0)
        r = zl_setup_enter(s->setup.pid, &err);
    long pid = r < 0 ? r : syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        command(&cmd, report);
    if (r == 0 && pid < 0)
        ZL_IGNORE(zl_setup_fail(&err, -errno, "make a process in the container"));
    if (pid < 0)
        give_up(report, &err);
    int announced = (int)pid;
    ZL_IGNORE(zl_write_full(announce, &announced, sizeof announced));
    _exit(0);
}

static int make_pipe(int *ours, int *theirs)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return -errno;
    *ours = p[0];
    *theirs = p[1];
    return zl_set_nonblock(p[0], true);
}

int shim_exec_start(struct shim *s, struct shim_conn *c, struct zl_str body)
{
    struct shim_exec *e = zl_xcalloc(1, sizeof *e);
    int theirs[4] = { -EBADF, -EBADF, -EBADF, -EBADF };
    e->helper_fd = e->pid_fd = e->announce = e->report = e->out[0] = e->out[1] = -EBADF;
    int r = make_pipe(&e->announce, &theirs[0]);
    r = r < 0 ? r : make_pipe(&e->report, &theirs[1]);
    r = r < 0 ? r : make_pipe(&e->out[0], &theirs[2]);
    r = r < 0 ? r : make_pipe(&e->out[1], &theirs[3]);
    if (r == 0) {
        e->helper = fork();
        if (e->helper == 0)
            helper(s, body, theirs[0], theirs[1], &theirs[2]);
        r = e->helper < 0 ? -errno : (e->helper_fd = zl_pidfd_open(e->helper));
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(theirs); i++)
        zl_close(theirs[i]);
    c->exec = e;
    if (r < 0) {
        shim_exec_drop(c);
        return r;
    }
    return 0;
}

void shim_exec_poll(struct shim_conn *c, struct shim_poll *p)
{
    const struct shim_exec *e = c->exec;
    shim_poll_add(p, e->helper_fd, POLLIN);
    shim_poll_add(p, e->pid_fd, POLLIN);
    shim_poll_add(p, e->report, POLLIN);
    for (unsigned i = 0; i < 2 && c->out.n < SHIM_OUT_MAX; i++)
        shim_poll_add(p, e->out[i], POLLIN);
}

void shim_exec_drop(struct shim_conn *c)
{
    struct shim_exec *e = c->exec;
    pid_t pids[] = { e->helper, e->pid };
    for (size_t i = 0; i < ZL_ARRAY_LEN(pids); i++) {
        if (pids[i] > 0 && !(i == 1 && e->exited)) {
            (void)kill(pids[i], SIGKILL);
            while (waitpid(pids[i], NULL, 0) < 0 && errno == EINTR) {
            }
        }
    }
    /* A helper that was killed after it had made the command: nobody else knows of it. */
    int late;
    if (e->pid == 0 && e->announce >= 0 && read(e->announce, &late, sizeof late) == sizeof late && late > 0) {
        (void)kill(late, SIGKILL);
        (void)waitpid(late, NULL, 0);
    }
    int fds[] = { e->helper_fd, e->pid_fd, e->announce, e->report, e->out[0], e->out[1] };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
    free(e);
    c->exec = NULL;
}

/* Copies output to the connection; true when there is nothing more for now. */
static bool forward(struct shim_conn *c, unsigned stream)
{
    static char piece[16384];
    struct shim_exec *e = c->exec;
    while (e->out[stream] >= 0 && c->out.n < SHIM_OUT_MAX) {
        ssize_t n = read(e->out[stream], piece, sizeof piece);
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0) {
            e->out[stream] = zl_close(e->out[stream]);
            break;
        }
        size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_OUTPUT);
        zl_record_add_u64(&c->out, ZL_SH_R_STREAM, stream + 1);
        zl_record_add(&c->out, ZL_SH_R_DATA, piece, (size_t)n);
        zl_frame_end(&c->out, f);
    }
    return e->out[stream] < 0;
}

static bool read_report(struct shim_conn *c)
{
    struct zl_setup_error err;
    struct shim_exec *e = c->exec;
    ssize_t n = e->report < 0 ? -1 : read(e->report, &err, sizeof err);
    if (n < 0)
        return false;
    e->report = zl_close(e->report);
    if (n != sizeof err)
        return false;
    err.step[sizeof err.step - 1] = 0;
    shim_conn_error(c, err.code, err.step);
    return true;
}

void shim_exec_step(struct shim *s, struct shim_conn *c)
{
    struct shim_exec *e = c->exec;
    (void)s;
    if (e->helper > 0 && waitpid(e->helper, NULL, WNOHANG) == e->helper) {
        int pid = 0;
        e->helper = 0;
        e->helper_fd = zl_close(e->helper_fd);
        if (read(e->announce, &pid, sizeof pid) == sizeof pid) {
            e->pid = pid;
            e->pid_fd = zl_pidfd_open(pid);
        }
        if (e->pid == 0) {
            if (!read_report(c))
                shim_conn_error(c, ZL_E_RUNTIME, "enter the container");
            shim_exec_drop(c);
            return;
        }
    }
    if (e->pid > 0 && !e->exited && waitpid(e->pid, &e->status, WNOHANG) == e->pid) {
        e->exited = true;
        e->pid_fd = zl_close(e->pid_fd);
    }
    if (read_report(c)) {
        shim_exec_drop(c);
        return;
    }
    bool quiet = forward(c, 0);
    quiet = forward(c, 1) && quiet;
    if (!e->exited || !quiet)
        return;
    int signum = WIFSIGNALED(e->status) ? WTERMSIG(e->status) : 0;
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC_EXIT);
    zl_record_add_u64(&c->out, ZL_SH_R_CODE, (uint64_t)(signum ? 128 + signum : WEXITSTATUS(e->status)));
    zl_record_add_u64(&c->out, ZL_SH_R_SIGNAL, (uint64_t)signum);
    zl_frame_end(&c->out, f);
    shim_exec_drop(c);
}
