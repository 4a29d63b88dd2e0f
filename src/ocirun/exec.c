/* exec: one more process in a running container, with the rights of its document. */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct zl_strings joined(struct zl_arena *a, const struct zl_strings *one, const struct zl_strings *two)
{
    const char **v = zl_arena_alloc(a, (one->n + two->n + 1) * sizeof *v);
    unsigned n = 0;
    for (unsigned i = 0; i < one->n; i++)
        v[n++] = one->v[i];
    for (unsigned i = 0; i < two->n; i++)
        v[n++] = two->v[i];
    return (struct zl_strings){ v, n };
}

static int number_of(struct ocirun *r, const char *option, struct zl_str text, int64_t *ret)
{
    return zl_parse_i64(text, 0, UINT32_MAX - 1, ret) == 0
               ? 0
               : zl_fail(&r->err, ZL_E_USAGE, "%s takes numbers, not '%.*s'", option, (int)ZL_MIN(text.n, (size_t)40),
                         text.p ? text.p : "");
}

/* A user other than the container's has none of its groups. */
static int set_user(struct ocirun *r, struct zl_oci_process *p)
{
    struct zl_str gid, uid = zl_str_cut(zl_str(r->o.user), ':', &gid);
    int e = number_of(r, "--user", uid, &p->uid);
    if (e == 0 && gid.p)
        e = number_of(r, "--user", gid, &p->gid);
    return e;
}

static int add_groups(struct ocirun *r, struct zl_oci_process *p)
{
    int64_t *v = zl_arena_alloc(&r->arena, (p->groups.n + r->o.gids.n + 1) * sizeof *v);
    unsigned n = 0;
    int e = 0;
    for (unsigned i = 0; i < p->groups.n; i++)
        v[n++] = p->groups.v[i];
    for (unsigned i = 0; i < r->o.gids.n && e == 0; i++)
        e = number_of(r, "--additional-gids", zl_str(r->o.gids.v[i]), &v[n++]);
    p->groups.v = v;
    p->groups.n = n;
    return e;
}

/* Whoever is not root keeps them at the program's start by the last two sets only. */
static void add_caps(struct ocirun *r, struct zl_oci_process *p)
{
    struct zl_strings *sets[] = { &p->caps.bounding, &p->caps.effective, &p->caps.permitted, &p->caps.inheritable,
                                  &p->caps.ambient };
    const char **names = zl_arena_alloc(&r->arena, (r->o.caps.n + 1) * sizeof *names);
    for (unsigned i = 0; i < r->o.caps.n; i++)
        names[i] = strncmp(r->o.caps.v[i], "CAP_", 4) == 0 ? r->o.caps.v[i]
                                                           : zl_arena_printf(&r->arena, "CAP_%s", r->o.caps.v[i]);
    const struct zl_strings more = { names, r->o.caps.n };
    for (size_t i = 0; i < (p->uid == 0 ? 3 : ZL_ARRAY_LEN(sets)); i++)
        *sets[i] = joined(&r->arena, sets[i], &more);
}

/* The container's own process, with the command in its place. */
static int change_process(struct ocirun *r, struct zl_oci_process *p, struct zl_oci_process **ret)
{
    p->args = r->o.command;
    p->terminal = r->o.tty;
    p->no_new_privileges |= r->o.no_new_privs;
    p->env = joined(&r->arena, &p->env, &r->o.env);
    if (r->o.cwd)
        p->cwd = r->o.cwd;
    if (r->o.apparmor)
        p->apparmor = r->o.apparmor;
    if (r->o.process_label)
        p->selinux = r->o.process_label;
    int e = r->o.user ? set_user(r, p) : 0;
    e = e < 0 ? e : add_groups(r, p);
    add_caps(r, p);
    *ret = p;
    return e;
}

/* What --process says; else the container's own process with the command in its place. */
static int find_process(struct ocirun *r, struct zl_oci_runtime *c, struct zl_oci_process **ret)
{
    if (r->o.process) {
        zl_auto_buf text = ZL_BUF_INIT;
        struct zl_decoder d;
        int e = zl_read_file(AT_FDCWD, r->o.process, ZL_OCI_CONFIG_MAX + 1, &text);
        if (e < 0)
            return zl_fail(&r->err, e, "read %s", r->o.process);
        zl_decoder_init(&d, &r->arena);
        e = zl_oci_process_parse(&d, zl_buf_view(&text), ret, &r->err);
        zl_decoder_done(&d);
        return e < 0 ? zl_wrap(&r->err, e, "%s", r->o.process) : 0;
    }
    if (r->o.command.n == 0)
        return zl_fail(&r->err, ZL_E_USAGE, "exec takes an id and a command, or --process");
    return change_process(r, &c->process, ret);
}

static ZL_NORETURN void give_up(int report, const struct zl_setup_error *err)
{
    ZL_IGNORE(zl_write_full(report, err, sizeof *err));
    _exit(1);
}

/* From a session of the own an ordinary user may not move a process to where systemd has put the container; systemd
 * may. A process that is made there later stays there. */
static int attach(struct ocirun *r, const struct ocirun_state *s, int cgroup)
{
    if (!s->unit || !*s->unit || !s->unit_user || cgroup < 0 || zl_cgroup_enter_at(cgroup) == 0)
        return 0;
    return ocirun_systemd_attach(r, s, getpid());
}

static int enter_class(struct ocirun *r, const struct ocirun_state *s)
{
    zl_auto_close int root = ocirun_rdt_open(r);
    return root < 0 ? root : ocirun_rdt_enter(r, root, s, getpid());
}

/* What has the caller's terminal by a descriptor only can't type into it (TIOCSTI). */
static int leave_session(struct zl_setup_error *err)
{
    return setsid() < 0 ? zl_setup_fail(err, -errno, "begin a session") : 0;
}

/* Enters the container and makes the process there, as a sibling of its own: the caller stays outside and waits for it.
 */
static ZL_NORETURN void enter(struct ocirun *r, const struct ocirun_state *s, const struct zl_job *job,
                              const struct zl_cgroup *g, int announce, int report)
{
    struct zl_setup_error err = { 0 };
    bool inside = false;
    zl_auto_close int cgroup = zl_cgroup_open_unified(g);
    int console = r->console.theirs;
    const int keep[] = { announce, report, console, cgroup };
    int e = attach(r, s, cgroup);
    if (e < 0)
        ZL_IGNORE(zl_setup_fail(&err, e, "%.110s", r->err.text));
    /* Not for a process of the container to look into or to hold, while it is on its way in (CVE-2016-9962). */
    if (e == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        e = zl_setup_fail(&err, -errno, "hide from the container");
    zl_setup_close_others(job->preserve_fds, keep, ZL_ARRAY_LEN(keep));
    if (e == 0 && (e = zl_cgroup_enter(g, false)) < 0)
        ZL_IGNORE(zl_setup_fail(&err, e, "enter the container's cgroup"));
    if (e == 0 && ocirun_has_rdt(s) && enter_class(r, s) < 0)
        e = zl_setup_fail(&err, r->err.code, "%.110s", r->err.text);
    e = e < 0 ? e : zl_setup_affinity(job->cpus_entering, &err);
    e = e < 0 ? e : zl_setup_limits(job, &err);
    zl_auto_close int cgroups = -EBADF;
    e = e < 0 ? e : zl_setup_enter((pid_t)s->pid, &cgroups, &err);
    /* Made in the v2 group: to move there takes the kernel's lock on all processes, which is slow. */
    pid_t pid = e < 0 ? e : zl_setup_clone(CLONE_PARENT, cgroup, &inside);
    if (pid == 0) {
        bool entered = inside || cgroup < 0 || zl_cgroup_enter_at(cgroup) == 0;
        zl_close(cgroup); /* a folder of the host, which /proc/self/fd leads to (CVE-2024-21626) */
        if (!entered)
            ZL_IGNORE(zl_setup_fail(&err, -EPERM, "enter the container's cgroup"));
        else if (cgroups >= 0 && setns(cgroups, CLONE_NEWCGROUP) < 0)
            ZL_IGNORE(zl_setup_fail(&err, -errno, "enter the container's cgroup namespace"));
        else if (job->terminal ? zl_setup_terminal(job, console, false, &err) == 0 : leave_session(&err) == 0)
            ZL_IGNORE(zl_setup_exec(job, job->argv, report, &err));
        give_up(report, &err);
    }
    if (e == 0 && pid < 0)
        ZL_IGNORE(zl_setup_fail(&err, pid, "make a process in the container"));
    if (pid < 0)
        give_up(report, &err);
    int announced = (int)pid;
    ZL_IGNORE(zl_write_full(announce, &announced, sizeof announced));
    _exit(0);
}

static int spawn(struct ocirun *r, const struct zl_oci_runtime *c, struct zl_job *job, const struct ocirun_state *s,
                 const struct zl_cgroup *g)
{
    struct zl_setup_error err = { 0 };
    int announce[2], report[2], pid = 0;
    if (pipe2(announce, O_CLOEXEC) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, report) < 0)
        return zl_fail(&r->err, -errno, "make the pipes");
    if (ocirun_make_console(r, job, !r->o.detach) < 0)
        return r->err.code;
    int console = r->console.theirs;
    pid_t helper = fork();
    if (helper == 0)
        enter(r, s, job, g, announce[1], report[1]);
    if (helper < 0)
        return zl_fail(&r->err, -errno, "make the helper");
    zl_close(announce[1]);
    zl_close(report[1]);
    r->console.theirs = zl_close(console);
    bool announced = zl_read_full(announce[0], &pid, sizeof pid) == (ssize_t)sizeof pid;
    while (waitpid(helper, NULL, 0) < 0 && errno == EINTR) {
    }
    struct ocirun_listener listener = { r, c, s, pid };
    struct zl_setup_peer peer = { pid, ocirun_send_listener, &listener };
    int e = zl_setup_wait_exec(report[0], &peer, &err);
    zl_close(announce[0]);
    zl_close(report[0]);
    if (e == 0 && announced)
        return pid;
    if (announced) {
        (void)kill(pid, SIGKILL);
        (void)ocirun_wait(r, pid);
    }
    return e < 0 ? ocirun_setup_error(r, &err) : zl_fail(&r->err, ZL_E_RUNTIME, "the helper ended without a word");
}

/* [CONTROLLER,…:]PATH: to the group of that path below the container's, of these hierarchies or of all. */
static int go_below(struct ocirun *r, struct zl_cgroup *g, const char *text)
{
    struct zl_str path, names = zl_str_cut(zl_str(text), ':', &path), all = { NULL, 0 };
    bool some = false;
    if (!path.p) {
        path = names;
        names = all;
    }
    for (struct zl_str rest = path; rest.p;)
        if (zl_str_is(zl_str_cut(rest, '/', &rest), ".."))
            return zl_fail(&r->err, ZL_E_USAGE, "--cgroup %.200s: no path leads out of the container's group", text);
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        bool named = !names.p;
        for (struct zl_str rest = names; rest.p && !named;)
            named = zl_str_is(zl_str_cut(rest, ',', &rest), zl_controller_name((enum zl_controller)c));
        if (!named || !g->dir[c][0])
            continue;
        size_t n = strlen(g->dir[c]);
        int more = snprintf(g->dir[c] + n, sizeof g->dir[c] - n, "/%.*s", ZL_STR_FMT(path));
        if (more >= (int)(sizeof g->dir[c] - n) || access(g->dir[c], F_OK) < 0)
            return zl_fail(&r->err, ZL_E_USAGE, "--cgroup %.200s: the container has no such group", text);
        some = true;
    }
    return some ? 0 : zl_fail(&r->err, ZL_E_USAGE, "--cgroup %.200s: there is no such hierarchy", text);
}

int ocirun_exec(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    struct zl_oci_runtime *c;
    struct zl_oci_process *process;
    struct zl_job job;
    struct zl_cgroup g;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return e;
    enum ocirun_status status;
    e = ocirun_status(r, s, folder, &status);
    if (e < 0)
        return e;
    if (status == OCIRUN_PAUSED && !r->o.ignore_paused)
        return zl_fail(&r->err, ZL_E_CONFLICT, "cannot exec in a paused container (--ignore-paused does): %s", id);
    if (status != OCIRUN_RUNNING && status != OCIRUN_PAUSED)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container not running: cannot exec in one that is %s: %s",
                       ocirun_status_names[status], id);
    e = ocirun_load(r, folder, id, &c);
    e = e < 0 ? e : find_process(r, c, &process);
    e = e < 0 ? e : ocirun_job(r, c, process, s->bundle, id, &job);
    if (e < 0)
        return e;
    e = ocirun_cgroup(s, &g);
    if (e < 0)
        return zl_fail(&r->err, e, "find the container's cgroup");
    for (unsigned i = 0; i < r->o.cgroups.n && e == 0; i++)
        e = *r->o.cgroups.v[i] ? go_below(r, &g, r->o.cgroups.v[i]) : 0;
    if (e < 0)
        return e;
    int pid = spawn(r, c, &job, s, &g);
    if (pid < 0)
        return pid;
    e = ocirun_write_pid(r, pid);
    if (e < 0) { /* nobody would know of it */
        (void)kill(pid, SIGKILL);
        (void)ocirun_wait(r, pid);
        return e;
    }
    return r->o.detach ? 0 : ocirun_wait(r, pid);
}
