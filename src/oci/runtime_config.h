/*
 * A bundle's config.json (OCI runtime-spec 1.0 to 1.3: config.md, config-linux.md). Members that the specification has
 * and this does not do yet are refused by name; members that it does not have are passed over, as it demands.
 * Thread: any. Owns: the decoder's arena owns what is decoded. Fails: ZL_E_INVALID, ZL_E_PARSE with the first problem.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

struct zl_oci_id_list {
    int64_t *v;
    unsigned n;
};

struct zl_oci_rlimit {
    const char *type; /* RLIMIT_NOFILE */
    uint64_t soft, hard;
};

/* In the order in which they run (config.md, POSIX-platform Hooks). */
enum zl_oci_hook_kind {
    ZL_OCI_PRESTART,
    ZL_OCI_CREATE_RUNTIME,
    ZL_OCI_CREATE_CONTAINER,
    ZL_OCI_START_CONTAINER,
    ZL_OCI_POSTSTART,
    ZL_OCI_POSTSTOP,
    ZL_OCI_HOOK_KINDS
};
extern const char *const zl_oci_hook_names[ZL_OCI_HOOK_KINDS];

struct zl_oci_hook {
    const char *path; /* absolute */
    struct zl_strings args, env;
    int64_t timeout_s; /* 0: as long as it takes */
};

struct zl_oci_scheduler {
    const char *policy; /* NULL: not said */
    int64_t nice, priority;
    uint64_t runtime, deadline, period;
    struct zl_strings flags;
};

struct zl_oci_process {
    bool terminal, no_new_privileges, has_oom_score_adj;
    int64_t uid, gid, umask; /* umask -1: 022 */
    struct zl_oci_id_list groups;
    struct zl_strings args, env;
    const char *cwd;
    struct {
        struct zl_strings bounding, effective, permitted, inheritable, ambient;
    } caps;
    struct zl_items rlimits; /* of struct zl_oci_rlimit */
    int64_t oom_score_adj;
    int64_t rows, columns; /* of the terminal; 0: not said */
    const char *apparmor, *selinux;
    struct zl_oci_scheduler scheduler;
    const char *io_class; /* NULL: not said */
    int64_t io_priority;
    const char *cpus_initial, *cpus_final; /* lists: "0-3,7" */
};

struct zl_oci_map {
    int64_t container, host, size;
};

struct zl_oci_mount {
    const char *destination, *type, *source;
    struct zl_strings options;
    struct zl_items uid_map, gid_map; /* of struct zl_oci_map */
};

struct zl_oci_namespace {
    const char *type, *path; /* path NULL: a new one */
};

struct zl_oci_device {
    const char *type, *path;
    int64_t major, minor, file_mode, uid, gid; /* file_mode -1: 0666 */
};

struct zl_oci_device_rule {
    bool allow;
    const char *type, *access;
    int64_t major, minor; /* -1: any */
};

struct zl_oci_seccomp_arg {
    int64_t index;
    uint64_t value, value_two;
    const char *op;
};

struct zl_oci_seccomp_rule {
    struct zl_strings names;
    const char *action;
    int64_t errno_ret; /* -1: not said */
    struct zl_items args;
};

struct zl_oci_seccomp {
    const char *default_action; /* NULL: there is no filter */
    int64_t default_errno_ret;  /* -1: not said */
    struct zl_strings architectures, flags;
    const char *listener_path, *listener_metadata;
    struct zl_items rules; /* of struct zl_oci_seccomp_rule */
};

struct zl_oci_throttle {
    int64_t major, minor;
    uint64_t rate;
    int64_t weight, leaf_weight; /* of weightDevice, instead of a rate; 0: not said */
};

struct zl_oci_hugepages {
    const char *size; /* 2MB */
    uint64_t limit;
};

struct zl_oci_priority {
    const char *name;
    int64_t priority;
};

struct zl_oci_rdma {
    const char *device;
    int64_t handles, objects; /* -1: not said */
};

enum zl_oci_throttle_kind { ZL_OCI_READ_BPS, ZL_OCI_WRITE_BPS, ZL_OCI_READ_IOPS, ZL_OCI_WRITE_IOPS, ZL_OCI_THROTTLES };
extern const char *const zl_oci_throttle_names[ZL_OCI_THROTTLES];

struct zl_oci_resources {
    struct zl_items devices;                                              /* of struct zl_oci_device_rule */
    int64_t memory_limit, memory_swap, pids_limit, cpu_quota, cpu_shares; /* 0: not said; -1: none */
    uint64_t cpu_period;
    int64_t memory_reservation, kernel, kernel_tcp; /* 0: not said; -1: none */
    int64_t swappiness;                             /* -1: not said */
    bool no_oom_killer, check_before_update;
    uint64_t cpu_burst, cpu_rt_period;                           /* 0: not said */
    int64_t cpu_rt_runtime, cpu_idle;                            /* idle -1: not said */
    const char *cpus, *mems;                                     /* NULL: not said */
    int64_t io_weight, io_leaf_weight;                           /* 0: not said */
    struct zl_items weight_devices, throttles[ZL_OCI_THROTTLES]; /* of struct zl_oci_throttle */
    struct zl_items hugepages;                                   /* of struct zl_oci_hugepages */
    int64_t class_id;                                            /* 0: not said */
    struct zl_items priorities, rdma, unified;                   /* of struct zl_oci_priority, _rdma, _pair */
};

struct zl_oci_clock {
    int64_t secs, nanosecs;
};

struct zl_oci_pair {
    const char *key, *value;
};

/* linux.intelRdt */
struct zl_oci_rdt {
    bool there, monitoring, old_monitoring[2]; /* those: enableCMT and enableMBM of versions below 1.3 */
    const char *class_name, *l3, *bandwidth;
    struct zl_strings schemata;
};

struct zl_oci_runtime {
    const char *version, *hostname, *domainname, *root;
    bool root_readonly, has_process;
    struct zl_oci_process process;
    struct zl_items mounts;
    struct zl_items annotations;              /* of struct zl_oci_pair */
    struct zl_items hooks[ZL_OCI_HOOK_KINDS]; /* of struct zl_oci_hook */
    struct {
        struct zl_items namespaces, devices, sysctl;
        const char *cgroups_path, *rootfs_propagation;
        struct zl_strings masked, readonly;
        struct zl_oci_seccomp seccomp;
        struct zl_items uid_map, gid_map; /* of struct zl_oci_map */
        struct zl_oci_clock monotonic, boottime;
        const char *mount_label, *personality;
        struct zl_items net_devices; /* of struct zl_oci_pair: the name outside, and inside ("": the same) */
        const char *memory_mode, *memory_nodes;
        struct zl_strings memory_flags;
        struct zl_oci_resources resources;
        struct zl_oci_rdt rdt;
    } linux_;
};

enum { ZL_OCI_CONFIG_MAX = 4 << 20 };

/* Decodes and checks what can be checked without a machine. */
int zl_oci_runtime_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_runtime **ret,
                         struct zl_err *err) ZL_MUST;
/* The member `linux.resources` alone, as `update --resources` takes it. */
int zl_oci_resources_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_resources **ret,
                           struct zl_err *err) ZL_MUST;
/* The member `process` alone, as `exec --process` takes it. */
int zl_oci_process_parse(struct zl_decoder *d, struct zl_str text, struct zl_oci_process **ret,
                         struct zl_err *err) ZL_MUST;
