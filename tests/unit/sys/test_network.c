/* rtnetlink, namespaces and replicas' links, in a namespace of the test's own. Needs root. */
#include "../testing.h"

#include "base/clock.h"
#include "base/fd.h"
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

static void assert_ok_at(int r, int line)
{
    if (r < 0)
        fail_msg("line %d: %s", line, strerrorname_np(-r));
}
#define assert_ok(r) assert_ok_at((r), __LINE__)

static struct in_addr ip(const char *text)
{
    struct in_addr a;
    assert_int_equal(inet_pton(AF_INET, text, &a), 1);
    return a;
}

static int count_links(void)
{
    int n = 0;
    struct if_nameindex *links = if_nameindex();
    for (struct if_nameindex *l = links; l && l->if_name; l++)
        n++;
    if_freenameindex(links);
    return n;
}

static int count_addr(void *arg, unsigned index, struct in_addr addr, unsigned prefix)
{
    int *count = arg;
    *count += addr.s_addr == ip("192.0.2.1").s_addr && prefix == 24;
    return 0;
}

static int stop_at_first(void *arg, const struct zl_route *r)
{
    (*(int *)arg)++;
    return 42;
}

static int find_routes(void *arg, const struct zl_route *r)
{
    unsigned *seen = arg;
    if (r->prefix == 0 && r->via.s_addr == ip("192.0.2.9").s_addr)
        *seen |= 1;
    if (r->prefix == 16 && r->dst.s_addr == ip("10.9.0.0").s_addr && r->unreachable)
        *seen |= 2;
    if (r->prefix == 24 && r->dst.s_addr == ip("192.0.2.0").s_addr && r->src.s_addr == ip("192.0.2.1").s_addr &&
        r->index)
        *seen |= 4;
    return 0;
}

static void links_addresses_routes(void **state)
{
    int nl = zl_netlink_open(), count = 0;
    unsigned seen = 0;
    struct zl_link_end a = { "one", -1 }, b = { "two", -1 };
    assert_ok(nl);
    assert_ok(zl_link_add_veth(nl, &a, &b));
    assert_int_equal(zl_link_add_veth(nl, &a, &b), -EEXIST);
    int one = zl_link_index(nl, "one"), two = zl_link_index(nl, "two");
    assert_true(one > 0 && two > 0);
    assert_int_equal(zl_link_peer(nl, "one"), two);
    assert_int_equal(zl_link_peer(nl, "two"), one);
    assert_int_equal(zl_link_index(nl, "none"), -ENODEV);
    assert_ok(zl_link_up(nl, (unsigned)one));
    assert_ok(zl_link_up(nl, (unsigned)two));
    assert_ok(zl_addr_add(nl, (unsigned)one, ip("192.0.2.1"), 24));
    assert_int_equal(zl_addr_add(nl, (unsigned)one, ip("192.0.2.1"), 24), -EEXIST);
    assert_ok(zl_addr_each(nl, count_addr, &count));
    assert_int_equal(count, 1);
    struct zl_route out = { .via = ip("192.0.2.9"), .index = (unsigned)one };
    struct zl_route none = { .dst = ip("10.9.0.0"), .prefix = 16, .unreachable = true };
    assert_ok(zl_route_add(nl, &out));
    assert_ok(zl_route_add(nl, &out));
    assert_ok(zl_route_add(nl, &none));
    assert_ok(zl_route_each(nl, find_routes, &seen));
    assert_int_equal(seen, 7);
    count = 0;
    assert_int_equal(zl_route_each(nl, stop_at_first, &count), 42);
    assert_int_equal(count, 1);
    /* The socket is in step after a stop: the next answer is to the next question. */
    assert_int_equal(zl_link_index(nl, "two"), two);
    assert_ok(zl_addr_delete(nl, (unsigned)one, ip("192.0.2.1"), 24));
    assert_int_equal(zl_addr_delete(nl, (unsigned)one, ip("192.0.2.1"), 24), -EADDRNOTAVAIL);
    assert_ok(zl_link_delete(nl, "one"));
    assert_int_equal(zl_link_delete(nl, "one"), -ENODEV);
    zl_close(nl);
}

static int count_any(void *arg, unsigned index, struct in_addr addr, unsigned prefix)
{
    *(int *)arg += prefix == 32;
    return 0;
}

static void more_than_one_buffer_is_listed(void **state)
{
    enum { N = 1000 };
    int nl = zl_netlink_open(), lo = zl_link_index(nl, "lo"), count = 0;
    for (uint32_t i = 0; i < N; i++)
        assert_ok(zl_addr_add(nl, (unsigned)lo, (struct in_addr){ htonl(0x0a090000 + i) }, 32));
    assert_ok(zl_addr_each(nl, count_any, &count));
    assert_int_equal(count, N);
    for (uint32_t i = 0; i < N; i++)
        assert_ok(zl_addr_delete(nl, (unsigned)lo, (struct in_addr){ htonl(0x0a090000 + i) }, 32));
    zl_close(nl);
}

static int same_namespace(void *arg)
{
    struct stat mine, other;
    zl_auto_close int self = zl_netns_self();
    return fstat(self, &mine) == 0 && fstat(*(int *)arg, &other) == 0 && mine.st_ino == other.st_ino ? 7 : -EXDEV;
}

static void namespaces_are_pinned(void **state)
{
    struct stat st;
    assert_int_equal(zl_netns_open("/run/pin"), -ENOENT);
    assert_ok(zl_netns_make("/run/pin"));
    int fd = zl_netns_open("/run/pin");
    assert_ok(fd);
    assert_int_equal(zl_netns_run(fd, same_namespace, &fd), 7);
    assert_int_equal(same_namespace(&fd), -EXDEV); /* the caller has not moved */
    assert_ok(zl_netns_unpin("/run/pin"));
    assert_ok(zl_netns_unpin("/run/pin"));
    assert_int_equal(stat("/run/pin", &st), -1);
    assert_int_equal(zl_netns_run(fd, same_namespace, &fd), 7); /* it lives on in the descriptor */
    zl_close(fd);
    /* A file that a kill left without its namespace is none, and is used again. */
    fd = zl_openat(AT_FDCWD, "/run/pin", O_WRONLY | O_CREAT, 0600);
    zl_close(fd);
    assert_int_equal(zl_netns_open("/run/pin"), -ENOENT);
    assert_ok(zl_netns_make("/run/pin"));
    assert_ok(zl_netns_unpin("/run/pin"));
}

static int new_namespace(const char *path)
{
    assert_ok(zl_netns_make(path));
    int fd = zl_netns_open(path);
    assert_ok(fd);
    assert_ok(zl_netns_unpin(path));
    return fd;
}

static int node_sysctls(void *arg)
{
    int r = zl_sysctl_write("net/ipv4/ip_forward", "1");
    zl_auto_close int nl = zl_netlink_open();
    int lo = zl_link_index(nl, "lo");
    r = r < 0 ? r : zl_link_up(nl, (unsigned)lo);
    return r < 0 ? r : zl_addr_add(nl, (unsigned)lo, ip("10.200.0.1"), 32);
}

static int add_replica(int node, int container, unsigned number)
{
    char name[IFNAMSIZ];
    const char *step = "";
    snprintf(name, sizeof name, "r%u", number);
    struct zl_veth_config c = { .node_netns = node,
                                .container_netns = container,
                                .name = name,
                                .addr = { htonl(0x0ac80000 + number) },
                                .local = ip("10.200.0.1") };
    int r = zl_veth_replica(&c, &step);
    if (r < 0)
        fprintf(stderr, "replica %u: %s: %s\n", number, step, strerrorname_np(-r));
    return r;
}

struct ping {
    struct in_addr from, to;
    int fd;
};

static int open_udp(void *arg)
{
    struct ping *p = arg;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(7000), .sin_addr = p->from };
    p->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return bind(p->fd, (struct sockaddr *)&sa, sizeof sa) < 0 ? -errno : 0;
}

/* One datagram there and one back. */
static void assert_talk(struct ping *a, struct ping *b)
{
    char c;
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(7000), .sin_addr = b->from };
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    struct pollfd pb = { .fd = b->fd, .events = POLLIN }, pa = { .fd = a->fd, .events = POLLIN };
    assert_int_equal(sendto(a->fd, "x", 1, 0, (struct sockaddr *)&sa, sizeof sa), 1);
    assert_int_equal(poll(&pb, 1, 2000), 1);
    assert_int_equal(recvfrom(b->fd, &c, 1, 0, (struct sockaddr *)&from, &n), 1);
    assert_int_equal(from.sin_addr.s_addr, a->from.s_addr);
    assert_int_equal(sendto(b->fd, "y", 1, 0, (struct sockaddr *)&from, n), 1);
    assert_int_equal(poll(&pa, 1, 2000), 1);
    assert_int_equal(recv(a->fd, &c, 1, 0), 1);
}

static void a_hundred_replicas_at_once(void **state)
{
    enum { N = 100 };
    int node = new_namespace("/run/node"), containers[N];
    pid_t pids[N];
    assert_ok(zl_netns_run(node, node_sysctls, NULL));
    for (unsigned i = 0; i < N; i++)
        containers[i] = new_namespace("/run/container");
    uint64_t start = zl_clock_mono_ms();
    for (unsigned i = 0; i < N; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(add_replica(node, containers[i], i + 2) < 0);
    }
    for (unsigned i = 0; i < N; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    printf("%d replicas linked in %llu ms\n", N, (unsigned long long)(zl_clock_mono_ms() - start));
    struct ping first = { .from = { htonl(0x0ac80002) } }, last = { .from = { htonl(0x0ac80000 + N + 1) } };
    struct ping proxy = { .from = ip("10.200.0.1") };
    assert_ok(zl_netns_run(containers[0], open_udp, &first));
    assert_ok(zl_netns_run(containers[N - 1], open_udp, &last));
    assert_ok(zl_netns_run(node, open_udp, &proxy));
    uint64_t talk = zl_clock_mono_ms();
    assert_talk(&first, &last);
    assert_talk(&proxy, &last);                   /* from the node's own address, as the route's src says */
    assert_true(zl_clock_mono_ms() - talk < 500); /* no wait for ARP */
    zl_close(first.fd);
    zl_close(last.fd);
    zl_close(proxy.fd);
    for (unsigned i = 0; i < N; i++)
        zl_close(containers[i]);
    zl_close(node);
}

static void a_link_goes_with_its_container(void **state)
{
    int node = new_namespace("/run/node"), container = new_namespace("/run/container");
    assert_ok(zl_netns_run(node, node_sysctls, NULL));
    assert_ok(add_replica(node, container, 2));
    assert_int_equal(add_replica(node, container, 2), -EEXIST);
    zl_auto_close int self = zl_netns_self();
    assert_ok(zl_netns_enter(node));
    int nl = zl_netlink_open(), before = zl_link_index(nl, "r2");
    assert_ok(zl_netns_enter(self));
    assert_true(before > 0);
    zl_close(container);
    uint64_t deadline = zl_clock_mono_ms() + 5000;
    while (zl_link_index(nl, "r2") > 0 && zl_clock_mono_ms() < deadline)
        (void)poll(NULL, 0, 5);
    assert_int_equal(zl_link_index(nl, "r2"), -ENODEV);
    zl_close(nl);
    zl_close(node);
}

static int links_before;

static int make_world(void **state)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
        return -1;
    links_before = count_links();
    return 0;
}

static int nothing_left(void **state)
{
    return count_links() == links_before ? 0 : -1;
}

int main(void)
{
    if (geteuid() != 0) {
        fprintf(stderr, "skip: network namespaces need root\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_addresses_routes),         cmocka_unit_test(more_than_one_buffer_is_listed),
        cmocka_unit_test(namespaces_are_pinned),          cmocka_unit_test(a_hundred_replicas_at_once),
        cmocka_unit_test(a_link_goes_with_its_container),
    };
    return cmocka_run_group_tests(tests, make_world, nothing_left);
}
