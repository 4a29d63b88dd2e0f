/*
 * Small look-ups in the store's folder. Thread: any. Owns: the caller owns what is returned. Fails: -errno.
 */
#pragma once

#include "cluster/state.h"

/* 1 when there are segments or snapshots of libraft, else 0. */
int zl_log_present(int dir) ZL_MUST;
/* The node's random id; made, and synced, when there is none. -EINVAL when the file says something else. */
int zl_node_id_load(int dir, uint64_t *ret) ZL_MUST;
/* The state of the newest snapshot that can be read, for when libraft refuses to load. -ENOENT: there is none. */
int zl_snapshot_rescue(int dir, struct zl_state **ret) ZL_MUST;

/*
 * Space that is set aside while there is plenty, and given back before a start that would find none: libraft can't even
 * load without writing. A file of 2 MiB, `reserve`.
 */
void zl_reserve_hold(int dir);
void zl_reserve_release(int dir);
