#include "sys/nft.h"

#include "base/fd.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* nfnetlink by hand. linux/netfilter/nf_tables.h, nfnetlink.h */
static int ask(int fd, unsigned type, unsigned flags)
{
    struct {
        struct nlmsghdr h;
        struct nfgenmsg m;
    } request = { .h = { .nlmsg_len = sizeof request,
                         .nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type),
                         .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                         .nlmsg_seq = 1 },
                  .m = { .nfgen_family = NFPROTO_UNSPEC, .version = NFNETLINK_V0 } };
    return send(fd, &request, sizeof request, 0) < 0 ? -errno : 0;
}

static int open_socket(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return -errno;
    struct timeval tv = { .tv_sec = 5 };
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

const char *zl_nft_program(void)
{
    static const char *const places[] = { "/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(places); i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

int zl_nft_probe(void)
{
    char buf[8192] __attribute__((aligned(8)));
    zl_auto_close int fd = open_socket();
    int r = fd < 0 ? fd : ask(fd, NFT_MSG_GETGEN, 0);
    if (r < 0)
        return r;
    ssize_t n = recv(fd, buf, sizeof buf, 0);
    if (n < 0)
        return -errno;
    const struct nlmsghdr *h = (const void *)buf;
    if (!NLMSG_OK(h, (size_t)n))
        return -EPROTO;
    if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)))
        return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
    return 0;
}

struct attributes {
    const struct nlattr *at[NFTA_CHAIN_MAX + 1];
};

static void parse(struct attributes *a, const char *p, size_t n)
{
    memset(a, 0, sizeof *a);
    while (n >= NLA_HDRLEN) {
        const struct nlattr *x = (const void *)p;
        size_t size = NLA_ALIGN((size_t)x->nla_len);
        if (x->nla_len < NLA_HDRLEN || x->nla_len > n)
            return;
        unsigned type = x->nla_type & NLA_TYPE_MASK;
        if (type <= NFTA_CHAIN_MAX)
            a->at[type] = x;
        if (size >= n)
            return;
        p += size;
        n -= size;
    }
}

static const char *payload(const struct nlattr *x)
{
    return (const char *)x + NLA_HDRLEN;
}

static uint32_t number(const struct nlattr *x)
{
    uint32_t v = UINT32_MAX;
    if (x && x->nla_len == NLA_HDRLEN + sizeof v)
        memcpy(&v, payload(x), sizeof v);
    return ntohl(v);
}

/* A string attribute carries its NUL, but that is not taken on trust. */
static struct zl_str string(const struct nlattr *x)
{
    return x ? zl_str_n(payload(x), strnlen(payload(x), x->nla_len - (size_t)NLA_HDRLEN)) : ZL_STR("?");
}

static bool take_chain(const struct nlmsghdr *h, char *ret, size_t size)
{
    const struct nfgenmsg *m = NLMSG_DATA(h);
    size_t head = NLMSG_LENGTH(NLMSG_ALIGN(sizeof *m));
    struct attributes chain, hook;
    if (h->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN) || h->nlmsg_len < head)
        return false;
    parse(&chain, (const char *)h + head, h->nlmsg_len - head);
    const struct nlattr *nest = chain.at[NFTA_CHAIN_HOOK];
    if (!nest || (m->nfgen_family != NFPROTO_INET && m->nfgen_family != NFPROTO_IPV4))
        return false;
    parse(&hook, payload(nest), nest->nla_len - (size_t)NLA_HDRLEN);
    if (number(hook.at[NFTA_HOOK_HOOKNUM]) != NF_INET_FORWARD ||
        zl_str_starts(string(chain.at[NFTA_CHAIN_TABLE]), ZL_STR("zlayer")))
        return false;
    if (!ret || number(chain.at[NFTA_CHAIN_POLICY]) != NF_DROP)
        return true;
    size_t used = strlen(ret);
    snprintf(ret + used, size - used, "%s%s %.*s/%.*s", used ? ", " : "",
             m->nfgen_family == NFPROTO_INET ? "inet" : "ip", ZL_STR_FMT(string(chain.at[NFTA_CHAIN_TABLE])),
             ZL_STR_FMT(string(chain.at[NFTA_CHAIN_NAME])));
    return true;
}

int zl_nft_forward_chains(char *ret, size_t size)
{
    char buf[32768] __attribute__((aligned(8)));
    zl_auto_close int fd = open_socket();
    int found = 0, r = fd < 0 ? fd : ask(fd, NFT_MSG_GETCHAIN, NLM_F_DUMP);
    if (ret)
        ret[0] = 0;
    while (r == 0) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n < 0)
            return -errno;
        const struct nlmsghdr *h;
        for (size_t at = 0; at + sizeof *h <= (size_t)n; at += NLMSG_ALIGN((size_t)h->nlmsg_len)) {
            h = (const void *)(buf + at);
            if (h->nlmsg_len < sizeof *h || h->nlmsg_len > (size_t)n - at)
                return -EPROTO;
            if (h->nlmsg_type == NLMSG_DONE)
                return found;
            if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)))
                return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
            found += take_chain(h, ret, size);
        }
    }
    return r;
}
