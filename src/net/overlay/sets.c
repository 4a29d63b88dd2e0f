#include "net/overlay/sets_priv.h"

#include "base/fd.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { COMMENT = 0 /* the kind of user data that nft shows as a comment: kind, length, text and its NUL */ };

int zl_sets_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return -errno;
    struct timeval tv = { .tv_sec = 10 }; /* a lost reply must not hang us for ever */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

/* --- writing: messages one behind the other in a buffer, lengths filled in at their ends --- */

static void put(struct zl_buf *b, const void *p, size_t n)
{
    static const char zeros[NLA_ALIGNTO];
    zl_buf_add(b, p, n);
    zl_buf_add(b, zeros, NLA_ALIGN(n) - n);
}

static size_t message(struct zl_buf *b, unsigned type, unsigned flags, uint32_t seq)
{
    size_t at = b->n;
    bool batch = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END;
    struct nlmsghdr h = { .nlmsg_type = (uint16_t)(batch ? type : NFNL_SUBSYS_NFTABLES << 8 | type),
                          .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                          .nlmsg_seq = seq };
    struct nfgenmsg m = { .nfgen_family = batch ? NFPROTO_UNSPEC : NFPROTO_INET,
                          .version = NFNETLINK_V0,
                          .res_id = htons(batch ? NFNL_SUBSYS_NFTABLES : 0) };
    put(b, &h, sizeof h);
    put(b, &m, sizeof m);
    return at;
}

static void message_end(struct zl_buf *b, size_t at)
{
    uint32_t n = (uint32_t)(b->n - at);
    memcpy(b->p + at, &n, sizeof n);
}

static void attr(struct zl_buf *b, unsigned type, const void *p, size_t n)
{
    struct nlattr a = { .nla_len = (uint16_t)(NLA_HDRLEN + n), .nla_type = (uint16_t)type };
    put(b, &a, sizeof a);
    put(b, p, n);
}

static size_t nest(struct zl_buf *b, unsigned type)
{
    size_t at = b->n;
    attr(b, type | NLA_F_NESTED, NULL, 0);
    return at;
}

static void nest_end(struct zl_buf *b, size_t at)
{
    uint16_t n = (uint16_t)(b->n - at);
    memcpy(b->p + at, &n, sizeof n);
}

static void value(struct zl_buf *b, unsigned type, const void *p, size_t n)
{
    size_t at = nest(b, type);
    attr(b, NFTA_DATA_VALUE, p, n);
    nest_end(b, at);
}

static size_t of_set(struct zl_buf *b, unsigned type, unsigned flags, const char *set, uint32_t seq)
{
    size_t at = message(b, type, flags, seq);
    attr(b, NFTA_SET_ELEM_LIST_TABLE, "zlayer", sizeof "zlayer");
    attr(b, NFTA_SET_ELEM_LIST_SET, set, strlen(set) + 1);
    return at;
}

/* One element: of `members` with its comment, or of `owners` with its number as data. */
static void element(struct zl_buf *b, const struct zl_set_change *c, bool owner, unsigned flags, uint32_t seq)
{
    struct {
        uint32_t number; /* a mark is in the machine's order */
        struct in_addr addr;
    } key = { c->number, c->member.addr };
    size_t at = of_set(b, c->add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, flags | (c->add ? NLM_F_CREATE : 0u),
                       owner ? "owners" : "members", seq);
    size_t list = nest(b, NFTA_SET_ELEM_LIST_ELEMENTS), item = nest(b, NFTA_LIST_ELEM);
    if (owner) {
        value(b, NFTA_SET_ELEM_KEY, &key.addr, sizeof key.addr);
        if (c->add)
            value(b, NFTA_SET_ELEM_DATA, &key.number, sizeof key.number);
    } else {
        value(b, NFTA_SET_ELEM_KEY, &key, sizeof key);
        if (c->add) {
            char data[2 + ZL_NET_DEPLOYMENT_SIZE] = { COMMENT };
            size_t n = strnlen(c->member.deployment, ZL_NET_DEPLOYMENT_SIZE - 1) + 1;
            data[1] = (char)n;
            memcpy(data + 2, c->member.deployment, n - 1);
            attr(b, NFTA_SET_ELEM_USERDATA, data, 2 + n);
        }
    }
    nest_end(b, item);
    nest_end(b, list);
    message_end(b, at);
}

/* --- sending --- */

static int transmit(int nf, const struct zl_buf *b)
{
    int room = (int)ZL_MIN(b->n * 4 + 65536, (size_t)256 << 20);
    (void)setsockopt(nf, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room); /* a batch is one datagram */
    ssize_t n;
    do
        n = send(nf, b->p, b->n, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static int receive(int nf, char *buf, size_t size, ssize_t *ret)
{
    do
        *ret = recv(nf, buf, size, 0);
    while (*ret < 0 && errno == EINTR);
    return *ret >= 0 ? 0 : errno == EAGAIN ? -ETIMEDOUT : -errno;
}

/* The next whole message of what was received, or NULL. */
static const struct nlmsghdr *next_message(const char **p, size_t *left)
{
    const struct nlmsghdr *h = (const void *)*p;
    if (*left < sizeof *h || h->nlmsg_len < sizeof *h || h->nlmsg_len > *left)
        return NULL;
    size_t n = ZL_MIN((size_t)NLMSG_ALIGN(h->nlmsg_len), *left);
    *p += n;
    *left -= n;
    return h;
}

/*
 * The kernel answers a batch with an error for each message that has one and with what was asked to be acknowledged:
 * the last message, which comes last. A batch that it refuses as a whole it answers by the number of its beginning.
 */
static int batch_result(int nf, uint32_t first, uint32_t last)
{
    char buf[16384] __attribute__((aligned(8)));
    int result = 0;
    for (;;) {
        ssize_t n;
        int r = receive(nf, buf, sizeof buf, &n);
        if (r < 0)
            return r;
        const char *p = buf;
        size_t left = (size_t)n;
        const struct nlmsghdr *h;
        while ((h = next_message(&p, &left)) != NULL) {
            const struct nlmsgerr *e = NLMSG_DATA(h);
            if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_len < NLMSG_LENGTH(sizeof *e) ||
                (uint32_t)(h->nlmsg_seq - first) > last - first)
                continue; /* of an earlier batch that timed out */
            result = result < 0 ? result : e->error;
            if (h->nlmsg_seq == last || (h->nlmsg_seq == first && e->error))
                return result;
        }
    }
}

static uint32_t numbers(uint32_t n)
{
    static _Atomic uint32_t sequence;
    return (sequence += n) - n + 1;
}

int zl_sets_apply(int nf, const struct zl_set_change *changes, size_t n)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (n == 0)
        return 0;
    if (n > 1000000)
        return -E2BIG;
    uint32_t first = numbers((uint32_t)(2 * n + 2)), seq = first;
    message_end(&b, message(&b, NFNL_MSG_BATCH_BEGIN, 0, seq++));
    for (size_t i = 0; i < n; i++) {
        element(&b, &changes[i], false, 0, seq++);
        element(&b, &changes[i], true, i + 1 == n ? NLM_F_ACK : 0, seq++);
    }
    message_end(&b, message(&b, NFNL_MSG_BATCH_END, 0, seq));
    int r = transmit(nf, &b);
    return r < 0 ? r : batch_result(nf, first, seq - 1);
}

int zl_sets_flush(int nf)
{
    zl_auto_buf b = ZL_BUF_INIT;
    uint32_t first = numbers(4);
    message_end(&b, message(&b, NFNL_MSG_BATCH_BEGIN, 0, first));
    message_end(&b, of_set(&b, NFT_MSG_DELSETELEM, 0, "members", first + 1));
    message_end(&b, of_set(&b, NFT_MSG_DELSETELEM, NLM_F_ACK, "owners", first + 2));
    message_end(&b, message(&b, NFNL_MSG_BATCH_END, 0, first + 3));
    int r = transmit(nf, &b);
    return r < 0 ? r : batch_result(nf, first, first + 2);
}

/* --- reading --- */

/* The attribute of a type among those of `in`; p == NULL when there is none. */
static struct zl_str find(struct zl_str in, unsigned type)
{
    while (in.n >= NLA_HDRLEN) {
        struct nlattr a;
        memcpy(&a, in.p, sizeof a);
        size_t size = NLA_ALIGN((size_t)a.nla_len);
        if (a.nla_len < NLA_HDRLEN || a.nla_len > in.n)
            break;
        if ((a.nla_type & NLA_TYPE_MASK) == type)
            return zl_str_n(in.p + NLA_HDRLEN, a.nla_len - (size_t)NLA_HDRLEN);
        in = size < in.n ? zl_str_n(in.p + size, in.n - size) : (struct zl_str){ 0 };
    }
    return (struct zl_str){ 0 };
}

static int take_element(struct zl_str item, int (*fn)(void *arg, uint32_t number, const struct zl_net_member *m),
                        void *arg)
{
    struct zl_net_member m = { 0 };
    uint32_t number;
    struct zl_str key = find(find(item, NFTA_SET_ELEM_KEY), NFTA_DATA_VALUE);
    struct zl_str data = find(item, NFTA_SET_ELEM_USERDATA);
    if (key.n != sizeof number + sizeof m.addr)
        return -EPROTO;
    memcpy(&number, key.p, sizeof number);
    memcpy(&m.addr, key.p + sizeof number, sizeof m.addr);
    if (data.n > 2 && data.p[0] == COMMENT && (size_t)(uint8_t)data.p[1] <= data.n - 2 &&
        (uint8_t)data.p[1] <= sizeof m.deployment)
        memcpy(m.deployment, data.p + 2, strnlen(data.p + 2, (uint8_t)data.p[1]));
    m.deployment[sizeof m.deployment - 1] = 0;
    return fn(arg, number, &m);
}

static int take_list(const struct nlmsghdr *h, int (*fn)(void *arg, uint32_t number, const struct zl_net_member *m),
                     void *arg)
{
    size_t head = NLMSG_LENGTH(NLMSG_ALIGN(sizeof(struct nfgenmsg)));
    if (h->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM) || h->nlmsg_len < head)
        return 0;
    struct zl_str list = find(zl_str_n((const char *)h + head, h->nlmsg_len - head), NFTA_SET_ELEM_LIST_ELEMENTS);
    int r = 0;
    while (r == 0 && list.n >= NLA_HDRLEN) {
        struct nlattr a;
        memcpy(&a, list.p, sizeof a);
        size_t size = NLA_ALIGN((size_t)a.nla_len);
        if (a.nla_len < NLA_HDRLEN || a.nla_len > list.n)
            return -EPROTO;
        r = take_element(zl_str_n(list.p + NLA_HDRLEN, a.nla_len - (size_t)NLA_HDRLEN), fn, arg);
        list = size < list.n ? zl_str_n(list.p + size, list.n - size) : (struct zl_str){ 0 };
    }
    return r;
}

int zl_sets_each(int nf, int (*fn)(void *arg, uint32_t number, const struct zl_net_member *m), void *arg)
{
    char buf[32768] __attribute__((aligned(8)));
    zl_auto_buf b = ZL_BUF_INIT;
    uint32_t seq = numbers(1);
    message_end(&b, of_set(&b, NFT_MSG_GETSETELEM, NLM_F_DUMP, "members", seq));
    int r = transmit(nf, &b), result = 0;
    while (r == 0) {
        ssize_t n;
        r = receive(nf, buf, sizeof buf, &n);
        const char *p = buf;
        size_t left = r == 0 ? (size_t)n : 0;
        const struct nlmsghdr *h;
        while ((h = next_message(&p, &left)) != NULL) {
            if (h->nlmsg_seq != seq)
                continue;
            if (h->nlmsg_type == NLMSG_DONE)
                return result;
            if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)))
                return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (h->nlmsg_flags & NLM_F_DUMP_INTR)
                result = -EAGAIN; /* a change came in between: what was read is no picture of any moment */
            result = result ? result : take_list(h, fn, arg);
        }
    }
    return r;
}
