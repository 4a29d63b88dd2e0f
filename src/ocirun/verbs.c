#include "ocirun/ocirun.h"

#include "base/clock.h"
#include "base/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* A socket in a folder, whatever its path's length: bound and reached through the descriptor. */
static void socket_address(int folder, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/start.sock", folder);
}

static int make_starter(int folder)
{
    struct sockaddr_un a;
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socket_address(folder, &a);
    return fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0 ? -errno
                                                                                                      : ZL_TAKE_FD(fd);
}

int ocirun_load(struct ocirun *r, int dir, const char *shown, struct zl_oci_runtime **ret)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_decoder d;
    int e = zl_read_file(dir, "config.json", ZL_OCI_CONFIG_MAX + 1, &text);
    if (e < 0)
        return zl_fail(&r->err, e, "read %s/config.json", shown);
    zl_decoder_init(&d, &r->arena);
    e = zl_oci_runtime_parse(&d, zl_buf_view(&text), ret, &r->err);
    zl_decoder_done(&d);
    return e < 0 ? zl_wrap(&r->err, e, "%s/config.json", shown) : 0;
}

static int find_bundle(struct ocirun *r, const char **ret)
{
    const char *given = r->o.bundle ? r->o.bundle : ".";
    zl_auto_free char *real = realpath(given, NULL);
    if (!real)
        return zl_fail(&r->err, -errno, "open the bundle %s", given);
    *ret = zl_arena_strdup(&r->arena, real);
    return 0;
}

int ocirun_write_pid(struct ocirun *r, pid_t pid)
{
    char text[16];
    int e = r->o.pidfd_socket ? ocirun_send_pidfd(r, pid) : 0;
    if (e < 0 || !r->o.pid_file)
        return e;
    snprintf(text, sizeof text, "%d", (int)pid);
    const char *slash = strrchr(r->o.pid_file, '/');
    const char *above = !slash ? "."
                        : slash == r->o.pid_file
                            ? "/"
                            : zl_arena_strndup(&r->arena, r->o.pid_file, (size_t)(slash - r->o.pid_file));
    zl_auto_close int dir = zl_openat(AT_FDCWD, above, O_RDONLY | O_DIRECTORY, 0);
    e = dir < 0 ? dir
                : zl_write_file_atomic(dir, slash ? slash + 1 : r->o.pid_file, text, strlen(text), 0644, ZL_KILL_PROOF);
    return e < 0 ? zl_fail(&r->err, e, "write %s", r->o.pid_file) : 0;
}

/* Engines tell by these words that the program is at fault, not the runtime. */
int ocirun_setup_error(struct ocirun *r, const struct zl_setup_error *e)
{
    bool in_path = e->code == ZL_E_NO_COMMAND && strstr(e->step, "PATH");
    const char *why = in_path                          ? ": executable file not found in $PATH"
                      : e->code == ZL_E_NO_COMMAND     ? ": no such file or directory"
                      : e->code == ZL_E_NOT_EXECUTABLE ? ": permission denied"
                                                       : "";
    return zl_fail(&r->err, e->code, "%s%s", e->step, why);
}

struct creation {
    struct ocirun *r;
    const struct zl_oci_runtime *c;
    struct ocirun_state *s;
    struct ocirun_groups *groups;
    bool failed; /* r->err says it all */
    int resctrl; /* where that is mounted; -EBADF: nothing of it is asked */
};

static int place(void *arg, pid_t pid, struct zl_setup_error *err)
{
    struct creation *k = arg;
    int e = ocirun_groups_place(k->groups, pid);
    k->failed = e < 0;
    return e < 0 ? zl_setup_fail(err, e, "start the unit") : 0;
}

static int hooks_failed(struct ocirun *r, struct zl_setup_error *err)
{
    /* The text has the cause already. */
    return zl_setup_fail(err, r->err.code > -4096 ? ZL_E_RUNTIME : r->err.code, "%.110s", r->err.text);
}

static int created(void *arg, pid_t pid, struct zl_setup_error *err)
{
    struct creation *k = arg;
    k->s->pid = pid;
    int e = k->resctrl < 0 ? 0 : ocirun_rdt_enter(k->r, k->resctrl, k->s, pid);
    e = e < 0 ? e : ocirun_hooks(k->r, k->c, ZL_OCI_PRESTART, k->s, "creating");
    e = e < 0 ? e : ocirun_hooks(k->r, k->c, ZL_OCI_CREATE_RUNTIME, k->s, "creating");
    return e < 0 ? hooks_failed(k->r, err) : 0;
}

/* In the container's process, a copy of ours. */
static int in_container(void *arg, bool starting, struct zl_setup_error *err)
{
    struct creation *k = arg;
    k->s->pid = getpid();
    int e = ocirun_hooks(k->r, k->c, starting ? ZL_OCI_START_CONTAINER : ZL_OCI_CREATE_CONTAINER, k->s,
                         starting ? "created" : "creating");
    return e < 0 ? hooks_failed(k->r, err) : 0;
}

/* The document as it is now: what start, exec and delete go by. */
static int keep_config(struct ocirun *r, const char *bundle, int folder)
{
    const char *path = r->o.config ? r->o.config : zl_arena_printf(&r->arena, "%s/config.json", bundle);
    zl_auto_buf text = ZL_BUF_INIT;
    struct stat st;
    if (stat(path, &st) < 0)
        return zl_fail(&r->err, -errno, "read %s", path);
    if (!S_ISREG(st.st_mode)) /* at a pipe we would wait */
        return zl_fail(&r->err, ZL_E_INVALID, "%s is no file", path);
    int e = zl_read_file(AT_FDCWD, path, ZL_OCI_CONFIG_MAX + 1, &text);
    if (e < 0)
        return zl_fail(&r->err, e, "read %s", path);
    e = zl_write_file_atomic(folder, "config.json", text.p, text.n, 0600, ZL_KILL_PROOF);
    return e < 0 ? zl_fail(&r->err, e, "keep the document") : 0;
}

static void drop(const struct ocirun_groups *groups, bool classed, int resctrl)
{
    struct zl_err why = groups->r->err;
    ocirun_groups_drop(groups);
    if (classed)
        ZL_IGNORE(ocirun_rdt_remove(groups->r, resctrl, groups->s));
    groups->r->err = why;
}

/* From a folder that is ours to a process that waits at the socket; to `run`, at the gate that `setup` holds. */
static int create_in(struct ocirun *r, int folder, const char *id, bool run, struct zl_setup *setup,
                     struct zl_oci_runtime **ret, struct ocirun_state *ret_state)
{
    struct zl_oci_runtime *c;
    struct zl_job job;
    struct ocirun_state s = { .id = id };
    char boot[ZL_BOOT_ID_SIZE], now[ZL_TIME_TEXT_SIZE];
    int e = find_bundle(r, &s.bundle);
    e = e < 0 ? e : keep_config(r, s.bundle, folder);
    e = e < 0 ? e : ocirun_load(r, folder, s.bundle, &c);
    if (e == 0 && run && !c->has_process)
        e = zl_fail(&r->err, ZL_E_INVALID, "process: without one there is nothing to run");
    e = e < 0 ? e : ocirun_job(r, c, NULL, s.bundle, id, &job);
    if (e < 0)
        return e;
    struct ocirun_groups groups = { .r = r, .c = c, .s = &s, .folder = folder };
    e = ocirun_groups_plan(&groups, id);
    e = e < 0 ? e : ocirun_rdt_plan(r, &c->linux_.rdt, &s);
    zl_auto_close int resctrl = e == 0 && ocirun_has_rdt(&s) ? ocirun_rdt_open(r) : -EBADF;
    if (e < 0 || (ocirun_has_rdt(&s) && resctrl < 0))
        return e < 0 ? e : resctrl;
    s.version = c->version;
    s.rootfs = job.rootfs;
    s.created = zl_arena_strdup(&r->arena, zl_time_text_s(zl_clock_wall_ms(), now));
    e = zl_boot_id(boot); /* a record without one would be that of another boot, and its process count as ended */
    if (e < 0)
        return zl_fail(&r->err, e, "read /proc/sys/kernel/random/boot_id");
    s.boot_id = zl_arena_strdup(&r->arena, boot);
    s.annotations = c->annotations;
    e = ocirun_write_state(r, folder, &s); /* without a process yet: enough for `delete` when we are killed */
    if (e < 0)
        return e;
    zl_auto_close int starter = run ? -EBADF : make_starter(folder);
    if (starter < 0 && !run)
        return zl_fail(&r->err, starter, "make the start socket");
    e = ocirun_make_console(r, &job, run && !r->o.detach);
    e = e < 0 ? e : ocirun_groups_make(&groups);
    if (e == 0 && resctrl >= 0)
        e = ocirun_rdt_make(r, resctrl, &c->linux_.rdt, &s);
    bool classed = e == 0 && resctrl >= 0;
    struct creation creation = { r, c, &s, &groups, false, resctrl };
    struct zl_setup_options o = { .dir = -EBADF,
                                  .cgroup = groups.g,
                                  .console = r->console.theirs,
                                  .created = created,
                                  .place = groups.properties ? place : NULL,
                                  .in_container = in_container,
                                  .arg = &creation,
                                  .own_stdio = true,
                                  .outlives = true,
                                  .starter = starter };
    struct zl_setup_error se = { 0 };
    if (e == 0 && zl_setup_create(&job, &o, setup, &se) < 0)
        e = creation.failed ? r->err.code : ocirun_setup_error(r, &se);
    r->console.theirs = zl_close(r->console.theirs);
    if (e < 0) {
        drop(&groups, classed, resctrl);
        return e;
    }
    s.pid = setup->pid;
    s.start_time = (int64_t)setup->start_time;
    e = ocirun_write_state(r, folder, &s);
    e = e < 0 ? e : ocirun_write_pid(r, setup->pid);
    if (e < 0) {
        zl_setup_abort(setup);
        drop(&groups, classed, resctrl);
    }
    *ret = c;
    *ret_state = s;
    return e;
}

static int started(struct ocirun *r, const struct zl_oci_runtime *c, const struct ocirun_state *s)
{
    return c->hooks[ZL_OCI_POSTSTART].n ? ocirun_hooks(r, c, ZL_OCI_POSTSTART, s, "running") : 0;
}

/* It is about to end, and who called deletes it next. */
static void wait_for_end(pid_t pid)
{
    zl_auto_close int pidfd = zl_pidfd_open(pid);
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    if (pidfd >= 0)
        (void)poll(&p, 1, 2000);
}

int ocirun_start(struct ocirun *r, const char *id)
{
    struct sockaddr_un a;
    struct zl_setup_error se = { 0 };
    zl_auto_close int folder = ocirun_open_folder(r, id);
    if (folder < 0)
        return folder;
    struct ocirun_state *s;
    struct zl_oci_runtime *c;
    int e = ocirun_read_state(r, folder, id, &s);
    e = e < 0 ? e : ocirun_load(r, folder, id, &c);
    if (e < 0)
        return e;
    if (!c->has_process)
        return zl_fail(&r->err, ZL_E_INVALID, "container %s has no process to start", id);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socket_address(folder, &a);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return errno == ENOENT || errno == ECONNREFUSED
                   ? zl_fail(&r->err, ZL_E_CONFLICT, "container %s does not wait to be started", id)
                   : zl_fail(&r->err, -errno, "reach the container %s", id);
    (void)unlinkat(folder, "start.sock", 0);
    struct ocirun_listener listener = { r, c, s, (pid_t)s->pid };
    struct zl_setup_peer peer = { (pid_t)s->pid, ocirun_send_listener, &listener };
    if (zl_setup_await(fd, fd, &peer, &se) < 0) {
        wait_for_end((pid_t)s->pid);
        return ocirun_setup_error(r, &se);
    }
    return started(r, c, s);
}

/* One without groups is ended by its first process, with which its pid namespace ends. */
static int end_without_groups(struct ocirun *r, const struct ocirun_state *s, int folder)
{
    enum ocirun_status status = OCIRUN_STOPPED;
    int e = s->cgroup_name[0] ? 0 : ocirun_status(r, s, folder, &status);
    if (e < 0 || status == OCIRUN_STOPPED)
        return e;
    zl_auto_close int pidfd = zl_pidfd_open((pid_t)s->pid);
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    if (pidfd < 0)
        return pidfd == -ESRCH ? 0 : zl_fail(&r->err, pidfd, "open the process of %s", s->id);
    e = ocirun_status(r, s, folder, &status);
    if (e < 0 || status == OCIRUN_STOPPED) /* it was that one that was opened */
        return e;
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return zl_fail(&r->err, -errno, "kill %s", s->id);
    return poll(&p, 1, 10000) == 1 ? 0 : zl_fail(&r->err, ZL_E_TIMEOUT, "%s was killed and does not end", s->id);
}

static int remove_class(struct ocirun *r, const struct ocirun_state *s)
{
    if (!ocirun_has_rdt(s) || !s->rdt)
        return 0;
    zl_auto_close int root = ocirun_rdt_open(r);
    if (root == ZL_E_UNSUPPORTED) { /* it was unmounted, and its classes have gone with it */
        r->err = (struct zl_err){ 0 };
        return 0;
    }
    return root < 0 ? root : ocirun_rdt_remove(r, root, s);
}

static int remove_container(struct ocirun *r, int folder, const char *id, struct zl_oci_runtime *c)
{
    struct ocirun_state *s;
    int e = ocirun_read_state(r, folder, id, &s);
    e = e < 0 ? e : end_without_groups(r, s, folder);
    e = e < 0 ? e : ocirun_groups_remove(r, s, 10000);
    e = e < 0 ? e : remove_class(r, s);
    if (e < 0)
        return e;
    bool known = c || ocirun_load(r, folder, id, &c) == 0;
    e = ocirun_remove_folder(r, id);
    if (e == 0 && known && ocirun_hooks(r, c, ZL_OCI_POSTSTOP, s, "stopped") < 0)
        fprintf(stderr, "zl-oci: %s\n", r->err.text); /* it is gone all the same (runtime.md, Lifecycle, 12) */
    return e;
}

int ocirun_create(struct ocirun *r, const char *id, bool run)
{
    struct zl_setup setup;
    struct zl_setup_error se = { 0 };
    struct zl_oci_runtime *c;
    struct ocirun_state s;
    int e = ocirun_check_id(id, &r->err);
    zl_auto_close int folder = e < 0 ? e : ocirun_make_folder(r, id);
    if (folder < 0)
        return folder;
    e = create_in(r, folder, id, run, &setup, &c, &s);
    if (e < 0) {
        struct zl_err why = r->err;
        ZL_IGNORE(ocirun_remove_folder(r, id));
        r->err = why;
        return e;
    }
    if (!run)
        return 0;
    struct ocirun_listener listener = { r, c, &s, setup.pid };
    struct zl_setup_peer peer = { setup.pid, ocirun_send_listener, &listener };
    e = zl_setup_start(&setup, &peer, &se) < 0 ? ocirun_setup_error(r, &se) : started(r, c, &s);
    if (e == 0 && r->o.detach)
        return 0;
    if (e < 0)
        (void)kill(setup.pid, SIGKILL);
    int status = ocirun_wait(r, setup.pid), code = e < 0 ? e : status;
    struct zl_err why = r->err;
    if (r->o.keep && e == 0)
        return code;
    if (remove_container(r, folder, id, c) < 0 && code >= 0)
        return zl_wrap(&r->err, r->err.code, "remove %s", id);
    r->err = why;
    return code;
}

int ocirun_kill(struct ocirun *r, const char *id, const char *signal)
{
    struct ocirun_state *s;
    struct zl_cgroup g;
    int signum = zl_signal_number(zl_str(signal));
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return e;
    if (signum == 0)
        return zl_fail(&r->err, ZL_E_USAGE, "no signal is called '%.40s'", signal);
    enum ocirun_status status;
    e = ocirun_status(r, s, folder, &status);
    if (e < 0)
        return e;
    if (r->o.all && s->cgroup_name[0]) { /* without groups the first process is all that is known */
        e = ocirun_cgroup(s, &g);
        e = e < 0 ? e : zl_cgroup_signal(&g, signum);
        return e < 0 ? zl_fail(&r->err, e, "signal the group of %s", id) : 0;
    }
    if (status == OCIRUN_STOPPED)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container not running: %s", id);
    /* By a descriptor that is checked again, so that a reused pid is nobody's loss. */
    zl_auto_close int pidfd = zl_pidfd_open((pid_t)s->pid);
    uint64_t start;
    if (pidfd < 0 || zl_process_start_time((pid_t)s->pid, &start) < 0 || start != (uint64_t)s->start_time)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container not running: %s", id);
    return syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, 0) < 0 ? zl_fail(&r->err, -errno, "signal %s", id) : 0;
}

/* By force: what is in the groups that the document names is ended before the folder goes. systemd's are not known. */
static int remove_unreadable(struct ocirun *r, int folder, const char *id)
{
    struct zl_oci_runtime *c;
    struct ocirun_state s = { .id = id, .cgroup_parent = "", .cgroup_name = "", .unit = "", .controllers = UINT32_MAX };
    int e = ocirun_load(r, folder, id, &c);
    const char *path = e == 0 ? c->linux_.cgroups_path : NULL;
    if (e == 0 && !(path && strchr(path, ':')) &&
        ocirun_cgroup_path(r, path, id, &s.cgroup_parent, &s.cgroup_name) == 0) {
        e = ocirun_groups_remove(r, &s, 10000);
        if (e < 0)
            return e;
    }
    r->err = (struct zl_err){ 0 };
    return ocirun_remove_folder(r, id);
}

int ocirun_delete(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    if (folder < 0)
        return folder == ZL_E_NOT_FOUND && r->o.force ? 0 : folder;
    int e = ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return !r->o.force ? e : e == ZL_E_NOT_FOUND ? ocirun_remove_folder(r, id) : remove_unreadable(r, folder, id);
    enum ocirun_status status;
    e = ocirun_status(r, s, folder, &status);
    if (e < 0)
        return e;
    if (status != OCIRUN_STOPPED && !r->o.force)
        return zl_fail(&r->err, ZL_E_CONFLICT, "cannot delete container %s that is not stopped: %s", id,
                       ocirun_status_names[status]);
    return remove_container(r, folder, id, NULL);
}
