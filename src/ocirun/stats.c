/*
 * What a container takes, in the shape of `runc events`: v2's counters under the names of v1, times in nanoseconds.
 * A counter that the machine does not have is 0, a limit that there is not the greatest number of 63 bits.
 */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

enum { STAT_FILE_MAX = 1 << 20 };

struct stats {
    struct zl_arena *a;
    const struct zl_cgroup *g;
};

/* Of the controller's hierarchy, else of the v2 tree; NULL when there is no such file. */
static const char *read_from(const struct stats *s, enum zl_controller c, const char *v1, const char *v2)
{
    bool own = s->g->dir[c][0] != 0;
    const char *dir = s->g->dir[own ? c : ZL_CONTROLLER_UNIFIED], *file = own ? v1 : v2;
    zl_auto_buf b = ZL_BUF_INIT;
    if (!dir[0] || !file || zl_read_file(AT_FDCWD, zl_arena_printf(s->a, "%s/%s", dir, file), STAT_FILE_MAX, &b) < 0)
        return NULL;
    return zl_arena_printf(s->a, "%s", b.n ? b.p : "");
}

static struct zl_str word(struct zl_str *rest)
{
    while (rest->n && (*rest->p == ' ' || *rest->p == '\t'))
        *rest = zl_str_n(rest->p + 1, rest->n - 1);
    return rest->n ? zl_str_cut(*rest, ' ', rest) : (struct zl_str){ NULL, 0 };
}

static uint64_t number(struct zl_str s)
{
    uint64_t v;
    if (zl_str_is(s, "max"))
        return INT64_MAX;
    return s.p && zl_parse_u64(s, 0, UINT64_MAX, &v) == 0 ? ZL_MIN(v, (uint64_t)INT64_MAX) : 0;
}

static uint64_t single(const char *text)
{
    struct zl_str rest;
    return text ? number(zl_str_cut(zl_str(text), '\n', &rest)) : 0;
}

/* Of lines "key value". */
static uint64_t value_of(const char *text, const char *key)
{
    for (struct zl_str rest = zl_str(text ? text : ""); rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        if (zl_str_is(word(&line), key))
            return number(word(&line));
    }
    return 0;
}

static void put(const struct stats *s, struct zl_value *map, const char *key, uint64_t n)
{
    zl_value_set(s->a, map, key, zl_value_int(s->a, (int64_t)n));
}

static struct zl_value *map_in(const struct stats *s, struct zl_value *map, const char *key)
{
    struct zl_value *v = zl_value_new(s->a, ZL_MAP);
    zl_value_set(s->a, map, key, v);
    return v;
}

static struct zl_value *list_in(const struct stats *s, struct zl_value *map, const char *key)
{
    struct zl_value *v = zl_value_new(s->a, ZL_LIST);
    zl_value_set(s->a, map, key, v);
    return v;
}

/* v1 alone counts by processor; in the kernel and out of it in "cpu user system" lines. */
static void put_processors(const struct stats *s, struct zl_value *usage)
{
    struct zl_value *all = list_in(s, usage, "percpu"), *kernel = list_in(s, usage, "percpu_kernel"),
                    *user = list_in(s, usage, "percpu_user");
    struct zl_str rest = zl_str(read_from(s, ZL_CONTROLLER_CPUACCT, "cpuacct.usage_all", NULL) ?: "");
    (void)zl_str_cut(rest, '\n', &rest);
    while (rest.p && rest.n) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        (void)word(&line);
        uint64_t in_user = number(word(&line)), in_kernel = number(word(&line));
        zl_value_append(all, zl_value_int(s->a, (int64_t)(in_user + in_kernel)));
        zl_value_append(user, zl_value_int(s->a, (int64_t)in_user));
        zl_value_append(kernel, zl_value_int(s->a, (int64_t)in_kernel));
    }
}

static void put_cpu(const struct stats *s, struct zl_value *data)
{
    enum { NS = 1000 };
    struct zl_value *cpu = map_in(s, data, "cpu"), *usage = map_in(s, cpu, "usage"),
                    *throttling = map_in(s, cpu, "throttling");
    const char *stat = read_from(s, ZL_CONTROLLER_CPU, "cpu.stat", "cpu.stat");
    if (s->g->dir[ZL_CONTROLLER_CPUACCT][0]) {
        put(s, usage, "total", single(read_from(s, ZL_CONTROLLER_CPUACCT, "cpuacct.usage", NULL)));
        put_processors(s, usage);
        put(s, usage, "kernel", single(read_from(s, ZL_CONTROLLER_CPUACCT, "cpuacct.usage_sys", NULL)));
        put(s, usage, "user", single(read_from(s, ZL_CONTROLLER_CPUACCT, "cpuacct.usage_user", NULL)));
    } else {
        put(s, usage, "total", value_of(stat, "usage_usec") * NS);
        put(s, usage, "kernel", value_of(stat, "system_usec") * NS);
        put(s, usage, "user", value_of(stat, "user_usec") * NS);
    }
    put(s, throttling, "periods", value_of(stat, "nr_periods"));
    put(s, throttling, "throttledPeriods", value_of(stat, "nr_throttled"));
    put(s, throttling, "throttledTime",
        s->g->dir[ZL_CONTROLLER_CPU][0] ? value_of(stat, "throttled_time") : value_of(stat, "throttled_usec") * NS);
}

static void put_memory_v1(const struct stats *s, struct zl_value *memory)
{
    static const char *const kinds[][2] = { { "usage", "memory" },
                                            { "swap", "memory.memsw" },
                                            { "kernel", "memory.kmem" },
                                            { "kernelTCP", "memory.kmem.tcp" } };
    static const char *const members[][2] = { { "limit", "limit_in_bytes" },
                                              { "usage", "usage_in_bytes" },
                                              { "max", "max_usage_in_bytes" },
                                              { "failcnt", "failcnt" } };
    for (size_t k = 0; k < ZL_ARRAY_LEN(kinds); k++) {
        struct zl_value *entry = map_in(s, memory, kinds[k][0]);
        for (size_t m = 0; m < ZL_ARRAY_LEN(members); m++)
            put(s, entry, members[m][0],
                single(read_from(s, ZL_CONTROLLER_MEMORY, zl_arena_printf(s->a, "%s.%s", kinds[k][1], members[m][1]),
                                 NULL)));
    }
}

/* As v1 does, swap is said together with memory. */
static void put_memory_v2(const struct stats *s, struct zl_value *memory)
{
    struct zl_value *usage = map_in(s, memory, "usage"), *swap = map_in(s, memory, "swap");
    const char *swap_limit = read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.swap.max");
    uint64_t now = single(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.current")),
             limit = single(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.max"));
    put(s, usage, "limit", limit);
    put(s, usage, "usage", now);
    put(s, usage, "max", single(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.peak")));
    put(s, usage, "failcnt", value_of(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.events"), "max"));
    put(s, swap, "limit", swap_limit ? ZL_MIN(limit + single(swap_limit), (uint64_t)INT64_MAX) : 0);
    put(s, swap, "usage", now + single(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.swap.current")));
    put(s, swap, "failcnt", value_of(read_from(s, ZL_CONTROLLER_MEMORY, NULL, "memory.swap.events"), "fail"));
}

static void put_memory(const struct stats *s, struct zl_value *data)
{
    struct zl_value *memory = map_in(s, data, "memory");
    const char *stat = read_from(s, ZL_CONTROLLER_MEMORY, "memory.stat", "memory.stat");
    bool v1 = s->g->dir[ZL_CONTROLLER_MEMORY][0] != 0;
    put(s, memory, "cache", value_of(stat, v1 ? "cache" : "file"));
    if (v1)
        put_memory_v1(s, memory);
    else
        put_memory_v2(s, memory);
    struct zl_value *raw = map_in(s, memory, "raw");
    for (struct zl_str rest = zl_str(stat ? stat : ""); rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), key = word(&line);
        if (key.p)
            put(s, raw, zl_arena_printf(s->a, "%.*s", ZL_STR_FMT(key)), number(word(&line)));
    }
}

static void add_io(const struct stats *s, struct zl_value *list, struct zl_str device, const char *op, struct zl_str n)
{
    struct zl_str minor, major = zl_str_cut(device, ':', &minor);
    struct zl_value *entry = zl_value_new(s->a, ZL_MAP);
    put(s, entry, "major", number(major));
    put(s, entry, "minor", number(minor));
    zl_value_set(s->a, entry, "op", zl_value_string(s->a, zl_str(op)));
    put(s, entry, "value", number(n));
    zl_value_append(list, entry);
}

/* "8:0 Read 4096"; the line "Total 4096" is no device's. */
static void put_io_v1(const struct stats *s, struct zl_value *list, const char *file)
{
    for (struct zl_str rest = zl_str(read_from(s, ZL_CONTROLLER_BLKIO, file, NULL) ?: ""); rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), device = word(&line), op = word(&line), n = word(&line);
        if (n.p)
            add_io(s, list, device, zl_arena_printf(s->a, "%.*s", ZL_STR_FMT(op)), n);
    }
}

/* "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0" */
static void put_io_v2(const struct stats *s, struct zl_value *bytes, struct zl_value *ios)
{
    for (struct zl_str rest = zl_str(read_from(s, ZL_CONTROLLER_BLKIO, NULL, "io.stat") ?: ""); rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), device = word(&line), pair;
        while ((pair = word(&line)).p) {
            struct zl_str n, key = zl_str_cut(pair, '=', &n);
            bool is_bytes = zl_str_is(key, "rbytes") || zl_str_is(key, "wbytes");
            if (is_bytes || zl_str_is(key, "rios") || zl_str_is(key, "wios"))
                add_io(s, is_bytes ? bytes : ios, device, key.p[0] == 'r' ? "Read" : "Write", n);
        }
    }
}

static void put_io(const struct stats *s, struct zl_value *data)
{
    struct zl_value *io = map_in(s, data, "blkio"), *bytes = list_in(s, io, "ioServiceBytesRecursive"),
                    *ios = list_in(s, io, "ioServicedRecursive");
    if (s->g->dir[ZL_CONTROLLER_BLKIO][0]) {
        put_io_v1(s, bytes, "blkio.throttle.io_service_bytes_recursive");
        put_io_v1(s, ios, "blkio.throttle.io_serviced_recursive");
    } else {
        put_io_v2(s, bytes, ios);
    }
}

/* The sizes are those of which there is a file, "hugetlb.2MB.current". */
static void put_huge_pages(const struct stats *s, struct zl_value *data)
{
    static const char prefix[] = "hugetlb.";
    struct zl_value *all = map_in(s, data, "hugetlb");
    bool v1 = s->g->dir[ZL_CONTROLLER_HUGETLB][0] != 0;
    const char *dir = s->g->dir[v1 ? ZL_CONTROLLER_HUGETLB : ZL_CONTROLLER_UNIFIED],
               *end = v1 ? ".usage_in_bytes" : ".current";
    DIR *d = dir[0] ? opendir(dir) : NULL;
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        size_t n = strlen(e->d_name), ends = strlen(end), starts = sizeof prefix - 1;
        if (n <= starts + ends || strncmp(e->d_name, prefix, starts) != 0 || !zl_streq(e->d_name + n - ends, end) ||
            strstr(e->d_name, ".rsvd."))
            continue;
        const char *size = zl_arena_printf(s->a, "%.*s", (int)(n - starts - ends), e->d_name + starts),
                   *used = zl_arena_printf(s->a, "%s", e->d_name),
                   *most = zl_arena_printf(s->a, "hugetlb.%s.max_usage_in_bytes", size),
                   *failed1 = zl_arena_printf(s->a, "hugetlb.%s.failcnt", size),
                   *failed2 = zl_arena_printf(s->a, "hugetlb.%s.events", size);
        struct zl_value *entry = map_in(s, all, size);
        put(s, entry, "usage", single(read_from(s, ZL_CONTROLLER_HUGETLB, used, used)));
        put(s, entry, "max", single(read_from(s, ZL_CONTROLLER_HUGETLB, most, NULL)));
        put(s, entry, "failcnt",
            v1 ? single(read_from(s, ZL_CONTROLLER_HUGETLB, failed1, NULL))
               : value_of(read_from(s, ZL_CONTROLLER_HUGETLB, NULL, failed2), "max"));
    }
    if (d)
        closedir(d);
}

struct zl_value *ocirun_stats(struct ocirun *r, const struct zl_cgroup *g)
{
    struct stats s = { &r->arena, g };
    struct zl_value *data = zl_value_new(s.a, ZL_MAP);
    put_cpu(&s, data);
    put_memory(&s, data);
    struct zl_value *pids = map_in(&s, data, "pids");
    const char *limit = read_from(&s, ZL_CONTROLLER_PIDS, "pids.max", "pids.max");
    put(&s, pids, "current", single(read_from(&s, ZL_CONTROLLER_PIDS, "pids.current", "pids.current")));
    put(&s, pids, "limit", limit && strncmp(limit, "max", 3) != 0 ? single(limit) : 0); /* 0: none */
    put_io(&s, data);
    put_huge_pages(&s, data);
    zl_value_set(s.a, data, "network_interfaces", zl_value_new(s.a, ZL_NULL));
    return data;
}
