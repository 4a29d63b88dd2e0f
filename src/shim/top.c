/*
 * The container's processes, from its cgroup, or where it has none from its process namespace, and /proc: numbers are
 * those of our pid namespace.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "shim/shim.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND_MAX = 512, STAT_MAX = 4096 };

struct fields {
    uint64_t ppid, utime, stime, start, rss;
};

/* proc_pid_stat(5): the name is in brackets and may hold anything. */
static bool parse_stat(struct zl_str text, struct zl_str *name, struct fields *ret)
{
    const char *open = text.n ? memchr(text.p, '(', text.n) : NULL,
               *close = text.n ? memrchr(text.p, ')', text.n) : NULL;
    if (!open || !close || close < open)
        return false;
    *name = zl_str_n(open + 1, (size_t)(close - open - 1));
    struct zl_str rest = zl_str_n(close + 1, text.n - (size_t)(close + 1 - text.p));
    (void)zl_str_cut(rest, ' ', &rest);
    *ret = (struct fields){ 0 };
    for (int i = 3; i <= 24 && rest.p; i++) {
        struct zl_str word = zl_str_cut(rest, ' ', &rest);
        uint64_t v = 0;
        if (zl_parse_u64(word, 0, UINT64_MAX, &v) < 0)
            continue; /* the state's letter, negative ones */
        if (i == 4)
            ret->ppid = v;
        else if (i == 14)
            ret->utime = v;
        else if (i == 15)
            ret->stime = v;
        else if (i == 22)
            ret->start = v;
        else if (i == 24)
            ret->rss = v;
    }
    return true;
}

/* Arguments with blanks between them, or the name in brackets where there are none. */
static void add_command(struct zl_buf *out, int dir, struct zl_str name)
{
    char text[COMMAND_MAX], bracketed[COMMAND_MAX];
    zl_auto_close int fd = zl_openat(dir, "cmdline", O_RDONLY, 0);
    ssize_t n = fd < 0 ? 0 : zl_read_full(fd, text, sizeof text);
    while (n > 0 && text[n - 1] == 0)
        n--;
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == 0)
            text[i] = ' ';
    if (n <= 0) {
        snprintf(bracketed, sizeof bracketed, "[%.*s]", ZL_STR_FMT(name));
        zl_record_add_str(out, ZL_SH_R_TEXT, zl_str(bracketed));
    } else {
        zl_record_add(out, ZL_SH_R_TEXT, text, (size_t)n);
    }
}

static void add_process(struct zl_buf *out, pid_t pid)
{
    zl_auto_buf stat = ZL_BUF_INIT;
    zl_auto_buf process = ZL_BUF_INIT;
    char path[32];
    struct stat st;
    struct zl_str name;
    struct fields f;
    uint64_t tick = (uint64_t)ZL_MAX(sysconf(_SC_CLK_TCK), 1L);
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    zl_auto_close int dir = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0 || fstat(dir, &st) < 0 || zl_read_file(dir, "stat", STAT_MAX, &stat) < 0 ||
        !parse_stat(zl_buf_view(&stat), &name, &f))
        return; /* it has ended meanwhile */
    struct timespec boot = { 0 };
    (void)clock_gettime(CLOCK_BOOTTIME, &boot);
    uint64_t up_ms = (uint64_t)boot.tv_sec * 1000 + (uint64_t)boot.tv_nsec / 1000000, start_ms = f.start * 1000 / tick;
    const struct {
        uint16_t type;
        uint64_t value;
    } facts[] = { { ZL_SH_R_PID, (uint64_t)pid },
                  { ZL_SH_R_PPID, f.ppid },
                  { ZL_SH_R_UID, st.st_uid },
                  { ZL_SH_R_STARTED_MS, zl_clock_wall_ms() - (up_ms - ZL_MIN(start_ms, up_ms)) },
                  { ZL_SH_R_CPU_TOTAL_NS, (f.utime + f.stime) * (1000000000 / tick) },
                  { ZL_SH_R_MEMORY, f.rss * (uint64_t)sysconf(_SC_PAGESIZE) } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
        zl_record_add_u64(&process, facts[i].type, facts[i].value);
    add_command(&process, dir, name);
    zl_record_add_str(out, ZL_SH_R_PROCESS, zl_buf_view(&process));
}

/* As cgroup.procs: who is in the first process's namespace, as far as we may know: that is all who could be. */
static int list_namespace(const struct shim *s, struct zl_buf *ret)
{
    char path[48], own[64], other[64];
    struct dirent *e;
    snprintf(path, sizeof path, "/proc/%d/ns/pid", (int)s->setup.pid);
    ssize_t n = readlink(path, own, sizeof own);
    DIR *d = n <= 0 ? NULL : opendir("/proc");
    if (!d)
        return n == 0 ? -EINVAL : -errno;
    while ((e = readdir(d)) != NULL) {
        uint64_t pid;
        if (zl_parse_u64(zl_str(e->d_name), 1, INT32_MAX, &pid) < 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/ns/pid", (int)pid);
        if (readlink(path, other, sizeof other) == n && memcmp(own, other, (size_t)n) == 0)
            zl_buf_printf(ret, "%d\n", (int)pid);
    }
    closedir(d);
    return 0;
}

void shim_top_count(const struct shim *s, struct zl_cgroup_stats *ret)
{
    zl_auto_buf pids = ZL_BUF_INIT;
    uint64_t ticks = 0, pages = 0;
    *ret = (struct zl_cgroup_stats){ .memory_limit = UINT64_MAX };
    if (list_namespace(s, &pids) < 0)
        return;
    for (struct zl_str rest = zl_buf_view(&pids); rest.p && rest.n;) {
        zl_auto_buf stat = ZL_BUF_INIT;
        char path[48];
        struct zl_str name, pid = zl_str_cut(rest, '\n', &rest);
        struct fields f;
        snprintf(path, sizeof path, "/proc/%.*s/stat", ZL_STR_FMT(pid));
        if (!pid.n || zl_read_file(AT_FDCWD, path, STAT_MAX, &stat) < 0 || !parse_stat(zl_buf_view(&stat), &name, &f))
            continue;
        ret->pids++;
        ticks += f.utime + f.stime;
        pages += f.rss;
    }
    ret->cpu_usec = ticks * (1000000 / (uint64_t)ZL_MAX(sysconf(_SC_CLK_TCK), 1L));
    ret->memory_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void shim_top_write(const struct shim *s, int fd)
{
    zl_auto_buf pids = ZL_BUF_INIT;
    zl_auto_buf out = ZL_BUF_INIT;
    char path[400];
    const char *dir = "";
    for (int c = 0; c < ZL_CONTROLLER_COUNT && !dir[0]; c++)
        dir = s->setup.cgroup.dir[c];
    snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    int r = dir[0] ? zl_read_file(AT_FDCWD, path, 1 << 20, &pids) : list_namespace(s, &pids);
    size_t f = zl_frame_begin(&out, ZL_SH_MAGIC, ZL_SH_VERSION, r < 0 ? ZL_SH_ERROR : ZL_SH_PROCESSES);
    if (r < 0) {
        zl_record_add_u64(&out, ZL_SH_R_CODE, (uint64_t)(int64_t)r);
        zl_record_add_str(&out, ZL_SH_R_TEXT, ZL_STR("list the processes"));
    }
    uint64_t n = 0, pid;
    for (struct zl_str rest = zl_buf_view(&pids); r >= 0 && rest.p && rest.n;) {
        if (zl_parse_u64(zl_str_cut(rest, '\n', &rest), 1, INT32_MAX, &pid) < 0)
            continue;
        if (n++ < ZL_SH_PROCESSES_MAX)
            add_process(&out, (pid_t)pid);
    }
    zl_record_add_u64(&out, ZL_SH_R_COUNT, n); /* more than are told: the list is cut off */
    zl_frame_end(&out, f);
    ZL_IGNORE(zl_write_full(fd, out.p, out.n)); /* a shim that is gone needs no list */
}
