/*
 * The elements of our two sets in table `inet zlayer`, by nfnetlink: set `members` of (deployment number, address) with
 * the deployment's name as comment, map `owners` from address to number. They change with every container, so that no
 * program is started for it. linux/netfilter/nf_tables.h, nfnetlink.h; `nft list set inet zlayer members` shows them.
 * Thread: one at a time a socket. Owns: the caller closes it. Fails: -errno as the kernel reports it.
 */
#pragma once

#include "net/overlay/node_net.h"

struct zl_set_change {
    bool add;
    uint32_t number;
    struct zl_net_member member;
};

/* Of the calling thread's network namespace. */
int zl_sets_open(void) ZL_MUST;
/* All of it or nothing. -ENOENT: an element to delete, or the table, is not there. */
int zl_sets_apply(int nf, const struct zl_set_change *changes, size_t n) ZL_MUST;
int zl_sets_flush(int nf) ZL_MUST;
/* Calls fn for each member; a comment that is none of ours comes as "". Stops when it returns other than 0, which is
 * returned then. */
int zl_sets_each(int nf, int (*fn)(void *arg, uint32_t number, const struct zl_net_member *m), void *arg) ZL_MUST;
