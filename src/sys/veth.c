#include "sys/veth.h"

#include "base/fd.h"
#include "sys/netlink.h"
#include "sys/ns.h"

#include <arpa/inet.h>
#include <stdio.h>

#define TRY(what, call)  \
    do {                 \
        *step = (what);  \
        int r_ = (call); \
        if (r_ < 0)      \
            return r_;   \
    } while (0)

static int open_inside(int netns, const char *step_name, const char **step)
{
    *step = step_name;
    int r = zl_netns_enter(netns);
    return r < 0 ? r : zl_netlink_open();
}

static int node_end(const struct zl_veth_config *c, int nl, const unsigned char peer_mac[6], unsigned char ret_mac[6],
                    const char **step)
{
    *step = "find the node's end";
    int index = zl_link_index(nl, c->name);
    if (index < 0)
        return index;
    char sysctl[80];
    snprintf(sysctl, sizeof sysctl, "net/ipv4/conf/%s/rp_filter", c->name);
    TRY("set rp_filter", zl_sysctl_write(sysctl, "1"));
    TRY("read the node end's address", zl_link_address(nl, (unsigned)index, ret_mac));
    TRY("bring the node's end up", zl_link_up(nl, (unsigned)index));
    TRY("add the replica's neighbour entry", zl_neigh_add(nl, (unsigned)index, c->addr, peer_mac));
    struct zl_route route = { .dst = c->addr, .prefix = 32, .src = c->local, .index = (unsigned)index };
    TRY("add the route to the replica", zl_route_add(nl, &route));
    return 0;
}

static int container_end(const struct zl_veth_config *c, int nl, unsigned index, const unsigned char gateway_mac[6],
                         const char **step)
{
    struct in_addr gateway;
    (void)inet_pton(AF_INET, "169.254.1.1", &gateway);
    int lo = zl_link_index(nl, "lo");
    TRY("find lo", lo);
    TRY("bring lo up", zl_link_up(nl, (unsigned)lo));
    TRY("add the replica's address", zl_addr_add(nl, index, c->addr, 32));
    TRY("bring eth0 up", zl_link_up(nl, index));
    TRY("add the gateway's neighbour entry", zl_neigh_add(nl, index, gateway, gateway_mac));
    struct zl_route route = { .prefix = 0, .via = gateway, .index = index, .onlink = 1 };
    TRY("add the default route", zl_route_add(nl, &route));
    return 0;
}

static int set_up(const struct zl_veth_config *c, const char **step)
{
    unsigned char mac[6], gateway_mac[6];
    zl_auto_close int inside = open_inside(c->container_netns, "enter the container's network namespace", step);
    if (inside < 0)
        return inside;
    struct zl_link_end eth0 = { "eth0", -1 }, node = { c->name, c->node_netns };
    TRY("make the veth pair", zl_link_add_veth(inside, &eth0, &node));
    int index = zl_link_index(inside, "eth0");
    TRY("find eth0", index);
    TRY("read eth0's address", zl_link_address(inside, (unsigned)index, mac));
    zl_auto_close int outside = open_inside(c->node_netns, "enter the node's network namespace", step);
    if (outside < 0)
        return outside;
    int r = node_end(c, outside, mac, gateway_mac, step);
    return r < 0 ? r : container_end(c, inside, (unsigned)index, gateway_mac, step);
}

int zl_veth_replica(const struct zl_veth_config *c, const char **step)
{
    *step = "open the own network namespace";
    zl_auto_close int home = zl_netns_self();
    if (home < 0)
        return home;
    int r = set_up(c, step);
    int back = zl_netns_enter(home);
    return r < 0 ? r : back;
}
