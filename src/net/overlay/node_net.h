/*
 * The node's network: one namespace an agent, pinned on a file, with an uplink to the host (veth `zl-<tag>`,
 * masquerade on both sides), the service addresses as local addresses, and nft sets that keep deployments apart.
 * Replicas are hung into it by their shims (sys/veth.h); the proxy joins it by its descriptor.
 *
 * Everything is in the kernel: a new agent's open adopts what is there without touching live traffic (each rule set is
 * replaced in one transaction, sets and addresses keep their content), repairs what a killed agent left half-made,
 * and learns the members from the kernel. close leaves all of it in place; drop removes all of it.
 *
 * Thread: one at a time a zl_node_net; calls that need to be inside use a short-lived thread. Blocks: open and drop
 * for about 20 ms, a change of members for about 3 ms, a listener for less than 1; nothing waits for other machines.
 * Owns: the caller owns the object and the descriptors it is given. Fails: with ZL_E_PERMISSION (no rights),
 * ZL_E_NETWORK, or the errno itself where said.
 */
#pragma once

#include "base/error.h"
#include "net/overlay/ranges.h"
#include "sys/inside.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zl_node_net;

/* Ranges for a first start, by what the host routes now; they are kept in the desired state from then on. */
int zl_node_net_choose_ranges(struct zl_net_ranges *ret, struct zl_err *err) ZL_MUST;

struct zl_node_net_config {
    const char *netns_path; /* <run>/netns */
    const char *tag;        /* 6 hex digits */
    struct zl_net_ranges ranges;
    struct in_addr local; /* the node's own address, the first of its first block; made a local address */
    /* An ordinary user's: its holder has made the namespace, pasta is the uplink, and nothing of the host is touched.
     * Borrowed; NULL for root. */
    const struct zl_inside *inside;
    bool adopted; /* the holder is an earlier agent's */
};

int zl_node_net_open(const struct zl_node_net_config *c, struct zl_node_net **ret, struct zl_err *err) ZL_MUST;
/* Forgets the object; the network stays. NULL is allowed. Returns NULL. */
struct zl_node_net *zl_node_net_close(struct zl_node_net *nn);
ZL_DEFINE_AUTO(zl_node_net, zl_node_net_close)
/* Removes the network of a tag: rules, link, the ip_forward count, the pin. Also for leftovers that nobody opened; what
 * is not there is no error, and the rest is tried after a failure. Processes inside keep the namespace until they end.
 */
int zl_node_net_drop(const char *netns_path, const char *tag, struct zl_err *err) ZL_MUST;
/* Whether anything of that tag is there: the pin or the link. */
bool zl_node_net_exists(const char *netns_path, const char *tag);

/* The namespace, borrowed: to hand to shims and the proxy. */
int zl_node_net_fd(const struct zl_node_net *nn);
/* What the configuration said. */
const struct zl_inside *zl_node_net_inside(const struct zl_node_net *nn);
/* Whether open found a namespace of an earlier agent. */
bool zl_node_net_adopted(const struct zl_node_net *nn);
/* The host's end of the uplink: what a replica can reach the host by. */
struct in_addr zl_node_net_host_address(const struct zl_node_net *nn);

/*
 * Members: addresses that belong to a deployment. Replicas of one deployment reach each other and its service
 * addresses, nobody else's. An address of the service range is made local, so that the proxy can listen on it; every
 * other one must be of the replica range.
 */
enum { ZL_NET_DEPLOYMENT_SIZE = 64 };
struct zl_net_member {
    struct in_addr addr;
    char deployment[ZL_NET_DEPLOYMENT_SIZE];
};
/* An address that is there already moves to the deployment given; absent ones are ignored by remove. Each call is one
 * transaction for the firewall. */
int zl_node_net_add(struct zl_node_net *nn, const struct zl_net_member *m, size_t n, struct zl_err *err) ZL_MUST;
int zl_node_net_remove(struct zl_node_net *nn, const struct in_addr *addrs, size_t n, struct zl_err *err) ZL_MUST;
/* Makes the members exactly these. */
int zl_node_net_sync(struct zl_node_net *nn, const struct zl_net_member *m, size_t n, struct zl_err *err) ZL_MUST;
/* What is there, sorted by address; valid until the next change. */
const struct zl_net_member *zl_node_net_members(const struct zl_node_net *nn, size_t *ret_n);

/*
 * A listening TCP socket, non-blocking, without SO_REUSEPORT, so that a taken port is seen: -EADDRINUSE and -EACCES
 * come back as they are. INSIDE: in the namespace. OUTSIDE: on the host; with addr NULL on all addresses of both
 * families where the host has IPv6. OUTSIDE works without an object.
 */
enum zl_net_side { ZL_NET_INSIDE, ZL_NET_OUTSIDE };
int zl_node_net_listen(const struct zl_node_net *nn, enum zl_net_side side, const struct in_addr *addr, uint16_t port,
                       struct zl_err *err) ZL_MUST;
