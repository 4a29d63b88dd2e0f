/*
 * The node's network for real: the "host" is a namespace of the test's own, with an "internet" behind it, and its /run
 * and mounts are private, so that nothing of the machine is touched. Needs root.
 */
#include "../testing.h"

#include "base/clock.h"
#include "base/fd.h"
#include "net/overlay/nft_priv.h"
#include "net/overlay/sets_priv.h"
#include "net/overlay/node_net.h"
#include "net/overlay/rules_priv.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/veth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIN "/run/node/netns"
#define TAG "abc123"

static int internet; /* its namespace */

static struct in_addr ip(const char *text)
{
    struct in_addr a;
    assert_int_equal(inet_pton(AF_INET, text, &a), 1);
    return a;
}

static void assert_ok_at(int r, const struct zl_err *err, int line)
{
    if (r < 0)
        fail_msg("line %d: %s", line, err && err->code ? err->text : zl_error_text(r));
}
#define assert_ok(r, err) assert_ok_at((r), (err), __LINE__)

static struct zl_node_net_config config(void)
{
    struct zl_err err = { 0 };
    struct zl_node_net_config c = { .netns_path = PIN, .tag = TAG, .local = { 0 } };
    assert_ok(zl_node_net_choose_ranges(&c.ranges, &err), &err);
    c.local = ip("10.200.0.1");
    return c;
}

static struct zl_node_net *open_node(void)
{
    struct zl_err err = { 0 };
    struct zl_node_net_config c = config();
    struct zl_node_net *nn = NULL;
    assert_ok(zl_node_net_open(&c, &nn, &err), &err);
    return nn;
}

static void drop_node(struct zl_node_net *nn)
{
    struct zl_err err = { 0 };
    zl_node_net_close(nn);
    assert_ok(zl_node_net_drop(PIN, TAG, &err), &err);
}

/* --- a replica: a namespace held by its descriptor -----------------------------------------------------------------
 */

static int new_namespace(void)
{
    assert_ok(zl_netns_make("/run/scratch"), NULL);
    int fd = zl_netns_open("/run/scratch");
    assert_true(fd >= 0);
    assert_ok(zl_netns_unpin("/run/scratch"), NULL);
    return fd;
}

static int new_replica(const struct zl_node_net *nn, const char *name, const char *addr)
{
    const char *step = "";
    int fd = new_namespace();
    struct zl_veth_config c = { .node_netns = zl_node_net_fd(nn),
                                .container_netns = fd,
                                .name = name,
                                .addr = ip(addr),
                                .local = ip("10.200.0.1") };
    int r = zl_veth_replica(&c, &step);
    if (r < 0)
        fail_msg("replica %s: %s: %s", addr, step, zl_error_text(r));
    return fd;
}

struct endpoint {
    struct in_addr addr, from; /* from 0: the kernel's choice */
    uint16_t port;
    int timeout_ms, fd;
};

static int do_listen(void *arg)
{
    struct endpoint *e = arg;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = e->addr };
    int on = 1;
    e->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(e->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return bind(e->fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(e->fd, 8) < 0 ? -errno : 0;
}

static int listen_in(int netns, const char *addr, uint16_t port)
{
    struct endpoint e = { .addr = ip(addr), .port = port };
    assert_ok(zl_netns_run(netns, do_listen, &e), NULL);
    return e.fd;
}

static int do_connect(void *arg)
{
    struct endpoint *e = arg;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = e->addr };
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr = e->from };
    zl_auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (e->from.s_addr && bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 && errno != EINPROGRESS)
        return -errno;
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    if (poll(&p, 1, e->timeout_ms) == 0)
        return -ETIMEDOUT;
    int error = 0;
    socklen_t n = sizeof error;
    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error)
        return -error;
    e->fd = ZL_TAKE_FD(fd);
    return 0;
}

/* 0, or why not. A connection made is closed. */
static int try_connect(int netns, const char *addr, uint16_t port, int timeout_ms)
{
    struct endpoint e = { .addr = ip(addr), .port = port, .timeout_ms = timeout_ms, .fd = -1 };
    int r = netns < 0 ? do_connect(&e) : zl_netns_run(netns, do_connect, &e);
    zl_close(e.fd);
    return r;
}

/* Refused at once by the firewall, not lost. */
static void assert_refused(int netns, const char *addr, uint16_t port)
{
    uint64_t before = zl_clock_mono_ms();
    int r = try_connect(netns, addr, port, 2000);
    if (r != -ECONNREFUSED)
        fail_msg("connect to %s: %s", addr, zl_error_text(r));
    assert_true(zl_clock_mono_ms() - before < 500);
}

static void add(struct zl_node_net *nn, const char *addr, const char *deployment)
{
    struct zl_err err = { 0 };
    struct zl_net_member m = { .addr = ip(addr) };
    snprintf(m.deployment, sizeof m.deployment, "%s", deployment);
    assert_ok(zl_node_net_add(nn, &m, 1, &err), &err);
}

/* --- what is on the host --------------------------------------------------------------------------------------------
 */

static void picture(struct zl_buf *b)
{
    struct zl_err err = { 0 };
    char value[16];
    zl_buf_clear(b);
    struct if_nameindex *links = if_nameindex();
    for (struct if_nameindex *l = links; l && l->if_name; l++)
        zl_buf_printf(b, "link %s\n", l->if_name);
    if_freenameindex(links);
    assert_ok(zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value), NULL);
    zl_buf_printf(b, "ip_forward %s\n", value);
    zl_auto_buf rules = ZL_BUF_INIT, mounts = ZL_BUF_INIT;
    assert_ok(zl_nft_run(-1, "list ruleset", &rules, &err), &err);
    zl_buf_add_str(b, zl_buf_view(&rules));
    assert_ok(zl_read_file(AT_FDCWD, "/proc/self/mounts", 1 << 20, &mounts), NULL);
    /* The pins are below /run, which is our own; others' mounts, copied into our namespace, may go with their files. */
    for (struct zl_str rest = zl_buf_view(&mounts); rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        if (memmem(line.p, line.n, " /run", 5))
            zl_buf_printf(b, "mount %.*s\n", ZL_STR_FMT(line));
    }
    struct stat st;
    zl_buf_printf(b, "\nhost folder %s\npin %s\n", stat("/run/zlayer-host", &st) == 0 ? "there" : "gone",
                  stat(PIN, &st) == 0 ? "there" : "gone");
}

static char before[65536];

static int remember(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    picture(&b);
    snprintf(before, sizeof before, "%s", b.p);
    return 0;
}

static int nothing_left(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    picture(&b);
    assert_string_equal(b.p, before);
    return 0;
}

/* --- the tests -------------------------------------------------------------------------------------------------------
 */

static void makes_and_drops_a_network(void **state)
{
    struct zl_node_net *nn = open_node();
    assert_false(zl_node_net_adopted(nn));
    assert_true(zl_node_net_exists(PIN, TAG));
    char value[16];
    assert_ok(zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value), NULL);
    assert_string_equal(value, "1");
    drop_node(nn);
    assert_false(zl_node_net_exists(PIN, TAG));
    struct zl_err err = { 0 };
    assert_ok(zl_node_net_drop(PIN, TAG, &err), &err); /* nothing there is no error */
}

static void keeps_deployments_apart(void **state)
{
    struct zl_node_net *nn = open_node();
    struct zl_err err = { 0 };
    add(nn, "10.201.0.1", "shop");
    add(nn, "10.200.0.2", "shop");
    add(nn, "10.200.0.3", "shop");
    add(nn, "10.200.0.4", "blog");
    int a = new_replica(nn, "r2", "10.200.0.2"), b = new_replica(nn, "r3", "10.200.0.3");
    int c = new_replica(nn, "r4", "10.200.0.4");
    int at_b = listen_in(b, "0.0.0.0", 80), at_c = listen_in(c, "0.0.0.0", 80);
    struct in_addr service = ip("10.201.0.1");
    int proxy = zl_node_net_listen(nn, ZL_NET_INSIDE, &service, 80, &err);
    assert_ok(proxy, &err);

    assert_int_equal(try_connect(a, "10.200.0.3", 80, 2000), 0);
    assert_int_equal(try_connect(a, "10.201.0.1", 80, 2000), 0);
    assert_int_equal(try_connect(a, "10.200.0.3", 81, 2000), -ECONNREFUSED); /* by the replica itself */
    assert_refused(a, "10.200.0.4", 80);
    assert_refused(c, "10.200.0.3", 80);
    assert_refused(c, "10.201.0.1", 80);
    assert_refused(c, "10.200.0.1", 80); /* the node's own address */
    assert_int_equal(try_connect(a, "10.200.9.9", 80, 2000), -EHOSTUNREACH);
    assert_int_equal(try_connect(zl_node_net_fd(nn), "10.200.0.4", 80, 2000), 0); /* as the proxy */

    add(nn, "10.200.0.4", "shop"); /* an address that moves */
    assert_int_equal(try_connect(a, "10.200.0.4", 80, 2000), 0);
    struct in_addr gone[] = { ip("10.200.0.4"), ip("10.201.0.1"), ip("10.200.77.7") };
    assert_ok(zl_node_net_remove(nn, gone, ZL_ARRAY_LEN(gone), &err), &err);
    assert_refused(a, "10.200.0.4", 80);
    assert_int_equal(try_connect(zl_node_net_fd(nn), "10.201.0.1", 80, 500), -EHOSTUNREACH);
    int fds[] = { a, b, c, at_b, at_c, proxy };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
    drop_node(nn);
}

static void refuses_what_is_no_member(void **state)
{
    struct zl_node_net *nn = open_node();
    struct zl_err err = { 0 };
    struct zl_net_member bad[] = { { ip("10.200.0.2"), "shop\" }; flush ruleset; #" }, { ip("192.168.0.1"), "shop" } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++)
        assert_int_equal(zl_node_net_add(nn, &bad[i], 1, &err), ZL_E_INVALID);
    size_t n;
    zl_node_net_members(nn, &n);
    assert_int_equal(n, 0);
    drop_node(nn);
}

static int do_receive_at(void *arg)
{
    struct endpoint *e = arg;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = e->addr };
    e->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return bind(e->fd, (struct sockaddr *)&sa, sizeof sa) < 0 ? -errno : 0;
}

static int do_send(void *arg)
{
    struct endpoint *e = arg;
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr = e->from };
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = e->addr };
    zl_auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        return -errno;
    return sendto(fd, "x", 1, 0, (struct sockaddr *)&sa, sizeof sa) < 0 ? -errno : 0;
}

static int do_take_address(void *arg)
{
    const struct endpoint *e = arg;
    zl_auto_close int nl = zl_netlink_open();
    return zl_addr_add(nl, (unsigned)zl_link_index(nl, "lo"), e->from, 32);
}

static void forged_senders_are_dropped(void **state)
{
    struct zl_node_net *nn = open_node();
    add(nn, "10.200.0.2", "shop");
    add(nn, "10.200.0.3", "shop");
    add(nn, "10.200.0.4", "blog");
    int a = new_replica(nn, "r2", "10.200.0.2"), b = new_replica(nn, "r3", "10.200.0.3");
    int c = new_replica(nn, "r4", "10.200.0.4");
    struct endpoint at_b = { .addr = ip("0.0.0.0"), .port = 53 };
    assert_ok(zl_netns_run(b, do_receive_at, &at_b), NULL);
    struct endpoint e = { .addr = ip("10.200.0.3"), .from = ip("10.200.0.2"), .port = 53 };
    struct pollfd p = { .fd = at_b.fd, .events = POLLIN };
    char byte;
    assert_ok(zl_netns_run(a, do_send, &e), NULL);
    assert_int_equal(poll(&p, 1, 2000), 1);
    assert_int_equal(read(at_b.fd, &byte, 1), 1);
    /* As the kernel of a hostile replica with NET_ADMIN would: the other one's address as a local one. */
    assert_ok(zl_netns_run(c, do_take_address, &e), NULL);
    assert_ok(zl_netns_run(c, do_send, &e), NULL);
    assert_int_equal(poll(&p, 1, 200), 0);
    int fds[] = { a, b, c, at_b.fd };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
    drop_node(nn);
}

static void reaches_outward_under_the_hosts_address(void **state)
{
    struct zl_err err = { 0 };
    /* A firewall that drops what is forwarded, as docker sets it up. */
    assert_ok(zl_nft_run(-1,
                         "add table ip filter\n"
                         "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n",
                         NULL, &err),
              &err);
    struct zl_node_net *nn = open_node();
    add(nn, "10.200.0.2", "shop");
    int a = new_replica(nn, "r2", "10.200.0.2"), at = listen_in(internet, "192.0.2.2", 80);
    assert_int_equal(try_connect(a, "192.0.2.2", 80, 2000), 0);
    struct sockaddr_in peer;
    socklen_t n = sizeof peer;
    zl_auto_close int got = accept4(at, (struct sockaddr *)&peer, &n, SOCK_CLOEXEC);
    assert_true(got >= 0);
    assert_int_equal(peer.sin_addr.s_addr, ip("192.0.2.1").s_addr);

    /* Nothing comes in, even for a neighbour that knows the way. */
    int at_a = listen_in(a, "0.0.0.0", 80);
    int nl = zl_netlink_open();
    struct in_addr host = zl_node_net_host_address(nn);
    struct zl_route in = { .dst = ip("10.200.0.0"),
                           .prefix = 16,
                           .via = { htonl(ntohl(host.s_addr) + 1) },
                           .index = (unsigned)zl_link_index(nl, "zl-" TAG) };
    assert_ok(zl_route_add(nl, &in), NULL);
    assert_int_equal(try_connect(-1, "10.200.0.2", 80, 200), -ETIMEDOUT);

    /* Opened again, the accept is there once. */
    zl_node_net_close(nn);
    nn = open_node();
    zl_auto_buf rules = ZL_BUF_INIT;
    assert_ok(zl_nft_run(-1, "list chain ip filter FORWARD", &rules, &err), &err);
    const char *first = strstr(rules.p, "zlayer_" TAG), *second = first ? strstr(first + 1, "zlayer_" TAG) : NULL;
    assert_non_null(second);
    assert_null(strstr(second + 1, "zlayer_" TAG));
    drop_node(nn);
    assert_ok(zl_nft_run(-1, "list chain ip filter FORWARD", &rules, &err), &err);
    assert_null(strstr(rules.p, "zlayer_"));
    assert_ok(zl_nft_run(-1, "delete table ip filter", NULL, &err), &err);
    int fds[] = { a, at, at_a, nl };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
}

static void adoption_touches_no_live_traffic(void **state)
{
    struct zl_node_net *nn = open_node();
    struct zl_err err = { 0 };
    add(nn, "10.201.0.1", "shop");
    add(nn, "10.200.0.2", "shop");
    int a = new_replica(nn, "r2", "10.200.0.2"), at = listen_in(internet, "192.0.2.2", 80);
    struct endpoint e = { .addr = ip("192.0.2.2"), .port = 80, .timeout_ms = 2000 };
    assert_ok(zl_netns_run(a, do_connect, &e), NULL);
    zl_auto_close int got = accept4(at, NULL, NULL, SOCK_CLOEXEC);
    char c;
    for (int round = 0; round < 3; round++) {
        zl_node_net_close(nn);
        nn = open_node();
        assert_true(zl_node_net_adopted(nn));
        size_t n;
        const struct zl_net_member *m = zl_node_net_members(nn, &n);
        assert_int_equal(n, 2);
        assert_int_equal(m[0].addr.s_addr, ip("10.200.0.2").s_addr);
        assert_string_equal(m[1].deployment, "shop");
        assert_int_equal(write(got, "x", 1), 1);
        struct pollfd p = { .fd = e.fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, 2000), 1);
        assert_int_equal(read(e.fd, &c, 1), 1);
    }
    /* What is added by the new agent joins the old deployment. */
    struct in_addr service = ip("10.201.0.1");
    int proxy = zl_node_net_listen(nn, ZL_NET_INSIDE, &service, 80, &err);
    assert_ok(proxy, &err);
    add(nn, "10.200.0.3", "shop");
    int b = new_replica(nn, "r3", "10.200.0.3");
    assert_int_equal(try_connect(b, "10.201.0.1", 80, 2000), 0);
    int fds[] = { a, b, at, e.fd, proxy };
    for (size_t i = 0; i < ZL_ARRAY_LEN(fds); i++)
        zl_close(fds[i]);
    drop_node(nn);
}

static void another_hand_in_the_sets_is_made_good(void **state)
{
    static const char *const hands[] = { "flush set inet zlayer members\n", "delete table inet zlayer\n",
                                         "add element inet zlayer members { 7 . 10.200.0.7 }\n" };
    struct zl_node_net *nn = open_node();
    struct zl_err err = { 0 };
    struct zl_net_member m[] = { { ip("10.201.0.1"), "shop" },
                                 { ip("10.200.0.2"), "shop" },
                                 { ip("10.200.0.3"), "blog" } };
    struct in_addr service = ip("10.201.0.1");
    int a = new_replica(nn, "r2", "10.200.0.2"), c = new_replica(nn, "r3", "10.200.0.3");
    for (size_t i = 0; i < ZL_ARRAY_LEN(hands); i++) {
        assert_ok(zl_node_net_sync(nn, m, 3, &err), &err);
        assert_ok(zl_nft_run(zl_node_net_fd(nn), hands[i], NULL, &err), &err);
        if (i == 2) { /* what has no deployment is met by the next open */
            zl_node_net_close(nn);
            nn = open_node();
        } else { /* what is missing by the next change */
            struct in_addr last = ip("10.200.0.3");
            assert_ok(zl_node_net_remove(nn, &last, 1, &err), &err);
        }
        assert_ok(zl_node_net_sync(nn, m, 3, &err), &err);
        int proxy = zl_node_net_listen(nn, ZL_NET_INSIDE, &service, 80, &err);
        assert_ok(proxy, &err);
        assert_int_equal(try_connect(a, "10.201.0.1", 80, 2000), 0);
        assert_refused(c, "10.201.0.1", 80);
        zl_close(proxy);
    }
    zl_close(a);
    zl_close(c);
    drop_node(nn);
}

static int open_sets(void *arg)
{
    *(int *)arg = zl_sets_open();
    return *(int *)arg < 0 ? *(int *)arg : 0;
}

static int count(void *arg, uint32_t number, const struct zl_net_member *m)
{
    unsigned *n = arg;
    assert_true(number >= 1 && m->deployment[0]);
    ++*n;
    return 0;
}

static unsigned members_of(int nf)
{
    unsigned n = 0;
    assert_ok(zl_sets_each(nf, count, &n), NULL);
    return n;
}

/* One bad change and none of the others is made; a thousand good ones are, and nft shows what they are. */
static void a_batch_is_whole_or_nothing(void **state)
{
    static struct zl_set_change many[1000];
    struct zl_node_net *nn = open_node();
    struct zl_err err = { 0 };
    int nf = -1;
    assert_ok(zl_netns_run(zl_node_net_fd(nn), open_sets, &nf), NULL);
    struct zl_set_change bad[] = { { true, 1, { ip("10.200.0.5"), "shop" } },
                                   { false, 9, { ip("10.200.0.9"), "blog" } },
                                   { true, 2, { ip("10.200.0.6"), "blog" } } };
    assert_int_equal(zl_sets_apply(nf, bad, ZL_ARRAY_LEN(bad)), -ENOENT);
    assert_int_equal(members_of(nf), 0);
    assert_int_equal(zl_sets_apply(nf, bad, 0), 0);
    for (unsigned i = 0; i < ZL_ARRAY_LEN(many); i++) {
        many[i] = (struct zl_set_change){ true, 1 + i % 3, { { htonl(0x0AC80002 + i) }, "" } };
        snprintf(many[i].member.deployment, sizeof many[i].member.deployment, "%s-%u",
                 i % 3 ? "a" : "a-name-as-long-as-a-deployment-may-have-it-which-is-a-lot-of", i % 3);
    }
    assert_ok(zl_sets_apply(nf, many, ZL_ARRAY_LEN(many)), NULL);
    assert_int_equal(members_of(nf), ZL_ARRAY_LEN(many));
    zl_auto_buf set = ZL_BUF_INIT, map = ZL_BUF_INIT;
    assert_ok(zl_nft_run(zl_node_net_fd(nn), "list set inet zlayer members", &set, &err), &err);
    assert_ok(zl_nft_run(zl_node_net_fd(nn), "list map inet zlayer owners", &map, &err), &err);
    assert_non_null(strstr(set.p, "{\"concat\": [2, \"10.200.0.3\"]}, \"comment\": \"a-1\""));
    assert_non_null(strstr(map.p, "[\"10.200.0.3\", 2]"));
    for (unsigned i = 0; i < ZL_ARRAY_LEN(many); i++)
        many[i].add = false;
    assert_ok(zl_sets_apply(nf, many, ZL_ARRAY_LEN(many) - 1), NULL);
    assert_int_equal(members_of(nf), 1);
    assert_ok(zl_sets_flush(nf), NULL);
    assert_int_equal(members_of(nf), 0);
    zl_close(nf);
    drop_node(nn);
}

static int crashed_run(const char *phase)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("ZLAYER_CRASH_AT", phase, 1);
        execl("/proc/self/exe", "test_node_net", "one-life", (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* What the program that is killed does: everything once. */
static int one_life(void)
{
    struct zl_err err = { 0 };
    struct zl_node_net_config c = { .netns_path = PIN, .tag = TAG, .local = { htonl(0x0ac80001) } };
    struct zl_net_member m[] = { { { htonl(0x0ac90001) }, "shop" }, { { htonl(0x0ac80002) }, "shop" } };
    ZL_AUTO(zl_node_net) nn = NULL;
    int r = zl_node_net_choose_ranges(&c.ranges, &err);
    r = r < 0 ? r : zl_node_net_open(&c, &nn, &err);
    r = r < 0 ? r : zl_node_net_add(nn, m, ZL_ARRAY_LEN(m), &err);
    r = r < 0 ? r : zl_node_net_remove(nn, &m[0].addr, 1, &err);
    r = r < 0 ? r : zl_node_net_drop(PIN, TAG, &err);
    if (r < 0)
        fprintf(stderr, "one life: %s\n", err.text);
    return r < 0 ? 1 : 0;
}

static void a_kill_anywhere_is_repaired(void **state)
{
    static const char *const phases[] = { "net.namespace", "net.forward",   "net.uplink",   "net.outside",
                                          "net.members",   "net.members:2", "net.unlinked", "none" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(phases); i++) {
        for (int way = 0; way < 2; way++) {
            int status = crashed_run(phases[i]);
            if (i + 1 == ZL_ARRAY_LEN(phases))
                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            else
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            struct zl_err err = { 0 };
            if (way == 0) { /* the next agent goes on with it … */
                struct zl_node_net *nn = open_node();
                struct zl_net_member m[] = { { ip("10.201.0.1"), "shop" }, { ip("10.200.0.2"), "shop" } };
                assert_ok(zl_node_net_sync(nn, m, ZL_ARRAY_LEN(m), &err), &err);
                int a = new_replica(nn, "r2", "10.200.0.2");
                int proxy = zl_node_net_listen(nn, ZL_NET_INSIDE, &m[0].addr, 80, &err);
                int at = listen_in(internet, "192.0.2.2", 80);
                assert_ok(proxy, &err);
                assert_int_equal(try_connect(a, "10.201.0.1", 80, 2000), 0);
                assert_int_equal(try_connect(a, "192.0.2.2", 80, 2000), 0);
                zl_close(a);
                zl_close(at);
                zl_close(proxy);
                drop_node(nn);
            } else { /* … or only clears it away */
                assert_ok(zl_node_net_drop(PIN, TAG, &err), &err);
            }
            nothing_left(NULL);
        }
    }
}

static void two_agents_share_ip_forward(void **state)
{
    struct zl_err err = { 0 };
    char value[16];
    struct zl_node_net *one = open_node(), *two = NULL;
    struct zl_node_net_config c = config();
    c.netns_path = "/run/node/netns2";
    c.tag = "fedcba";
    assert_ok(zl_node_net_open(&c, &two, &err), &err);
    assert_int_not_equal(zl_node_net_host_address(one).s_addr, zl_node_net_host_address(two).s_addr);
    drop_node(one);
    assert_ok(zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value), NULL);
    assert_string_equal(value, "1");
    zl_node_net_close(two); /* its agent was killed; what it served goes on */
    one = open_node();
    drop_node(one);
    assert_ok(zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value), NULL);
    assert_string_equal(value, "1");
    assert_ok(zl_node_net_drop(c.netns_path, c.tag, &err), &err);
    assert_ok(zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value), NULL);
    assert_string_equal(value, "0");
}

static void a_taken_port_is_seen(void **state)
{
    struct zl_err err = { 0 };
    int first = zl_node_net_listen(NULL, ZL_NET_OUTSIDE, NULL, 8080, &err);
    assert_ok(first, &err);
    assert_int_equal(zl_node_net_listen(NULL, ZL_NET_OUTSIDE, NULL, 8080, &err), -EADDRINUSE);
    struct in_addr loopback = ip("127.0.0.1");
    assert_int_equal(zl_node_net_listen(NULL, ZL_NET_OUTSIDE, &loopback, 8080, &err), -EADDRINUSE);
    assert_int_equal(try_connect(-1, "127.0.0.1", 8080, 2000), 0);
    zl_close(first);
}

/* --- the world around ----------------------------------------------------------------------------------------------
 */

static int set_internet_up(void *arg)
{
    int nl = zl_netlink_open();
    int index = zl_link_index(nl, "eth0");
    int r = zl_addr_add(nl, (unsigned)index, *(struct in_addr *)arg, 24);
    r = r < 0 ? r : zl_link_up(nl, (unsigned)index);
    zl_close(nl);
    return r;
}

static int make_world(void **state)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
        return -1;
    /* A new namespace takes ip_forward over from the machine. */
    if (zl_mkdirat(AT_FDCWD, "/run/node", 0755) < 0 || zl_sysctl_write("net/ipv4/ip_forward", "0") < 0)
        return -1;
    internet = new_namespace();
    int nl = zl_netlink_open();
    struct zl_link_end near = { "eth0", -1 }, far = { "eth0", internet };
    struct in_addr far_addr = ip("192.0.2.2");
    int r = zl_link_add_veth(nl, &near, &far);
    int lo = zl_link_index(nl, "lo"), index = zl_link_index(nl, "eth0");
    r = r < 0 ? r : zl_link_up(nl, (unsigned)lo);
    r = r < 0 ? r : zl_addr_add(nl, (unsigned)index, ip("192.0.2.1"), 24);
    r = r < 0 ? r : zl_link_up(nl, (unsigned)index);
    r = r < 0 ? r : zl_netns_run(internet, set_internet_up, &far_addr);
    zl_close(nl);
    return r;
}

int main(int argc, char **argv)
{
    if (argc == 2 && zl_streq(argv[1], "one-life"))
        return one_life();
    if (geteuid() != 0) {
        fprintf(stderr, "skip: network namespaces need root\n");
        return 77;
    }
#define CLEAN(test) cmocka_unit_test_setup_teardown(test, remember, nothing_left)
    const struct CMUnitTest tests[] = {
        CLEAN(makes_and_drops_a_network),
        CLEAN(keeps_deployments_apart),
        CLEAN(refuses_what_is_no_member),
        CLEAN(forged_senders_are_dropped),
        CLEAN(reaches_outward_under_the_hosts_address),
        CLEAN(adoption_touches_no_live_traffic),
        CLEAN(a_kill_anywhere_is_repaired),
        CLEAN(another_hand_in_the_sets_is_made_good),
        CLEAN(a_batch_is_whole_or_nothing),
        CLEAN(two_agents_share_ip_forward),
        CLEAN(a_taken_port_is_seen),
    };
    return cmocka_run_group_tests(tests, make_world, NULL);
}
