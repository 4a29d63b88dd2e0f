/*
 * Which addresses a node may take: IPv4 blocks against what the host already routes. Pure: the caller reads the
 * host's routes and addresses. Thread: any. Owns: nothing. Fails: -ENOSPC when nothing is free.
 */
#pragma once

#include "base/macros.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

struct zl_net_block {
    struct in_addr addr; /* network byte order; bits behind the prefix are ignored */
    unsigned prefix;     /* 0..32 */
};

/* What a node uses, each a /16: replicas' addresses, service addresses, the /30s of uplinks to the host. */
struct zl_net_ranges {
    struct in_addr replicas, services, uplinks;
};

bool zl_net_overlap(struct zl_net_block a, struct zl_net_block b);
bool zl_net_in_16(struct in_addr range, struct in_addr addr);
/* 10.200, 10.201, 10.202 when the host routes none of them, else the first triple that it does not. A default route
 * (prefix 0) is nobody's claim. */
int zl_net_pick_ranges(const struct zl_net_block *used, size_t n, struct zl_net_ranges *ret) ZL_MUST;
/* The first /30 of the uplink range that nothing in `used` touches: its network address. */
int zl_net_pick_uplink(struct in_addr range, const struct zl_net_block *used, size_t n, struct in_addr *ret) ZL_MUST;
