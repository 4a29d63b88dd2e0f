/*
 * zl-shim: sets one container up from its instance folder's `job`, waits for START, then stays as its parent until
 * everything of it is gone. docs/ARCHITECTURE.md, The shim.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "shim/shim.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/usage.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The gate's frames are small, and the agent reads them at once: a gate that does not take one is closed. */
static void tell(struct shim *s, uint16_t type, const struct zl_setup_error *err)
{
    zl_auto_buf b = ZL_BUF_INIT;
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, type);
    if (err) {
        zl_record_add_u64(&b, ZL_SH_R_CODE, (uint64_t)(int64_t)err->code);
        zl_record_add_str(&b, ZL_SH_R_TEXT, zl_str(err->step));
    } else {
        zl_record_add_u64(&b, ZL_SH_R_PID, (uint64_t)s->setup.pid);
        zl_record_add_u64(&b, ZL_SH_R_START_TIME, s->setup.start_time);
    }
    zl_frame_end(&b, f);
    if (send(ZL_SH_FD_GATE, b.p, b.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)b.n)
        s->gate_open = false;
}

static int load_job(struct shim *s, struct zl_setup_error *err)
{
    zl_arena_init(&s->arena);
    int r = zl_read_file(ZL_SH_FD_DIR, "job", ZL_JOB_MAX, &s->job_bytes);
    r = r < 0 ? r : zl_job_decode(&s->arena, zl_buf_view(&s->job_bytes), &s->job);
    if (r < 0)
        return zl_setup_fail(err, r, "read the job");
    static const char *const folders[] = { "upper", "work", "merged" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(folders) && r == 0; i++)
        r = zl_mkdirat(ZL_SH_FD_DIR, folders[i], 0755);
    if (r < 0)
        return zl_setup_fail(err, r, "make the upper layer's folders");
    r = shim_log_open(&s->log, ZL_SH_FD_DIR, s->job.log_max_bytes, (unsigned)ZL_MIN(s->job.log_files, 1000u));
    return r < 0 ? zl_setup_fail(err, r, "open the log") : 0;
}

static bool stacked; /* by a program, in our mount namespace */

/*
 * Layers stacked by a program. It is mounted in a mount namespace of ours, so that the container's has a copy and
 * nothing else sees it; when both are gone, so is the file system, and its process with it. That process is ours, out
 * of the container's reach and sight.
 */
static int stack_by_program(struct zl_job *job, struct zl_setup_error *err)
{
    zl_auto_buf options = ZL_BUF_INIT;
    char merged[] = "merged";
    int status = 0;
    pid_t pid;
    for (unsigned i = 0; i < job->nlowers; i++) {
        if (strpbrk(job->lowers[i], ":,\\"))
            return zl_setup_fail(err, -EINVAL, "stack the layer %.80s (its path has a : or , in it)", job->lowers[i]);
        zl_buf_printf(&options, "%s%s", i ? ":" : "lowerdir=", job->lowers[i]);
    }
    zl_buf_puts(&options, ",upperdir=upper,workdir=work");
    /* The working folder goes along into the namespace; a descriptor stays on the mount of before. */
    if (fchdir(ZL_SH_FD_DIR) < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return zl_setup_fail(err, -errno, "make a mount namespace for the layers");
    zl_auto_close int here = zl_openat(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0);
    if (here < 0 || dup3(here, ZL_SH_FD_DIR, O_CLOEXEC) < 0)
        return zl_setup_fail(err, here < 0 ? here : -errno, "open the instance folder again");
    char *const argv[] = { (char *)(uintptr_t)job->fuse_overlay, (char[]){ "-o" }, options.p, merged, NULL };
    int e = posix_spawn(&pid, job->fuse_overlay, NULL, NULL, argv, environ);
    if (e)
        return zl_setup_fail(err, -e, "start %.80s", job->fuse_overlay);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return zl_setup_fail(err, -EIO, "stack the layers by %.80s", job->fuse_overlay);
    job->rootfs = "merged";
    stacked = true;
    return 0;
}

static int make_cgroup(const struct zl_job *job, struct zl_cgroup *ret, struct zl_setup_error *err)
{
    struct zl_cgroup_limits limits = { .memory_bytes = job->memory_bytes,
                                       .cpu_quota_us = job->cpu_quota_us,
                                       .pids = job->pids };
    int r = zl_usage_find_group(job->cgroup_parent, job->id, ret);
    r = r < 0 ? r : zl_cgroup_create(ret, &limits);
    if (r == 0)
        return 0;
    ZL_IGNORE(zl_cgroup_destroy(ret, 1000));
    return zl_setup_fail(err, r, "make the cgroup with its limits");
}

/* The pair goes with the container's namespace, but not at once; its address may be given away as soon as we are gone.
 */
static void remove_link(const struct shim *s)
{
    if (!s->job.netns || !s->job.netns[0])
        return;
    zl_auto_close int netns = zl_netns_open(s->job.netns);
    if (netns < 0 || zl_netns_enter(netns) < 0)
        return;
    zl_auto_close int nl = zl_netlink_open();
    if (nl >= 0)
        ZL_IGNORE(zl_link_delete(nl, s->job.link)); /* gone already: as it should be */
}

static void remove_folders(void)
{
    static const char *const names[] = { "upper", "work", "merged", "shim.sock" };
    if (stacked)
        (void)umount2("merged", MNT_DETACH);
    for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++)
        ZL_IGNORE(zl_remove_tree(ZL_SH_FD_DIR, names[i])); /* what stays is removed with the instance */
}

bool shim_drain(struct shim *s, unsigned stream)
{
    static char piece[SHIM_LOG_BATCH / 4];
    int *fd = stream ? &s->setup.err : &s->setup.out;
    if (*fd < 0)
        return false;
    ssize_t n = read(*fd, piece, sizeof piece);
    if (n > 0) {
        shim_log_feed(&s->log, stream, zl_str_n(piece, (size_t)n), zl_clock_mono_ms());
        shim_attach_output(s, stream, zl_str_n(piece, (size_t)n));
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        *fd = zl_close(*fd);
    return n < 0 && errno == EINTR;
}

/* The container is over: nothing of it is left when `exit` appears, and `exit` is there when anybody hears of it. */
static ZL_NORETURN void end(struct shim *s)
{
    s->phase = SHIM_ENDING;
    zl_phase("shim.exited");
    while (zl_cgroup_destroy(&s->setup.cgroup, 10000) == -EBUSY) {
        /* A process that can't be killed (stuck in the kernel) still is the container. */
        while (shim_drain(s, 0) || shim_drain(s, 1)) {
        }
    }
    while (shim_drain(s, 0) || shim_drain(s, 1)) {
    }
    shim_log_close(&s->log);
    remove_link(s);
    zl_phase("shim.cleaned");
    for (int i = 0; shim_record_exit(s) < 0 && i < 60; i++) {
        /* A full disk: what may be given up for the record goes; then whoever else fills it has a minute. */
        if (i == 0)
            remove_folders();
        else if (i == 1)
            shim_log_give_way(ZL_SH_FD_DIR);
        else
            (void)nanosleep(&(struct timespec){ 1, 0 }, NULL);
    }
    zl_phase("shim.recorded");
    shim_server_finish(s);
    remove_folders();
    _exit(0);
}

static ZL_NORETURN void end_unstarted(struct shim *s)
{
    zl_setup_abort(&s->setup);
    s->setup.out = s->setup.err = -EBADF;
    s->outcome = (struct shim_outcome){ .reason = SHIM_RUNTIME_ERROR, .code = 255, .finished_ms = zl_clock_wall_ms() };
    end(s);
}

static void start(struct shim *s)
{
    struct zl_setup_error err = { 0 };
    shim_oom_start(s);
    zl_phase("shim.starting");
    if (zl_setup_start(&s->setup, NULL, &err) < 0) {
        tell(s, ZL_SH_FAILED, &err);
        end_unstarted(s);
    }
    s->phase = SHIM_RUNNING;
    ZL_IGNORE(shim_record_state(s)); /* on a full disk the old record stays; INFO tells the truth */
    zl_phase("shim.started");
    tell(s, ZL_SH_STARTED, NULL);
}

static void read_gate(struct shim *s)
{
    char piece[256];
    ssize_t n = recv(ZL_SH_FD_GATE, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct zl_frame f;
    if (n > 0)
        zl_buf_add(&s->gate_in, piece, (size_t)n);
    ssize_t size = n > 0 ? zl_frame_parse(zl_buf_view(&s->gate_in), ZL_SH_MAGIC, 4096, &f) : -EPIPE;
    if (size == 0)
        return;
    if (size > 0 && f.type == ZL_SH_START && s->phase == SHIM_CREATED) {
        zl_buf_drop(&s->gate_in, (size_t)size);
        start(s);
        return;
    }
    s->gate_open = false;
    if (s->phase == SHIM_CREATED)
        end_unstarted(s);
}

static void reap(struct shim *s)
{
    int status = 0;
    if (waitpid(s->setup.pid, &status, WNOHANG) != s->setup.pid)
        return;
    if (s->phase == SHIM_CREATED)
        end_unstarted(s);
    shim_oom_judge(s, status);
    end(s);
}

static ZL_NORETURN void serve(struct shim *s)
{
    static struct shim_poll p;
    for (;;) {
        uint64_t now = zl_clock_mono_ms();
        int wait = shim_log_tick(&s->log, now);
        if (now < s->oom_watch_until)
            wait = wait < 0 ? 5 : ZL_MIN(wait, 5);
        p.n = 0;
        shim_poll_add(&p, s->setup.pidfd, POLLIN);
        shim_poll_add(&p, s->setup.out, POLLIN);
        shim_poll_add(&p, s->setup.err, POLLIN);
        shim_poll_add(&p, s->oom_fd, POLLIN);
        if (s->gate_open)
            shim_poll_add(&p, ZL_SH_FD_GATE, POLLIN);
        shim_server_poll(s, &p);
        shim_exec_poll(s, &p);
        shim_input_poll(&s->in, &p);
        if (poll(p.fds, p.n, wait) < 0)
            continue;
        if (s->phase == SHIM_RUNNING && (s->oom_fd >= 0 || s->oom_watch_until))
            shim_oom_look(s);
        (void)shim_drain(s, 0);
        (void)shim_drain(s, 1);
        if (s->gate_open)
            read_gate(s);
        shim_server_step(s);
        reap(s);
    }
}

/* Whatever happens to others, only SIGKILL ends a shim. */
static void prepare(void)
{
    static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP };
    for (size_t i = 0; i < ZL_ARRAY_LEN(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
    for (int fd = ZL_SH_FD_LOCK; fd <= ZL_SH_FD_GATE; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    ZL_IGNORE(zl_set_nonblock(ZL_SH_FD_LISTEN, true));
    (void)prctl(PR_SET_NAME, "zl-shim", 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    umask(0022);
}

/* The container up to its gate, and our ends of its streams: two pipes, or its terminal. */
static int set_up(struct shim *s, const struct zl_cgroup *cgroup, struct zl_setup_error *err)
{
    int console[2] = { -EBADF, -EBADF };
    if (s->job.terminal && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0)
        return zl_setup_fail(err, -errno, "make a socket for the terminal");
    struct zl_setup_options o = { .dir = ZL_SH_FD_DIR, .cgroup = cgroup, .console = console[1], .starter = -EBADF };
    int r = zl_setup_create(&s->job, &o, &s->setup, err);
    if (r == 0 && s->job.terminal) {
        s->setup.out = zl_close(s->setup.out);
        s->setup.err = zl_close(s->setup.err);
        s->setup.in = zl_close(s->setup.in);
        r = shim_receive_terminal(console[0], &s->setup.out);
        if (r == 0 && s->job.open_stdin)
            r = s->setup.in = fcntl(s->setup.out, F_DUPFD_CLOEXEC, 3);
        if (r < 0)
            ZL_IGNORE(zl_setup_fail(err, r, "receive the terminal"));
        if (r < 0)
            zl_setup_abort(&s->setup);
    }
    zl_close(console[0]);
    zl_close(console[1]);
    if (r < 0)
        return r;
    s->in.fd = ZL_TAKE_FD(s->setup.in);
    const int ours[] = { s->setup.out, s->setup.err, s->in.fd };
    for (size_t i = 0; i < ZL_ARRAY_LEN(ours); i++)
        if (ours[i] >= 0)
            ZL_IGNORE(zl_set_nonblock(ours[i], true));
    return 0;
}

int main(void)
{
    static struct shim s;
    struct zl_setup_error err = { 0 };
    struct stat st;
    for (int fd = ZL_SH_FD_LOCK; fd <= ZL_SH_FD_GATE; fd++) {
        if (fstat(fd, &st) < 0) {
            fputs("zl-shim is started by zlayerd, with its descriptors; there is no use in starting it by hand\n",
                  stderr);
            return 2;
        }
    }
    prepare();
    shim_server_init(&s);
    s.gate_open = true;
    s.oom_fd = -EBADF;
    int r = load_job(&s, &err);
    zl_phase("shim.loaded");
    struct zl_cgroup cgroup;
    r = r < 0 ? r : make_cgroup(&s.job, &cgroup, &err);
    if (r == 0 && s.job.fuse_overlay[0])
        r = stack_by_program(&s.job, &err);
    r = r < 0 ? r : set_up(&s, &cgroup, &err);
    if (r < 0) {
        tell(&s, ZL_SH_FAILED, &err);
        remove_link(&s);
        remove_folders();
        return 1;
    }
    r = shim_record_state(&s);
    if (r < 0) {
        ZL_IGNORE(zl_setup_fail(&err, r, "write the state"));
        tell(&s, ZL_SH_FAILED, &err);
        end_unstarted(&s);
    }
    zl_phase("shim.created");
    tell(&s, ZL_SH_CREATED, NULL);
    serve(&s);
}
