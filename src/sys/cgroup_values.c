/* What no struct of ours names: single files of a group, and hierarchies that are used only when they are asked for. */
#include "sys/cgroup.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int zl_cgroup_write(const char *dir, const char *file, const char *text)
{
    char path[600];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, file) >= sizeof path)
        return -ENAMETOOLONG;
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, text, strlen(text));
}

uint64_t zl_cgroup_cpu_weight(uint64_t shares)
{
    return 1 + (ZL_MIN(ZL_MAX(shares, UINT64_C(2)), UINT64_C(262144)) - 2) * 9999 / 262142;
}

int zl_cgroup_quota(const struct zl_cgroup *g, int64_t *quota_us, uint64_t *period_us)
{
    zl_auto_buf first = ZL_BUF_INIT, second = ZL_BUF_INIT;
    char path[600];
    bool v1 = g->dir[ZL_CONTROLLER_CPU][0];
    const char *dir = g->dir[v1 ? ZL_CONTROLLER_CPU : ZL_CONTROLLER_UNIFIED];
    struct zl_str quota, period;
    snprintf(path, sizeof path, "%s/%s", dir, v1 ? "cpu.cfs_quota_us" : "cpu.max");
    int r = zl_read_file(AT_FDCWD, path, 4096, &first);
    quota = zl_str_n(first.p, first.n ? first.n - 1 : 0);
    if (v1 && r == 0) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
        r = zl_read_file(AT_FDCWD, path, 4096, &second);
        period = zl_str_n(second.p, second.n ? second.n - 1 : 0);
    } else {
        quota = zl_str_cut(quota, ' ', &period);
    }
    int64_t q = -1;
    r = r < 0 || zl_str_is(quota, "max") ? r : zl_parse_i64(quota, -1, INT64_MAX, &q);
    r = r < 0 ? r : zl_parse_u64(period, 1, UINT32_MAX, period_us);
    if (r == 0)
        *quota_us = q;
    return r;
}

int zl_cgroup_clear(const struct zl_cgroup *g, unsigned timeout_ms)
{
    uint64_t deadline = zl_clock_mono_ms() + timeout_ms;
    for (unsigned pause_us = 100;; pause_us = ZL_MIN(pause_us * 2, 20000u)) {
        int r = zl_cgroup_empty(g);
        if (r != 0)
            return r < 0 ? r : 0;
        (void)zl_cgroup_kill(g);
        if (zl_clock_mono_ms() > deadline)
            return -EBUSY;
        struct timespec ts = { 0, (long)pause_us * 1000 };
        nanosleep(&ts, NULL);
    }
}

int zl_cgroup_set(const struct zl_cgroup *g, const struct zl_cgroup_value *values, unsigned n,
                  const struct zl_cgroup_value **failed)
{
    for (unsigned i = 0; i < n; i++) {
        const struct zl_cgroup_value *v = &values[i];
        bool v1 = v->controller != ZL_CONTROLLER_UNIFIED && g->dir[v->controller][0];
        const char *dir = g->dir[v1 ? v->controller : ZL_CONTROLLER_UNIFIED], *file = v1 ? v->v1 : v->v2;
        int r = !dir[0] || !file ? -EOPNOTSUPP : zl_cgroup_write(dir, file, v1 ? v->text1 : v->text2);
        if (r == -ENOENT)
            r = -EOPNOTSUPP;
        if (v->or_next && r != -EOPNOTSUPP)
            i++;
        if (r == -EOPNOTSUPP && (v->may_be_missing || v->or_next))
            r = 0;
        if (r < 0) {
            *failed = v;
            return r;
        }
    }
    return 0;
}

/* An empty cpuset takes no process: what is empty gets the value of the group above, the topmost first. */
static int fill_from_above(const char *dir, const char *file)
{
    zl_auto_buf own = ZL_BUF_INIT, above = ZL_BUF_INIT;
    char parent[320], path[600];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int r = zl_read_file(AT_FDCWD, path, 1 << 16, &own);
    if (r < 0 || (own.n && own.p[0] != '\n'))
        return r;
    const char *slash = strrchr(dir, '/');
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - dir), dir);
    snprintf(path, sizeof path, "%s/%s", parent, file);
    r = access(path, F_OK) < 0 ? -EINVAL : fill_from_above(parent, file); /* above the mount there is no such file */
    r = r < 0 ? r : zl_read_file(AT_FDCWD, path, 1 << 16, &above);
    return r < 0 ? r : zl_cgroup_write(dir, file, above.p);
}

int zl_cgroup_fill_cpuset(const char *dir)
{
    int r = fill_from_above(dir, "cpuset.cpus");
    return r < 0 ? r : fill_from_above(dir, "cpuset.mems");
}

/* Every process that is in `from` and not yet in `to`; those that end meanwhile are no error. */
static int move_processes(const char *from, const char *to, unsigned *moved)
{
    zl_auto_buf pids = ZL_BUF_INIT, there = ZL_BUF_INIT;
    char path[600];
    *moved = 0;
    snprintf(path, sizeof path, "%s/cgroup.procs", from);
    int r = zl_read_file(AT_FDCWD, path, 1 << 20, &pids);
    snprintf(path, sizeof path, "%s/cgroup.procs", to);
    r = r < 0 ? r : zl_read_file(AT_FDCWD, path, 1 << 20, &there);
    for (struct zl_str rest = zl_buf_view(&pids); r == 0 && rest.p && rest.n;) {
        struct zl_str pid = zl_str_cut(rest, '\n', &rest);
        bool in = false;
        for (struct zl_str done = zl_buf_view(&there); done.p && done.n && !in;)
            in = zl_str_eq(zl_str_cut(done, '\n', &done), pid);
        if (in || !pid.n)
            continue;
        char text[24];
        snprintf(text, sizeof text, "%.*s", ZL_STR_FMT(pid));
        r = zl_cgroup_write(to, "cgroup.procs", text);
        *moved += r == 0;
        r = r == -ESRCH ? 0 : r;
    }
    return r;
}

int zl_cgroup_extend(const struct zl_cgroup *g, enum zl_controller c)
{
    const char *from = NULL, *to = g->dir[c];
    for (int k = ZL_CONTROLLER_COUNT - 1; k >= 0; k--)
        if (k != (int)c && g->dir[k][0] && access(g->dir[k], F_OK) == 0)
            from = g->dir[k];
    if (!from || !to[0])
        return -EOPNOTSUPP;
    int r = zl_mkdir_p(to, 0755);
    if (r == 0 && c == ZL_CONTROLLER_CPUSET)
        r = zl_cgroup_fill_cpuset(to);
    for (unsigned moved = 1, rounds = 0; r == 0 && moved && rounds < 100; rounds++)
        r = move_processes(from, to, &moved); /* until none is new: they may fork meanwhile */
    return r;
}
