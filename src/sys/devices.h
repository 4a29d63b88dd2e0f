/*
 * Which devices the processes of a cgroup may make, read and write: the devices controller of v1
 * (cgroup-v1/devices.rst), a BPF program on v2 (BPF_PROG_TYPE_CGROUP_DEVICE). Rules are taken one after another, as v1
 * takes them: one for all devices resets what came before, the others are exceptions, and what is allowed by several
 * adds up. Thread: any. Owns: the kernel keeps the program while the cgroup is there. Fails: -errno.
 */
#pragma once

#include "sys/cgroup.h"

enum { ZL_DEVICE_MKNOD = 1, ZL_DEVICE_READ = 2, ZL_DEVICE_WRITE = 4 }; /* as linux/bpf.h has them */

struct zl_device_rule {
    bool allow;
    char type;            /* 'a', 'b' or 'c' */
    int64_t major, minor; /* -1: any */
    unsigned access;      /* ZL_DEVICE_… */
};

/* What rules come to: everything but the exceptions, or nothing but them. */
struct zl_device_policy {
    bool allow; /* what no exception is for */
    struct zl_device_rule *exceptions;
    unsigned n;
};
/* `ret->exceptions` has room for n. */
void zl_device_policy_make(const struct zl_device_rule *rules, unsigned n, struct zl_device_policy *ret);

int zl_cgroup_set_devices(const struct zl_cgroup *g, const struct zl_device_rule *rules, unsigned n) ZL_MUST;
/* The program on the v2 tree, whatever the layout. */
int zl_cgroup_attach_devices(const char *dir, const struct zl_device_policy *policy) ZL_MUST;
