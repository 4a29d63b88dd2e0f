/* linux.resources: limits and device rules at creation, changes to a running container. */
#include "ocirun/ocirun.h"
#include "ocirun/scope.h"

#include "base/fd.h"
#include "sys/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int ocirun_set_devices(struct ocirun *r, const struct zl_items *rules, const struct zl_cgroup *g)
{
    enum { RWM = ZL_DEVICE_READ | ZL_DEVICE_WRITE | ZL_DEVICE_MKNOD };
    static const struct zl_device_rule defaults[] = {
        { true, 'c', 1, 3, RWM }, { true, 'c', 1, 5, RWM }, { true, 'c', 1, 7, RWM }, { true, 'c', 1, 8, RWM },
        { true, 'c', 1, 9, RWM }, { true, 'c', 5, 0, RWM }, { true, 'c', 5, 2, RWM }, { true, 'c', 136, -1, RWM },
    };
    struct zl_device_rule *list = zl_arena_alloc(&r->arena, (2 * rules->n + ZL_ARRAY_LEN(defaults)) * sizeof *list);
    unsigned n = 0;
    for (unsigned i = 0; i < rules->n; i++) {
        const struct zl_oci_device_rule *from = rules->v[i];
        struct zl_device_rule *to = &list[n++];
        *to = (struct zl_device_rule){ from->allow, from->type[0], from->major, from->minor, 0 };
        for (const char *p = from->access; *p; p++)
            to->access |= *p == 'r' ? ZL_DEVICE_READ : *p == 'w' ? ZL_DEVICE_WRITE : *p == 'm' ? ZL_DEVICE_MKNOD : 0;
        bool known = zl_streq(from->type, "a") || zl_streq(from->type, "b") || zl_streq(from->type, "c");
        if (!known || !to->access || strspn(from->access, "rwm") != strlen(from->access))
            return zl_fail(&r->err, ZL_E_INVALID,
                           "linux.resources.devices[%u]: type a, b or c and access of r, w, m, not '%.20s' '%.20s'", i,
                           from->type, from->access);
        if (to->type == 'a' && (to->major >= 0 || to->minor >= 0 ||
                                to->access != RWM)) { /* such a one is no rule for all, but for each kind */
            to->type = 'b';
            list[n] = *to;
            list[n++].type = 'c';
        }
    }
    for (size_t i = 0; rules->n && i < ZL_ARRAY_LEN(defaults); i++)
        list[n++] = defaults[i];
    int e = zl_cgroup_set_devices(g, list, n);
    return e < 0 ? zl_fail(&r->err, e, "set linux.resources.devices") : 0;
}

int ocirun_limits(struct ocirun *r, const struct zl_oci_resources *from, struct zl_cgroup_limits *ret)
{
    enum { PERIOD_MIN = 1000, PERIOD_MAX = 1000000 }; /* the kernel's */
    uint64_t period = from->cpu_period ? from->cpu_period : 100000;
    struct zl_cgroup_limits l = { .cpu_shares = (uint64_t)from->cpu_shares };
    if (from->memory_swap > 0 && from->memory_limit > from->memory_swap)
        return zl_fail(&r->err, ZL_E_INVALID,
                       "linux.resources.memory: swap, which counts memory and swap, is below limit");
    if (period < PERIOD_MIN || period > PERIOD_MAX || from->cpu_quota > INT64_MAX / PERIOD_MAX)
        return zl_fail(&r->err, ZL_E_INVALID,
                       "linux.resources.cpu: a period of %llu and a quota of %lld are out of range",
                       (unsigned long long)period, (long long)from->cpu_quota);
    l.memory_bytes = from->memory_limit < 0 ? ZL_CGROUP_ANY : (uint64_t)from->memory_limit;
    l.memory_total = from->memory_swap ? from->memory_swap : -1; /* not said: any */
    l.pids = from->pids_limit < 0 ? ZL_CGROUP_ANY : (uint64_t)from->pids_limit;
    if (from->cpu_quota)
        l.cpu_quota_us = from->cpu_quota < 0 ? ZL_CGROUP_ANY : (uint64_t)from->cpu_quota;
    l.cpu_period_us = from->cpu_period;
    *ret = l;
    return 0;
}

int ocirun_find(struct ocirun *r, const char *id, struct ocirun_state **s, struct zl_cgroup *g,
                enum ocirun_status *status)
{
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, s);
    if (e < 0)
        return e;
    e = ocirun_status(r, *s, folder, status);
    if (e < 0)
        return e;
    e = ocirun_cgroup(*s, g);
    return e < 0 ? zl_fail(&r->err, e, "find the cgroup of %s", id) : 0;
}

static int number(struct ocirun *r, const char *option, const char *text, int64_t min, int64_t *ret)
{
    if (text && zl_parse_i64(zl_str(text), min, INT64_MAX, ret) < 0)
        return zl_fail(&r->err, ZL_E_USAGE, "%s takes a number from %lld, not '%.40s'", option, (long long)min, text);
    return 0;
}

/* "64m", "1GiB", as runc takes them: each letter 1024 times the one before. */
static int bytes(struct ocirun *r, const char *option, const char *text, int64_t *ret)
{
    static const char units[] = "kmgtp";
    struct zl_str number = text ? zl_str(text) : (struct zl_str){ NULL, 0 };
    int64_t n;
    if (!text || zl_parse_i64(number, -1, INT64_MAX, ret) == 0)
        return 0;
    if (number.n && (number.p[number.n - 1] | 32) == 'b')
        number.n--;
    if (number.n > 1 && (number.p[number.n - 1] | 32) == 'i')
        number.n--;
    const char *unit = number.n ? strchr(units, number.p[number.n - 1] | 32) : NULL;
    number.n -= unit && *unit;
    int shift = unit && *unit ? 10 * (int)(unit - units + 1) : 0;
    if (zl_parse_i64(number, 0, INT64_MAX >> shift, &n) < 0)
        return zl_fail(&r->err, ZL_E_USAGE, "%s takes bytes, as 64m, or -1 for any, not '%.40s'", option, text);
    *ret = n << shift;
    return 0;
}

/* One option a number. */
static int read_options(struct ocirun *r, struct zl_oci_resources *ret)
{
    int64_t period = 0, burst = 0, rt_period = 0;
    const struct {
        const char *option, *text;
        int64_t min, *to;
    } sizes[] = { { "--memory", r->o.memory, -1, &ret->memory_limit },
                  { "--memory-swap", r->o.memory_swap, -1, &ret->memory_swap },
                  { "--memory-reservation", r->o.memory_reservation, -1, &ret->memory_reservation },
                  { "--kernel-memory", r->o.kernel_memory, -1, &ret->kernel },
                  { "--kernel-memory-tcp", r->o.kernel_memory_tcp, -1, &ret->kernel_tcp } },
      numbers[] = { { "--cpu-quota", r->o.cpu_quota, -1, &ret->cpu_quota },
                    { "--cpu-period", r->o.cpu_period, 0, &period },
                    { "--cpu-burst", r->o.cpu_burst, 0, &burst },
                    { "--cpu-share", r->o.cpu_shares, 0, &ret->cpu_shares },
                    { "--cpu-rt-period", r->o.cpu_rt_period, 0, &rt_period },
                    { "--cpu-rt-runtime", r->o.cpu_rt_runtime, -1, &ret->cpu_rt_runtime },
                    { "--cpu-idle", r->o.cpu_idle, 0, &ret->cpu_idle },
                    { "--blkio-weight", r->o.blkio_weight, 0, &ret->io_weight },
                    { "--pids-limit", r->o.pids, -1, &ret->pids_limit } };
    int e = 0;
    for (size_t i = 0; i < ZL_ARRAY_LEN(sizes) && e == 0; i++)
        e = bytes(r, sizes[i].option, sizes[i].text, sizes[i].to);
    for (size_t i = 0; i < ZL_ARRAY_LEN(numbers) && e == 0; i++)
        e = number(r, numbers[i].option, numbers[i].text, numbers[i].min, numbers[i].to);
    ret->cpu_period = (uint64_t)period;
    ret->cpu_burst = (uint64_t)burst;
    ret->cpu_rt_period = (uint64_t)rt_period;
    ret->cpus = r->o.cpus;
    ret->mems = r->o.mems;
    return e;
}

/* --resources FILE, - for standard input; else the options. */
static int read_resources(struct ocirun *r, struct zl_oci_resources **ret)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_decoder d;
    const char *path = r->o.resources;
    *ret = zl_arena_alloc(&r->arena, sizeof **ret);
    (*ret)->swappiness = (*ret)->cpu_idle = -1;
    if (!path)
        return read_options(r, *ret);
    int e = zl_read_file(AT_FDCWD, zl_streq(path, "-") ? "/proc/self/fd/0" : path, ZL_OCI_CONFIG_MAX + 1, &text);
    if (e < 0)
        return zl_fail(&r->err, e, "read %s", path);
    zl_decoder_init(&d, &r->arena);
    e = zl_oci_resources_parse(&d, zl_buf_view(&text), ret, &r->err);
    zl_decoder_done(&d);
    return e < 0 ? zl_wrap(&r->err, e, "%s", path) : 0;
}

/* Groups in hierarchies of v1 that the container was made without. */
static int extend(struct ocirun *r, const char *id, struct ocirun_state *s, uint32_t controllers, struct zl_cgroup *g)
{
    uint32_t more = controllers & ~(uint32_t)s->controllers;
    int e = zl_cgroup_find_all(s->cgroup_parent, s->cgroup_name, controllers | (uint32_t)s->controllers, g);
    bool extended = false;
    for (int c = ZL_CONTROLLER_BLKIO; c < ZL_CONTROLLER_COUNT && e == 0; c++)
        if (more >> c & 1 && g->dir[c][0]) {
            extended = true;
            e = zl_cgroup_extend(g, (enum zl_controller)c);
        }
    if (e < 0)
        return zl_fail(&r->err, e, "give %s a group in another hierarchy", id);
    if (!extended)
        return 0;
    s->controllers |= controllers;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    return folder < 0 ? folder : ocirun_write_state(r, folder, s);
}

/* checkBeforeUpdate: rather an error than a container that is killed for what it has. */
static int check_usage(struct ocirun *r, const struct zl_oci_resources *from, const struct zl_cgroup *g)
{
    struct zl_cgroup_stats stats;
    if (!from->check_before_update || from->memory_limit <= 0 || zl_cgroup_stats(g, &stats) < 0)
        return 0;
    return stats.memory_bytes <= (uint64_t)from->memory_limit
               ? 0
               : zl_fail(&r->err, ZL_E_CONFLICT, "linux.resources.memory.limit: %lld is less than the %llu in use",
                         (long long)from->memory_limit, (unsigned long long)stats.memory_bytes);
}

static int change(struct ocirun *r, const char *id, const struct zl_cgroup *g, const struct zl_cgroup_limits *limits,
                  const struct ocirun_values *values)
{
    const char *refused;
    int e = zl_cgroup_update(g, limits, &refused);
    return e < 0 ? zl_fail(&r->err, e, "change the limits of %s: write %s", id, refused)
                 : ocirun_set_values(r, g, values);
}

/* So that they stay when systemd writes them again. What of a quota was not said is as it is. */
static int tell_systemd(struct ocirun *r, const struct ocirun_state *s, const struct zl_cgroup *g,
                        const struct zl_oci_resources *from)
{
    struct zl_oci_resources told = *from;
    struct zl_value *list = zl_value_new(&r->arena, ZL_LIST);
    if (told.cpu_quota || told.cpu_period)
        ZL_IGNORE(zl_cgroup_quota(g, &told.cpu_quota, &told.cpu_period)); /* it was written just now */
    ocirun_scope_resources(&r->arena, &told, g->layout == ZL_CGROUP_V2, list);
    return ocirun_systemd_set(r, s, list);
}

static const char *said(const char *text)
{
    return text && *text ? text : NULL;
}

static int change_class(struct ocirun *r, const struct ocirun_state *s)
{
    if (!said(r->o.l3) && !said(r->o.bandwidth))
        return 0;
    zl_auto_close int root = ocirun_rdt_open(r);
    return root < 0 ? root : ocirun_rdt_change(r, root, s, said(r->o.l3), said(r->o.bandwidth));
}

int ocirun_update(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    struct zl_oci_resources *from;
    struct zl_cgroup_limits limits;
    struct ocirun_values values;
    struct zl_cgroup g;
    enum ocirun_status status;
    int e = ocirun_find(r, id, &s, &g, &status);
    e = e < 0 ? e : read_resources(r, &from);
    e = e < 0 ? e : ocirun_limits(r, from, &limits);
    e = e < 0 ? e : ocirun_values(r, from, &values);
    if (e < 0)
        return e;
    if (status == OCIRUN_STOPPED)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container not running: %s", id);
    if ((said(r->o.l3) || said(r->o.bandwidth)) && !ocirun_has_rdt(s))
        return zl_fail(&r->err, ZL_E_CONFLICT, "%s was made without linux.intelRdt", id);
    e = check_usage(r, from, &g);
    e = e < 0 ? e : extend(r, id, s, values.controllers, &g);
    if (e < 0)
        return e;
    limits.controllers = values.controllers;
    struct ocirun_saved *saved = ocirun_save_limits(r, &g, &values);
    e = change(r, id, &g, &limits, &values);
    if (e == 0 && s->unit && *s->unit) {
        e = tell_systemd(r, s, &g, from);
        /* Which has written them, too: as it rounds them. */
        e = e < 0 ? e : change(r, id, &g, &limits, &values);
    }
    if (e == 0 && ocirun_has_rdt(s))
        e = change_class(r, s);
    if (e < 0)
        ocirun_restore_limits(saved);
    return e;
}
