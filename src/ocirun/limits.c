/*
 * linux.resources (config-linux.md, Control groups) as what is written where: v1's files and v2's, with v1's scales
 * turned into v2's as runc and crun do. What was asked and is not here is an error that names the member.
 */
#include "ocirun/ocirun.h"
#include "ocirun/scope.h"

#include "sys/cgroup.h"

#include <errno.h>

struct list {
    struct zl_arena *arena;
    struct zl_cgroup_value *v;
    unsigned n, cap;
};

static void add(struct list *l, struct zl_cgroup_value value)
{
    if (l->n == l->cap) {
        unsigned cap = l->cap ? 2 * l->cap : 16;
        struct zl_cgroup_value *v = zl_arena_alloc(l->arena, cap * sizeof *v);
        if (l->n)
            memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = value;
}

/* The same text on both. */
static void add_text(struct list *l, enum zl_controller c, const char *v1, const char *v2, const char *text,
                     const char *what)
{
    add(l, (struct zl_cgroup_value){ c, v1, text, v2, text, what });
}

static void add_number(struct list *l, enum zl_controller c, const char *v1, const char *v2, int64_t n,
                       const char *what)
{
    const char *text = zl_arena_printf(l->arena, "%lld", (long long)n);
    add(l, (struct zl_cgroup_value){ c, v1, text, v2, n < 0 ? "max" : text, what });
}

/* With a limit it goes with that; v2 counts swap alone, so that it needs one. */
static void swap_of(struct list *l, const struct zl_oci_resources *r)
{
    const char *text = zl_arena_printf(l->arena, "%lld", (long long)r->memory_swap);
    if (r->memory_swap < 0)
        add(l, (struct zl_cgroup_value){ ZL_CONTROLLER_MEMORY, "memory.memsw.limit_in_bytes", text, "memory.swap.max",
                                         "max", "memory.swap", .may_be_missing = true });
    else if (r->memory_swap > 0 && r->memory_limit == 0)
        add(l, (struct zl_cgroup_value){ ZL_CONTROLLER_MEMORY, "memory.memsw.limit_in_bytes", text, NULL, NULL,
                                         "memory.swap without memory.limit" });
}

static void memory_of(struct list *l, const struct zl_oci_resources *r)
{
    swap_of(l, r);
    if (r->memory_reservation)
        add_number(l, ZL_CONTROLLER_MEMORY, "memory.soft_limit_in_bytes", "memory.low", r->memory_reservation,
                   "memory.reservation");
    if (r->swappiness >= 0)
        add_number(l, ZL_CONTROLLER_MEMORY, "memory.swappiness", NULL, r->swappiness, "memory.swappiness");
    if (r->no_oom_killer)
        add_number(l, ZL_CONTROLLER_MEMORY, "memory.oom_control", NULL, 1, "memory.disableOOMKiller");
    /* Kernels count it with the rest now, and say so or have no such file. */
    if (r->kernel_tcp)
        add_number(l, ZL_CONTROLLER_MEMORY, "memory.kmem.tcp.limit_in_bytes", NULL, r->kernel_tcp, "memory.kernelTCP");
    if (r->kernel || r->kernel_tcp) {
        if (r->kernel)
            add_number(l, ZL_CONTROLLER_MEMORY, "memory.kmem.limit_in_bytes", NULL, r->kernel, "memory.kernel");
        for (unsigned i = 0; i < l->n; i++)
            l->v[i].may_be_missing |= l->v[i].v1 && strncmp(l->v[i].v1, "memory.kmem.", 12) == 0;
    }
}

static void cpu_of(struct list *l, const struct zl_oci_resources *r)
{
    if (r->cpu_burst)
        add_text(l, ZL_CONTROLLER_CPU, "cpu.cfs_burst_us", "cpu.max.burst",
                 zl_arena_printf(l->arena, "%llu", (unsigned long long)r->cpu_burst), "cpu.burst");
    if (r->cpu_idle >= 0)
        add_number(l, ZL_CONTROLLER_CPU, "cpu.idle", "cpu.idle", r->cpu_idle, "cpu.idle");
    if (r->cpu_rt_period)
        add_text(l, ZL_CONTROLLER_CPU, "cpu.rt_period_us", NULL,
                 zl_arena_printf(l->arena, "%llu", (unsigned long long)r->cpu_rt_period), "cpu.realtimePeriod");
    if (r->cpu_rt_runtime)
        add_number(l, ZL_CONTROLLER_CPU, "cpu.rt_runtime_us", NULL, r->cpu_rt_runtime, "cpu.realtimeRuntime");
    if (r->cpus && *r->cpus)
        add_text(l, ZL_CONTROLLER_CPUSET, "cpuset.cpus", "cpuset.cpus", r->cpus, "cpu.cpus");
    if (r->mems && *r->mems)
        add_text(l, ZL_CONTROLLER_CPUSET, "cpuset.mems", "cpuset.mems", r->mems, "cpu.mems");
}

/* 10 to 1000 of v1 as 1 to 10000 of v2; the scheduler BFQ keeps v1's scale. */
uint64_t ocirun_io_weight_v2(int64_t weight)
{
    return 1 + (uint64_t)(ZL_MAX(weight, 10) - 10) * 9999 / 990;
}

/* Which file there is depends on the scheduler: the first that is there is written to. */
static void add_weight(struct list *l, const char *v1, const char *v1_bfq, const char *plain, const char *scaled,
                       const char *what)
{
    add(l, (struct zl_cgroup_value){ ZL_CONTROLLER_BLKIO, v1, plain, "io.bfq.weight", plain, what, .or_next = true });
    add(l, (struct zl_cgroup_value){ ZL_CONTROLLER_BLKIO, v1_bfq, plain, "io.weight", scaled, what });
}

static void weights_of(struct list *l, const struct zl_oci_resources *r)
{
    if (r->io_weight)
        add_weight(l, "blkio.weight", "blkio.bfq.weight", zl_arena_printf(l->arena, "%lld", (long long)r->io_weight),
                   zl_arena_printf(l->arena, "default %llu", (unsigned long long)ocirun_io_weight_v2(r->io_weight)),
                   "blockIO.weight");
    if (r->io_leaf_weight)
        add_number(l, ZL_CONTROLLER_BLKIO, "blkio.leaf_weight", NULL, r->io_leaf_weight, "blockIO.leafWeight");
    for (unsigned i = 0; i < r->weight_devices.n; i++) {
        const struct zl_oci_throttle *w = r->weight_devices.v[i];
        const char *device = zl_arena_printf(l->arena, "%lld:%lld", (long long)w->major, (long long)w->minor);
        if (w->weight)
            add_weight(l, "blkio.weight_device", "blkio.bfq.weight_device",
                       zl_arena_printf(l->arena, "%s %lld", device, (long long)w->weight),
                       zl_arena_printf(l->arena, "%s %llu", device, (unsigned long long)ocirun_io_weight_v2(w->weight)),
                       "blockIO.weightDevice");
        if (w->leaf_weight)
            add_text(l, ZL_CONTROLLER_BLKIO, "blkio.leaf_weight_device", NULL,
                     zl_arena_printf(l->arena, "%s %lld", device, (long long)w->leaf_weight),
                     "blockIO.weightDevice[].leafWeight");
    }
}

static void block_io_of(struct list *l, const struct zl_oci_resources *r)
{
    static const struct {
        const char *v1, *v2;
    } kinds[ZL_OCI_THROTTLES] = { { "blkio.throttle.read_bps_device", "rbps" },
                                  { "blkio.throttle.write_bps_device", "wbps" },
                                  { "blkio.throttle.read_iops_device", "riops" },
                                  { "blkio.throttle.write_iops_device", "wiops" } };
    for (int k = 0; k < ZL_OCI_THROTTLES; k++)
        for (unsigned i = 0; i < r->throttles[k].n; i++) {
            const struct zl_oci_throttle *t = r->throttles[k].v[i];
            unsigned long long rate = t->rate;
            const char *device = zl_arena_printf(l->arena, "%lld:%lld", (long long)t->major, (long long)t->minor);
            const char *v2 = rate ? zl_arena_printf(l->arena, "%s %s=%llu", device, kinds[k].v2, rate)
                                  : zl_arena_printf(l->arena, "%s %s=max", device, kinds[k].v2);
            add(l, (struct zl_cgroup_value){ ZL_CONTROLLER_BLKIO, kinds[k].v1,
                                             zl_arena_printf(l->arena, "%s %llu", device, rate), "io.max", v2,
                                             zl_arena_printf(l->arena, "blockIO.%s", zl_oci_throttle_names[k]) });
        }
}

static int hugepages_of(struct list *l, const struct zl_oci_resources *r, struct zl_err *err)
{
    for (unsigned i = 0; i < r->hugepages.n; i++) {
        const struct zl_oci_hugepages *h = r->hugepages.v[i];
        size_t digits = strspn(h->size, "0123456789");
        const char *unit = h->size + digits;
        if (!digits || digits > 6 || (!zl_streq(unit, "KB") && !zl_streq(unit, "MB") && !zl_streq(unit, "GB")))
            return zl_fail(err, ZL_E_INVALID, "linux.resources.hugepageLimits[%u].pageSize: '%.20s' is no size as 2MB",
                           i, h->size);
        const char *limit = zl_arena_printf(l->arena, "%llu", (unsigned long long)h->limit),
                   *what = zl_arena_printf(l->arena, "hugepageLimits[%u]", i);
        add_text(l, ZL_CONTROLLER_HUGETLB, zl_arena_printf(l->arena, "hugetlb.%s.limit_in_bytes", h->size),
                 zl_arena_printf(l->arena, "hugetlb.%s.max", h->size), limit, what);
        /* Reservations are counted apart since kernel 5.7. */
        add(l, (struct zl_cgroup_value){
                   ZL_CONTROLLER_HUGETLB, zl_arena_printf(l->arena, "hugetlb.%s.rsvd.limit_in_bytes", h->size), limit,
                   zl_arena_printf(l->arena, "hugetlb.%s.rsvd.max", h->size), limit, what, .may_be_missing = true });
    }
    return 0;
}

static int others_of(struct list *l, const struct zl_oci_resources *r, struct zl_err *err)
{
    if (r->class_id)
        add_number(l, ZL_CONTROLLER_NET_CLS, "net_cls.classid", NULL, r->class_id, "network.classID");
    for (unsigned i = 0; i < r->priorities.n; i++) {
        const struct zl_oci_priority *p = r->priorities.v[i];
        add_text(l, ZL_CONTROLLER_NET_PRIO, "net_prio.ifpriomap", NULL,
                 zl_arena_printf(l->arena, "%s %lld", p->name, (long long)p->priority), "network.priorities");
    }
    for (unsigned i = 0; i < r->rdma.n; i++) {
        const struct zl_oci_rdma *d = r->rdma.v[i];
        const char *handles = zl_arena_printf(l->arena, " hca_handle=%lld", (long long)d->handles),
                   *objects = zl_arena_printf(l->arena, " hca_object=%lld", (long long)d->objects);
        add_text(l, ZL_CONTROLLER_RDMA, "rdma.max", "rdma.max",
                 zl_arena_printf(l->arena, "%s%s%s", d->device, d->handles < 0 ? "" : handles,
                                 d->objects < 0 ? "" : objects),
                 zl_arena_printf(l->arena, "rdma.%s", d->device));
    }
    /* Files of the v2 group by name: of this folder, and of a controller or the group itself. */
    for (unsigned i = 0; i < r->unified.n; i++) {
        const struct zl_oci_pair *p = r->unified.v[i];
        if (strchr(p->key, '/') || p->key[0] == '.' || !strchr(p->key, '.'))
            return zl_fail(err, ZL_E_INVALID, "linux.resources.unified: '%.60s' is no name of a cgroup file", p->key);
        add_text(l, ZL_CONTROLLER_UNIFIED, NULL, p->key, p->value, zl_arena_printf(l->arena, "unified.%s", p->key));
    }
    return 0;
}

/* "io.max" wants the controller io. */
static uint32_t controller_of(const char *file)
{
    static const struct {
        const char *prefix;
        enum zl_controller c;
    } names[] = { { "memory.", ZL_CONTROLLER_MEMORY }, { "cpu.", ZL_CONTROLLER_CPU },
                  { "pids.", ZL_CONTROLLER_PIDS },     { "io.", ZL_CONTROLLER_BLKIO },
                  { "cpuset.", ZL_CONTROLLER_CPUSET }, { "hugetlb.", ZL_CONTROLLER_HUGETLB },
                  { "rdma.", ZL_CONTROLLER_RDMA } };
    for (size_t i = 0; file && i < ZL_ARRAY_LEN(names); i++)
        if (strncmp(file, names[i].prefix, strlen(names[i].prefix)) == 0)
            return 1u << names[i].c;
    return 0;
}

int ocirun_values(struct ocirun *r, const struct zl_oci_resources *from, struct ocirun_values *ret)
{
    struct list l = { .arena = &r->arena };
    memory_of(&l, from);
    cpu_of(&l, from);
    weights_of(&l, from);
    block_io_of(&l, from);
    int e = hugepages_of(&l, from, &r->err);
    e = e < 0 ? e : others_of(&l, from, &r->err);
    *ret = (struct ocirun_values){ l.v, l.n, 0 };
    for (unsigned i = 0; i < l.n; i++)
        ret->controllers |=
            l.v[i].controller == ZL_CONTROLLER_UNIFIED ? controller_of(l.v[i].v2) : 1u << l.v[i].controller;
    return e;
}

int ocirun_set_values(struct ocirun *r, const struct zl_cgroup *g, const struct ocirun_values *values)
{
    const struct zl_cgroup_value *failed = NULL;
    int e = zl_cgroup_set(g, values->v, values->n, &failed);
    if (e == -EOPNOTSUPP)
        return zl_fail(&r->err, ZL_E_UNSUPPORTED, "linux.resources.%s: there is no such control of cgroups here",
                       failed->what);
    return e < 0 ? zl_fail(&r->err, e, "linux.resources.%s: write '%.60s'", failed->what,
                           failed->text1 ? failed->text1 : failed->text2)
                 : 0;
}
