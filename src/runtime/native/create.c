#include "runtime/native/native_priv.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "runtime/native/job.h"
#include "runtime/native/protocol.h"
#include "runtime/native/replies.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BIT(cap) (UINT64_C(1) << (cap))
static const uint64_t default_caps = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) |
                                     BIT(CAP_KILL) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETFCAP) | BIT(CAP_SETGID) |
                                     BIT(CAP_SETPCAP) | BIT(CAP_SETUID) | BIT(CAP_SYS_CHROOT);

static const char *masked[] = { "/proc/acpi",
                                "/proc/asound",
                                "/proc/interrupts",
                                "/proc/kcore",
                                "/proc/keys",
                                "/proc/latency_stats",
                                "/proc/timer_list",
                                "/proc/timer_stats",
                                "/proc/sched_debug",
                                "/proc/scsi",
                                "/sys/firmware",
                                "/sys/devices/virtual/powercap",
                                NULL };
static const char *readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL };
/* clang-format off */
enum { SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC };
static struct zl_job_namespace namespaces[] = {
    { CLONE_NEWNS, "" }, { CLONE_NEWPID, "" }, { CLONE_NEWUTS, "" }, { CLONE_NEWIPC, "" }, { CLONE_NEWNET, "" },
    { CLONE_NEWCGROUP, "" },
};
static struct zl_job_mount mounts[] = {
    { "/proc", "proc", "proc", "", SAFE, 0 },
    { "/sys", "sysfs", "sysfs", "", SAFE | MS_RDONLY, 0 },
    { "/sys/fs/cgroup", "cgroup", "cgroup", "", SAFE | MS_RDONLY, 0 },
    { "/dev", "tmpfs", "tmpfs", "mode=755,size=64k", MS_NOSUID | MS_NOEXEC, 0 },
    { "/dev/pts", "devpts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC, 0 },
    { "/dev/shm", "shm", "tmpfs", "mode=1777,size=64m", SAFE, 0 },
    { "/dev/mqueue", "mqueue", "mqueue", "", SAFE, 0 },
};
static struct zl_job_device devices[] = {
    { "/dev/null", S_IFCHR | 0666, 1, 3, 0, 0 },   { "/dev/zero", S_IFCHR | 0666, 1, 5, 0, 0 },
    { "/dev/full", S_IFCHR | 0666, 1, 7, 0, 0 },   { "/dev/random", S_IFCHR | 0666, 1, 8, 0, 0 },
    { "/dev/urandom", S_IFCHR | 0666, 1, 9, 0, 0 }, { "/dev/tty", S_IFCHR | 0666, 5, 0, 0, 0 },
};
static struct zl_job_pair links[] = {
    { "/dev/fd", "/proc/self/fd" }, { "/dev/stdin", "/proc/self/fd/0" }, { "/dev/stdout", "/proc/self/fd/1" },
    { "/dev/stderr", "/proc/self/fd/2" }, { "/dev/ptmx", "pts/ptmx" },
};
static struct zl_job_pair sysctls[] = { { "net/ipv4/ping_group_range", "0 2147483647" } }; /* ping needs no NET_RAW */
/* clang-format on */
enum { TTY_GROUP = 5 };
static const char default_path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static bool sets(const struct zl_rt_spec *spec, const char *name)
{
    size_t n = strlen(name);
    for (unsigned i = 0; i < spec->nenv; i++)
        if (strncmp(spec->env[i], name, n) == 0 && spec->env[i][n] == '=')
            return true;
    return false;
}

/*
 * What is different in an ordinary user's namespaces: the shim is in the node's network already, layers keep their
 * marks where such a user may write them, and no id is named that is not there.
 */
static void encode_inside(const struct zl_inside *in, struct zl_arena *a, struct zl_job *j)
{
    struct zl_job_mount *m = zl_arena_alloc(a, sizeof mounts);
    struct zl_job_pair *range = zl_arena_alloc(a, sizeof sysctls);
    memcpy(m, mounts, sizeof mounts);
    memcpy(range, sysctls, sizeof sysctls);
    for (size_t i = 0; i < ZL_ARRAY_LEN(mounts) && in->top_gid < TTY_GROUP; i++)
        if (zl_streq(m[i].type, "devpts"))
            m[i].data = "newinstance,ptmxmode=0666,mode=0620";
    range[0].value = zl_arena_printf(a, "0 %u", (unsigned)in->top_gid);
    j->mounts = m;
    j->sysctls = range;
    j->user_xattr = true;
    j->fuse_overlay = in->fuse_overlay ? in->fuse_overlay : "";
    if (j->netns[0])
        j->netns = "/proc/self/ns/net";
}

static void encode_job(const struct native *n, const struct zl_rt_spec *spec, struct zl_buf *out)
{
    struct zl_arena a;
    zl_arena_init(&a);
    char link[ZL_RT_LINK_SIZE];
    zl_rt_link_name(spec->id, link);
    struct zl_job_rlimit nofile = { RLIMIT_NOFILE, n->nofile, n->nofile };
    struct zl_job j = {
        .id = spec->id,
        .hostname = spec->hostname ? spec->hostname : "",
        .cwd = spec->cwd && *spec->cwd ? spec->cwd : "/",
        .user = spec->user ? spec->user : "",
        .umask = 0022,
        .cgroup_parent = n->cgroup_parent,
        .memory_bytes = spec->limits.memory_bytes,
        .cpu_quota_us = spec->limits.cpu_millis * 100,
        .pids = spec->limits.pids,
        .caps = { default_caps, default_caps, default_caps, 0, 0 },
        .namespaces = namespaces,
        .nnamespaces = ZL_ARRAY_LEN(namespaces),
        .mounts = mounts,
        .nmounts = ZL_ARRAY_LEN(mounts),
        .devices = devices,
        .ndevices = ZL_ARRAY_LEN(devices),
        .links = links,
        .nlinks = ZL_ARRAY_LEN(links),
        .sysctls = sysctls,
        .nsysctls = ZL_ARRAY_LEN(sysctls),
        .rlimits = &nofile,
        .nrlimits = n->nofile > 0,
        .no_new_privs = true,
        .seccomp = spec->unconfined_seccomp ? ZL_STR("") : zl_buf_view(&n->seccomp),
        .netns = spec->netns ? spec->netns : "",
        .link = link,
        .addr = spec->address.s_addr,
        .local = spec->node_address.s_addr,
        .log_max_bytes = spec->log_max_bytes,
        .log_files = spec->log_max_files,
        .open_stdin = spec->open_stdin,
        .terminal = spec->tty,
        .rows = spec->rows,
        .columns = spec->columns,
        .masked = masked,
        .readonly = readonly,
        .nfiles = spec->nfiles,
    };
    j.argv = zl_arena_alloc(&a, (spec->nargv + 1) * sizeof *j.argv);
    j.env = zl_arena_alloc(&a, (spec->nenv + 3) * sizeof *j.env);
    j.lowers = zl_arena_alloc(&a, (spec->nlayers + 1) * sizeof *j.lowers);
    j.files = zl_arena_alloc(&a, (spec->nfiles + 1) * sizeof *j.files);
    for (unsigned i = 0; i < spec->nargv; i++)
        j.argv[i] = spec->argv[i];
    unsigned e = 0;
    if (!sets(spec, "PATH"))
        j.env[e++] = default_path;
    if (!sets(spec, "HOSTNAME") && *j.hostname)
        j.env[e++] = zl_arena_printf(&a, "HOSTNAME=%s", j.hostname);
    for (unsigned i = 0; i < spec->nenv; i++)
        j.env[e++] = spec->env[i];
    for (unsigned i = 0; i < spec->nlayers; i++) /* the job wants the topmost first */
        j.lowers[i] = spec->layers[spec->nlayers - 1 - i];
    j.nlowers = spec->nlayers;
    for (unsigned i = 0; i < spec->nfiles; i++) {
        j.files[i].name = zl_arena_printf(&a, "/etc/%s", spec->files[i].name);
        j.files[i].value = zl_arena_strndup(&a, spec->files[i].content.p, spec->files[i].content.n);
    }
    if (n->inside)
        encode_inside(n->inside, &a, &j);
    zl_job_encode(out, &j);
    zl_arena_done(&a);
}

static int check(const struct native *n, const struct zl_rt_spec *spec, struct zl_err *err)
{
    (void)n;
    if (spec->nargv == 0)
        return zl_fail(err, ZL_E_NO_COMMAND, "there is no command to run");
    if (spec->nlayers == 0 || spec->nlayers > 500)
        return zl_fail(err, ZL_E_INVALID, "%u layers: there must be 1 to 500", spec->nlayers);
    if (spec->hostname && strlen(spec->hostname) > 63)
        return zl_fail(err, ZL_E_INVALID, "the host name '%.70s' is over 63 bytes", spec->hostname);
    if (spec->nenv > 4000)
        return zl_fail(err, ZL_E_LIMIT, "%u environment variables: at most 4000", spec->nenv);
    if (spec->rows > UINT16_MAX || spec->columns > UINT16_MAX)
        return zl_fail(err, ZL_E_INVALID, "a terminal of %u rows and %u columns", spec->rows, spec->columns);
    for (unsigned i = 0; i < spec->nfiles; i++)
        if (!*spec->files[i].name || strchr(spec->files[i].name, '/') || zl_streq(spec->files[i].name, "..") ||
            memchr(spec->files[i].content.p, 0, spec->files[i].content.n))
            return zl_fail(err, ZL_E_INVALID, "'%.40s' is no name of a text file below /etc", spec->files[i].name);
    return 0;
}

static int make_socket(int dir)
{
    struct sockaddr_un a;
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    zl_rt_socket_address(dir, &a);
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, SOMAXCONN) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

/* Writes the folder: after this it is an instance whose shim is dead, until one has its lock. */
static int fill_folder(const struct native *n, const struct zl_rt_spec *spec, int dir, uint64_t now_ms, int *ret_lock,
                       int *ret_listener)
{
    zl_auto_buf meta = ZL_BUF_INIT, job = ZL_BUF_INIT;
    zl_rt_meta_print(&meta, spec, now_ms);
    encode_job(n, spec, &job);
    if (job.n > ZL_JOB_MAX)
        return ZL_E_LIMIT;
    int r = zl_write_file_atomic(dir, "meta.json", meta.p, meta.n, 0640, ZL_KILL_PROOF);
    r = r < 0 ? r : zl_write_file_atomic(dir, "job", job.p, job.n, 0600, ZL_KILL_PROOF);
    zl_auto_close int lock = r < 0 ? r : zl_openat(dir, "lock", O_RDWR | O_CREAT | O_EXCL, 0600);
    if (r < 0 || lock < 0)
        return r < 0 ? r : lock;
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    zl_phase("create.folder");
    r = *ret_listener = make_socket(dir);
    if (r < 0)
        return r;
    *ret_lock = ZL_TAKE_FD(lock);
    return 0;
}

/* A create that failed: its shim has ended; what it made goes, then the caller hears why. */
static void create_failed(struct instance *i)
{
    struct call *c = ZL_TAKE(i->create);
    if (c)
        c->err = i->failure;
    if (!i->removing)
        instance_remove(i->n, i->info.id, c);
    else if (c)
        call_finish(c);
}

void shim_ref_drop(struct shim_ref *ref)
{
    struct shim_ref **at = &ref->n->shims;
    while (*at != ref)
        at = &(*at)->next;
    *at = ref->next;
    if (ref->i)
        ref->i->shim = NULL;
    zl_child_free(ref->child);
    free(ref);
}

static void shim_ended(void *arg, int status)
{
    struct shim_ref *ref = arg;
    struct instance *i = ref->i;
    (void)status; /* what it had to say it has said on the gate and on disk */
    ref->child = NULL;
    shim_ref_drop(ref);
    if (!i)
        return;
    native_read_gate(i);
    if (i->phase == I_CREATING) {
        if (!i->failure.code)
            (void)zl_fail(&i->failure, ZL_E_CREATE_FAILED, "the shim of instance %s ended during the set-up",
                          i->info.id);
        create_failed(i);
    } else if (!i->wait) {
        instance_lost(i);
    }
}

static void created(struct instance *i, struct zl_str body)
{
    struct zl_record r;
    uint64_t pid = 0;
    while (zl_record_next(&body, &r) > 0)
        if (r.type == ZL_SH_R_PID && zl_record_u64(&r, &pid) < 0)
            pid = 0;
    i->info.pid = (pid_t)pid;
    i->phase = I_CREATED;
    zl_phase("create.done");
    if (!i->removing)
        instance_wait(i);
    if (i->create)
        call_finish(ZL_TAKE(i->create));
}

static void gate_frame(struct instance *i, const struct zl_frame *f)
{
    struct call *start = i->start;
    switch (f->type) {
    case ZL_SH_CREATED:
        if (i->phase == I_CREATING)
            created(i, f->body);
        break;
    case ZL_SH_STARTED:
        if (i->phase == I_STARTING)
            i->phase = I_RUNNING;
        i->start = NULL;
        zl_phase("start.done");
        if (start)
            call_finish(start);
        break;
    case ZL_SH_FAILED:
        zl_sh_take_error(f->body, i->phase == I_CREATING ? ZL_E_CREATE_FAILED : ZL_E_START_FAILED,
                         start ? &start->err : &i->failure);
        i->start = NULL;
        if (start)
            call_finish(start);
        break;
    default:
        break;
    }
}

/* The gate is of use until the program runs. */
static void gate_ready(void *arg, int events)
{
    struct instance *i = arg;
    char piece[4096];
    (void)events;
    ssize_t n = recv(i->gate, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        struct zl_frame f;
        ssize_t size;
        zl_buf_add(&i->gate_in, piece, (size_t)n);
        while ((size = zl_frame_parse(zl_buf_view(&i->gate_in), ZL_SH_MAGIC, 65536, &f)) > 0) {
            gate_frame(i, &f);
            if (i->gate < 0)
                return;
            zl_buf_drop(&i->gate_in, (size_t)size);
        }
        if (size == 0 && i->phase != I_RUNNING)
            return;
    }
    instance_close_gate(i); /* it runs, or its shim is gone, which its exit or its lock tells */
}

static int spawn(struct instance *i, int dir, int lock, int listener)
{
    struct native *n = i->n;
    int gate[2];
    char path[40], crash[128];
    const char *at = getenv("ZLAYER_CRASH_AT");
    snprintf(path, sizeof path, "/proc/self/fd/%d", n->shim);
    snprintf(crash, sizeof crash, "ZLAYER_CRASH_AT=%s", at ? at : "");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
        return -errno;
    const struct zl_inside *in = n->inside;
    char inner[40];
    snprintf(inner, sizeof inner, "/proc/self/fd/%d", ZL_INSIDE_FD_PROGRAM);
    const char *const argv[] = { "zl-inside", "enter", inner, "zl-shim", i->info.id, NULL };
    const char *const envp[] = { at ? crash : NULL, NULL };
    struct shim_ref *ref = zl_xcalloc(1, sizeof *ref);
    *ref = (struct shim_ref){ .n = n, .i = i };
    const struct zl_child_fd fds[] = {
        { lock, ZL_SH_FD_LOCK },
        { dir, ZL_SH_FD_DIR },
        { listener, ZL_SH_FD_LISTEN },
        { gate[1], ZL_SH_FD_GATE },
        { n->shim, ZL_INSIDE_FD_PROGRAM },
        { in ? in->user : -EBADF, ZL_INSIDE_FD_USER },
        { in ? in->mnt : -EBADF, ZL_INSIDE_FD_MNT },
        { in ? in->net : -EBADF, ZL_INSIDE_FD_NET },
    };
    enum { PLAIN = 4 };
    struct zl_child_options o = { .path = in ? in->program : path,
                                  .argv = in ? argv : argv + 3,
                                  .envp = envp,
                                  .fds = fds,
                                  .nfds = in ? ZL_ARRAY_LEN(fds) : PLAIN,
                                  .session = true,
                                  .exited = shim_ended,
                                  .arg = ref };
    int r = zl_child_spawn(n->loop, &o, &ref->child);
    zl_close(gate[1]);
    if (r < 0)
        free(ref);
    if (r == 0) {
        ref->next = n->shims;
        n->shims = i->shim = ref;
        r = zl_watch_new(n->loop, gate[0], ZL_READABLE, gate_ready, i, &i->gate_watch);
    }
    if (r < 0) {
        zl_close(gate[0]); /* a shim that was spawned ends by that */
        return r;
    }
    i->gate = gate[0];
    return 0;
}

static void describe(struct instance *i, const struct zl_rt_spec *spec, uint64_t now_ms)
{
    struct zl_rt_instance *info = &i->info;
    snprintf(info->id, sizeof info->id, "%s", spec->id);
    info->deployment = zl_arena_strdup(&i->arena, spec->deployment ? spec->deployment : "");
    info->service = zl_arena_strdup(&i->arena, spec->service ? spec->service : "");
    info->image = zl_arena_strdup(&i->arena, spec->image ? spec->image : "");
    info->note = zl_arena_strdup(&i->arena, spec->note ? spec->note : "");
    info->slot = spec->slot;
    info->generation = spec->generation;
    info->address = spec->address;
    info->created_at_ms = now_ms;
}

void native_read_gate(struct instance *i)
{
    if (i->gate >= 0)
        gate_ready(i, 0);
}

void native_create(struct native *n, const struct zl_rt_spec *spec, struct call *c)
{
    uint64_t now_ms = zl_clock_wall_ms();
    if (check(n, spec, &c->err) < 0 || native_filter(n, &c->err) < 0) {
        call_finish(c);
        return;
    }
    if (mkdirat(n->containers, spec->id, 0711) < 0) {
        if (errno == EEXIST)
            call_fail(c, ZL_E_EXISTS, "there is an instance %s already", spec->id);
        else
            call_fail(c, errno == ENOSPC ? ZL_E_DISK_FULL : -errno, "make the folder of instance %s", spec->id);
        return;
    }
    struct instance *i = instance_new(n);
    describe(i, spec, now_ms);
    instance_add(i);
    i->create = c;
    zl_auto_close int dir = zl_openat(n->containers, spec->id, O_RDONLY | O_DIRECTORY, 0);
    zl_auto_close int lock = -EBADF;
    zl_auto_close int listener = -EBADF;
    int r = dir < 0 ? dir : fill_folder(n, spec, dir, now_ms, &lock, &listener);
    r = r < 0 ? r : spawn(i, dir, lock, listener);
    zl_phase("create.spawned");
    if (r < 0) {
        (void)zl_fail_errno(&i->failure, r == -ENOSPC ? ZL_E_DISK_FULL : ZL_E_CREATE_FAILED, r, "prepare instance %s",
                            spec->id);
        if (!i->shim)
            create_failed(i);
    }
}

void native_start(struct native *n, struct call *c)
{
    struct instance *i = instance_find(n, c->id);
    zl_auto_buf b = ZL_BUF_INIT;
    if (!i || i->removing) {
        call_fail(c, ZL_E_NOT_FOUND, "there is no instance %s", c->id);
        return;
    }
    if (i->phase != I_CREATED || i->gate < 0) {
        call_fail(c, ZL_E_CONFLICT, "instance %s does not wait to be started", c->id);
        return;
    }
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_START));
    if (send(i->gate, b.p, b.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)b.n) {
        call_fail(c, ZL_E_START_FAILED, "the shim of instance %s is gone", c->id);
        return;
    }
    zl_phase("start.sent");
    i->phase = I_STARTING;
    i->start = c;
}
