#include "sys/netlink.h"

#include "base/fd.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

struct request {
    struct nlmsghdr h;
    char body[1024];
};

int zl_netlink_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    /* A lost reply must not hang us for ever. */
    struct timeval tv = { .tv_sec = 10 };
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

static void begin(struct request *r, unsigned type, unsigned flags, const void *head, size_t n)
{
    memset(r, 0, sizeof *r);
    r->h.nlmsg_type = (uint16_t)type;
    r->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    r->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(n);
    memcpy(NLMSG_DATA(&r->h), head, n);
}

static struct rtattr *attr(struct request *r, unsigned type, const void *p, size_t n)
{
    struct rtattr *a = (struct rtattr *)(void *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    a->rta_type = (uint16_t)type;
    a->rta_len = (uint16_t)RTA_LENGTH(n);
    if (n)
        memcpy(RTA_DATA(a), p, n);
    r->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
    return a;
}

static void attr_end(struct request *r, struct rtattr *a)
{
    a->rta_len = (uint16_t)((char *)r + r->h.nlmsg_len - (char *)a);
}

/*
 * Walks messages and their attributes: the macros of the kernel's headers let the rest wrap around where a length is
 * not aligned, and cast without regard to alignment (which the buffers here have).
 */
static const struct nlmsghdr *next_message(char **p, size_t *left)
{
    const struct nlmsghdr *h = (const void *)*p;
    if (*left < sizeof *h || h->nlmsg_len < sizeof *h || h->nlmsg_len > *left)
        return NULL;
    size_t n = ZL_MIN((size_t)NLMSG_ALIGN(h->nlmsg_len), *left);
    *p += n;
    *left -= n;
    return h;
}

struct attrs {
    const char *p;
    size_t left;
};

/* The attributes behind a head of this size, which the caller knows is there. */
static struct attrs attrs_of(const struct nlmsghdr *h, size_t head)
{
    size_t skip = ZL_MIN((size_t)NLMSG_SPACE(head), (size_t)h->nlmsg_len);
    return (struct attrs){ (const char *)h + skip, h->nlmsg_len - skip };
}

static const struct rtattr *next_attr(struct attrs *a)
{
    const struct rtattr *x = (const void *)a->p;
    if (a->left < sizeof *x || x->rta_len < sizeof *x || x->rta_len > a->left)
        return NULL;
    size_t n = ZL_MIN((size_t)RTA_ALIGN(x->rta_len), a->left);
    a->p += n;
    a->left -= n;
    return x;
}

static int parse_reply(char *buf, size_t n, uint32_t seq, int (*fn)(void *, const struct nlmsghdr *), void *arg,
                       int *result)
{
    size_t left = n;
    const struct nlmsghdr *h;
    while ((h = next_message(&buf, &left)) != NULL) {
        if (h->nlmsg_seq != seq)
            continue; /* of an earlier request that timed out */
        if (h->nlmsg_type == NLMSG_DONE)
            return 1;
        if (h->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *e = NLMSG_DATA(h);
            if (h->nlmsg_len < NLMSG_LENGTH(sizeof *e))
                return -EPROTO;
            if (*result == 0)
                *result = e->error;
            return 1;
        }
        if (fn && *result == 0)
            *result = fn(arg, h);
    }
    return 0;
}

static int transact(int nl, struct request *r, int (*fn)(void *, const struct nlmsghdr *), void *arg)
{
    static _Atomic uint32_t sequence;
    char buf[16384] __attribute__((aligned(8)));
    bool dump = (r->h.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    r->h.nlmsg_seq = ++sequence;
    if (!dump)
        r->h.nlmsg_flags |= NLM_F_ACK;
    ssize_t s;
    do
        s = send(nl, r, r->h.nlmsg_len, 0);
    while (s < 0 && errno == EINTR);
    if (s < 0)
        return -errno;
    int result = 0;
    for (;;) {
        ssize_t n = recv(nl, buf, sizeof buf, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        int done = parse_reply(buf, (size_t)n, r->h.nlmsg_seq, fn, arg, &result);
        if (done < 0)
            return done;
        if (done)
            return result;
    }
}

int zl_link_add_veth(int nl, const struct zl_link_end *a, const struct zl_link_end *b)
{
    struct request r;
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
    begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
    attr(&r, IFLA_IFNAME, a->name, strlen(a->name) + 1);
    if (a->netns >= 0)
        attr(&r, IFLA_NET_NS_FD, &a->netns, sizeof a->netns);
    struct rtattr *link = attr(&r, IFLA_LINKINFO, NULL, 0);
    attr(&r, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = attr(&r, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = attr(&r, VETH_INFO_PEER, &info, sizeof info);
    attr(&r, IFLA_IFNAME, b->name, strlen(b->name) + 1);
    if (b->netns >= 0)
        attr(&r, IFLA_NET_NS_FD, &b->netns, sizeof b->netns);
    attr_end(&r, peer);
    attr_end(&r, data);
    attr_end(&r, link);
    return transact(nl, &r, NULL, NULL);
}

int zl_link_delete(int nl, const char *name)
{
    struct request r;
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
    begin(&r, RTM_DELLINK, 0, &info, sizeof info);
    attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    return transact(nl, &r, NULL, NULL);
}

struct found_link {
    int index, peer;
    bool has_mac;
    unsigned char mac[6];
};

static int take_link(void *arg, const struct nlmsghdr *h)
{
    struct found_link *f = arg;
    if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
        return 0;
    const struct ifinfomsg *info = NLMSG_DATA(h);
    f->index = info->ifi_index;
    struct attrs attrs = attrs_of(h, sizeof *info);
    const struct rtattr *a;
    while ((a = next_attr(&attrs)) != NULL) {
        if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == 6) {
            memcpy(f->mac, RTA_DATA(a), 6);
            f->has_mac = true;
        }
        if (a->rta_type == IFLA_LINK && RTA_PAYLOAD(a) == sizeof f->peer)
            memcpy(&f->peer, RTA_DATA(a), sizeof f->peer);
    }
    return 0;
}

static int find_link(int nl, const char *name, struct found_link *f)
{
    struct request r;
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
    *f = (struct found_link){ .index = -ENODEV };
    begin(&r, RTM_GETLINK, 0, &info, sizeof info);
    attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    return transact(nl, &r, take_link, f);
}

int zl_link_index(int nl, const char *name)
{
    struct found_link f;
    int e = find_link(nl, name, &f);
    return e < 0 ? e : f.index;
}

int zl_link_peer(int nl, const char *name)
{
    struct found_link f;
    int e = find_link(nl, name, &f);
    return e < 0 ? e : f.index < 0 ? f.index : f.peer;
}

int zl_link_address(int nl, unsigned index, unsigned char ret[6])
{
    struct request r;
    struct found_link f = { .index = -ENODEV };
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC, .ifi_index = (int)index };
    begin(&r, RTM_GETLINK, 0, &info, sizeof info);
    int e = transact(nl, &r, take_link, &f);
    if (e < 0)
        return e;
    if (!f.has_mac)
        return -ENODEV;
    memcpy(ret, f.mac, 6);
    return 0;
}

int zl_link_up(int nl, unsigned index)
{
    struct request r;
    struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC, .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP
    };
    begin(&r, RTM_NEWLINK, 0, &info, sizeof info);
    return transact(nl, &r, NULL, NULL);
}

static int change_addr(int nl, unsigned type, unsigned flags, unsigned index, struct in_addr addr, unsigned prefix)
{
    struct request r;
    struct ifaddrmsg msg = { .ifa_family = AF_INET, .ifa_prefixlen = (uint8_t)prefix, .ifa_index = index };
    begin(&r, type, flags, &msg, sizeof msg);
    attr(&r, IFA_LOCAL, &addr, sizeof addr);
    attr(&r, IFA_ADDRESS, &addr, sizeof addr);
    return transact(nl, &r, NULL, NULL);
}

int zl_addr_add(int nl, unsigned index, struct in_addr addr, unsigned prefix)
{
    return change_addr(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, addr, prefix);
}

int zl_addr_delete(int nl, unsigned index, struct in_addr addr, unsigned prefix)
{
    return change_addr(nl, RTM_DELADDR, 0, index, addr, prefix);
}

struct each_addr {
    int (*fn)(void *arg, unsigned index, struct in_addr addr, unsigned prefix);
    void *arg;
};

static int take_addr(void *arg, const struct nlmsghdr *h)
{
    struct each_addr *e = arg;
    if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
        return 0;
    const struct ifaddrmsg *msg = NLMSG_DATA(h);
    struct attrs attrs = attrs_of(h, sizeof *msg);
    const struct rtattr *a;
    while ((a = next_attr(&attrs)) != NULL) {
        if (a->rta_type == IFA_LOCAL && RTA_PAYLOAD(a) == sizeof(struct in_addr)) {
            struct in_addr addr;
            memcpy(&addr, RTA_DATA(a), sizeof addr);
            return e->fn(e->arg, msg->ifa_index, addr, msg->ifa_prefixlen);
        }
    }
    return 0;
}

int zl_addr_each(int nl, int (*fn)(void *arg, unsigned index, struct in_addr addr, unsigned prefix), void *arg)
{
    struct request r;
    struct each_addr e = { fn, arg };
    struct ifaddrmsg msg = { .ifa_family = AF_INET };
    begin(&r, RTM_GETADDR, NLM_F_DUMP, &msg, sizeof msg);
    return transact(nl, &r, take_addr, &e);
}

enum { MOVED_ADDRS_MAX = 32 };

/* A link's addresses, as requests that add them again. */
struct moved_addrs {
    unsigned index, n;
    struct request add[MOVED_ADDRS_MAX];
};

static int keep_addr(void *arg, const struct nlmsghdr *h)
{
    struct moved_addrs *m = arg;
    if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
        return 0;
    struct ifaddrmsg msg;
    memcpy(&msg, NLMSG_DATA(h), sizeof msg);
    if (msg.ifa_index != m->index || msg.ifa_scope != RT_SCOPE_UNIVERSE || !(msg.ifa_flags & IFA_F_PERMANENT))
        return 0;
    if (m->n == MOVED_ADDRS_MAX)
        return -E2BIG;
    struct request *r = &m->add[m->n++];
    struct attrs attrs = attrs_of(h, sizeof msg);
    const struct rtattr *a;
    msg.ifa_flags = 0;
    begin(r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &msg, sizeof msg);
    while ((a = next_attr(&attrs)) != NULL)
        if ((a->rta_type == IFA_LOCAL || a->rta_type == IFA_ADDRESS || a->rta_type == IFA_BROADCAST) &&
            RTA_PAYLOAD(a) <= sizeof(struct in6_addr))
            attr(r, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
    return 0;
}

/* Where the new name is a template ("eth%d") the kernel has chosen one: the index stays, unless it was taken. */
static int find_moved(int there, const char *to, unsigned index)
{
    unsigned char mac[6];
    if (!strchr(to, '%'))
        return zl_link_index(there, to);
    int e = zl_link_address(there, index, mac);
    return e < 0 ? e : (int)index;
}

int zl_link_move(int nl, const char *name, int there, int netns, const char *to)
{
    static struct moved_addrs m; /* big, and of one thread */
    struct request r;
    struct ifaddrmsg any = { .ifa_family = AF_UNSPEC };
    int index = zl_link_index(nl, name);
    if (index < 0)
        return index;
    if (!strchr(to, '%') && zl_link_index(there, to) >= 0)
        return -EEXIST;
    m.n = 0;
    m.index = (unsigned)index;
    begin(&r, RTM_GETADDR, NLM_F_DUMP, &any, sizeof any);
    int e = transact(nl, &r, keep_addr, &m);
    if (e < 0)
        return e;
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC, .ifi_index = index };
    begin(&r, RTM_NEWLINK, 0, &info, sizeof info);
    attr(&r, IFLA_NET_NS_FD, &netns, sizeof netns);
    attr(&r, IFLA_IFNAME, to, strlen(to) + 1);
    e = transact(nl, &r, NULL, NULL);
    index = e < 0 ? e : find_moved(there, to, m.index);
    if (index < 0)
        return index;
    e = zl_link_up(there, (unsigned)index);
    for (unsigned i = 0; i < m.n && e == 0; i++) {
        struct ifaddrmsg *msg = NLMSG_DATA(&m.add[i].h);
        msg->ifa_index = (unsigned)index;
        e = transact(there, &m.add[i], NULL, NULL);
    }
    return e;
}

int zl_route_add(int nl, const struct zl_route *route)
{
    struct request r;
    struct rtmsg msg = { .rtm_family = AF_INET,
                         .rtm_dst_len = (uint8_t)route->prefix,
                         .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = route->via.s_addr || route->unreachable ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                         .rtm_type = route->unreachable ? RTN_UNREACHABLE : RTN_UNICAST,
                         .rtm_flags = route->onlink ? RTNH_F_ONLINK : 0 };
    begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &msg, sizeof msg);
    if (route->prefix)
        attr(&r, RTA_DST, &route->dst, sizeof route->dst);
    if (route->via.s_addr)
        attr(&r, RTA_GATEWAY, &route->via, sizeof route->via);
    if (route->src.s_addr)
        attr(&r, RTA_PREFSRC, &route->src, sizeof route->src);
    if (route->index)
        attr(&r, RTA_OIF, &route->index, sizeof route->index);
    return transact(nl, &r, NULL, NULL);
}

struct each_route {
    int (*fn)(void *arg, const struct zl_route *r);
    void *arg;
};

static int take_route(void *arg, const struct nlmsghdr *h)
{
    struct each_route *e = arg;
    if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)))
        return 0;
    const struct rtmsg *msg = NLMSG_DATA(h);
    if (msg->rtm_table != RT_TABLE_MAIN || (msg->rtm_flags & RTM_F_CLONED))
        return 0;
    struct zl_route route = { .prefix = msg->rtm_dst_len,
                              .onlink = msg->rtm_flags & RTNH_F_ONLINK,
                              .unreachable = msg->rtm_type != RTN_UNICAST };
    struct attrs attrs = attrs_of(h, sizeof *msg);
    const struct rtattr *a;
    while ((a = next_attr(&attrs)) != NULL) {
        void *to = a->rta_type == RTA_DST       ? (void *)&route.dst
                   : a->rta_type == RTA_GATEWAY ? (void *)&route.via
                   : a->rta_type == RTA_PREFSRC ? (void *)&route.src
                   : a->rta_type == RTA_OIF     ? (void *)&route.index
                                                : NULL;
        if (to && RTA_PAYLOAD(a) == 4)
            memcpy(to, RTA_DATA(a), 4);
    }
    return e->fn(e->arg, &route);
}

int zl_route_each(int nl, int (*fn)(void *arg, const struct zl_route *r), void *arg)
{
    struct request r;
    struct each_route e = { fn, arg };
    struct rtmsg msg = { .rtm_family = AF_INET };
    begin(&r, RTM_GETROUTE, NLM_F_DUMP, &msg, sizeof msg);
    return transact(nl, &r, take_route, &e);
}

int zl_neigh_add(int nl, unsigned index, struct in_addr addr, const unsigned char mac[6])
{
    struct request r;
    struct ndmsg msg = { .ndm_family = AF_INET, .ndm_ifindex = (int)index, .ndm_state = NUD_PERMANENT };
    begin(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &msg, sizeof msg);
    attr(&r, NDA_DST, &addr, sizeof addr);
    attr(&r, NDA_LLADDR, mac, 6);
    return transact(nl, &r, NULL, NULL);
}
