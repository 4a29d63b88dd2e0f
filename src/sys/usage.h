/*
 * What a group of processes has used: processor time, block devices, the network. Counters that the machine does not
 * have are 0. cgroups(7), cgroup-v1/blkio-controller, cgroup-v2 "io.stat", proc_pid_net(5).
 * Thread: any. Owns: plain values. Fails: never; what can't be read is 0, and pids_limit UINT64_MAX.
 */
#pragma once

#include "base/str.h"
#include "sys/cgroup.h"

struct zl_usage {
    uint64_t cpu_total_ns, cpu_system_ns;
    uint64_t block_read_bytes, block_write_bytes;
    uint64_t net_rx_bytes, net_tx_bytes; /* of every link but lo */
    uint64_t pids_limit;                 /* UINT64_MAX: none */
};

/* zl_cgroup_find, with the group in which v1 counts block devices. A parent "": there are no groups, and none is it. */
int zl_usage_find_group(const char *parent, const char *id, struct zl_cgroup *ret) ZL_MUST;
/* `pid` is a process of the group, whose network is looked at. */
void zl_usage_read(const struct zl_cgroup *g, pid_t pid, struct zl_usage *ret);

/* The files' formats, pure. They add to what is there. */
void zl_usage_take_net(struct zl_str net_dev, struct zl_usage *u);
void zl_usage_take_io_stat(struct zl_str io_stat, struct zl_usage *u);             /* v2 */
void zl_usage_take_service_bytes(struct zl_str service_bytes, struct zl_usage *u); /* v1 */
