/* The field tables of the document: one row a key, the reference's keys that are not built yet included. */
#include "spec/spec.h"
#include "spec/spec_priv.h"

#define AT(type, member) offsetof(struct type, member)
#define NOT_YET(name_)                      \
    {                                       \
        .name = name_, .kind = ZL_K_NOT_YET \
    }

static const char *const rtypes[] = { "service", "!job", "!cron", NULL };
const char *const zl_pull_policies[] = { "if_not_present", "always", "never", "newer", NULL };
static const char *const protocols[] = { "http", "tcp", "!https", "!websocket", "!udp", NULL };
static const char *const exposes[] = { "internal", "public", NULL };
static const char *const modes[] = { "adaptive", "fixed", "manual", NULL };
static const char *const checks[] = { "-none", "tcp", "http", "!command", "!exec", NULL };
static const char *const conditions[] = { "healthy", "started", "ready", "!completed", NULL };
static const char *const on_timeouts[] = { "fail", "warn", "continue", NULL };

/* clang-format off */
static const struct zl_field image_fields[] = {
    { .name = "name", .kind = ZL_K_STRING, .offset = AT(zl_service, image.name) - AT(zl_service, image),
      .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY, .doc = "image reference" },
    { .name = "pull_policy", .kind = ZL_K_ENUM, .offset = AT(zl_service, image.policy) - AT(zl_service, image),
      .names = zl_pull_policies, .fallback = "if_not_present", .doc = "when to ask the registry" },
    NOT_YET("source_policy"),
};
static const struct zl_type type_image = {
    .name = "'image'", .size = sizeof(((struct zl_service *)0)->image), .fields = image_fields,
    .count = ZL_ARRAY_LEN(image_fields), .check = zl_spec_check_image, .normalise = zl_spec_image_form,
};

#define CMD(member) AT(zl_service, command.member) - AT(zl_service, command)
static const struct zl_field command_fields[] = {
    { .name = "entrypoint", .kind = ZL_K_STRINGS, .offset = CMD(entrypoint), .flags = ZL_F_OMIT,
      .doc = "replaces the image's ENTRYPOINT" },
    { .name = "args", .kind = ZL_K_STRINGS, .offset = CMD(args), .flags = ZL_F_OMIT, .doc = "replaces the image's CMD" },
    { .name = "workdir", .kind = ZL_K_STRING, .offset = CMD(workdir), .flags = ZL_F_OMIT | ZL_F_NONEMPTY,
      .doc = "working folder" },
};
static const struct zl_type type_command = {
    .name = "'command'", .size = sizeof(((struct zl_service *)0)->command), .fields = command_fields,
    .count = ZL_ARRAY_LEN(command_fields), .check = zl_spec_check_command, .normalise = zl_spec_command_form,
};

static const struct zl_field endpoint_fields[] = {
    { .name = "name", .kind = ZL_K_STRING, .offset = AT(zl_endpoint, name), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY,
      .code = "length", .doc = "unique within the service" },
    { .name = "protocol", .kind = ZL_K_ENUM, .offset = AT(zl_endpoint, protocol), .flags = ZL_F_REQUIRED,
      .names = protocols, .doc = "http or tcp" },
    { .name = "port", .kind = ZL_K_INT, .offset = AT(zl_endpoint, port), .flags = ZL_F_REQUIRED, .min = 1, .max = 65535,
      .code = "invalid_port", .doc = "where the proxy listens" },
    { .name = "target_port", .kind = ZL_K_INT, .offset = AT(zl_endpoint, target_port), .min = 1, .max = 65535,
      .code = "invalid_port", .doc = "where the container listens; port when absent" },
    { .name = "expose", .kind = ZL_K_ENUM, .offset = AT(zl_endpoint, expose), .names = exposes, .fallback = "internal",
      .doc = "public: the host's addresses; internal: the service address" },
    NOT_YET("path"), NOT_YET("host"), NOT_YET("stream"), NOT_YET("tunnel"), NOT_YET("target_role"),
};
static const struct zl_type type_endpoint =
    ZL_TYPE("an endpoint", struct zl_endpoint, endpoint_fields, .check = zl_spec_check_endpoint);

#define TARGET(member) AT(zl_service, scale.targets.member) - AT(zl_service, scale.targets)
static const struct zl_field target_fields[] = {
    { .name = "cpu", .kind = ZL_K_PERCENT, .offset = TARGET(cpu), .flags = ZL_F_OMIT, .doc = "percent" },
    { .name = "memory", .kind = ZL_K_PERCENT, .offset = TARGET(memory), .flags = ZL_F_OMIT, .doc = "percent" },
    { .name = "rps", .kind = ZL_K_INT, .offset = TARGET(rps), .flags = ZL_F_OMIT, .min = 1, .max = INT64_MAX,
      .doc = "requests per second and replica" },
};
static const struct zl_type type_targets = {
    .name = "'targets'", .size = sizeof(((struct zl_service *)0)->scale.targets), .fields = target_fields,
    .count = ZL_ARRAY_LEN(target_fields),
};

#define SCALE(member) AT(zl_service, scale.member) - AT(zl_service, scale)
static const struct zl_field scale_fields[] = {
    { .name = "mode", .kind = ZL_K_ENUM, .offset = SCALE(mode), .flags = ZL_F_REQUIRED, .names = modes,
      .fallback = "adaptive", .doc = "adaptive, fixed or manual" },
    { .name = "min", .kind = ZL_K_INT, .offset = SCALE(min), .min = 0, .max = 10000,
      .code = "invalid_scale_range", .doc = "adaptive: least replicas" },
    { .name = "max", .kind = ZL_K_INT, .offset = SCALE(max), .min = 1, .max = 10000,
      .code = "invalid_scale_range", .doc = "adaptive: most replicas" },
    { .name = "replicas", .kind = ZL_K_INT, .offset = SCALE(replicas), .min = 0, .max = 10000,
      .code = "invalid_scale_range", .doc = "fixed: replicas" },
    { .name = "cooldown", .kind = ZL_K_DURATION, .offset = SCALE(cooldown_ms), .fallback = "30s",
      .doc = "adaptive: rest between decisions" },
    { .name = "targets", .kind = ZL_K_STRUCT, .offset = SCALE(targets), .flags = ZL_F_OMIT, .type = &type_targets,
      .doc = "adaptive: when to grow" },
};
static const struct zl_type type_scale = {
    .name = "'scale'", .size = sizeof(((struct zl_service *)0)->scale), .fields = scale_fields,
    .count = ZL_ARRAY_LEN(scale_fields), .check = zl_spec_check_scale,
};

#define CHECK(member) AT(zl_service, health.check.member) - AT(zl_service, health.check)
static const struct zl_field check_fields[] = {
    { .name = "type", .kind = ZL_K_ENUM, .offset = CHECK(type), .flags = ZL_F_REQUIRED, .names = checks,
      .doc = "tcp or http" },
    { .name = "port", .kind = ZL_K_INT, .offset = CHECK(port), .min = 0, .max = 65535,
      .code = "invalid_port", .doc = "tcp: port, 0 the first endpoint's" },
    { .name = "url", .kind = ZL_K_STRING, .offset = CHECK(url), .flags = ZL_F_OMIT | ZL_F_NONEMPTY,
      .doc = "http: a path, asked of the first http endpoint" },
    { .name = "expect_status", .kind = ZL_K_INT, .offset = CHECK(expect_status), .min = 100, .max = 599,
      .fallback = "200", .doc = "http: the status that means healthy" },
    NOT_YET("command"),
};
static const struct zl_type type_check = {
    .name = "'check'", .size = sizeof(((struct zl_service *)0)->health.check), .fields = check_fields,
    .count = ZL_ARRAY_LEN(check_fields), .check = zl_spec_check_check,
};

#define HEALTH(member) AT(zl_service, health.member) - AT(zl_service, health)
static const struct zl_field health_fields[] = {
    { .name = "start_grace", .kind = ZL_K_DURATION, .offset = HEALTH(start_grace_ms), .fallback = "5s",
      .doc = "failures this early do not count" },
    { .name = "interval", .kind = ZL_K_DURATION, .offset = HEALTH(interval_ms), .fallback = "10s",
      .doc = "between checks" },
    { .name = "timeout", .kind = ZL_K_DURATION, .offset = HEALTH(timeout_ms), .fallback = "5s", .doc = "of one check" },
    { .name = "retries", .kind = ZL_K_INT, .offset = HEALTH(retries), .min = 1, .max = 1000, .fallback = "3",
      .doc = "failures in a row before unhealthy" },
    { .name = "check", .kind = ZL_K_STRUCT, .offset = HEALTH(check), .flags = ZL_F_REQUIRED, .type = &type_check,
      .doc = "what is asked" },
};
static const struct zl_type type_health = {
    .name = "'health'", .size = sizeof(((struct zl_service *)0)->health), .fields = health_fields,
    .count = ZL_ARRAY_LEN(health_fields), .check = zl_spec_check_health,
};

#define RES(member) AT(zl_service, resources.member) - AT(zl_service, resources)
static const struct zl_field resource_fields[] = {
    { .name = "cpu", .kind = ZL_K_DOUBLE, .offset = RES(cpu), .flags = ZL_F_POSITIVE | ZL_F_OMIT, .max = 100000,
      .code = "invalid_cpu", .doc = "cores, an upper bound" },
    { .name = "memory", .kind = ZL_K_SIZE, .offset = RES(memory_bytes), .flags = ZL_F_OMIT,
      .code = "invalid_memory_format", .doc = "an upper bound" },
    NOT_YET("pids_limit"), NOT_YET("cpuset"), NOT_YET("cpu_shares"), NOT_YET("memory_swap"),
    NOT_YET("memory_reservation"), NOT_YET("memory_swappiness"), NOT_YET("oom_score_adj"), NOT_YET("oom_kill_disable"),
    NOT_YET("blkio_weight"), NOT_YET("gpu"),
};
static const struct zl_type type_resources = {
    .name = "'resources'", .size = sizeof(((struct zl_service *)0)->resources), .fields = resource_fields,
    .count = ZL_ARRAY_LEN(resource_fields),
};

static const struct zl_field depend_fields[] = {
    { .name = "service", .kind = ZL_K_STRING, .offset = AT(zl_depend, service), .flags = ZL_F_REQUIRED | ZL_F_NONEMPTY,
      .doc = "another service of this document" },
    { .name = "condition", .kind = ZL_K_ENUM, .offset = AT(zl_depend, condition), .names = conditions,
      .fallback = "healthy", .doc = "what to wait for" },
    { .name = "timeout", .kind = ZL_K_DURATION, .offset = AT(zl_depend, timeout_ms), .fallback = "300s",
      .doc = "how long" },
    { .name = "on_timeout", .kind = ZL_K_ENUM, .offset = AT(zl_depend, on_timeout), .names = on_timeouts,
      .fallback = "fail", .doc = "and then" },
};
static const struct zl_type type_depend =
    ZL_TYPE("a dependency", struct zl_depend, depend_fields, .check = zl_spec_check_depend);

static const struct zl_field service_fields[] = {
    { .name = "rtype", .kind = ZL_K_ENUM, .offset = AT(zl_service, rtype), .names = rtypes, .fallback = "service",
      .doc = "what kind of workload" },
    { .name = "image", .kind = ZL_K_STRUCT, .offset = AT(zl_service, image), .flags = ZL_F_REQUIRED,
      .type = &type_image, .doc = "what to run" },
    { .name = "command", .kind = ZL_K_STRUCT, .offset = AT(zl_service, command), .flags = ZL_F_OMIT,
      .type = &type_command, .doc = "how to run it" },
    { .name = "env", .kind = ZL_K_CUSTOM, .offset = AT(zl_service, env), .flags = ZL_F_OMIT,
      .decode = zl_spec_decode_env, .print = zl_spec_print_env, .doc = "environment, a map or a list of name and value" },
    { .name = "endpoints", .kind = ZL_K_LIST, .offset = AT(zl_service, endpoints), .flags = ZL_F_OMIT,
      .type = &type_endpoint, .doc = "what the proxy serves" },
    { .name = "scale", .kind = ZL_K_STRUCT, .offset = AT(zl_service, scale), .type = &type_scale,
      .doc = "how many replicas" },
    { .name = "health", .kind = ZL_K_STRUCT, .offset = AT(zl_service, health), .type = &type_health,
      .doc = "when a replica is ready" },
    { .name = "resources", .kind = ZL_K_STRUCT, .offset = AT(zl_service, resources), .flags = ZL_F_OMIT,
      .type = &type_resources, .doc = "upper bounds" },
    { .name = "depends", .kind = ZL_K_LIST, .offset = AT(zl_service, depends), .flags = ZL_F_OMIT,
      .type = &type_depend, .doc = "what must be there first" },
    NOT_YET("schedule"), NOT_YET("init"), NOT_YET("storage"), NOT_YET("node_mode"), NOT_YET("node_selector"),
    NOT_YET("node"), NOT_YET("network"), NOT_YET("errors"), NOT_YET("platform"), NOT_YET("labels"),
    NOT_YET("capabilities"), NOT_YET("cap_add"), NOT_YET("cap_drop"), NOT_YET("privileged"), NOT_YET("devices"),
    NOT_YET("lifecycle"), NOT_YET("logs"), NOT_YET("service_type"), NOT_YET("wasm"), NOT_YET("wasm_http"),
    NOT_YET("runtime"), NOT_YET("restart_policy"), NOT_YET("hostname"), NOT_YET("dns"), NOT_YET("extra_hosts"),
    NOT_YET("user"), NOT_YET("stop_signal"), NOT_YET("stop_grace_period"), NOT_YET("sysctls"), NOT_YET("ulimits"),
    NOT_YET("security_opt"), NOT_YET("pid_mode"), NOT_YET("ipc_mode"), NOT_YET("userns_mode"),
    NOT_YET("cgroup_parent"), NOT_YET("extra_groups"), NOT_YET("read_only_root_fs"), NOT_YET("init_container"),
    NOT_YET("tty"), NOT_YET("stdin_open"), NOT_YET("expose"), NOT_YET("port_mappings"), NOT_YET("network_mode"),
    NOT_YET("host_network"), NOT_YET("isolation"), NOT_YET("localhost_reachability"), NOT_YET("affinity"),
    NOT_YET("replica_groups"), NOT_YET("overlay"),
};
const struct zl_type zl_type_service =
    ZL_TYPE("a service", struct zl_service, service_fields, .key_offset = AT(zl_service, name),
            .check = zl_spec_check_service);

static const struct zl_field spec_fields[] = {
    { .name = "version", .kind = ZL_K_STRING, .offset = AT(zl_spec, version), .flags = ZL_F_REQUIRED,
      .code = "invalid_version", .doc = "v1" },
    { .name = "deployment", .kind = ZL_K_STRING, .offset = AT(zl_spec, deployment), .flags = ZL_F_REQUIRED,
      .code = "invalid_deployment_name", .doc = "its name" },
    { .name = "services", .kind = ZL_K_MAP, .offset = AT(zl_spec, services), .type = &zl_type_service,
      .doc = "name to service" },
    NOT_YET("tunnels"), NOT_YET("api"), NOT_YET("externals"),
};
/* clang-format on */
const struct zl_type zl_type_spec = ZL_TYPE("the document", struct zl_spec, spec_fields, .check = zl_spec_check_spec);
