#include "net/overlay/uplink_priv.h"

#include "base/alloc.h"
#include "base/phase.h"
#include "base/str.h"
#include "sys/netlink.h"
#include "sys/ns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct used {
    struct zl_net_block *blocks;
    size_t n, cap;
};

static void add_used(struct used *u, struct in_addr addr, unsigned prefix)
{
    ZL_GROW(u->blocks, u->n, u->cap);
    u->blocks[u->n++] = (struct zl_net_block){ addr, prefix };
}

static int used_addr(void *arg, unsigned index, struct in_addr addr, unsigned prefix)
{
    add_used(arg, addr, prefix);
    return 0;
}

static int used_route(void *arg, const struct zl_route *r)
{
    if (r->prefix > 0)
        add_used(arg, r->dst, r->prefix);
    return 0;
}

int zl_host_used(int nl_host, struct zl_net_block **ret, size_t *ret_n)
{
    struct used u = { NULL, 0, 0 };
    int r = zl_addr_each(nl_host, used_addr, &u);
    r = r < 0 ? r : zl_route_each(nl_host, used_route, &u);
    if (r < 0) {
        free(u.blocks);
        return r;
    }
    *ret = u.blocks;
    *ret_n = u.n;
    return 0;
}

struct find_addr {
    unsigned index;
    struct in_addr range, addr;
    bool found;
};

static int match_addr(void *arg, unsigned index, struct in_addr addr, unsigned prefix)
{
    struct find_addr *f = arg;
    if (index == f->index && prefix == 30 && zl_net_in_16(f->range, addr)) {
        f->addr = addr;
        f->found = true;
    }
    return 0;
}

static struct in_addr plus(struct in_addr a, uint32_t n)
{
    return (struct in_addr){ htonl(ntohl(a.s_addr) + n) };
}

/* The /30 of a pair that is there and joined, else -ENOENT. */
static int find_pair(int nl_host, int nl_inside, const char *name, struct in_addr range, struct in_addr *ret_base)
{
    int outer = zl_link_index(nl_host, name), inner = zl_link_index(nl_inside, "uplink");
    if (outer < 0 || inner < 0 || zl_link_peer(nl_host, name) != inner || zl_link_peer(nl_inside, "uplink") != outer)
        return -ENOENT;
    struct find_addr f = { .index = (unsigned)outer, .range = range };
    int r = zl_addr_each(nl_host, match_addr, &f);
    if (r < 0)
        return r;
    if (!f.found)
        return -ENOENT;
    ret_base->s_addr = f.addr.s_addr & htonl(~UINT32_C(3));
    return 0;
}

static int add_addr(int nl, unsigned index, struct in_addr addr)
{
    int r = zl_addr_add(nl, index, addr, 30);
    return r == -EEXIST ? 0 : r;
}

/* Each step is one that does no harm when it was done before. */
static int complete(int nl_host, int nl_inside, const struct zl_uplink *u)
{
    int outer = zl_link_index(nl_host, u->name), inner = zl_link_index(nl_inside, "uplink");
    if (outer < 0 || inner < 0)
        return -ENODEV;
    char sysctl[80];
    snprintf(sysctl, sizeof sysctl, "net/ipv6/conf/%s/disable_ipv6", u->name);
    int r = zl_sysctl_write(sysctl, "1"); /* spares the host a link-local address; not there without IPv6 */
    r = r < 0 && r != -ENOENT ? r : add_addr(nl_host, (unsigned)outer, u->host);
    zl_phase("net.uplink");
    r = r < 0 ? r : zl_link_up(nl_host, (unsigned)outer);
    r = r < 0 ? r : add_addr(nl_inside, (unsigned)inner, u->inside);
    r = r < 0 ? r : zl_link_up(nl_inside, (unsigned)inner);
    struct zl_route route = { .prefix = 0, .via = u->host, .index = (unsigned)inner };
    return r < 0 ? r : zl_route_add(nl_inside, &route);
}

static int make_pair(int nl_host, int nl_inside, int netns, const char *name, struct in_addr range,
                     struct in_addr *ret_base)
{
    int r = zl_link_delete(nl_host, name);
    if (r == 0 || r == -ENODEV)
        r = zl_link_delete(nl_inside, "uplink");
    if (r < 0 && r != -ENODEV)
        return r;
    struct zl_net_block *used = NULL;
    size_t n = 0;
    r = zl_host_used(nl_host, &used, &n);
    r = r < 0 ? r : zl_net_pick_uplink(range, used, n, ret_base);
    free(used);
    if (r < 0)
        return r;
    struct zl_link_end outer = { name, -1 }, inner = { "uplink", netns };
    return zl_link_add_veth(nl_host, &outer, &inner);
}

int zl_uplink_open(int nl_host, int nl_inside, int netns, const char *tag, struct in_addr range, struct zl_uplink *ret,
                   struct zl_err *err)
{
    struct zl_uplink u;
    struct in_addr base;
    if ((size_t)snprintf(u.name, sizeof u.name, "zl-%s", tag) >= sizeof u.name)
        return zl_fail(err, ZL_E_INVALID, "tag '%s' is too long for a link's name", tag);
    int r = find_pair(nl_host, nl_inside, u.name, range, &base);
    if (r == -ENOENT)
        r = make_pair(nl_host, nl_inside, netns, u.name, range, &base);
    if (r >= 0) {
        u.host = plus(base, 1);
        u.inside = plus(base, 2);
        r = complete(nl_host, nl_inside, &u);
    }
    if (r == -EPERM)
        return zl_fail_errno(err, ZL_E_PERMISSION, r, "make link %s", u.name);
    if (r < 0)
        return zl_fail_errno(err, ZL_E_NETWORK, r, "make link %s between host and containers", u.name);
    *ret = u;
    return 0;
}
