/*
 * What systemd is told of a container: the unit's name from linux.cgroupsPath, and linux.resources and annotations as
 * properties (systemd.scope(5), systemd.resource-control(5)), so that systemd does not undo what the files say when it
 * writes them again. No I/O.
 */
#include "ocirun/scope.h"

#include "ocirun/ocirun.h"

#include <errno.h>

enum { UNIT_NAME_MAX = 255 /* systemd's */, CPUS_BYTES = 1024 };

/* systemd.unit(5): what a name may have. */
static bool is_unit_name(const char *name)
{
    size_t n = strlen(name);
    bool good = n > 0 && n <= UNIT_NAME_MAX && name[0] != '.';
    for (const char *p = name; good && *p; p++)
        good =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr(":-_.\\@", *p);
    return good;
}

/* "a-b.slice" lives in "a.slice": no part may be empty. "-.slice" is the root of all. */
static bool is_slice(const char *name)
{
    struct zl_str s = zl_str(name);
    if (!is_unit_name(name) || !zl_str_ends(s, ZL_STR(".slice")) || s.n == 6)
        return false;
    if (zl_streq(name, "-.slice"))
        return true;
    for (struct zl_str part, rest = zl_str_n(name, s.n - 6); rest.p;) {
        part = zl_str_cut(rest, '-', &rest);
        if (!part.n)
            return false;
    }
    return true;
}

int ocirun_scope_name(struct ocirun *r, const char *path, const char *id, bool user, struct ocirun_scope *ret)
{
    struct zl_arena *a = &r->arena;
    struct zl_str slice = { 0 }, prefix = { 0 }, name = { 0 };
    if (path && *path) {
        slice = zl_str_cut(zl_str(path), ':', &prefix);
        if (prefix.p)
            prefix = zl_str_cut(prefix, ':', &name);
        if (!name.n || memchr(name.p, ':', name.n))
            return zl_fail(
                &r->err, ZL_E_INVALID,
                "linux.cgroupsPath: '%.100s' is not SLICE:PREFIX:NAME, as cgroups managed by systemd have it", path);
    } else {
        prefix = ZL_STR("zl-oci");
        name = zl_str(id);
    }
    struct ocirun_scope s = { .slice = user ? "user.slice" : "system.slice" };
    if (zl_str_is(slice, "-"))
        s.slice = "-.slice";
    else if (slice.n)
        s.slice = zl_arena_strndup(a, slice.p, slice.n);
    bool ends = zl_str_ends(name, ZL_STR(".scope"));
    s.unit = zl_arena_printf(a, "%.*s%s%.*s%s", ZL_STR_FMT(prefix), prefix.n ? "-" : "", ZL_STR_FMT(name),
                             ends ? "" : ".scope");
    if (!is_slice(s.slice))
        return zl_fail(&r->err, ZL_E_INVALID,
                       "linux.cgroupsPath: '%.100s' is no name of a slice, such as machine.slice", s.slice);
    if (zl_str_ends(name, ZL_STR(".slice")))
        return zl_fail(&r->err, ZL_E_INVALID, "linux.cgroupsPath: '%.100s' is a slice, which holds no processes itself",
                       name.p);
    if (!is_unit_name(s.unit))
        return zl_fail(&r->err, ZL_E_INVALID, "linux.cgroupsPath: '%.100s' is no name of a systemd unit", s.unit);
    *ret = s;
    return 0;
}

/* A later one of the same name takes the place of the earlier. */
static void put(struct zl_arena *a, struct zl_value *list, const char *name, const char *signature, struct zl_value *v)
{
    struct zl_value *p = zl_value_new(a, ZL_LIST);
    zl_value_append(p, zl_value_string(a, zl_str(name)));
    zl_value_append(p, zl_value_string(a, zl_str(signature)));
    zl_value_append(p, v);
    for (struct zl_value *old = list->first; old; old = old->next)
        if (zl_str_is(old->first->text, name)) {
            old->first = p->first;
            old->last = p->last;
            return;
        }
    zl_value_append(list, p);
}

static void put_text(struct zl_arena *a, struct zl_value *list, const char *name, const char *text)
{
    put(a, list, name, "s", zl_value_string(a, zl_str(text)));
}

static void put_bool(struct zl_arena *a, struct zl_value *list, const char *name, bool on)
{
    put(a, list, name, "b", zl_value_bool(a, on));
}

/* UINT64_MAX: without a limit. Numbers of 64 bits go as text, as JSON has one bit less. */
static void put_u64(struct zl_arena *a, struct zl_value *list, const char *name, uint64_t v)
{
    put(a, list, name, "t", zl_value_string(a, zl_str(zl_arena_printf(a, "%llu", (unsigned long long)v))));
}

static void put_limit(struct zl_arena *a, struct zl_value *list, const char *name, int64_t v)
{
    if (v)
        put_u64(a, list, name, v < 0 ? UINT64_MAX : (uint64_t)v);
}

/* "0-3,7" as bytes of bits; what is no list is told by who writes the file. */
static void put_bits(struct zl_arena *a, struct zl_value *list, const char *name, const char *text)
{
    struct zl_str bits;
    if (!text || !*text || ocirun_bits(a, text, CPUS_BYTES, &bits) < 0)
        return;
    while (bits.n && !bits.p[bits.n - 1])
        bits.n--;
    struct zl_value *bytes = zl_value_new(a, ZL_LIST);
    for (size_t i = 0; i < bits.n; i++)
        zl_value_append(bytes, zl_value_int(a, (unsigned char)bits.p[i]));
    put(a, list, name, "ay", bytes);
}

/*
 * Time in each second, which a unit's file has as whole percents: rounded up to these, so that the files that we write
 * never ask for more than the unit allows.
 */
static void put_quota(struct zl_arena *a, struct zl_value *list, int64_t quota, uint64_t period)
{
    enum { SECOND = 1000000, PERCENT = SECOND / 100, PERIOD = 100000 };
    if (quota < 0) {
        put_u64(a, list, "CPUQuotaPerSecUSec", UINT64_MAX);
    } else if (quota > 0 && quota <= INT64_MAX / SECOND) {
        uint64_t each = (uint64_t)quota * SECOND / (period ? period : PERIOD);
        put_u64(a, list, "CPUQuotaPerSecUSec", (each + PERCENT - 1) / PERCENT * PERCENT);
    }
    if (period)
        put_u64(a, list, "CPUQuotaPeriodUSec", period);
}

static void put_devices(struct zl_arena *a, struct zl_value *list, const char *name, const struct zl_items *devices,
                        bool weights)
{
    struct zl_value *all = zl_value_new(a, ZL_LIST);
    for (unsigned i = 0; i < devices->n; i++) {
        const struct zl_oci_throttle *d = devices->v[i];
        uint64_t v = weights ? ocirun_io_weight_v2(d->weight) : d->rate ? d->rate : UINT64_MAX;
        if (weights && !d->weight)
            continue;
        struct zl_value *one = zl_value_new(a, ZL_LIST);
        zl_value_append(one, zl_value_string(a, zl_str(zl_arena_printf(a, "/dev/block/%lld:%lld", (long long)d->major,
                                                                       (long long)d->minor))));
        zl_value_append(one, zl_value_string(a, zl_str(zl_arena_printf(a, "%llu", (unsigned long long)v))));
        zl_value_append(all, one);
    }
    if (all->count)
        put(a, list, name, "a(st)", all);
}

static uint64_t number_of(const char *text)
{
    uint64_t v = UINT64_MAX;
    return zl_parse_u64(zl_str(text), 0, UINT64_MAX, &v) == 0 || zl_streq(text, "max") ? v : 0;
}

/* Files of linux.resources.unified that systemd writes, too. */
static void put_unified(struct zl_arena *a, struct zl_value *list, const struct zl_items *unified)
{
    static const struct {
        const char *file, *property;
    } numbers[] = { { "memory.max", "MemoryMax" },          { "memory.high", "MemoryHigh" },
                    { "memory.low", "MemoryLow" },          { "memory.min", "MemoryMin" },
                    { "memory.swap.max", "MemorySwapMax" }, { "pids.max", "TasksMax" },
                    { "cpu.weight", "CPUWeight" } };
    for (unsigned i = 0; i < unified->n; i++) {
        const struct zl_oci_pair *p = unified->v[i];
        for (size_t k = 0; k < ZL_ARRAY_LEN(numbers); k++)
            if (zl_streq(p->key, numbers[k].file) && (number_of(p->value) || zl_streq(p->value, "0")))
                put_u64(a, list, numbers[k].property, number_of(p->value));
        if (zl_streq(p->key, "cpuset.cpus") || zl_streq(p->key, "cpuset.mems"))
            put_bits(a, list, zl_streq(p->key, "cpuset.cpus") ? "AllowedCPUs" : "AllowedMemoryNodes", p->value);
        if (zl_streq(p->key, "cpu.max")) {
            struct zl_str period, quota = zl_str_cut(zl_str(p->value), ' ', &period);
            int64_t q = -1;
            uint64_t t = 0;
            bool good = zl_str_is(quota, "max") || zl_parse_i64(quota, 1, INT64_MAX, &q) == 0;
            if (good && (!period.p || zl_parse_u64(period, 1, UINT32_MAX, &t) == 0))
                put_quota(a, list, q, t);
        }
    }
}

void ocirun_scope_resources(struct zl_arena *a, const struct zl_oci_resources *from, bool v2, struct zl_value *list)
{
    static const char *const rates[ZL_OCI_THROTTLES] = { "IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax",
                                                         "IOWriteIOPSMax" };
    put_limit(a, list, v2 ? "MemoryMax" : "MemoryLimit", from->memory_limit);
    put_limit(a, list, "TasksMax", from->pids_limit);
    put_quota(a, list, from->cpu_quota, from->cpu_period);
    if (!v2) { /* the rest is not systemd's there */
        put_limit(a, list, "CPUShares", from->cpu_shares);
        put_limit(a, list, "BlockIOWeight", from->io_weight);
        return;
    }
    if (from->cpu_shares > 0)
        put_u64(a, list, "CPUWeight", zl_cgroup_cpu_weight((uint64_t)from->cpu_shares));
    put_limit(a, list, "MemoryLow", from->memory_reservation);
    if (from->memory_swap < 0)
        put_u64(a, list, "MemorySwapMax", UINT64_MAX);
    else if (from->memory_swap > 0 && from->memory_limit > 0)
        put_u64(a, list, "MemorySwapMax",
                (uint64_t)(from->memory_swap - ZL_MIN(from->memory_limit, from->memory_swap)));
    put_bits(a, list, "AllowedCPUs", from->cpus);
    put_bits(a, list, "AllowedMemoryNodes", from->mems);
    if (from->io_weight > 0)
        put_u64(a, list, "IOWeight", ocirun_io_weight_v2(from->io_weight));
    put_devices(a, list, "IODeviceWeight", &from->weight_devices, true);
    for (int k = 0; k < ZL_OCI_THROTTLES; k++)
        put_devices(a, list, rates[k], &from->throttles[k], false);
    put_unified(a, list, &from->unified);
}

/* On v1 systemd opens all devices again, unless it knows which. */
static void put_device_rules(struct zl_arena *a, struct zl_value *list, const struct zl_items *rules)
{
    static const char *const always[] = { "/dev/null",    "/dev/zero", "/dev/full", "/dev/random",
                                          "/dev/urandom", "/dev/tty",  "/dev/ptmx", "char-pts" };
    struct zl_value *all = zl_value_new(a, ZL_LIST);
    bool all_denied = false;
    for (unsigned i = 0; i < rules->n + (rules->n ? ZL_ARRAY_LEN(always) : 0); i++) {
        const struct zl_oci_device_rule *d = i < rules->n ? rules->v[i] : NULL;
        const char *path = i < rules->n ? NULL : always[i - rules->n];
        if (d && !d->allow && zl_streq(d->type, "a")) {
            all_denied = true;
            all = zl_value_new(a, ZL_LIST);
        }
        if (d && (!d->allow || zl_streq(d->type, "a")))
            continue;
        if (d)
            path = d->major >= 0 && d->minor >= 0
                       ? zl_arena_printf(a, "/dev/%s/%lld:%lld", d->type[0] == 'b' ? "block" : "char",
                                         (long long)d->major, (long long)d->minor)
                       : (d->type[0] == 'b' ? "block-*" : "char-*");
        struct zl_value *one = zl_value_new(a, ZL_LIST);
        zl_value_append(one, zl_value_string(a, zl_str(path)));
        zl_value_append(one, zl_value_string(a, zl_str(d ? d->access : "rwm")));
        zl_value_append(all, one);
    }
    if (!all_denied)
        return;
    put_text(a, list, "DevicePolicy", "strict");
    put(a, list, "DeviceAllow", "a(ss)", all);
}

int ocirun_scope_properties(struct ocirun *r, const struct zl_oci_runtime *c, const struct ocirun_scope *scope,
                            const char *id, bool v2, struct zl_value **ret)
{
    static const char *const accounts[] = { "MemoryAccounting", "CPUAccounting", "TasksAccounting" };
    struct zl_arena *a = &r->arena;
    struct zl_value *list = zl_value_new(a, ZL_LIST);
    put_text(a, list, "Description", zl_arena_printf(a, "zl-oci container %s", id));
    put_text(a, list, "Slice", scope->slice);
    put_bool(a, list, "Delegate", true);
    put_bool(a, list, "DefaultDependencies", false);
    put_text(a, list, "CollectMode", "inactive-or-failed");
    for (size_t i = 0; i < ZL_ARRAY_LEN(accounts); i++)
        put_bool(a, list, accounts[i], true);
    put_bool(a, list, v2 ? "IOAccounting" : "BlockIOAccounting", true);
    if (!v2)
        put_device_rules(a, list, &c->linux_.resources.devices);
    ocirun_scope_resources(a, &c->linux_.resources, v2, list);
    *ret = list;
    return ocirun_scope_annotations(r, &c->annotations, list);
}

/* --- values of annotations: GVariant's text format, as far as properties need it --- */

struct typed {
    char type; /* of D-Bus; 0: none */
    struct zl_value *v;
};

static void skip_space(const char **at)
{
    while (**at == ' ' || **at == '\t')
        (*at)++;
}

static struct typed read_string(struct zl_arena *a, const char **at)
{
    zl_auto_buf text = ZL_BUF_INIT;
    char quote = *(*at)++;
    for (; **at && **at != quote; (*at)++) {
        if (**at == '\\' && *++*at == 0)
            return (struct typed){ 0 };
        zl_buf_putc(&text, **at);
    }
    if (**at != quote)
        return (struct typed){ 0 };
    (*at)++;
    return (struct typed){ 's', zl_value_string(a, zl_str(zl_arena_strndup(a, text.n ? text.p : "", text.n))) };
}

static struct typed read_scalar(struct zl_arena *a, const char **at)
{
    static const struct {
        const char *name;
        char type;
    } types[] = { { "byte", 'y' },   { "int16", 'n' }, { "uint16", 'q' }, { "int32", 'i' },
                  { "uint32", 'u' }, { "int64", 'x' }, { "uint64", 't' }, { "double", 'd' } };
    char type = 0;
    skip_space(at);
    if (**at == '\'' || **at == '"')
        return read_string(a, at);
    struct zl_str word = zl_str_n(*at, strcspn(*at, " ,]"));
    *at += word.n;
    if (zl_str_is(word, "true") || zl_str_is(word, "false"))
        return (struct typed){ 'b', zl_value_bool(a, zl_str_is(word, "true")) };
    for (size_t i = 0; i < ZL_ARRAY_LEN(types) && !type; i++)
        type = zl_str_is(word, types[i].name) ? types[i].type : 0;
    if (type) {
        skip_space(at);
        word = zl_str_n(*at, strcspn(*at, " ,]"));
        *at += word.n;
    }
    struct zl_value *v = zl_value_plain(a, word);
    if (v->kind == ZL_INT)
        return (struct typed){ type ? type : 'i', v };
    if (v->kind == ZL_DOUBLE && (!type || type == 'd'))
        return (struct typed){ 'd', v };
    uint64_t large; /* over those of a value */
    if (type == 't' && zl_parse_u64(word, 0, UINT64_MAX, &large) == 0)
        return (struct typed){ 't', zl_value_string(a, zl_str(zl_arena_strndup(a, word.p, word.n))) };
    return (struct typed){ 0 };
}

static int read_variant(struct zl_arena *a, const char *text, const char **signature, struct zl_value **ret)
{
    const char *at = text;
    skip_space(&at);
    bool list = *at == '[';
    struct typed first = { 0 };
    struct zl_value *items = zl_value_new(a, ZL_LIST);
    at += list;
    do {
        struct typed one = read_scalar(a, &at);
        if (!one.type || (first.type && one.type != first.type))
            return -EINVAL;
        first = first.type ? first : one;
        if (list)
            zl_value_append(items, one.v);
        skip_space(&at);
    } while (list && *at == ',' && at++);
    if (list && *at++ != ']')
        return -EINVAL;
    skip_space(&at);
    if (*at)
        return -EINVAL;
    *signature = zl_arena_printf(a, "%s%c", list ? "a" : "", first.type);
    *ret = list ? items : first.v;
    return 0;
}

/* "TimeoutStopSec" is a unit file's name for what D-Bus has in microseconds. */
static int in_microseconds(struct zl_arena *a, const char **name, const char **signature, struct zl_value **v)
{
    struct zl_str s = zl_str(*name);
    uint64_t seconds;
    if (!zl_str_ends(s, ZL_STR("Sec")) || zl_str_ends(s, ZL_STR("USec")))
        return 0;
    if (zl_parse_u64((*v)->text, 0, UINT64_MAX / 1000000, &seconds) < 0)
        return -EINVAL;
    *name = zl_arena_printf(a, "%.*sUSec", (int)(s.n - 3), s.p);
    *signature = "t";
    *v = zl_value_string(a, zl_str(zl_arena_printf(a, "%llu", (unsigned long long)seconds * 1000000)));
    return 0;
}

int ocirun_scope_annotations(struct ocirun *r, const struct zl_items *annotations, struct zl_value *list)
{
    const struct zl_str prefix = ZL_STR("org.systemd.property.");
    for (unsigned i = 0; i < annotations->n; i++) {
        const struct zl_oci_pair *p = annotations->v[i];
        const char *signature;
        struct zl_value *v;
        if (!zl_str_starts(zl_str(p->key), prefix))
            continue;
        const char *name = p->key + prefix.n;
        size_t letters = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        if (letters < 3 || name[letters])
            return zl_fail(&r->err, ZL_E_INVALID, "annotations: '%.80s': a unit's property has three letters or more",
                           p->key);
        if (zl_streq(name, "PIDs"))
            return zl_fail(&r->err, ZL_E_INVALID, "annotations: %.80s: the unit's processes are the container's",
                           p->key);
        if (read_variant(&r->arena, p->value, &signature, &v) < 0 ||
            in_microseconds(&r->arena, &name, &signature, &v) < 0)
            return zl_hint(&r->err,
                           zl_fail(&r->err, ZL_E_INVALID, "annotations: %.80s: '%.80s' is no value", p->key, p->value),
                           "'text', true, false, uint64 1, or a list such as ['a', 'b']");
        put(&r->arena, list, name, signature, v);
    }
    return 0;
}
