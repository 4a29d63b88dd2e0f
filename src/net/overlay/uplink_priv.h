/*
 * The one veth between host and node namespace: `zl-<tag>` outside, `uplink` inside, a /30 between them, the default
 * route inside. Thread: any; under the host's lock. Owns: plain values. Fails: reported in err.
 */
#pragma once

#include "base/error.h"
#include "net/overlay/ranges.h"

#include <net/if.h>
#include <netinet/in.h>

struct zl_uplink {
    char name[IFNAMSIZ]; /* outside */
    struct in_addr host, inside;
};

/* The sockets are netlink's, of the host and of the namespace. A whole one is taken as it is, a half-made one anew. */
int zl_uplink_open(int nl_host, int nl_inside, int netns, const char *tag, struct in_addr range, struct zl_uplink *ret,
                   struct zl_err *err) ZL_MUST;
/* What the host routes and has as addresses, but for links of zlayer's. The caller frees *ret. */
int zl_host_used(int nl_host, struct zl_net_block **ret, size_t *ret_n) ZL_MUST;
