/*
 * The holder as the agent starts it, adopts it, starts it again, and ends it (src/inside/hold.c). Its lock tells that
 * it lives, what it wrote into the lock's file which it is; its namespaces are opened by its processes' numbers and
 * hold as long as we keep them, so that a holder that was killed gets a successor in the same ones.
 */
#include "agent/agent_priv.h"

#include "aio/child.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"
#include "sys/cgroup.h"
#include "sys/idmap.h"
#include "sys/overlay.h"
#include "sys/process.h"
#include "sys/usage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READY_MS = 10000, RECORD_MS = 2000, END_MS = 5000, POLL_MS = 5, FAILURES_MAX = 5, STEADY_MS = 60000 };
static const char lock_name[] = "holder.lock", log_name[] = "holder.log";

struct record {
    int pid, inner, overlay;
    unsigned long long started, inner_started;
    char boot[ZL_BOOT_ID_SIZE];
};

static const char *find_pasta(void)
{
    static const char *const places[] = { "/usr/bin/pasta", "/usr/local/bin/pasta", "/bin/pasta" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(places); i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

/* The lock: free, and then ours (a descriptor), or -EWOULDBLOCK while a holder has it. `make`: O_CREAT or 0. */
static int try_lock(const struct zl_agent *a, int make)
{
    zl_auto_close int fd = zl_openat(a->o.home->data_dir, lock_name, O_RDWR | make, 0600);
    if (fd < 0)
        return fd;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : ZL_TAKE_FD(fd);
}

static bool read_record(const struct zl_agent *a, struct record *r)
{
    zl_auto_buf text = ZL_BUF_INIT;
    char boot[ZL_BOOT_ID_SIZE];
    return zl_read_file(a->o.home->data_dir, lock_name, 512, &text) == 0 && text.n &&
           sscanf(text.p, "1 %d %llu %d %llu %d %39s", &r->pid, &r->started, &r->inner, &r->inner_started, &r->overlay,
                  r->boot) == 6 &&
           r->pid > 1 && r->inner > 1 && zl_boot_id(boot) == 0 && zl_streq(boot, r->boot);
}

static void choose_overlay(struct zl_agent *a, bool kernel_does)
{
    a->holder->inside.fuse_overlay = kernel_does ? NULL : zl_overlay_program();
}

static void holder_ended(void *arg, int events);

/* The process of that number is the one meant: it is held first, then its start is looked at. */
static int take(struct zl_agent *a, const struct record *r)
{
    struct holder *h = a->holder;
    uint64_t started = 0, inner_started = 0;
    zl_auto_close int pidfd = zl_pidfd_open(r->pid);
    zl_auto_close int inner = zl_pidfd_open(r->inner);
    if (pidfd < 0 || inner < 0)
        return pidfd < 0 ? pidfd : inner;
    int e = zl_process_start_time(r->pid, &started);
    e = e < 0 ? e : zl_process_start_time(r->inner, &inner_started);
    if (e < 0 || started != r->started || inner_started != r->inner_started)
        return e < 0 ? e : -ESRCH;
    e = zl_inside_open(&h->inside, r->inner);
    struct pollfd gone = { .fd = inner, .events = POLLIN };
    if (e == 0 && poll(&gone, 1, 0) != 0) { /* had it ended meanwhile, its number might be another's */
        zl_inside_done(&h->inside);
        e = -ESRCH;
    }
    if (e < 0)
        return e;
    h->pidfd = ZL_TAKE_FD(pidfd);
    h->pid = r->pid;
    h->started_ms = zl_clock_mono_ms();
    choose_overlay(a, r->overlay);
    e = zl_watch_new(a->loop, h->pidfd, ZL_READABLE, holder_ended, a, &h->watch);
    if (e < 0)
        zl_log_warn("the holder pid=%d is not watched: %s", (int)h->pid, zl_error_text(e));
    return 0;
}

/* A holder that has just been started may not have written its record yet. */
static int adopt(struct zl_agent *a)
{
    struct record r = { 0 };
    uint64_t until = zl_clock_mono_ms() + RECORD_MS;
    while (!read_record(a, &r) && zl_clock_mono_ms() < until)
        (void)poll(NULL, 0, POLL_MS);
    return take(a, &r);
}

const char *agent_groups(const struct zl_agent *a)
{
    return a->holder ? a->holder->groups : a->o.home->cgroup;
}

/* Whether groups can be made there with these limits, in every hierarchy, is tried. */
static bool can_make(const char *parent, const struct zl_cgroup_limits *limits)
{
    struct zl_cgroup g;
    bool made =
        zl_usage_find_group(parent, "x", &g) == 0 && g.layout != ZL_CGROUP_NONE && zl_cgroup_create(&g, limits) == 0;
    ZL_IGNORE(zl_cgroup_destroy(&g, 0)); /* what was not made is not there */
    zl_cgroup_remove_parent(parent);
    return made;
}

/* Below the topmost group that is this user's on the way to the own one, as a systemd of the user or an administrator
 * has delegated it. */
static void find_groups(struct zl_agent *a)
{
    struct holder *h = a->holder;
    char above[200];
    const struct zl_cgroup_limits none = { 0 }, all = { .memory_bytes = 64 << 20, .cpu_quota_us = 50000, .pids = 64 };
    if (zl_cgroup_delegated(above) < 0)
        return;
    snprintf(h->groups, sizeof h->groups, "%s/%s", above, a->o.home->cgroup);
    if (!can_make(h->groups, &none))
        h->groups[0] = 0;
    else
        h->limits = can_make(h->groups, &all);
    zl_log_info("cgroups below='%s' limits=%s", h->groups, h->limits ? "yes" : "no");
}

/* systemd ends what a user runs with the last session, unless the user lingers. */
static bool ends_with_session(void)
{
    char path[300];
    const struct passwd *who = getpwuid(geteuid());
    snprintf(path, sizeof path, "/run/systemd/users/%u", (unsigned)geteuid());
    if (!who || access(path, F_OK) < 0)
        return false;
    snprintf(path, sizeof path, "/var/lib/systemd/linger/%.200s", who->pw_name);
    return access(path, F_OK) < 0;
}

unsigned agent_warnings(const struct zl_agent *a, struct zl_arena *arena, const struct zl_spec *spec, bool owned,
                        const char *ret[AGENT_WARNINGS])
{
    const struct holder *h = a->holder;
    const char *limited = NULL;
    unsigned n = 0;
    for (unsigned i = 0; spec && !limited && i < spec->services.n; i++) {
        const struct zl_service *s = spec->services.v[i];
        limited = s->resources.memory_bytes || s->resources.cpu > 0 ? s->name : NULL;
    }
    if (!h)
        return 0;
    if (limited && !h->limits)
        ret[n++] = zl_arena_printf(arena, "resources of '%s' are not limited: %s (zlayer doctor says how to get that)",
                                   limited,
                                   h->groups[0] ? "the delegated cgroup has processes in it or lacks controllers"
                                                : "no cgroup is delegated to this user");
    if (!find_pasta())
        ret[n++] = "containers have no way out of this machine: pasta is not installed (package passt)";
    else if (access("/dev/net/tun", R_OK | W_OK) < 0)
        ret[n++] = "containers have no way out of this machine: /dev/net/tun is not this user's to open";
    if (!owned && ends_with_session())
        ret[n++] = "this may end with your last session: 'loginctl enable-linger' lets it go on";
    return n;
}

void agent_holder_open(struct zl_agent *a)
{
    struct zl_idmap map;
    struct holder *h = a->holder = zl_xcalloc(1, sizeof *h);
    h->inside = ZL_INSIDE_NONE(a->o.inside);
    h->pidfd = -EBADF;
    zl_idmap_own(&map);
    h->inside.top_uid = map.top_uid;
    h->inside.top_gid = map.top_gid;
    find_groups(a);
    int lock = try_lock(a, 0);
    if (lock != -EWOULDBLOCK) {
        if (lock >= 0)
            (void)unlinkat(a->o.home->data_dir, lock_name, 0); /* of one that was killed */
        zl_close(lock);
        return;
    }
    int r = adopt(a);
    h->adopted = r == 0;
    if (r < 0)
        zl_log_error("the holder that an earlier agent left can't be used: %s", zl_error_text(r));
    else
        zl_log_info("holder adopted pid=%d", (int)h->pid);
}

void agent_holder_learn(struct zl_agent *a, const char *id)
{
    struct zl_arena arena;
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_value *v;
    struct zl_parse_error pe;
    char path[80], boot[ZL_BOOT_ID_SIZE];
    uint64_t started = 0;
    if (!a->holder || a->holder->inside.net >= 0)
        return;
    zl_arena_init(&arena);
    snprintf(path, sizeof path, "containers/%.40s/state", id);
    if (zl_read_file(a->o.home->data_dir, path, 4096, &text) == 0 &&
        zl_json_parse(&arena, zl_buf_view(&text), &zl_limits_document, &v, &pe) == 0 && zl_boot_id(boot) == 0 &&
        zl_streq(boot, zl_value_cstr(v, "boot_id"))) {
        pid_t first = (pid_t)ZL_MIN(zl_value_u64(v, "pid", 0), (uint64_t)INT32_MAX);
        pid_t shim = (pid_t)ZL_MIN(zl_value_u64(v, "shim_pid", 0), (uint64_t)INT32_MAX);
        /* The shim's start is not recorded, but that of its child is. */
        if (first > 0 && zl_process_start_time(first, &started) == 0 && started == zl_value_u64(v, "start_time", 0) &&
            zl_process_parent(first) == shim && zl_inside_open(&a->holder->inside, shim) == 0)
            zl_log_warn("there is no holder of the namespaces any more; they are those of instance=%s", id);
    }
    zl_arena_done(&arena);
}

bool agent_holder_left(const struct zl_agent *a)
{
    if (!a->holder)
        return false;
    int lock = try_lock(a, 0);
    zl_close(lock);
    return a->holder->pid || a->holder->inside.net >= 0 || lock == -EWOULDBLOCK;
}

/* Its descriptors: the log, the lock, the pipe, and the namespaces of before, when there are any. */
static int spawn(struct zl_agent *a, int lock, int ready)
{
    const struct zl_inside *in = &a->holder->inside;
    const struct zl_state *s = zl_cluster_state(a->cluster);
    char uplink[INET_ADDRSTRLEN];
    struct in_addr network = { htonl(s->ranges.uplinks) };
    const char *pasta = find_pasta();
    if (!pasta || access("/dev/net/tun", R_OK | W_OK) < 0)
        zl_log_warn("containers have no way out: %s",
                    pasta ? "/dev/net/tun is not this user's to open" : "pasta is not installed (package passt)");
    bool join = in->net >= 0;
    const char *argv[] = { "zl-inside",
                           "hold",
                           a->o.home->data,
                           pasta ? pasta : "-",
                           inet_ntop(AF_INET, &network, uplink, sizeof uplink),
                           join ? "join" : NULL,
                           NULL };
    zl_auto_close int log = zl_openat(a->o.home->data_dir, log_name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    const struct zl_child_fd fds[] = { { log, 2 },
                                       { lock, ZL_INSIDE_FD_LOCK },
                                       { ready, ZL_INSIDE_FD_READY },
                                       { in->user, ZL_INSIDE_FD_USER },
                                       { in->mnt, ZL_INSIDE_FD_MNT },
                                       { in->net, ZL_INSIDE_FD_NET } };
    enum { WITHOUT_NAMESPACES = 3 };
    const struct zl_child_options o = { .path = in->program,
                                        .argv = argv,
                                        .envp = (const char *const *)environ,
                                        .fds = fds,
                                        .nfds = join ? ZL_ARRAY_LEN(fds) : WITHOUT_NAMESPACES,
                                        .session = true };
    return zl_child_spawn(a->loop, &o, NULL); /* the loop reaps it while we live */
}

/* Two lines of zl-inside: what failed, and what to do. */
static int refused(const char *text, struct zl_err *err)
{
    struct zl_str hint, what = zl_str_cut(zl_str(text), '\n', &hint);
    if (!what.n)
        return zl_fail(err, ZL_E_RUNTIME,
                       "the namespaces of an ordinary user can't be made, and zl-inside says not why");
    int r = zl_fail(err, ZL_E_PERMISSION, "%.*s", ZL_STR_FMT(what));
    hint = hint.p ? zl_str_trim(hint) : ZL_STR("");
    return hint.n ? zl_hint(err, r, "%.*s", ZL_STR_FMT(hint)) : r;
}

/* "ok OVERLAY", or two lines: what failed, and what to do. */
static int read_ready(struct zl_agent *a, int fd, struct zl_err *err)
{
    char text[640];
    size_t n = 0;
    uint64_t until = zl_clock_mono_ms() + READY_MS, now;
    while (n + 1 < sizeof text && (now = zl_clock_mono_ms()) < until) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        ssize_t got = poll(&p, 1, (int)(until - now)) == 1 ? read(fd, text + n, sizeof text - 1 - n) : -1;
        if (got == 0)
            break;
        n += got > 0 ? (size_t)got : 0;
    }
    text[n] = 0;
    int overlay = 0;
    if (sscanf(text, "ok %d", &overlay) == 1) {
        choose_overlay(a, overlay == 0);
        if (overlay == 0 || a->holder->inside.fuse_overlay)
            return 0;
        return zl_hint(err,
                       zl_fail_errno(err, ZL_E_UNSUPPORTED, overlay, "stack layers by overlayfs in a user namespace"),
                       "needs Linux 5.11 and a local file system under the data dir, or the package fuse-overlayfs and "
                       "/dev/fuse");
    }
    return refused(text, err);
}

int agent_holder_up(struct zl_agent *a, struct zl_err *err)
{
    int ready[2];
    if (!a->holder || a->holder->pid)
        return 0;
    zl_auto_close int lock = try_lock(a, O_CREAT);
    if (lock == -EWOULDBLOCK)
        return adopt(a) < 0 ? zl_fail(err, ZL_E_RUNTIME,
                                      "the holder of an earlier agent can't be used; end the process "
                                      "that holds %.200s/%s",
                                      a->o.home->data, lock_name)
                            : 0;
    if (lock < 0 || ftruncate(lock, 0) < 0 || pipe2(ready, O_CLOEXEC) < 0)
        return zl_fail(err, lock < 0 ? lock : -errno, "start the holder of the namespaces");
    zl_auto_close int from = ready[0];
    a->holder->adopted = a->holder->inside.net >= 0;
    int r = spawn(a, lock, ready[1]);
    zl_close(ready[1]);
    zl_phase("holder.spawned");
    if (r < 0)
        return zl_fail(err, r, "start %.200s", a->o.inside);
    r = read_ready(a, from, err);
    if (r < 0)
        return r;
    r = adopt(a);
    zl_phase("holder.up");
    return r < 0 ? zl_fail(err, r, "use the holder of the namespaces") : 0;
}

int zl_agent_check_user(const char *inside, struct zl_err *err)
{
    char text[640];
    int status = 0;
    const char *const argv[] = { "zl-inside", "check", NULL };
    zl_auto_close int out = memfd_create("zl-inside", MFD_CLOEXEC);
    int r = out < 0 ? -errno : zl_inside_spawn(inside, argv, out, &status);
    if (r < 0)
        return zl_fail(err, r, "run %.300s", inside);
    if (status == 0)
        return 0;
    ssize_t n = pread(out, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return refused(text, err);
}

/* It was killed: what runs goes on, but for pasta, and would be lost to the agent after this one. */
static void holder_ended(void *arg, int events)
{
    struct zl_agent *a = arg;
    struct holder *h = a->holder;
    struct zl_err err = { 0 };
    (void)events;
    h->watch = zl_watch_free(h->watch);
    h->pidfd = zl_close(h->pidfd);
    h->failures = zl_clock_mono_ms() - h->started_ms > STEADY_MS ? 0 : h->failures + 1;
    zl_log_error("the holder of the namespaces has ended pid=%d", (int)h->pid);
    h->pid = 0;
    if (h->failures >= FAILURES_MAX)
        zl_log_error("it ends again and again and is not started any more; see %s/%s", a->o.home->data, log_name);
    else if (agent_holder_up(a, &err) < 0)
        zl_log_error("it can't be started again: %s", err.text);
    else
        zl_log_info("another one holds them pid=%d", (int)h->pid);
}

void agent_holder_down(struct zl_agent *a)
{
    struct holder *h = a->holder;
    if (!h)
        return;
    h->watch = zl_watch_free(h->watch);
    if (h->pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, h->pidfd, SIGTERM, NULL, 0);
    uint64_t until = zl_clock_mono_ms() + END_MS;
    int lock;
    while ((lock = try_lock(a, 0)) == -EWOULDBLOCK && h->pid && zl_clock_mono_ms() < until)
        (void)poll(NULL, 0, POLL_MS);
    if (lock == -EWOULDBLOCK)
        zl_log_warn("the holder of the namespaces does not end pid=%d", (int)h->pid);
    h->pidfd = zl_close(h->pidfd);
    h->pid = 0;
    zl_inside_done(&h->inside);
    if (lock >= 0) {
        (void)unlinkat(a->o.home->data_dir, lock_name, 0);
        (void)unlinkat(a->o.home->data_dir, log_name, 0);
    }
    zl_close(lock);
}

void agent_holder_close(struct zl_agent *a)
{
    if (!a->holder)
        return;
    zl_watch_free(a->holder->watch);
    zl_close(a->holder->pidfd);
    zl_inside_done(&a->holder->inside);
    free(a->holder);
    a->holder = NULL;
}
