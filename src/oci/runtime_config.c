#include "oci/runtime_config.h"

#include <errno.h>
#include <string.h>

#define R(member)        offsetof(struct zl_oci_runtime, member)
#define L(member)        (offsetof(struct zl_oci_runtime, linux_.member) - offsetof(struct zl_oci_runtime, linux_))
#define LR(member)       offsetof(struct zl_oci_resources, member)
#define P(member)        offsetof(struct zl_oci_process, member)
#define AT(type, member) offsetof(struct type, member)
#define NOT_YET(name_)                      \
    {                                       \
        .name = name_, .kind = ZL_K_NOT_YET \
    }
#define ID_MAX 4294967294 /* UINT32_MAX - 1: the last is "no id" */

static void decode_u64(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    uint64_t n;
    if ((v->kind != ZL_INT && v->kind != ZL_STRING) || zl_parse_u64(v->text, 0, UINT64_MAX, &n) < 0)
        zl_problem_add(d, v, "invalid", NULL, "expected an integer from 0 to 18446744073709551615, got '%.40s'",
                       v->text.p);
    else
        *(uint64_t *)field = n;
}

static void decode_ids(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_oci_id_list *ids = field;
    if (v->kind != ZL_LIST) {
        zl_problem_add(d, v, "invalid", NULL, "expected a list of ids, got %s", zl_value_kind_name(v->kind));
        return;
    }
    ids->v = zl_arena_alloc(d->arena, (v->count + 1) * sizeof *ids->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        if (i->kind != ZL_INT || i->integer < 0 || i->integer > ID_MAX)
            zl_problem_add(d, i, "invalid", NULL, "expected an id from 0 to %lld, got '%.40s'", (long long)ID_MAX,
                           i->text.p);
        else
            ids->v[ids->n++] = i->integer;
    }
}

static void decode_pairs(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_items *pairs = field;
    if (v->kind != ZL_MAP) {
        zl_problem_add(d, v, "invalid", NULL, "expected a map of strings, got %s", zl_value_kind_name(v->kind));
        return;
    }
    pairs->v = zl_arena_alloc(d->arena, (v->count + 1) * sizeof *pairs->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        struct zl_oci_pair *p = zl_arena_alloc(d->arena, sizeof *p);
        if (i->kind != ZL_STRING)
            zl_problem_add(d, i, "invalid", NULL, "'%.60s' expects a string, got %s", i->key->text.p,
                           zl_value_kind_name(i->kind));
        *p = (struct zl_oci_pair){ i->key->text.p, i->text.p };
        pairs->v[pairs->n++] = p;
    }
}

static bool says_nothing(const struct zl_value *v)
{
    if (v->kind == ZL_LIST)
        return !v->first;
    /* A 0 in a map is how engines write what nobody asked for: docker's blockIO always has a weight. */
    for (const struct zl_value *i = v->kind == ZL_MAP ? v->first : NULL; i; i = i->next)
        if (i->kind == ZL_INT ? !zl_str_is(i->text, "0") : !says_nothing(i))
            return false;
    return v->kind == ZL_MAP || v->kind == ZL_NULL || v->text.n == 0;
}

/* { "eth0": { "name": "eth1" } } */
static void decode_net_devices(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_items *pairs = field;
    if (v->kind != ZL_MAP) {
        zl_problem_add(d, v, "invalid", NULL, "expected a map of network devices, got %s", zl_value_kind_name(v->kind));
        return;
    }
    pairs->v = zl_arena_alloc(d->arena, (v->count + 1) * sizeof *pairs->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        struct zl_oci_pair *p = zl_arena_alloc(d->arena, sizeof *p);
        const struct zl_value *name = i->kind == ZL_MAP ? zl_value_get(i, "name") : NULL;
        if (i->kind != ZL_MAP || (name && name->kind != ZL_STRING))
            zl_problem_add(d, i, "invalid", NULL, "'%.60s' expects a map with a 'name'", i->key->text.p);
        *p = (struct zl_oci_pair){ i->key->text.p, name ? name->text.p : "" };
        pairs->v[pairs->n++] = p;
    }
}

/* What must be absent or empty, as nothing does it yet. */
static void decode_empty(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    (void)field;
    if (!says_nothing(v))
        zl_problem_add(d, v, "not_supported_yet", NULL, "'%.60s' is not supported yet", v->key ? v->key->text.p : "");
}

/* clang-format off */
#define EMPTY(name_) { .name = name_, .kind = ZL_K_CUSTOM, .decode = decode_empty }
#define STR(name_, at, ...) { .name = name_, .kind = ZL_K_STRING, .offset = at, ##__VA_ARGS__ }
#define STRS(name_, at) { .name = name_, .kind = ZL_K_STRINGS, .offset = at }
#define NUM(name_, at, min_, max_, ...) { .name = name_, .kind = ZL_K_INT, .offset = at, .min = min_, .max = max_, ##__VA_ARGS__ }
#define OPEN(struct_, fields_, ...) \
    { .name = #struct_, .size = sizeof(struct struct_), .fields = fields_, .count = ZL_ARRAY_LEN(fields_), .open = true, ##__VA_ARGS__ }
#define PART(name_, fields_) { .name = name_, .fields = fields_, .count = ZL_ARRAY_LEN(fields_), .open = true }

static const struct zl_field user_fields[] = {
    NUM("uid", P(uid) - P(uid), 0, ID_MAX, .flags = ZL_F_REQUIRED), NUM("gid", P(gid) - P(uid), 0, ID_MAX, .flags = ZL_F_REQUIRED),
    NUM("umask", P(umask) - P(uid), 0, 0777, .fallback = "-1"),
    { .name = "additionalGids", .kind = ZL_K_CUSTOM, .offset = P(groups) - P(uid), .decode = decode_ids },
};
static const struct zl_type type_user = PART("'user'", user_fields);

static const struct zl_field caps_fields[] = {
    STRS("bounding", P(caps.bounding) - P(caps)), STRS("effective", P(caps.effective) - P(caps)),
    STRS("permitted", P(caps.permitted) - P(caps)), STRS("inheritable", P(caps.inheritable) - P(caps)),
    STRS("ambient", P(caps.ambient) - P(caps)),
};
static const struct zl_type type_caps = PART("'capabilities'", caps_fields);

static const struct zl_field rlimit_fields[] = {
    STR("type", AT(zl_oci_rlimit, type), .flags = ZL_F_REQUIRED),
    { .name = "soft", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_rlimit, soft), .flags = ZL_F_REQUIRED, .decode = decode_u64 },
    { .name = "hard", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_rlimit, hard), .flags = ZL_F_REQUIRED, .decode = decode_u64 },
};
static const struct zl_type type_rlimit = OPEN(zl_oci_rlimit, rlimit_fields);

static void decode_oom_score(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_oci_process *p = (struct zl_oci_process *)(void *)((char *)field - P(oom_score_adj));
    if (v->kind == ZL_NULL)
        return;
    if (v->kind != ZL_INT || v->integer < -1000 || v->integer > 1000)
        zl_problem_add(d, v, "invalid", NULL, "'oomScoreAdj' expects an integer from -1000 to 1000");
    p->oom_score_adj = v->integer;
    p->has_oom_score_adj = true;
}

static const struct zl_field console_fields[] = {
    NUM("height", P(rows) - P(rows), 0, 65535), NUM("width", P(columns) - P(rows), 0, 65535),
};
static const struct zl_type type_console = PART("'consoleSize'", console_fields);

static const struct zl_field scheduler_fields[] = {
    STR("policy", AT(zl_oci_scheduler, policy), .flags = ZL_F_REQUIRED), NUM("nice", AT(zl_oci_scheduler, nice), INT32_MIN, INT32_MAX),
    NUM("priority", AT(zl_oci_scheduler, priority), INT32_MIN, INT32_MAX), STRS("flags", AT(zl_oci_scheduler, flags)),
    { .name = "runtime", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_scheduler, runtime), .decode = decode_u64 },
    { .name = "deadline", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_scheduler, deadline), .decode = decode_u64 },
    { .name = "period", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_scheduler, period), .decode = decode_u64 },
};
static const struct zl_type type_scheduler = PART("'scheduler'", scheduler_fields);
static const struct zl_field io_fields[] = {
    STR("class", 0, .flags = ZL_F_REQUIRED), NUM("priority", P(io_priority) - P(io_class), 0, 7),
};
static const struct zl_type type_io = PART("'ioPriority'", io_fields);
static const struct zl_field affinity_fields[] = { STR("initial", 0), STR("final", P(cpus_final) - P(cpus_initial)) };
static const struct zl_type type_affinity = PART("'execCPUAffinity'", affinity_fields);

static const struct zl_field process_fields[] = {
    { .name = "consoleSize", .kind = ZL_K_STRUCT, .offset = P(rows), .type = &type_console },
    { .name = "terminal", .kind = ZL_K_BOOL, .offset = P(terminal) },
    { .name = "user", .kind = ZL_K_STRUCT, .offset = P(uid), .type = &type_user },
    STRS("args", P(args)), STRS("env", P(env)), STR("cwd", P(cwd), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY),
    { .name = "capabilities", .kind = ZL_K_STRUCT, .offset = P(caps), .type = &type_caps },
    { .name = "rlimits", .kind = ZL_K_LIST, .offset = P(rlimits), .type = &type_rlimit },
    { .name = "noNewPrivileges", .kind = ZL_K_BOOL, .offset = P(no_new_privileges) },
    { .name = "oomScoreAdj", .kind = ZL_K_CUSTOM, .offset = P(oom_score_adj), .decode = decode_oom_score },
    STR("apparmorProfile", P(apparmor)), STR("selinuxLabel", P(selinux)),
    { .name = "scheduler", .kind = ZL_K_STRUCT, .offset = P(scheduler), .type = &type_scheduler },
    { .name = "ioPriority", .kind = ZL_K_STRUCT, .offset = P(io_class), .type = &type_io },
    { .name = "execCPUAffinity", .kind = ZL_K_STRUCT, .offset = P(cpus_initial), .type = &type_affinity },
};
static const struct zl_type type_process = OPEN(zl_oci_process, process_fields);

static const struct zl_field root_fields[] = {
    STR("path", R(root) - R(root), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY),
    { .name = "readonly", .kind = ZL_K_BOOL, .offset = R(root_readonly) - R(root) },
};
static const struct zl_type type_root = PART("'root'", root_fields);

static const struct zl_field map_fields[] = {
    NUM("containerID", AT(zl_oci_map, container), 0, UINT32_MAX, .flags = ZL_F_REQUIRED),
    NUM("hostID", AT(zl_oci_map, host), 0, UINT32_MAX, .flags = ZL_F_REQUIRED),
    NUM("size", AT(zl_oci_map, size), 1, UINT32_MAX, .flags = ZL_F_REQUIRED),
};
static const struct zl_type type_map = OPEN(zl_oci_map, map_fields);
#define MAPS(name_, at) { .name = name_, .kind = ZL_K_LIST, .offset = at, .type = &type_map }

static const struct zl_field mount_fields[] = {
    STR("destination", AT(zl_oci_mount, destination), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY),
    STR("type", AT(zl_oci_mount, type)), STR("source", AT(zl_oci_mount, source)),
    STRS("options", AT(zl_oci_mount, options)), MAPS("uidMappings", AT(zl_oci_mount, uid_map)),
    MAPS("gidMappings", AT(zl_oci_mount, gid_map)),
};
static const struct zl_type type_mount = OPEN(zl_oci_mount, mount_fields);

static const struct zl_field namespace_fields[] = {
    STR("type", AT(zl_oci_namespace, type), .flags = ZL_F_REQUIRED), STR("path", AT(zl_oci_namespace, path)),
};
static const struct zl_type type_namespace = OPEN(zl_oci_namespace, namespace_fields);

static const struct zl_field device_fields[] = {
    STR("type", AT(zl_oci_device, type), .flags = ZL_F_REQUIRED), STR("path", AT(zl_oci_device, path), .flags = ZL_F_REQUIRED),
    NUM("major", AT(zl_oci_device, major), 0, UINT32_MAX), NUM("minor", AT(zl_oci_device, minor), 0, UINT32_MAX),
    NUM("fileMode", AT(zl_oci_device, file_mode), 0, UINT32_MAX, .fallback = "-1"),
    NUM("uid", AT(zl_oci_device, uid), 0, ID_MAX), NUM("gid", AT(zl_oci_device, gid), 0, ID_MAX),
};
static const struct zl_type type_device = OPEN(zl_oci_device, device_fields);

static const struct zl_field rule_fields[] = {
    { .name = "allow", .kind = ZL_K_BOOL, .offset = AT(zl_oci_device_rule, allow), .flags = ZL_F_REQUIRED },
    STR("type", AT(zl_oci_device_rule, type), .fallback = "a"), STR("access", AT(zl_oci_device_rule, access), .fallback = "rwm"),
    NUM("major", AT(zl_oci_device_rule, major), -1, UINT32_MAX, .fallback = "-1"),
    NUM("minor", AT(zl_oci_device_rule, minor), -1, UINT32_MAX, .fallback = "-1"),
};
static const struct zl_type type_rule = OPEN(zl_oci_device_rule, rule_fields);

#define U64(name_, at) { .name = name_, .kind = ZL_K_CUSTOM, .offset = at, .decode = decode_u64 }
/* Groups are hierarchical now, and nothing else: it has no effect. */
static void decode_use_hierarchy(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    (void)field;
    if (v->kind != ZL_BOOL)
        zl_problem_add(d, v, "invalid", NULL, "'useHierarchy' expects true or false");
}

static const struct zl_field memory_fields[] = {
    NUM("limit", 0, -1, INT64_MAX), NUM("swap", LR(memory_swap) - LR(memory_limit), -1, INT64_MAX),
    NUM("reservation", LR(memory_reservation) - LR(memory_limit), -1, INT64_MAX), NUM("kernel", LR(kernel) - LR(memory_limit), -1, INT64_MAX),
    NUM("kernelTCP", LR(kernel_tcp) - LR(memory_limit), -1, INT64_MAX),
    NUM("swappiness", LR(swappiness) - LR(memory_limit), 0, 100, .fallback = "-1"),
    { .name = "disableOOMKiller", .kind = ZL_K_BOOL, .offset = LR(no_oom_killer) - LR(memory_limit) },
    { .name = "useHierarchy", .kind = ZL_K_CUSTOM, .decode = decode_use_hierarchy },
    { .name = "checkBeforeUpdate", .kind = ZL_K_BOOL, .offset = LR(check_before_update) - LR(memory_limit) },
};
static const struct zl_type type_memory = PART("'memory'", memory_fields);
static const struct zl_field cpu_fields[] = {
    NUM("quota", LR(cpu_quota) - LR(cpu_quota), -1, INT64_MAX), NUM("shares", LR(cpu_shares) - LR(cpu_quota), 0, INT64_MAX),
    U64("period", LR(cpu_period) - LR(cpu_quota)), U64("burst", LR(cpu_burst) - LR(cpu_quota)),
    NUM("realtimeRuntime", LR(cpu_rt_runtime) - LR(cpu_quota), -1, INT64_MAX), U64("realtimePeriod", LR(cpu_rt_period) - LR(cpu_quota)),
    STR("cpus", LR(cpus) - LR(cpu_quota)), STR("mems", LR(mems) - LR(cpu_quota)),
    NUM("idle", LR(cpu_idle) - LR(cpu_quota), 0, 1, .fallback = "-1"),
};
static const struct zl_type type_cpu = PART("'cpu'", cpu_fields);
static const struct zl_field pids_fields[] = { NUM("limit", 0, INT64_MIN, INT64_MAX) };
static const struct zl_type type_pids = PART("'pids'", pids_fields);
#define DEVICE_NUMBER \
    NUM("major", AT(zl_oci_throttle, major), 0, UINT32_MAX, .flags = ZL_F_REQUIRED), \
    NUM("minor", AT(zl_oci_throttle, minor), 0, UINT32_MAX, .flags = ZL_F_REQUIRED)
static const struct zl_field throttle_fields[] = {
    DEVICE_NUMBER, { .name = "rate", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_throttle, rate), .flags = ZL_F_REQUIRED, .decode = decode_u64 },
};
static const struct zl_type type_throttle = OPEN(zl_oci_throttle, throttle_fields);
static const struct zl_field weight_fields[] = {
    DEVICE_NUMBER, NUM("weight", AT(zl_oci_throttle, weight), 0, 1000), NUM("leafWeight", AT(zl_oci_throttle, leaf_weight), 0, 1000),
};
static const struct zl_type type_weight = OPEN(zl_oci_throttle, weight_fields);
const char *const zl_oci_throttle_names[ZL_OCI_THROTTLES] = { "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice",
                                                              "throttleWriteIOPSDevice" };
#define THROTTLE(name_, kind_) \
    { .name = name_, .kind = ZL_K_LIST, .offset = LR(throttles) - LR(io_weight) + (kind_) * sizeof(struct zl_items), .type = &type_throttle }
static const struct zl_field block_io_fields[] = {
    NUM("weight", 0, 0, 1000), NUM("leafWeight", LR(io_leaf_weight) - LR(io_weight), 0, 1000),
    { .name = "weightDevice", .kind = ZL_K_LIST, .offset = LR(weight_devices) - LR(io_weight), .type = &type_weight },
    THROTTLE("throttleReadBpsDevice", ZL_OCI_READ_BPS), THROTTLE("throttleWriteBpsDevice", ZL_OCI_WRITE_BPS),
    THROTTLE("throttleReadIOPSDevice", ZL_OCI_READ_IOPS), THROTTLE("throttleWriteIOPSDevice", ZL_OCI_WRITE_IOPS),
};
static const struct zl_type type_block_io = PART("'blockIO'", block_io_fields);
static const struct zl_field hugepage_fields[] = {
    STR("pageSize", AT(zl_oci_hugepages, size), .flags = ZL_F_REQUIRED),
    { .name = "limit", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_hugepages, limit), .flags = ZL_F_REQUIRED, .decode = decode_u64 },
};
static const struct zl_type type_hugepages = OPEN(zl_oci_hugepages, hugepage_fields);
static const struct zl_field priority_fields[] = {
    STR("name", AT(zl_oci_priority, name), .flags = ZL_F_REQUIRED), NUM("priority", AT(zl_oci_priority, priority), 0, UINT32_MAX, .flags = ZL_F_REQUIRED),
};
static const struct zl_type type_priority = OPEN(zl_oci_priority, priority_fields);
static const struct zl_field network_fields[] = {
    NUM("classID", 0, 0, UINT32_MAX), { .name = "priorities", .kind = ZL_K_LIST, .offset = LR(priorities) - LR(class_id), .type = &type_priority },
};
static const struct zl_type type_network = PART("'network'", network_fields);
static const struct zl_field rdma_fields[] = {
    NUM("hcaHandles", AT(zl_oci_rdma, handles), 0, UINT32_MAX, .fallback = "-1"), NUM("hcaObjects", AT(zl_oci_rdma, objects), 0, UINT32_MAX, .fallback = "-1"),
};
static const struct zl_type type_rdma = OPEN(zl_oci_rdma, rdma_fields);

static void decode_rdma(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_items *list = field;
    if (v->kind != ZL_MAP) {
        zl_problem_add(d, v, "invalid", NULL, "expected a map of devices, got %s", zl_value_kind_name(v->kind));
        return;
    }
    list->v = zl_arena_alloc(d->arena, (v->count + 1) * sizeof *list->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        struct zl_oci_rdma *item = zl_decode(d, &type_rdma, i);
        item->device = i->key->text.p;
        list->v[list->n++] = item;
    }
}

static const struct zl_field resource_fields[] = {
    { .name = "devices", .kind = ZL_K_LIST, .offset = LR(devices), .type = &type_rule },
    { .name = "memory", .kind = ZL_K_STRUCT, .offset = LR(memory_limit), .type = &type_memory },
    { .name = "pids", .kind = ZL_K_STRUCT, .offset = LR(pids_limit), .type = &type_pids },
    { .name = "cpu", .kind = ZL_K_STRUCT, .offset = LR(cpu_quota), .type = &type_cpu },
    { .name = "blockIO", .kind = ZL_K_STRUCT, .offset = LR(io_weight), .type = &type_block_io },
    { .name = "hugepageLimits", .kind = ZL_K_LIST, .offset = LR(hugepages), .type = &type_hugepages },
    { .name = "network", .kind = ZL_K_STRUCT, .offset = LR(class_id), .type = &type_network },
    { .name = "rdma", .kind = ZL_K_CUSTOM, .offset = LR(rdma), .decode = decode_rdma },
    { .name = "unified", .kind = ZL_K_CUSTOM, .offset = LR(unified), .decode = decode_pairs },
};
static const struct zl_type type_resources = OPEN(zl_oci_resources, resource_fields);

static const struct zl_field arg_fields[] = {
    NUM("index", AT(zl_oci_seccomp_arg, index), 0, 5, .flags = ZL_F_REQUIRED),
    { .name = "value", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_seccomp_arg, value), .flags = ZL_F_REQUIRED, .decode = decode_u64 },
    { .name = "valueTwo", .kind = ZL_K_CUSTOM, .offset = AT(zl_oci_seccomp_arg, value_two), .decode = decode_u64 },
    STR("op", AT(zl_oci_seccomp_arg, op), .flags = ZL_F_REQUIRED),
};
static const struct zl_type type_arg = OPEN(zl_oci_seccomp_arg, arg_fields);
static const struct zl_field syscall_fields[] = {
    STRS("names", AT(zl_oci_seccomp_rule, names)), STR("action", AT(zl_oci_seccomp_rule, action), .flags = ZL_F_REQUIRED),
    NUM("errnoRet", AT(zl_oci_seccomp_rule, errno_ret), 0, 4095, .fallback = "-1"),
    { .name = "args", .kind = ZL_K_LIST, .offset = AT(zl_oci_seccomp_rule, args), .type = &type_arg },
};
static const struct zl_type type_syscall = OPEN(zl_oci_seccomp_rule, syscall_fields);
static const struct zl_field seccomp_fields[] = {
    STR("defaultAction", AT(zl_oci_seccomp, default_action), .flags = ZL_F_REQUIRED),
    NUM("defaultErrnoRet", AT(zl_oci_seccomp, default_errno_ret), 0, 4095, .fallback = "-1"),
    STRS("architectures", AT(zl_oci_seccomp, architectures)), STRS("flags", AT(zl_oci_seccomp, flags)),
    { .name = "syscalls", .kind = ZL_K_LIST, .offset = AT(zl_oci_seccomp, rules), .type = &type_syscall },
    STR("listenerPath", AT(zl_oci_seccomp, listener_path)), STR("listenerMetadata", AT(zl_oci_seccomp, listener_metadata)),
};
static const struct zl_type type_seccomp = OPEN(zl_oci_seccomp, seccomp_fields);

static const struct zl_field clock_fields[] = {
    NUM("secs", AT(zl_oci_clock, secs), INT64_MIN, INT64_MAX), NUM("nanosecs", AT(zl_oci_clock, nanosecs), 0, 999999999),
};
static const struct zl_type type_clock = PART("a clock", clock_fields);
static const struct zl_field offset_fields[] = {
    { .name = "monotonic", .kind = ZL_K_STRUCT, .offset = 0, .type = &type_clock },
    { .name = "boottime", .kind = ZL_K_STRUCT, .offset = L(boottime) - L(monotonic), .type = &type_clock },
};
static const struct zl_type type_offsets = PART("'timeOffsets'", offset_fields);
static const struct zl_field personality_fields[] = { STR("domain", 0, .flags = ZL_F_REQUIRED), EMPTY("flags") };
static const struct zl_type type_personality = PART("'personality'", personality_fields);
static const struct zl_field memory_policy_fields[] = {
    STR("mode", 0, .flags = ZL_F_REQUIRED), STR("nodes", L(memory_nodes) - L(memory_mode)),
    STRS("flags", L(memory_flags) - L(memory_mode)),
};
static const struct zl_type type_memory_policy = PART("'memoryPolicy'", memory_policy_fields);

#define RDT(member) offsetof(struct zl_oci_rdt, member)
static const struct zl_field rdt_fields[] = {
    STR("closID", RDT(class_name)), STR("l3CacheSchema", RDT(l3)), STR("memBwSchema", RDT(bandwidth)), STRS("schemata", RDT(schemata)),
    { .name = "enableMonitoring", .kind = ZL_K_BOOL, .offset = RDT(monitoring) },
    { .name = "enableCMT", .kind = ZL_K_BOOL, .offset = RDT(old_monitoring[0]) },
    { .name = "enableMBM", .kind = ZL_K_BOOL, .offset = RDT(old_monitoring[1]) },
};
static const struct zl_type type_rdt = PART("'intelRdt'", rdt_fields);

static const struct zl_field linux_fields[] = {
    { .name = "namespaces", .kind = ZL_K_LIST, .offset = L(namespaces), .type = &type_namespace },
    { .name = "devices", .kind = ZL_K_LIST, .offset = L(devices), .type = &type_device },
    { .name = "sysctl", .kind = ZL_K_CUSTOM, .offset = L(sysctl), .decode = decode_pairs },
    STR("cgroupsPath", L(cgroups_path)), STR("rootfsPropagation", L(rootfs_propagation)),
    STRS("maskedPaths", L(masked)), STRS("readonlyPaths", L(readonly)),
    { .name = "seccomp", .kind = ZL_K_STRUCT, .offset = L(seccomp), .type = &type_seccomp },
    { .name = "resources", .kind = ZL_K_STRUCT, .offset = L(resources), .type = &type_resources },
    MAPS("uidMappings", L(uid_map)), MAPS("gidMappings", L(gid_map)),
    { .name = "timeOffsets", .kind = ZL_K_STRUCT, .offset = L(monotonic), .type = &type_offsets },
    STR("mountLabel", L(mount_label)), { .name = "intelRdt", .kind = ZL_K_STRUCT, .offset = L(rdt), .type = &type_rdt },
    { .name = "personality", .kind = ZL_K_STRUCT, .offset = L(personality), .type = &type_personality },
    { .name = "netDevices", .kind = ZL_K_CUSTOM, .offset = L(net_devices), .decode = decode_net_devices },
    { .name = "memoryPolicy", .kind = ZL_K_STRUCT, .offset = L(memory_mode), .type = &type_memory_policy },
};
static const struct zl_type type_linux = PART("'linux'", linux_fields);

const char *const zl_oci_hook_names[ZL_OCI_HOOK_KINDS] = { "prestart", "createRuntime", "createContainer", "startContainer",
                                                           "poststart", "poststop" };
static const struct zl_field hook_fields[] = {
    STR("path", AT(zl_oci_hook, path), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY), STRS("args", AT(zl_oci_hook, args)),
    STRS("env", AT(zl_oci_hook, env)), NUM("timeout", AT(zl_oci_hook, timeout_s), 1, 86400),
};
static const struct zl_type type_hook = OPEN(zl_oci_hook, hook_fields);
#define HOOKS(name_, kind_) { .name = name_, .kind = ZL_K_LIST, .offset = (kind_) * sizeof(struct zl_items), .type = &type_hook }
static const struct zl_field hooks_fields[] = {
    HOOKS("prestart", ZL_OCI_PRESTART), HOOKS("createRuntime", ZL_OCI_CREATE_RUNTIME),
    HOOKS("createContainer", ZL_OCI_CREATE_CONTAINER), HOOKS("startContainer", ZL_OCI_START_CONTAINER),
    HOOKS("poststart", ZL_OCI_POSTSTART), HOOKS("poststop", ZL_OCI_POSTSTOP),
};
static const struct zl_type type_hooks = PART("'hooks'", hooks_fields);

static const struct zl_field runtime_fields[] = {
    STR("ociVersion", R(version), .flags = ZL_F_REQUIRED), STR("hostname", R(hostname)), STR("domainname", R(domainname)),
    { .name = "root", .kind = ZL_K_STRUCT, .offset = R(root), .flags = ZL_F_REQUIRED, .type = &type_root },
    { .name = "process", .kind = ZL_K_STRUCT, .offset = R(process), .type = &type_process },
    { .name = "mounts", .kind = ZL_K_LIST, .offset = R(mounts), .type = &type_mount },
    { .name = "annotations", .kind = ZL_K_CUSTOM, .offset = R(annotations), .decode = decode_pairs },
    { .name = "linux", .kind = ZL_K_STRUCT, .offset = R(linux_), .type = &type_linux },
    { .name = "hooks", .kind = ZL_K_STRUCT, .offset = R(hooks), .type = &type_hooks },
};
/* clang-format on */
static const struct zl_type type_runtime = OPEN(zl_oci_runtime, runtime_fields);

/* Of int64? `digits` of them, at most, at p. */
static bool fits_i64(const char *p, size_t digits, bool negative)
{
    return digits < 19 ||
           (digits == 19 && memcmp(p, negative ? "9223372036854775808" : "9223372036854775807", 19) <= 0);
}

/* Limits of the document are uint64 (RLIM_INFINITY is 18446744073709551615), which JSON parsers of int64 refuse: a
 * whole number that does not fit becomes a string of it. Where a row takes none, its problem names the member. */
static struct zl_str quote_great_numbers(struct zl_buf *out, struct zl_str text)
{
    bool string = false, changed = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        size_t sign = !string && c == '-', digits = 0;
        if (c == '"')
            string = !string;
        while (!string && i + sign + digits < text.n && text.p[i + sign + digits] >= '0' &&
               text.p[i + sign + digits] <= '9')
            digits++;
        size_t n = digits ? sign + digits : 0;
        char before = i ? text.p[i - 1] : ' ', after = i + n < text.n ? text.p[i + n] : ' ';
        bool whole = digits && before != '.' && before != '+' && before != '-' && (before | 32) != 'e' &&
                     after != '.' && (after | 32) != 'e';
        if (whole && !fits_i64(text.p + i + sign, digits, sign)) {
            zl_buf_putc(out, '"');
            zl_buf_add(out, text.p + i, n);
            zl_buf_putc(out, '"');
            changed = true;
        } else {
            zl_buf_add(out, text.p + i, n ? n : 1);
        }
        if (string && c == '\\' && i + 1 < text.n)
            zl_buf_putc(out, text.p[++i]);
        if (n)
            i += n - 1;
    }
    return changed ? zl_buf_view(out) : text;
}

static int parse(struct zl_decoder *d, const struct zl_type *type, struct zl_str text, const struct zl_value **root,
                 void **ret, struct zl_err *err)
{
    static const struct zl_parse_limits limits = { 2 * ZL_OCI_CONFIG_MAX, 32, 200000 };
    zl_auto_buf quoted = ZL_BUF_INIT;
    struct zl_parse_error pe;
    struct zl_value *v;
    if (text.n > ZL_OCI_CONFIG_MAX)
        return zl_fail(err, ZL_E_LIMIT, "it is over %d MiB", ZL_OCI_CONFIG_MAX >> 20);
    if (zl_json_parse(d->arena, quote_great_numbers(&quoted, text), &limits, &v, &pe) < 0)
        return zl_fail(err, ZL_E_PARSE, "line %u: %s", pe.line, pe.text);
    *root = v;
    d->strict = true;
    *ret = zl_decode(d, type, v);
    return d->count ? zl_fail(err, ZL_E_INVALID, "%s: %s", d->first->path, d->first->message) : 0;
}

static int check_process(const struct zl_oci_process *p, struct zl_err *err)
{
    if (p->cwd[0] != '/')
        return zl_fail(err, ZL_E_INVALID, "process.cwd: '%.100s' is no absolute path", p->cwd);
    if (p->args.n == 0)
        return zl_fail(err, ZL_E_INVALID, "process.args: there is no command");
    return 0;
}

/* Paths with ".." or without "/" at the start are no paths of a container. */
static int check_paths(const struct zl_strings *paths, const char *what, struct zl_err *err)
{
    for (unsigned i = 0; i < paths->n; i++)
        if (paths->v[i][0] != '/')
            return zl_fail(err, ZL_E_INVALID, "%s[%u]: '%.100s' is no absolute path", what, i, paths->v[i]);
    return 0;
}

int zl_oci_runtime_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_runtime **ret, struct zl_err *err)
{
    const struct zl_value *root;
    void *object;
    int r = parse(d, &type_runtime, text, &root, &object, err);
    if (r < 0)
        return r;
    struct zl_oci_runtime *c = object;
    c->has_process = zl_value_get(root, "process") != NULL;
    const struct zl_value *l = zl_value_get(root, "linux"), *rdt = l ? zl_value_get(l, "intelRdt") : NULL;
    c->linux_.rdt.there = rdt && rdt->kind == ZL_MAP;
    c->linux_.rdt.monitoring |= c->linux_.rdt.old_monitoring[0] || c->linux_.rdt.old_monitoring[1];
    if (strncmp(c->version, "1.", 2) != 0)
        return zl_fail(err, ZL_E_UNSUPPORTED, "ociVersion: '%.20s' is no version 1", c->version);
    r = c->has_process ? check_process(&c->process, err) : 0;
    for (int k = 0; k < ZL_OCI_HOOK_KINDS && r == 0; k++)
        for (unsigned i = 0; i < c->hooks[k].n && r == 0; i++)
            if (((const struct zl_oci_hook *)c->hooks[k].v[i])->path[0] != '/')
                r = zl_fail(err, ZL_E_INVALID, "hooks.%s[%u].path is no absolute path", zl_oci_hook_names[k], i);
    r = r < 0 ? r : check_paths(&c->linux_.masked, "linux.maskedPaths", err);
    r = r < 0 ? r : check_paths(&c->linux_.readonly, "linux.readonlyPaths", err);
    *ret = c;
    return r;
}

int zl_oci_process_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_process **ret, struct zl_err *err)
{
    const struct zl_value *root;
    void *object;
    int r = parse(d, &type_process, text, &root, &object, err);
    if (r < 0)
        return r;
    *ret = object;
    return check_process(*ret, err);
}

int zl_oci_resources_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_resources **ret, struct zl_err *err)
{
    const struct zl_value *root;
    void *object;
    int r = parse(d, &type_resources, text, &root, &object, err);
    if (r == 0)
        *ret = object;
    return r;
}
