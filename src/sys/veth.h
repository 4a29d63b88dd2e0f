/*
 * A replica's network: a veth pair between the node's namespace and the container's, a /32 address, a link-local
 * gateway with permanent neighbours on both ends (so no ARP), rp_filter against spoofing.
 * Thread: the caller must be single-threaded, or not mind that its thread changes namespace and back.
 * Fails: -errno, and *step names the step. Owns: nothing; the pair goes with the container's namespace.
 */
#pragma once

#include "base/macros.h"

#include <netinet/in.h>

struct zl_veth_config {
    int node_netns, container_netns;
    const char *name;     /* of the node's end, at most 15 bytes */
    struct in_addr addr;  /* the replica's */
    struct in_addr local; /* the node's own, src of the route to the replica */
};

int zl_veth_replica(const struct zl_veth_config *c, const char **step) ZL_MUST;
