#include "net/overlay/node_net.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/phase.h"
#include "net/overlay/host_priv.h"
#include "net/overlay/members_priv.h"
#include "net/overlay/nft_priv.h"
#include "net/overlay/rules_priv.h"
#include "net/overlay/uplink_priv.h"
#include "sys/netlink.h"
#include "sys/ns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct zl_node_net {
    int netns, nl, nf; /* the namespace, and sockets of it: rtnetlink, nfnetlink */
    unsigned lo;
    bool adopted;
    const struct zl_inside *inside;
    struct zl_net_ranges ranges;
    struct zl_uplink uplink;
    struct zl_members members;
};

int zl_node_net_choose_ranges(struct zl_net_ranges *ret, struct zl_err *err)
{
    zl_auto_close int nl = zl_netlink_open();
    struct zl_net_block *used = NULL;
    size_t n = 0;
    int r = nl < 0 ? nl : zl_host_used(nl, &used, &n);
    /* The uplinks of other agents live in the third range; they are no reason to avoid it. */
    size_t kept = 0;
    struct in_addr uplinks;
    (void)inet_pton(AF_INET, "10.202.0.0", &uplinks);
    for (size_t i = 0; i < n; i++)
        if (used[i].prefix < 30 || !zl_net_in_16(uplinks, used[i].addr))
            used[kept++] = used[i];
    r = r < 0 ? r : zl_net_pick_ranges(used, kept, ret);
    free(used);
    if (r == -ENOSPC)
        return zl_hint(err, zl_fail(err, ZL_E_NETWORK, "every range that containers could use is routed by the host"),
                       "name free ranges in the agent's settings");
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "read the host's routes") : 0;
}

const struct zl_inside *zl_node_net_inside(const struct zl_node_net *nn)
{
    return nn->inside;
}

int zl_node_net_fd(const struct zl_node_net *nn)
{
    return nn->netns;
}

bool zl_node_net_adopted(const struct zl_node_net *nn)
{
    return nn->adopted;
}

struct in_addr zl_node_net_host_address(const struct zl_node_net *nn)
{
    return nn->uplink.host;
}

const struct zl_net_member *zl_node_net_members(const struct zl_node_net *nn, size_t *ret_n)
{
    *ret_n = nn->members.n;
    return nn->members.rows;
}

struct zl_node_net *zl_node_net_close(struct zl_node_net *nn)
{
    if (!nn)
        return NULL;
    (void)zl_close(nn->netns);
    (void)zl_close(nn->nl);
    (void)zl_close(nn->nf);
    zl_members_done(&nn->members);
    free(nn);
    return NULL;
}

/* --- inside ------------------------------------------------------------------------------------------------------ */

static int set_sysctls(void)
{
    for (size_t i = 0; zl_node_sysctls[i].name; i++) {
        int r = zl_sysctl_write(zl_node_sysctls[i].name, zl_node_sysctls[i].value);
        if (r < 0 && !zl_node_sysctls[i].optional)
            return r;
    }
    return 0;
}

static int add_local(int nl, unsigned lo, struct in_addr addr)
{
    int r = zl_addr_add(nl, lo, addr, 32);
    return r == -EEXIST ? 0 : r;
}

static int remove_local(int nl, unsigned lo, struct in_addr addr)
{
    int r = zl_addr_delete(nl, lo, addr, 32);
    return r == -EADDRNOTAVAIL ? 0 : r;
}

struct inside {
    struct zl_node_net *nn;
    struct in_addr local;
};

static int set_up_addresses(struct zl_node_net *nn, struct in_addr local)
{
    int lo = zl_link_index(nn->nl, "lo");
    if (lo < 0)
        return lo;
    nn->lo = (unsigned)lo;
    int r = zl_link_up(nn->nl, nn->lo);
    r = r < 0 ? r : add_local(nn->nl, nn->lo, local);
    /* An address that no replica has now must not be looked for on the host's side. */
    struct zl_route replicas = { .dst = nn->ranges.replicas, .prefix = 16, .unreachable = true };
    struct zl_route services = { .dst = nn->ranges.services, .prefix = 16, .unreachable = true };
    r = r < 0 ? r : zl_route_add(nn->nl, &replicas);
    return r < 0 ? r : zl_route_add(nn->nl, &services);
}

static int set_up_inside(void *arg)
{
    struct inside *in = arg;
    struct zl_node_net *nn = in->nn;
    nn->nl = zl_netlink_open();
    nn->nf = zl_sets_open();
    if (nn->nl < 0 || nn->nf < 0)
        return nn->nl < 0 ? nn->nl : nn->nf;
    int r = set_sysctls();
    return r < 0 ? r : set_up_addresses(nn, in->local);
}

struct stray {
    const struct zl_node_net *nn;
    struct in_addr *addrs;
    size_t n, cap;
};

static int find_stray(void *arg, unsigned index, struct in_addr addr, unsigned prefix)
{
    struct stray *s = arg;
    if (index == s->nn->lo && zl_net_in_16(s->nn->ranges.services, addr) && !zl_members_find(&s->nn->members, addr)) {
        ZL_GROW(s->addrs, s->n, s->cap);
        s->addrs[s->n++] = addr;
    }
    return 0;
}

/* A change is addresses first, then the firewall, when it adds, and the other way round when it removes: a kill in
 * between leaves a local address without a member, or a member without its local address. Both are put right here. */
static int repair_services(struct zl_node_net *nn)
{
    struct stray s = { .nn = nn };
    int r = zl_addr_each(nn->nl, find_stray, &s);
    for (size_t i = 0; i < s.n && r >= 0; i++)
        r = remove_local(nn->nl, nn->lo, s.addrs[i]);
    free(s.addrs);
    for (size_t i = 0; i < nn->members.n && r >= 0; i++)
        if (zl_net_in_16(nn->ranges.services, nn->members.rows[i].addr))
            r = add_local(nn->nl, nn->lo, nn->members.rows[i].addr);
    return r;
}

/* --- open -------------------------------------------------------------------------------------------------------- */

/* The holder has set the sysctls; the sockets are made in there, and of use from here. */
static int open_held(struct zl_node_net *nn, const struct zl_node_net_config *c, struct zl_err *err)
{
    nn->adopted = c->adopted;
    nn->netns = fcntl(c->inside->net, F_DUPFD_CLOEXEC, 3);
    nn->nl = zl_inside_socket(c->inside, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    nn->nf = zl_inside_socket(c->inside, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    int r = nn->netns < 0 ? -errno : nn->nl < 0 ? nn->nl : nn->nf < 0 ? nn->nf : 0;
    const struct timeval tv = { .tv_sec = 10 }; /* as with sockets of our own: a lost reply must not hang us */
    if (r == 0 && (setsockopt(nn->nl, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0 ||
                   setsockopt(nn->nf, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0))
        r = -errno;
    r = r < 0 ? r : set_up_addresses(nn, c->local);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "set up the network that the holder keeps") : 0;
}

static int open_namespace(struct zl_node_net *nn, const struct zl_node_net_config *c, struct zl_err *err)
{
    if (c->inside)
        return open_held(nn, c, err);
    nn->netns = zl_netns_open(c->netns_path);
    nn->adopted = nn->netns >= 0;
    if (nn->netns == -ENOENT) {
        int r = zl_netns_make(c->netns_path);
        nn->netns = r < 0 ? r : zl_netns_open(c->netns_path);
        zl_phase("net.namespace");
    }
    if (nn->netns < 0)
        return zl_fail_errno(err, nn->netns == -EPERM ? ZL_E_PERMISSION : ZL_E_NETWORK, nn->netns,
                             "make the node's network namespace at %s", c->netns_path);
    struct inside in = { nn, c->local };
    int r = zl_netns_run(nn->netns, set_up_inside, &in);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "set up the node's network namespace") : 0;
}

static int open_outside(struct zl_node_net *nn, const struct zl_node_net_config *c, struct zl_err *err)
{
    zl_auto_close int nl = zl_netlink_open();
    if (nl < 0)
        return zl_fail_errno(err, ZL_E_NETWORK, nl, "open a netlink socket");
    int lock = zl_host_lock(err);
    if (lock < 0)
        return lock;
    int r = zl_host_forward_acquire(lock, nl, c->tag, err);
    if (r == 0)
        r = zl_uplink_open(nl, nn->nl, nn->netns, c->tag, c->ranges.uplinks, &nn->uplink, err);
    zl_auto_buf rules = ZL_BUF_INIT;
    if (r == 0) {
        zl_rules_outside(&rules, c->tag, &nn->uplink);
        r = zl_nft_run(-1, rules.p, NULL, err);
        zl_phase("net.outside");
    }
    if (r == 0)
        r = zl_foreign_accept(c->tag, &nn->uplink, err);
    zl_host_unlock(lock);
    return r;
}

static int restore(void *arg, uint32_t number, const struct zl_net_member *m)
{
    return zl_members_restore(arg, number, m);
}

static int sets_failed(int r, struct zl_err *err)
{
    return zl_fail_errno(err, r == -EPERM ? ZL_E_PERMISSION : ZL_E_NETWORK, r, "change the members of the firewall");
}

/* What can't be understood is not ours and not of use: the sets start empty then, and the caller's sync fills them. */
static int load_members(struct zl_node_net *nn, struct zl_err *err)
{
    nn->members.n = 0;
    int r = zl_sets_each(nn->nf, restore, &nn->members);
    if (r == 0)
        return 0;
    nn->members.n = 0;
    r = zl_sets_flush(nn->nf);
    return r < 0 ? sets_failed(r, err) : 0;
}

static int open_firewall(struct zl_node_net *nn, struct zl_err *err)
{
    zl_auto_buf commands = ZL_BUF_INIT;
    zl_rules_inside(&commands, &nn->ranges);
    int r = nn->inside ? zl_nft_run_inside(nn->inside, commands.p, err) : zl_nft_run(nn->netns, commands.p, NULL, err);
    r = r < 0 ? r : load_members(nn, err);
    if (r < 0)
        return r;
    r = repair_services(nn);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "repair service addresses") : 0;
}

static bool is_tag(const char *tag)
{
    return strlen(tag) == 6 && strspn(tag, "0123456789abcdef") == 6;
}

int zl_node_net_open(const struct zl_node_net_config *c, struct zl_node_net **ret, struct zl_err *err)
{
    if (!is_tag(c->tag))
        return zl_fail(err, ZL_E_INVALID, "network tag '%s' is not 6 hex digits", c->tag);
    ZL_AUTO(zl_node_net) nn = zl_xcalloc(1, sizeof *nn);
    nn->netns = nn->nl = nn->nf = -EBADF;
    nn->ranges = c->ranges;
    nn->inside = c->inside;
    int r = open_namespace(nn, c, err);
    r = r < 0 ? r : open_firewall(nn, err);
    r = r < 0 || c->inside ? r : open_outside(nn, c, err);
    if (r < 0)
        return zl_hint(err, r, r == ZL_E_PERMISSION && !c->inside ? "run the agent as root" : "see `zlayer doctor`");
    *ret = ZL_TAKE(nn);
    return 0;
}

/* --- drop -------------------------------------------------------------------------------------------------------- */

static int drop_link(const char *tag, struct zl_err *err)
{
    char name[IFNAMSIZ], rules[64];
    snprintf(name, sizeof name, "zl-%s", tag);
    zl_auto_close int nl = zl_netlink_open();
    int lock = nl < 0 ? nl : zl_host_lock(err);
    if (lock < 0)
        return nl < 0 ? zl_fail_errno(err, ZL_E_NETWORK, nl, "open a netlink socket") : lock;
    int r = zl_link_delete(nl, name);
    r = r < 0 && r != -ENODEV ? zl_fail_errno(err, ZL_E_NETWORK, r, "remove link %s", name) : 0;
    zl_phase("net.unlinked");
    /* First made, so that its removal can't fail for want of it. */
    snprintf(rules, sizeof rules, "add table inet zlayer_%s\ndelete table inet zlayer_%s\n", tag, tag);
    struct zl_err *report = r < 0 ? NULL : err; /* the first failure is the one reported */
    int r2 = zl_nft_run(-1, rules, NULL, report);
    r = r < 0 ? r : r2;
    report = r < 0 ? NULL : err;
    r2 = zl_foreign_forget(tag, report);
    r = r < 0 ? r : r2;
    report = r < 0 ? NULL : err;
    r2 = zl_host_forward_release(lock, nl, tag, report);
    zl_host_unlock(lock);
    return r < 0 ? r : r2;
}

int zl_node_net_drop(const char *netns_path, const char *tag, struct zl_err *err)
{
    if (!is_tag(tag))
        return zl_fail(err, ZL_E_INVALID, "network tag '%s' is not 6 hex digits", tag);
    int r = drop_link(tag, err);
    int pin = zl_netns_unpin(netns_path);
    return r < 0 ? r : pin < 0 ? zl_fail_errno(err, ZL_E_NETWORK, pin, "unpin %s", netns_path) : 0;
}

bool zl_node_net_exists(const char *netns_path, const char *tag)
{
    char name[IFNAMSIZ];
    zl_auto_close int netns = zl_netns_open(netns_path);
    zl_auto_close int nl = zl_netlink_open();
    return netns >= 0 ||
           ((size_t)snprintf(name, sizeof name, "zl-%s", tag) < sizeof name && nl >= 0 && zl_link_index(nl, name) > 0);
}

/* --- members ----------------------------------------------------------------------------------------------------- */

static int change_addresses(const struct zl_node_net *nn, const struct zl_members *from, const struct zl_members *to,
                            int (*change)(int nl, unsigned lo, struct in_addr addr))
{
    for (size_t i = 0; i < from->n; i++) {
        struct in_addr addr = from->rows[i].addr;
        int r =
            zl_net_in_16(nn->ranges.services, addr) && !zl_members_find(to, addr) ? change(nn->nl, nn->lo, addr) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int change_sets(struct zl_node_net *nn, struct zl_members *next, struct zl_err *err)
{
    struct zl_set_change *changes;
    zl_members_number(next, &nn->members);
    size_t n = zl_members_diff(&nn->members, next, &changes);
    int r = zl_sets_apply(nn->nf, changes, n);
    free(changes);
    return r < 0 ? sets_failed(r, err) : 0;
}

/* Makes the members `next`, which takes the old ones in exchange on success. */
static int apply(struct zl_node_net *nn, struct zl_members *next, struct zl_err *err)
{
    int r = change_addresses(nn, next, &nn->members, add_local);
    if (r < 0)
        return zl_fail_errno(err, ZL_E_NETWORK, r, "add a service address");
    zl_phase("net.members");
    r = change_sets(nn, next, err);
    /* Somebody else's hand in the sets makes the difference wrong: once more, from what is really there. */
    if (r == ZL_E_NETWORK && open_firewall(nn, err) == 0) {
        memset(next->numbers, 0, next->n * sizeof *next->numbers);
        r = change_addresses(nn, next, &nn->members, add_local);
        r = r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "add a service address") : change_sets(nn, next, err);
    }
    if (r < 0) {
        (void)change_addresses(nn, next, &nn->members, remove_local); /* the next open does what this could not */
        return r;
    }
    struct zl_members old = nn->members;
    nn->members = *next;
    *next = old;
    r = change_addresses(nn, &old, &nn->members, remove_local);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "remove a service address") : 0;
}

static int put_all(const struct zl_node_net *nn, struct zl_members *next, const struct zl_net_member *m, size_t n,
                   struct zl_err *err)
{
    for (size_t i = 0; i < n; i++) {
        char addr[INET_ADDRSTRLEN];
        bool ours = zl_net_in_16(nn->ranges.services, m[i].addr) || zl_net_in_16(nn->ranges.replicas, m[i].addr);
        if (!ours || zl_members_put(next, &m[i]) < 0)
            return zl_fail(err, ZL_E_INVALID, "address %s of deployment '%.63s' can't be a member of the network",
                           inet_ntop(AF_INET, &m[i].addr, addr, sizeof addr), m[i].deployment);
    }
    return 0;
}

int zl_node_net_add(struct zl_node_net *nn, const struct zl_net_member *m, size_t n, struct zl_err *err)
{
    zl_auto_members next = { NULL };
    zl_members_copy(&next, &nn->members);
    int r = put_all(nn, &next, m, n, err);
    return r < 0 ? r : apply(nn, &next, err);
}

int zl_node_net_remove(struct zl_node_net *nn, const struct in_addr *addrs, size_t n, struct zl_err *err)
{
    zl_auto_members next = { NULL };
    zl_members_copy(&next, &nn->members);
    for (size_t i = 0; i < n; i++)
        zl_members_remove(&next, addrs[i]);
    return apply(nn, &next, err);
}

int zl_node_net_sync(struct zl_node_net *nn, const struct zl_net_member *m, size_t n, struct zl_err *err)
{
    zl_auto_members next = { NULL };
    int r = put_all(nn, &next, m, n, err);
    return r < 0 ? r : apply(nn, &next, err);
}
