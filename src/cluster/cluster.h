/*
 * The store of desired state: libraft as a cluster of one, on its own disk back end and a transport that listens on
 * nothing, around the pure state machine of state.h. What is acknowledged is on the disk (fsync) before.
 *
 *   opening ──► ready ◄──► failed (disk full, I/O error: the next proposal opens the log anew)
 *      └──────► damaged (less on the disk than the mark says: reads work, writes are refused until it is repaired)
 *
 * Files of `dir`: raft's segments, snapshots and metadata; `node` (the node's id); `mark` (how far the state had come,
 * written after each apply, not synced); `kept/<n>/` (the open segments as they were before each of the last starts;
 * `kept/damaged-<n>/` those before a start that found damage, never dropped);
 * `reserve` (space for a start on a full disk).
 *
 * Thread: the loop's. Owns: the caller owns the zl_cluster until its closed callback.
 * Fails: zl_cluster_open: ZL_E_STORE_NEWER, ZL_E_DISK_FULL, errno. Proposals: ZL_E_STORE_DAMAGED, ZL_E_DISK_FULL,
 * ZL_E_CANCELLED (closed meanwhile; it may have been stored), ZL_E_LIMIT, or what the state machine answered.
 */
#pragma once

#include "aio/loop.h"
#include "cluster/state.h"

struct zl_cluster;

struct zl_cluster_options {
    const char *dir; /* absolute; made when absent */
    /* Called once, never from within open: the state is loaded and readable. err NULL: and can be written. With
     * ZL_E_STORE_DAMAGED it can be read only; with anything else the store can't be used: close it. */
    void (*ready)(void *arg, const struct zl_err *err);
    /* After each applied command, before its proposer is told. May be NULL. */
    void (*changed)(void *arg);
    void *arg;
};

int zl_cluster_open(struct zl_loop *loop, const struct zl_cluster_options *options, struct zl_cluster **ret,
                    struct zl_err *err) ZL_MUST;
/* Cancels what is under way, flushes, then calls `closed` (may be NULL), after which the object is gone. */
void zl_cluster_close(struct zl_cluster *c, void (*closed)(void *arg), void *arg);

/* Never NULL once ready was called; valid until the loop's next turn. */
const struct zl_state *zl_cluster_state(const struct zl_cluster *c);
/* The damage that keeps the store from being written, with the repair as its hint; code 0 when there is none. */
const struct zl_err *zl_cluster_damage(const struct zl_cluster *c);
/* A fresh random id of this node, made at the first open. */
uint64_t zl_cluster_node(const struct zl_cluster *c);

/*
 * `done` is called exactly once and never from within: err is NULL when the command is stored and applied and its
 * result has code 0; else err says why (`result` is NULL unless the state machine refused it). Proposals are applied in
 * order. Returns at once; failures, too, come by `done`.
 */
typedef void zl_cluster_done(void *arg, const struct zl_state_result *result, const struct zl_err *err);
void zl_cluster_propose(struct zl_cluster *c, const struct zl_command *cmd, zl_cluster_done *done, void *arg);
