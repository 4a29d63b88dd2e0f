#include "sys/cgroup.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum { GROUP_DEPTH_MAX = 16 };
static const char *const controller_names[ZL_CONTROLLER_COUNT] = { "",        "memory",   "cpu",   "cpuacct", "pids",
                                                                   "freezer", "devices",  "blkio", "cpuset",  "hugetlb",
                                                                   "net_cls", "net_prio", "rdma" };
enum { FIRST_SIX = (1u << ZL_CONTROLLER_DEVICES) - 1 };

const char *zl_controller_name(enum zl_controller c)
{
    return controller_names[c];
}

static int read_value(const char *dir, const char *file, struct zl_buf *ret)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    return zl_read_file(AT_FDCWD, path, 1 << 20, ret);
}

static int write_value(const char *dir, const char *file, const char *value)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, value, strlen(value));
}

static int write_u64(const char *dir, const char *file, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return write_value(dir, file, text);
}

static uint64_t number_after(const struct zl_buf *b, const char *key)
{
    /* Lines of "key value"; an empty key takes the whole text. */
    struct zl_str rest = zl_buf_view(b);
    while (rest.p && rest.n) {
        struct zl_str value, line = zl_str_cut(rest, '\n', &rest);
        uint64_t v;
        if (!*key)
            value = line;
        else if (!zl_str_is(zl_str_cut(line, ' ', &value), key))
            continue;
        if (zl_str_is(value, "max"))
            return UINT64_MAX;
        return zl_parse_u64(value, 0, UINT64_MAX, &v) < 0 ? 0 : v;
    }
    return 0;
}

/* A line of /proc/self/mountinfo: …fields… mountpoint …  - fstype source superoptions. proc(5) */
static int take_mount(struct zl_str line, uint32_t controllers, const char *parent, const char *id, struct zl_cgroup *g)
{
    struct zl_str field, rest = line, mountpoint = { NULL, 0 }, type, options;
    for (int i = 0; rest.p && i < 5; i++)
        mountpoint = zl_str_cut(rest, ' ', &rest);
    const char *dash = rest.p ? memmem(rest.p, rest.n, " - ", 3) : NULL;
    if (!dash)
        return 0;
    rest = zl_str_n(dash + 3, rest.n - (size_t)(dash + 3 - rest.p));
    type = zl_str_cut(rest, ' ', &rest);
    (void)zl_str_cut(rest.p ? rest : ZL_STR(""), ' ', &options);
    bool v2 = zl_str_is(type, "cgroup2");
    if (!v2 && !zl_str_is(type, "cgroup"))
        return 0;
    for (unsigned c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        if (!(controllers >> c & 1))
            continue;
        bool match = v2 && c == ZL_CONTROLLER_UNIFIED;
        for (struct zl_str o = options; !v2 && o.p && c > 0 && !match;) {
            field = zl_str_cut(o, ',', &o);
            match = zl_str_is(field, controller_names[c]);
        }
        if (match && !g->dir[c][0] &&
            (size_t)snprintf(g->dir[c], sizeof g->dir[c], "%.*s/%s%s%s", ZL_STR_FMT(mountpoint), parent,
                             *parent ? "/" : "", id) >= sizeof g->dir[c])
            return -ENAMETOOLONG;
        if (match && v2 && !g->unified_root)
            g->unified_root = mountpoint.n;
    }
    return 0;
}

static int find(const char *parent, const char *id, uint32_t controllers, struct zl_cgroup *ret)
{
    struct zl_cgroup g = { 0 };
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_read_file(AT_FDCWD, "/proc/self/mountinfo", 16 << 20, &text);
    if (r < 0)
        return r;
    for (struct zl_str rest = zl_buf_view(&text); rest.p && rest.n && r >= 0;)
        r = take_mount(zl_str_cut(rest, '\n', &rest), controllers, parent, id, &g);
    if (r < 0)
        return r;
    bool v1 = false;
    for (int c = 1; c < ZL_CONTROLLER_COUNT; c++)
        v1 |= g.dir[c][0] != 0;
    bool v2 = g.dir[ZL_CONTROLLER_UNIFIED][0] != 0;
    g.layout = v1 && v2 ? ZL_CGROUP_HYBRID : v1 ? ZL_CGROUP_V1 : v2 ? ZL_CGROUP_V2 : ZL_CGROUP_NONE;
    *ret = g;
    return 0;
}

int zl_cgroup_find(const char *parent, const char *id, struct zl_cgroup *ret)
{
    return find(parent, id, FIRST_SIX, ret);
}

int zl_cgroup_find_all(const char *parent, const char *id, uint32_t more, struct zl_cgroup *ret)
{
    return find(parent, id, FIRST_SIX | 1u << ZL_CONTROLLER_DEVICES | more, ret);
}

static bool has_word(const struct zl_buf *b, const char *word)
{
    for (struct zl_str rest = zl_str_n(b->p, strcspn(b->p, "\n")); rest.p;)
        if (zl_str_is(zl_str_cut(rest, ' ', &rest), word))
            return true;
    return false;
}

/*
 * v2: a controller must be switched on in every group above. A group with processes in it refuses that (-EBUSY) unless
 * it is the machine's root, as in a container of its own; what is on already is left alone, so that such a place works
 * where somebody has prepared it. Statistics want all four controllers, but only a limit that is asked for insists.
 */
static int enable_controllers_in(const struct zl_cgroup *g, const char *dir, const struct zl_cgroup_limits *l)
{
    const struct {
        enum zl_controller c;
        const char *name, *on;
        bool always, needed;
    } wanted[] = { { ZL_CONTROLLER_MEMORY, "memory", "+memory", true, l->memory_bytes },
                   { ZL_CONTROLLER_CPU, "cpu", "+cpu", true, l->cpu_quota_us || l->cpu_shares },
                   { ZL_CONTROLLER_PIDS, "pids", "+pids", true, l->pids },
                   { ZL_CONTROLLER_BLKIO, "io", "+io", true, false },
                   { ZL_CONTROLLER_CPUSET, "cpuset", "+cpuset", false, false },
                   { ZL_CONTROLLER_HUGETLB, "hugetlb", "+hugetlb", false, false },
                   { ZL_CONTROLLER_RDMA, "rdma", "+rdma", false, false } };
    zl_auto_buf there = ZL_BUF_INIT, on = ZL_BUF_INIT;
    int r = read_value(dir, "cgroup.controllers", &there);
    r = r < 0 ? r : read_value(dir, "cgroup.subtree_control", &on);
    for (size_t i = 0; i < ZL_ARRAY_LEN(wanted) && r == 0; i++) {
        bool named = l->controllers >> wanted[i].c & 1, always = wanted[i].always && g->layout == ZL_CGROUP_V2;
        if (g->dir[wanted[i].c][0] || !(named || always) || has_word(&on, wanted[i].name))
            continue; /* v1 has it, or nobody wants it */
        int w =
            has_word(&there, wanted[i].name) ? write_value(dir, "cgroup.subtree_control", wanted[i].on) : -EOPNOTSUPP;
        r = w < 0 && wanted[i].needed ? w : 0; /* of the others, zl_cgroup_set finds the file missing */
    }
    return r;
}

/* In each group above, the topmost first. */
static int enable_controllers(const struct zl_cgroup *g, const struct zl_cgroup_limits *l)
{
    char above[320];
    const char *dir = g->dir[ZL_CONTROLLER_UNIFIED];
    int r = 0;
    for (const char *p = dir + g->unified_root; r == 0 && p; p = strchr(p + 1, '/')) {
        snprintf(above, sizeof above, "%.*s", (int)(p - dir), dir);
        r = enable_controllers_in(g, above, l);
    }
    return r;
}

static int write_limit(const char *dir, const char *file, uint64_t v, const char *none)
{
    return v == ZL_CGROUP_ANY ? write_value(dir, file, none) : write_u64(dir, file, v);
}

/* What is not said stays: a quota written alone leaves the period, as the kernel has it; the other way it is read. */
static int set_quota_v2(const char *dir, const struct zl_cgroup_limits *l)
{
    zl_auto_buf now = ZL_BUF_INIT;
    char quota[24] = "max", text[64];
    if (!l->cpu_quota_us) {
        int r = read_value(dir, "cpu.max", &now);
        if (r < 0)
            return r;
        snprintf(quota, sizeof quota, "%.*s", (int)strcspn(now.p, " \n"), now.p);
    } else if (l->cpu_quota_us != ZL_CGROUP_ANY) {
        snprintf(quota, sizeof quota, "%llu", (unsigned long long)l->cpu_quota_us);
    }
    if (l->cpu_period_us)
        snprintf(text, sizeof text, "%s %llu", quota, (unsigned long long)l->cpu_period_us);
    else
        snprintf(text, sizeof text, "%s", quota);
    return write_value(dir, "cpu.max", text);
}

/* *refused: the first file that could not be written. */
static int note(int r, const char *file, const char **refused)
{
    if (r < 0)
        *refused = file;
    return r;
}

static int set_v2(const struct zl_cgroup *g, const struct zl_cgroup_limits *l, const char **refused)
{
    const char *dir = g->dir[ZL_CONTROLLER_UNIFIED];
    int r = 0;
    if (l->memory_bytes) {
        r = note(write_limit(dir, "memory.max", l->memory_bytes, "max"), "memory.max", refused);
        bool more = l->memory_total > 0 && (uint64_t)l->memory_total > l->memory_bytes;
        uint64_t swap = more ? (uint64_t)l->memory_total - l->memory_bytes : 0;
        /* As a container's memory, not its memory and as much swap again; absent without swap accounting. */
        int s = r == 0 && l->memory_total >= 0 ? write_u64(dir, "memory.swap.max", swap) : 0;
        r = r < 0 || s == -ENOENT ? r : note(s, "memory.swap.max", refused);
    }
    if (r == 0 && (l->cpu_quota_us || l->cpu_period_us))
        r = note(set_quota_v2(dir, l), "cpu.max", refused);
    if (r == 0 && l->cpu_shares)
        r = note(write_u64(dir, "cpu.weight", zl_cgroup_cpu_weight(l->cpu_shares)), "cpu.weight", refused);
    return r == 0 && l->pids ? note(write_limit(dir, "pids.max", l->pids, "max"), "pids.max", refused) : r;
}

static int set_memory_v1(const char *dir, const struct zl_cgroup_limits *l, const char **refused)
{
    static const char memory[] = "memory.limit_in_bytes", all[] = "memory.memsw.limit_in_bytes";
    uint64_t total = l->memory_total > 0 ? (uint64_t)l->memory_total : l->memory_bytes;
    int r = write_limit(dir, memory, l->memory_bytes, "-1");
    /* Over the limit of memory and swap it is refused: then that one goes first. */
    if (r == -EINVAL && write_limit(dir, all, l->memory_total < 0 ? ZL_CGROUP_ANY : total, "-1") == 0)
        r = write_limit(dir, memory, l->memory_bytes, "-1");
    if (r < 0 || l->memory_total < 0)
        return note(r, memory, refused);
    r = write_limit(dir, all, total, "-1");
    return note(r == -ENOENT ? 0 : r, all, refused); /* absent without swap accounting */
}

static int set_quota_v1(const char *dir, const struct zl_cgroup_limits *l, const char **refused)
{
    int r = l->cpu_period_us ? write_u64(dir, "cpu.cfs_period_us", l->cpu_period_us) : 0;
    int q = l->cpu_quota_us ? write_limit(dir, "cpu.cfs_quota_us", l->cpu_quota_us, "-1") : 0;
    /* Their ratio may be too great for a moment: then the quota goes first. */
    if (r == -EINVAL && q == 0)
        r = write_u64(dir, "cpu.cfs_period_us", l->cpu_period_us);
    return r < 0 ? note(r, "cpu.cfs_period_us", refused) : note(q, "cpu.cfs_quota_us", refused);
}

static int set_v1(const struct zl_cgroup *g, const struct zl_cgroup_limits *l, const char **refused)
{
    const char *memory = g->dir[ZL_CONTROLLER_MEMORY], *cpu = g->dir[ZL_CONTROLLER_CPU],
               *pids = g->dir[ZL_CONTROLLER_PIDS];
    int r = 0;
    if (l->memory_bytes)
        r = memory[0] ? set_memory_v1(memory, l, refused) : note(-EOPNOTSUPP, "memory.limit_in_bytes", refused);
    bool quota = l->cpu_quota_us || l->cpu_period_us;
    if (r == 0 && (quota || l->cpu_shares) && !cpu[0])
        r = note(-EOPNOTSUPP, quota ? "cpu.cfs_quota_us" : "cpu.shares", refused);
    if (r == 0 && quota)
        r = set_quota_v1(cpu, l, refused);
    if (r == 0 && l->cpu_shares)
        r = note(write_u64(cpu, "cpu.shares", l->cpu_shares), "cpu.shares", refused);
    if (r == 0 && l->pids)
        r = note(pids[0] ? write_limit(pids, "pids.max", l->pids, "max") : -EOPNOTSUPP, "pids.max", refused);
    return r;
}

int zl_cgroup_create(const struct zl_cgroup *g, const struct zl_cgroup_limits *limits)
{
    if (g->layout == ZL_CGROUP_NONE)
        return limits->memory_bytes || limits->cpu_quota_us || limits->cpu_shares || limits->pids || limits->controllers
                   ? -EOPNOTSUPP
                   : 0;
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        int r = g->dir[c][0] ? zl_mkdir_p(g->dir[c], 0755) : 0;
        if (r < 0)
            return r;
    }
    int r = g->dir[ZL_CONTROLLER_CPUSET][0] ? zl_cgroup_fill_cpuset(g->dir[ZL_CONTROLLER_CPUSET]) : 0;
    if (r == 0 && (g->layout == ZL_CGROUP_V2 || (limits->controllers && g->dir[ZL_CONTROLLER_UNIFIED][0])))
        r = enable_controllers(g, limits);
    const char *unused;
    return r < 0 ? r : g->layout == ZL_CGROUP_V2 ? set_v2(g, limits, &unused) : set_v1(g, limits, &unused);
}

int zl_cgroup_update(const struct zl_cgroup *g, const struct zl_cgroup_limits *limits, const char **refused)
{
    *refused = "cgroup.subtree_control";
    if (g->layout == ZL_CGROUP_NONE)
        return -EOPNOTSUPP;
    int r = limits->controllers && g->dir[ZL_CONTROLLER_UNIFIED][0] ? enable_controllers(g, limits) : 0;
    if (r < 0)
        return r;
    return g->layout == ZL_CGROUP_V2 ? set_v2(g, limits, refused) : set_v1(g, limits, refused);
}

/*
 * A thread that moves itself ("0") by a v1 `tasks` file takes no global lock. Anything else, and cgroup.procs of v2 in
 * any case, takes the kernel's lock on all thread groups, which waits for an RCU grace period: 10 ms and more for each
 * start.
 */
int zl_cgroup_enter(const struct zl_cgroup *g, bool unified)
{
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        bool v2 = c == ZL_CONTROLLER_UNIFIED;
        if (!g->dir[c][0] || (v2 && !unified))
            continue;
        int r = write_value(g->dir[c], v2 ? "cgroup.procs" : "tasks", "0");
        if (r < 0)
            return r;
    }
    return 0;
}

int zl_cgroup_enter_at(int unified)
{
    zl_auto_close int fd = zl_openat(unified, "cgroup.procs", O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, "0", 1);
}

int zl_cgroup_open_unified(const struct zl_cgroup *g)
{
    const char *dir = g->dir[ZL_CONTROLLER_UNIFIED];
    return dir[0] ? zl_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0) : -ENOENT;
}

/* Counts the processes of a group and of those below it, which a process may have made, and signals each. */
static int each_pid_below(const char *dir, int signum, unsigned *count, int depth)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = read_value(dir, "cgroup.procs", &b);
    /* -EOPNOTSUPP: a threaded group; its processes are those of the group above. */
    if (r < 0)
        return r == -ENOENT || r == -ENODEV || r == -EOPNOTSUPP ? 0 : r;
    for (struct zl_str rest = zl_buf_view(&b); rest.p && rest.n;) {
        uint64_t pid;
        if (zl_parse_u64(zl_str_cut(rest, '\n', &rest), 1, INT32_MAX, &pid) < 0)
            continue;
        (*count)++;
        if (signum)
            (void)kill((pid_t)pid, signum);
    }
    DIR *d = depth < GROUP_DEPTH_MAX ? opendir(dir) : NULL;
    struct dirent *e = NULL;
    if (!d)
        return depth < GROUP_DEPTH_MAX && errno != ENOENT ? -errno : 0;
    while (r == 0 && (errno = 0, e = readdir(d)) != NULL) {
        if (e->d_type != DT_DIR || zl_streq(e->d_name, ".") || zl_streq(e->d_name, ".."))
            continue;
        zl_auto_free char *below = zl_xasprintf("%s/%s", dir, e->d_name);
        r = each_pid_below(below, signum, count, depth + 1);
    }
    if (!e && errno)
        r = -errno; /* what can't be read is not known to be empty */
    closedir(d);
    return r;
}

/* The hierarchies in which a process could be left: all of them, as a v1 process may have been moved in one only. */
static int each_pid(const struct zl_cgroup *g, int signum, unsigned *count)
{
    *count = 0;
    int r = 0;
    for (int c = 0; c < ZL_CONTROLLER_COUNT && r == 0; c++)
        r = g->dir[c][0] ? each_pid_below(g->dir[c], signum, count, 0) : 0;
    return r;
}

int zl_cgroup_frozen(const struct zl_cgroup *g)
{
    const char *unified = g->dir[ZL_CONTROLLER_UNIFIED], *freezer = g->dir[ZL_CONTROLLER_FREEZER];
    zl_auto_buf b = ZL_BUF_INIT;
    int r = freezer[0]   ? read_value(freezer, "freezer.state", &b)
            : unified[0] ? read_value(unified, "cgroup.events", &b)
                         : -EOPNOTSUPP;
    if (r < 0)
        return r;
    return freezer[0] ? b.p[0] == 'F' /* FROZEN, FREEZING */ : number_after(&b, "frozen") == 1;
}

int zl_cgroup_freeze(const struct zl_cgroup *g, bool on)
{
    const char *unified = g->dir[ZL_CONTROLLER_UNIFIED], *freezer = g->dir[ZL_CONTROLLER_FREEZER];
    int r = freezer[0]   ? write_value(freezer, "freezer.state", on ? "FROZEN" : "THAWED")
            : unified[0] ? write_value(unified, "cgroup.freeze", on ? "1" : "0")
                         : -EOPNOTSUPP;
    /* v1 says FREEZING until all of them are; a process in the kernel may take its time. */
    for (int tries = 0; r == 0 && on && tries < 500; tries++) {
        zl_auto_buf b = ZL_BUF_INIT;
        if (freezer[0] ? read_value(freezer, "freezer.state", &b) < 0 || strncmp(b.p, "FROZEN", 6) == 0
                       : zl_cgroup_frozen(g) != 0)
            return 0;
        struct timespec ts = { 0, 2000000 };
        nanosleep(&ts, NULL);
        if (freezer[0])
            r = write_value(freezer, "freezer.state", "FROZEN");
    }
    return r < 0 ? r : on ? -ETIMEDOUT : 0;
}

/* v1: what was killed ends when it thaws, in a group below that a process has frozen, too. */
static void thaw_below(const char *dir, int depth)
{
    (void)write_value(dir, "freezer.state", "THAWED");
    DIR *d = depth < GROUP_DEPTH_MAX ? opendir(dir) : NULL;
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        if (e->d_type != DT_DIR || zl_streq(e->d_name, ".") || zl_streq(e->d_name, ".."))
            continue;
        zl_auto_free char *below = zl_xasprintf("%s/%s", dir, e->d_name);
        thaw_below(below, depth + 1);
    }
    if (d)
        closedir(d);
}

int zl_cgroup_kill(const struct zl_cgroup *g)
{
    unsigned count;
    const char *unified = g->dir[ZL_CONTROLLER_UNIFIED], *freezer = g->dir[ZL_CONTROLLER_FREEZER];
    bool killed = unified[0] && write_value(unified, "cgroup.kill", "1") == 0; /* kernel 5.14 */
    /* Frozen, a group can't make processes faster than they are killed. */
    bool stopped = !killed && unified[0] && write_value(unified, "cgroup.freeze", "1") == 0;
    if (!killed && freezer[0])
        (void)write_value(freezer, "freezer.state", "FROZEN");
    int r = each_pid(g, SIGKILL, &count);
    if (freezer[0])
        thaw_below(freezer, 0);
    if (stopped)
        (void)write_value(unified, "cgroup.freeze", "0");
    return r;
}

int zl_cgroup_signal(const struct zl_cgroup *g, int signum)
{
    /* Every process is in every hierarchy; one is enough, so that nobody gets the signal twice. */
    struct zl_cgroup one = { .layout = g->layout };
    unsigned count;
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        if (g->dir[c][0]) {
            memcpy(one.dir[c], g->dir[c], sizeof one.dir[c]);
            break;
        }
    }
    return each_pid(&one, signum, &count);
}

int zl_cgroup_empty(const struct zl_cgroup *g)
{
    unsigned count;
    int r = each_pid(g, 0, &count);
    return r < 0 ? r : count == 0;
}

/* Groups below go first, deepest first. */
static int remove_group(const char *dir, int depth)
{
    if (rmdir(dir) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY && errno != ENOTEMPTY)
        return -errno;
    DIR *d = depth < GROUP_DEPTH_MAX ? opendir(dir) : NULL;
    if (!d)
        return -EBUSY;
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL) {
        if (e->d_type != DT_DIR || zl_streq(e->d_name, ".") || zl_streq(e->d_name, ".."))
            continue;
        zl_auto_free char *below = zl_xasprintf("%s/%s", dir, e->d_name);
        r = remove_group(below, depth + 1);
    }
    closedir(d);
    return r < 0 ? r : rmdir(dir) == 0 || errno == ENOENT ? 0 : -errno;
}

static int remove_groups(const struct zl_cgroup *g)
{
    int r = 0;
    for (int c = 0; c < ZL_CONTROLLER_COUNT && r == 0; c++)
        r = g->dir[c][0] ? remove_group(g->dir[c], 0) : 0;
    return r;
}

int zl_cgroup_destroy(const struct zl_cgroup *g, unsigned timeout_ms)
{
    if (remove_groups(g) == 0) /* the kernel removes no group that has processes */
        return 0;
    uint64_t deadline = zl_clock_mono_ms() + timeout_ms;
    for (unsigned pause_us = 100;; pause_us = ZL_MIN(pause_us * 2, 20000u)) {
        int r = zl_cgroup_empty(g);
        if (r == 0) {
            (void)zl_cgroup_kill(g);
        } else if (r > 0) {
            r = remove_groups(g);
            if (r == 0)
                return 0;
        }
        if (r < 0 && r != -EBUSY)
            return r;
        if (zl_clock_mono_ms() > deadline)
            return -EBUSY;
        struct timespec ts = { 0, (long)pause_us * 1000 };
        nanosleep(&ts, NULL);
    }
}

void zl_cgroup_remove_parent(const char *parent)
{
    struct zl_cgroup g;
    if (zl_cgroup_find_all(parent, "x", UINT32_MAX, &g) < 0)
        return;
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        size_t n = strlen(g.dir[c]);
        if (n > 2) {
            g.dir[c][n - 2] = 0;
            (void)rmdir(g.dir[c]); /* refused while there is a group below */
        }
    }
}

int zl_cgroup_stats(const struct zl_cgroup *g, struct zl_cgroup_stats *ret)
{
    struct zl_cgroup_stats s = { .memory_limit = UINT64_MAX };
    zl_auto_buf b = ZL_BUF_INIT;
    if (g->layout == ZL_CGROUP_V2) {
        const char *dir = g->dir[ZL_CONTROLLER_UNIFIED];
        if (read_value(dir, "cpu.stat", &b) == 0)
            s.cpu_usec = number_after(&b, "usage_usec");
        if (read_value(dir, "memory.current", &b) == 0)
            s.memory_bytes = number_after(&b, "");
        if (read_value(dir, "memory.max", &b) == 0)
            s.memory_limit = number_after(&b, "");
        if (read_value(dir, "pids.current", &b) == 0)
            s.pids = number_after(&b, "");
    } else {
        if (g->dir[ZL_CONTROLLER_CPUACCT][0] && read_value(g->dir[ZL_CONTROLLER_CPUACCT], "cpuacct.usage", &b) == 0)
            s.cpu_usec = number_after(&b, "") / 1000;
        if (g->dir[ZL_CONTROLLER_MEMORY][0]) {
            if (read_value(g->dir[ZL_CONTROLLER_MEMORY], "memory.usage_in_bytes", &b) == 0)
                s.memory_bytes = number_after(&b, "");
            if (read_value(g->dir[ZL_CONTROLLER_MEMORY], "memory.limit_in_bytes", &b) == 0)
                s.memory_limit = number_after(&b, "");
            if (s.memory_limit > UINT64_C(1) << 62) /* v1 says "none" by the largest page-aligned number */
                s.memory_limit = UINT64_MAX;
        }
        if (g->dir[ZL_CONTROLLER_PIDS][0] && read_value(g->dir[ZL_CONTROLLER_PIDS], "pids.current", &b) == 0)
            s.pids = number_after(&b, "");
    }
    *ret = s;
    return 0;
}

int zl_cgroup_oom_kills(const struct zl_cgroup *g, uint64_t *ret)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = g->layout == ZL_CGROUP_V2         ? read_value(g->dir[ZL_CONTROLLER_UNIFIED], "memory.events", &b)
            : g->dir[ZL_CONTROLLER_MEMORY][0] ? read_value(g->dir[ZL_CONTROLLER_MEMORY], "memory.oom_control", &b)
                                              : -EOPNOTSUPP;
    if (r < 0)
        return r;
    *ret = number_after(&b, "oom_kill");
    return 0;
}

int zl_cgroup_oom_fd(const struct zl_cgroup *g)
{
    char path[400], text[64];
    if (g->layout == ZL_CGROUP_V2) {
        zl_auto_close int in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (in < 0)
            return -errno;
        snprintf(path, sizeof path, "%s/memory.events", g->dir[ZL_CONTROLLER_UNIFIED]);
        return inotify_add_watch(in, path, IN_MODIFY) < 0 ? -errno : ZL_TAKE_FD(in);
    }
    if (!g->dir[ZL_CONTROLLER_MEMORY][0])
        return -EOPNOTSUPP;
    zl_auto_close int ev = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ev < 0)
        return -errno;
    snprintf(path, sizeof path, "%s/memory.oom_control", g->dir[ZL_CONTROLLER_MEMORY]);
    zl_auto_close int control = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (control < 0)
        return control;
    snprintf(text, sizeof text, "%d %d", ev, control);
    int r = write_value(g->dir[ZL_CONTROLLER_MEMORY], "cgroup.event_control", text);
    return r < 0 ? r : ZL_TAKE_FD(ev);
}
