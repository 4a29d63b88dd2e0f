/*
 * A command in the running container. Entering a pid namespace needs a fork, and the shim itself must not enter: a
 * helper joins the cgroup and the namespaces and leaves the command behind as the shim's own child (CLONE_PARENT), so
 * that it is held and reaped like the first process. Everything is polled: a frozen container stops the helper, never
 * the shim.
 */
#include "base/fd.h"
#include "shim/request.h"
#include "shim/shim.h"
#include "sys/process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What runs: in the helper, then in the command. */
struct command {
    struct zl_job job; /* the container's, with what the request changes */
    struct shim_request_command strings;
};

/* Ends of what a command is given; theirs are closed once it is made. */
struct ends {
    int announce, report, console, in, out[2];
};

static ZL_NORETURN void give_up(int report, const struct zl_setup_error *err)
{
    ZL_IGNORE(zl_write_full(report, err, sizeof *err));
    _exit(err->code == ZL_E_NO_COMMAND ? 127 : 126);
}

static ZL_NORETURN void command(const struct command *cmd, const struct ends *e)
{
    struct zl_setup_error err = { 0 };
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (cmd->job.terminal) {
        if (zl_setup_terminal(&cmd->job, e->console, false, &err) < 0)
            give_up(e->report, &err);
    } else {
        (void)setsid();
    }
    umask(0022);
    ZL_IGNORE(zl_setup_exec(&cmd->job, cmd->strings.argv, -EBADF, &err));
    give_up(e->report, &err);
}

/* Every capability that we have; the kernel refuses to give what is not ours. */
static uint64_t our_capabilities(void)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &head, data) < 0)
        return 0;
    return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

/* Runs in the helper: what it allocates goes with it. */
static void prepare(const struct shim *s, struct zl_str body, const struct shim_request_exec *q, struct command *ret)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    ret->job = s->job;
    shim_request_command(&arena, body, q, s->job.env, &ret->strings);
    ret->job.env = ret->strings.env;
    if (ret->strings.cwd)
        ret->job.cwd = ret->strings.cwd;
    if (ret->strings.user)
        ret->job.user = ret->strings.user;
    ret->job.terminal = q->tty;
    ret->job.rows = q->rows;
    ret->job.columns = q->columns;
    uint64_t caps = q->privileged ? our_capabilities() : 0;
    if (caps)
        ret->job.caps = (struct zl_job_caps){ .bounding = caps, .effective = caps, .permitted = caps };
}

static ZL_NORETURN void helper(const struct shim *s, struct zl_str body, const struct shim_request_exec *q,
                               const struct ends *e)
{
    struct zl_setup_error err = { 0 };
    struct command cmd;
    const int keep[] = { e->announce, e->report, e->console };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* Not for a process of the container to look into or to hold, while it is on its way in (CVE-2016-9962). */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || null < 0 || dup2(e->in < 0 ? null : e->in, 0) < 0 ||
        dup2(e->out[0] < 0 ? null : e->out[0], 1) < 0 || dup2(e->out[1] < 0 ? null : e->out[1], 2) < 0)
        _exit(1);
    zl_setup_close_others(0, keep, ZL_ARRAY_LEN(keep));
    prepare(s, body, q, &cmd);
    int r = zl_cgroup_enter(&s->setup.cgroup, true);
    if (r < 0)
        ZL_IGNORE(zl_setup_fail(&err, r, "enter the container's cgroup"));
    r = r < 0 ? r : zl_setup_limits(&s->job, &err);
    if (r == 0)
        r = zl_setup_enter(s->setup.pid, NULL, &err);
    long pid = r < 0 ? r : syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        command(&cmd, e);
    if (r == 0 && pid < 0)
        ZL_IGNORE(zl_setup_fail(&err, -errno, "make a process in the container"));
    if (pid < 0)
        give_up(e->report, &err);
    int announced = (int)pid;
    ZL_IGNORE(zl_write_full(e->announce, &announced, sizeof announced));
    _exit(0);
}

static int make_pipe(int *ours, int *theirs, bool we_read)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return -errno;
    *ours = p[we_read ? 0 : 1];
    *theirs = p[we_read ? 1 : 0];
    return zl_set_nonblock(*ours, true);
}

static int make_ends(struct shim_exec *e, const struct shim_request_exec *q, struct ends *theirs)
{
    int pair[2];
    int r = make_pipe(&e->announce, &theirs->announce, true);
    r = r < 0 ? r : make_pipe(&e->report, &theirs->report, true);
    if (r < 0)
        return r;
    if (q->tty) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return -errno;
        e->console = pair[0];
        theirs->console = pair[1];
        return 0;
    }
    r = make_pipe(&e->out[0], &theirs->out[0], true);
    r = r < 0 ? r : make_pipe(&e->out[1], &theirs->out[1], true);
    return r < 0 || !q->input ? r : make_pipe(&e->in.fd, &theirs->in, false);
}

/* A free place, or NULL. */
static struct shim_exec **place(struct shim *s)
{
    for (unsigned i = 0; i < SHIM_EXECS; i++)
        if (!s->execs[i])
            return &s->execs[i];
    return NULL;
}

static struct shim_exec *exec_new(struct shim_conn *c)
{
    struct shim_exec *e = zl_xcalloc(1, sizeof *e);
    e->helper_fd = e->pid_fd = e->announce = e->console = e->report = e->out[0] = e->out[1] = e->in.fd = -EBADF;
    e->conn = c;
    return e;
}

/* Everything it ran is reaped. */
static void exec_free(struct shim_exec **at)
{
    struct shim_exec *e = *at;
    int fds[] = { e->helper_fd, e->pid_fd, e->announce, e->console, e->report, e->out[0], e->out[1] };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
    shim_input_done(&e->in);
    if (e->conn)
        e->conn->exec = NULL;
    free(e);
    *at = NULL;
}

static void close_ends(struct ends *e)
{
    int fds[] = { e->announce, e->report, e->console, e->in, e->out[0], e->out[1] };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
}

static size_t count(const char *const *list)
{
    size_t n = 0;
    while (list[n])
        n++;
    return n;
}

static int check(struct shim *s, struct shim_conn *c, struct zl_str body, struct shim_request_exec *q)
{
    int r = shim_request_exec(body, q);
    if (r < 0) {
        shim_conn_error(c, r,
                        r == ZL_E_LIMIT ? "take so long a command or so many words and variables of it"
                                        : "make sense of the command");
        c->closing = r == ZL_E_PROTOCOL;
    } else if (count(s->job.env) + q->nenv > ZL_SH_ENV_MAX) {
        shim_conn_error(c, r = ZL_E_LIMIT, "give a command over 4096 variables, the container's included");
    } else if (!place(s)) {
        shim_conn_error(c, r = ZL_E_LIMIT, "run more commands at once in this container");
    } else if (zl_cgroup_frozen(&s->setup.cgroup) > 0) {
        shim_conn_error(c, r = ZL_E_CONFLICT, "run a command while the container is paused");
    }
    return r;
}

void shim_exec_start(struct shim *s, struct shim_conn *c, struct zl_str body)
{
    struct shim_request_exec q;
    struct ends theirs = { -EBADF, -EBADF, -EBADF, -EBADF, { -EBADF, -EBADF } };
    if (check(s, c, body, &q) < 0)
        return;
    struct shim_exec **at = place(s), *e = exec_new(c);
    e->session = q.session;
    e->tty = q.tty;
    int r = make_ends(e, &q, &theirs);
    if (r == 0) {
        e->helper = fork();
        if (e->helper == 0)
            helper(s, body, &q, &theirs);
        r = e->helper < 0 ? -errno : 0;
    }
    close_ends(&theirs);
    *at = e;
    if (r < 0) {
        shim_conn_error(c, r, "begin the command");
        exec_free(at);
        return;
    }
    e->helper_fd = zl_pidfd_open(e->helper); /* without one it is looked at whenever something else happens */
    c->exec = e;
}

void shim_top_start(struct shim *s, struct shim_conn *c)
{
    struct shim_exec **at = place(s), *e = exec_new(c);
    int theirs = -EBADF;
    int r = at ? make_pipe(&e->out[0], &theirs, true) : ZL_E_LIMIT;
    if (r == 0) {
        e->raw = true;
        e->pid = fork();
        if (e->pid == 0) {
            const int keep[] = { theirs };
            zl_setup_close_others(0, keep, 1);
            shim_top_write(s, theirs);
            _exit(0);
        }
        r = e->pid < 0 ? -errno : 0;
    }
    zl_close(theirs);
    if (r < 0) {
        shim_conn_error(c, r, "list the processes");
        exec_free(&e);
        return;
    }
    e->pid_fd = zl_pidfd_open(e->pid);
    c->exec = *at = e;
}

static bool has_room(const struct shim_exec *e)
{
    return !e->conn || e->conn->out.n < SHIM_OUT_MAX;
}

void shim_exec_poll(const struct shim *s, struct shim_poll *p)
{
    for (unsigned i = 0; i < SHIM_EXECS; i++) {
        const struct shim_exec *e = s->execs[i];
        if (!e)
            continue;
        const int fds[] = { e->helper_fd, e->pid_fd, e->report, e->console };
        for (size_t k = 0; k < ZL_ARRAY_LEN(fds); k++)
            shim_poll_add(p, fds[k], POLLIN);
        for (unsigned k = 0; k < 2 && has_room(e); k++)
            shim_poll_add(p, e->out[k], POLLIN);
        shim_input_poll(&e->in, p);
    }
}

/* Never waits: what is frozen dies when it thaws, and is reaped then. */
static void end_it(struct shim_exec *e)
{
    e->doomed = true;
    if (e->helper > 0)
        (void)kill(e->helper, SIGKILL);
    if (e->pid > 0 && !e->exited)
        (void)kill(e->pid, SIGKILL);
}

void shim_exec_leave(struct shim_exec *e)
{
    e->conn->exec = NULL;
    e->conn = NULL;
    e->in.ended = true;
    shim_input_step(&e->in, e->tty);
    if (!e->session) {
        end_it(e);
    } else if (e->tty) { /* the last master: the terminal's session gets SIGHUP */
        shim_input_done(&e->in);
        e->out[0] = zl_close(e->out[0]);
        e->console = zl_close(e->console);
    }
}

/* Copies output to the client, or away; true when there is nothing more for now. */
static bool forward(struct shim_exec *e, unsigned stream)
{
    static char piece[16384];
    struct shim_conn *c = e->conn;
    if (e->report >= 0)
        return false; /* that it runs is said first */
    for (int turns = 0; turns < 16 && e->out[stream] >= 0 && has_room(e); turns++) {
        ssize_t n = read(e->out[stream], piece, sizeof piece);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return errno == EAGAIN;
        if (n <= 0) { /* EIO: nobody has the terminal open any more */
            e->out[stream] = zl_close(e->out[stream]);
            break;
        }
        if (!c)
            continue;
        if (e->raw) {
            zl_buf_add(&c->out, piece, (size_t)n);
            continue;
        }
        size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_OUTPUT);
        zl_record_add_u64(&c->out, ZL_SH_R_STREAM, stream + 1);
        zl_record_add(&c->out, ZL_SH_R_DATA, piece, (size_t)n);
        zl_frame_end(&c->out, f);
    }
    return e->out[stream] < 0;
}

/* True when the command could not run: that is said, and it is over. */
static bool read_report(struct shim_exec *e)
{
    struct zl_setup_error err;
    ssize_t n = e->report < 0 ? -1 : read(e->report, &err, sizeof err);
    if (n < 0)
        return false;
    e->report = zl_close(e->report);
    if (n == sizeof err) {
        err.step[sizeof err.step - 1] = 0;
        if (e->conn)
            shim_conn_error(e->conn, err.code, err.step);
        return true;
    }
    if (e->session && e->conn && e->pid > 0) {
        size_t f = zl_frame_begin(&e->conn->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_SESSION);
        zl_record_add_u64(&e->conn->out, ZL_SH_R_PID, (uint64_t)e->pid);
        zl_frame_end(&e->conn->out, f);
    }
    return false;
}

/* The helper has ended: who is the command? False when there is none. */
static bool helper_ended(struct shim_exec *e)
{
    int pid = 0;
    e->helper = 0;
    e->helper_fd = zl_close(e->helper_fd);
    if (read(e->announce, &pid, sizeof pid) == sizeof pid && pid > 0) {
        e->pid = pid;
        e->pid_fd = zl_pidfd_open(pid);
        if (e->doomed)
            (void)kill(pid, SIGKILL);
        return true;
    }
    if (!read_report(e) && e->conn)
        shim_conn_error(e->conn, ZL_E_RUNTIME, "enter the container");
    return false;
}

static void take_terminal(struct shim_exec *e)
{
    int master;
    int r = e->console < 0 ? -EBADF : shim_receive_terminal(e->console, &master);
    if (r == -EAGAIN || r == -EBADF)
        return;
    e->console = zl_close(e->console);
    if (r < 0)
        return;
    e->out[0] = master;
    e->in.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
}

static void reply_exit(struct shim_exec *e)
{
    if (!e->conn || e->raw)
        return;
    int signum = WIFSIGNALED(e->status) ? WTERMSIG(e->status) : 0;
    size_t f = zl_frame_begin(&e->conn->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC_EXIT);
    zl_record_add_u64(&e->conn->out, ZL_SH_R_CODE, (uint64_t)(signum ? 128 + signum : WEXITSTATUS(e->status)));
    zl_record_add_u64(&e->conn->out, ZL_SH_R_SIGNAL, (uint64_t)signum);
    zl_frame_end(&e->conn->out, f);
}

/* True when it is over. */
static bool step(struct shim_exec *e)
{
    if (e->helper > 0 && waitpid(e->helper, NULL, WNOHANG) == e->helper && !helper_ended(e))
        return true;
    if (e->tty && e->conn)
        take_terminal(e);
    if (e->pid > 0 && !e->exited && waitpid(e->pid, &e->status, WNOHANG) == e->pid) {
        e->exited = true;
        e->pid_fd = zl_close(e->pid_fd);
    }
    if (e->report >= 0 && e->pid > 0 && read_report(e))
        end_it(e); /* it is on its way out already; the client has its answer */
    if (e->doomed && e->conn && !e->raw) {
        e->conn->exec = NULL;
        e->conn = NULL;
    }
    bool quiet = forward(e, 0);
    quiet = forward(e, 1) && quiet;
    shim_input_step(&e->in, e->tty);
    if (!e->exited || (e->conn && !quiet))
        return false;
    reply_exit(e);
    return true;
}

bool shim_exec_step(struct shim *s)
{
    bool left = false;
    for (unsigned i = 0; i < SHIM_EXECS; i++) {
        if (!s->execs[i])
            continue;
        if (step(s->execs[i]))
            exec_free(&s->execs[i]);
        else
            left |= s->execs[i]->conn != NULL;
    }
    return left;
}
