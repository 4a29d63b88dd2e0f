/*
 * The holder: two processes. One stays outside, with no more rights than its user: it has the lock by which an agent
 * knows that it lives, starts pasta and starts it again, and ends both. The other one is in the namespaces and does
 * nothing, so that they go on whatever else ends. `hold FOLDER PASTA|- UPLINK [join]`, FOLDER the data dir, UPLINK the
 * network (of 4 addresses) of the link that pasta makes; with `join` the namespaces are given, whose holder died.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "inside/inside.h"
#include "sys/inside.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/overlay.h"
#include "sys/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAUSE_MIN_MS = 500, PAUSE_MAX_MS = 30000, STEADY_MS = 10000, LOG_MAX = 256 * 1024 };
static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGPIPE };

struct hold {
    const char *folder, *pasta, *uplink; /* pasta NULL: no way out */
    bool join;
    pid_t inner, link; /* link: pasta's process, 0 while there is none */
    int inner_fd, link_fd;
    uint64_t link_started, link_due;
    unsigned pause_ms;
};

struct report {
    struct failure f;
    int overlay; /* 0: the kernel stacks layers, or -errno */
};

static int set_sysctls(void)
{
    for (size_t i = 0; zl_node_sysctls[i].name; i++) {
        int r = zl_sysctl_write(zl_node_sysctls[i].name, zl_node_sysctls[i].value);
        if (r < 0 && !zl_node_sysctls[i].optional)
            return r;
    }
    return 0;
}

static int bring_lo_up(void)
{
    zl_auto_close int nl = zl_netlink_open();
    int lo = nl < 0 ? nl : zl_link_index(nl, "lo");
    return lo < 0 ? lo : zl_link_up(nl, (unsigned)lo);
}

static int join_namespaces(struct failure *f)
{
    if (setns(ZL_INSIDE_FD_USER, CLONE_NEWUSER) < 0 || setns(ZL_INSIDE_FD_NET, CLONE_NEWNET) < 0 ||
        setns(ZL_INSIDE_FD_MNT, CLONE_NEWNS) < 0)
        return inside_fail(f, -errno, "join the namespaces of before");
    return 0;
}

static int prepare(const struct hold *h, struct report *r)
{
    if (h->join)
        return join_namespaces(&r->f);
    /* What is mounted on the host is seen here, too, later as well; what is mounted here is not seen there. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return inside_fail(&r->f, -errno, "set the propagation of the mounts");
    int e = bring_lo_up();
    if (e < 0)
        return inside_fail(&r->f, e, "bring the loopback link up");
    e = set_sysctls();
    return e < 0 ? inside_fail(&r->f, e, "set up the node's network") : 0;
}

/* Only its end matters: with the outer process, or by its signal. */
static ZL_NORETURN void inner(const struct hold *h, int sync)
{
    struct report r = { .f = { 0 } };
    char byte;
    sigset_t none;
    sigemptyset(&none);
    if (zl_read_full(sync, &byte, 1) != 1)
        _exit(1);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    ZL_IGNORE(prepare(h, &r)); /* told by the report */
    r.overlay = r.f.code < 0 ? r.f.code : zl_overlay_probe(h->folder);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 && r.f.code == 0)
        ZL_IGNORE(inside_fail(&r.f, -errno, "end with the holder"));
    if (zl_write_full(sync, &r, sizeof r) < 0 || r.f.code < 0 || chdir("/") < 0)
        _exit(1);
    /* Also when the other one has died before it was to be noticed. */
    if (zl_read_full(sync, &byte, 1) != 1)
        _exit(1);
    (void)prctl(PR_SET_NAME, "zl-hold-inside", 0, 0, 0);
    for (int fd = 0; fd < 64; fd++)
        (void)close(fd);
    for (;;)
        (void)pause();
}

static pid_t make_inner(const struct hold *h, int sync[2], struct failure *f)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sync) < 0)
        return inside_fail(f, -errno, "make a socket");
    unsigned long flags = h->join ? 0 : CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET;
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        zl_close(sync[0]);
        inner(h, sync[1]);
    }
    int e = errno;
    zl_close(sync[1]);
    return pid < 0 ? inside_fail(f, -e, "make a user namespace") : pid;
}

static int start_inner(struct hold *h, struct report *ret)
{
    static struct zl_idmap map;
    const char *failed;
    int sync[2];
    zl_idmap_own(&map);
    h->inner = make_inner(h, sync, &ret->f);
    if (h->inner < 0)
        return h->inner;
    zl_auto_close int ours = sync[0];
    h->inner_fd = zl_pidfd_open(h->inner);
    int r = h->join ? 0 : zl_idmap_write(h->inner, map.uids, map.gids, &failed);
    if (r < 0)
        return inside_fail(&ret->f, r,
                           *failed == 'u' ? "map the users of the user namespace"
                                          : "map the groups of the user namespace");
    if (h->inner_fd < 0 || zl_write_full(ours, "g", 1) < 0 ||
        zl_read_full(ours, ret, sizeof *ret) != (ssize_t)sizeof *ret)
        return inside_fail(&ret->f, -ECHILD, "make the node's namespaces");
    if (ret->f.code == 0 && zl_write_full(ours, "g", 1) < 0)
        return inside_fail(&ret->f, -ECHILD, "make the node's namespaces");
    return ret->f.code;
}

/* "1 PID START INNER START OVERLAY BOOT": by it the next agent finds us. */
static int write_record(const struct hold *h, const struct report *r)
{
    char boot[ZL_BOOT_ID_SIZE] = "", text[256];
    uint64_t own = 0, inner_start = 0;
    int e = zl_process_start_time(getpid(), &own);
    e = e < 0 ? e : zl_process_start_time(h->inner, &inner_start);
    e = e < 0 ? e : zl_boot_id(boot);
    int n = snprintf(text, sizeof text, "1 %d %llu %d %llu %d %s\n", (int)getpid(), (unsigned long long)own,
                     (int)h->inner, (unsigned long long)inner_start, r->overlay == 0, boot);
    if (e == 0 && (ftruncate(ZL_INSIDE_FD_LOCK, 0) < 0 || pwrite(ZL_INSIDE_FD_LOCK, text, (size_t)n, 0) != n))
        e = -errno;
    return e;
}

static const char *plus(const char *network, uint32_t n, char ret[INET_ADDRSTRLEN])
{
    struct in_addr a = { 0 };
    (void)inet_pton(AF_INET, network, &a);
    a.s_addr = htonl(ntohl(a.s_addr) + n);
    return inet_ntop(AF_INET, &a, ret, INET_ADDRSTRLEN);
}

/* Nothing is forwarded inward, nor to the loopbacks, nor by the gateway's address: what is served comes by the proxy.
 */
static ZL_NORETURN void become_pasta(const struct hold *h)
{
    char user[48], net[48], ours[INET_ADDRSTRLEN], theirs[INET_ADDRSTRLEN];
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    for (size_t i = 0; i < ZL_ARRAY_LEN(ignored); i++)
        (void)signal(ignored[i], SIG_DFL);           /* it gives up where SIGPIPE is ignored already */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* it may lose that; it ends without its namespace, too */
    snprintf(user, sizeof user, "/proc/%d/ns/user", (int)h->inner);
    snprintf(net, sizeof net, "/proc/%d/ns/net", (int)h->inner);
    const char *argv[] = { "pasta",
                           "--foreground",
                           "--quiet",
                           "--config-net",
                           "--ipv4-only",
                           "--ns-ifname",
                           "uplink",
                           "--address",
                           plus(h->uplink, 2, ours),
                           "--netmask",
                           "30",
                           "--gateway",
                           plus(h->uplink, 1, theirs),
                           "--tcp-ports",
                           "none",
                           "--udp-ports",
                           "none",
                           "--tcp-ns",
                           "none",
                           "--udp-ns",
                           "none",
                           "--no-map-gw",
                           "--no-dhcp",
                           "--no-ndp",
                           "--no-dhcpv6",
                           "--no-ra",
                           "--userns",
                           user,
                           "--netns",
                           net,
                           NULL };
    execv(h->pasta, (char *const *)(uintptr_t)argv);
    dprintf(2, "zl-inside: start %s: %s\n", h->pasta, zl_error_text(-errno));
    _exit(127);
}

static void start_pasta(struct hold *h)
{
    if (!h->pasta)
        return;
    h->link_started = zl_clock_mono_ms();
    h->link_due = 0;
    h->link = fork();
    if (h->link == 0)
        become_pasta(h);
    h->link_fd = h->link < 0 ? h->link : zl_pidfd_open(h->link);
    if (h->link < 0) {
        h->link = 0;
        h->link_due = h->link_started + PAUSE_MAX_MS;
    }
}

static void pasta_ended(struct hold *h)
{
    uint64_t now = zl_clock_mono_ms();
    int status;
    if (waitpid(h->link, &status, WNOHANG) != h->link)
        return;
    h->link_fd = zl_close(h->link_fd);
    h->link = 0;
    h->pause_ms = now - h->link_started > STEADY_MS ? PAUSE_MIN_MS : ZL_MIN(h->pause_ms * 2, (unsigned)PAUSE_MAX_MS);
    h->link_due = now + h->pause_ms;
    if (lseek(2, 0, SEEK_END) > LOG_MAX && ftruncate(2, 0) < 0)
        return; /* it goes on without a word */
    dprintf(2, "zl-inside: pasta has ended (status %#x); containers have no way out; again in %u ms\n",
            (unsigned)status, h->pause_ms);
}

static void end_child(pid_t pid)
{
    if (pid <= 0)
        return;
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

static int supervise(struct hold *h, int signals)
{
    for (;;) {
        uint64_t now = zl_clock_mono_ms();
        if (h->link_due && now >= h->link_due)
            start_pasta(h);
        struct pollfd p[] = { { .fd = signals, .events = POLLIN },
                              { .fd = h->inner_fd, .events = POLLIN },
                              { .fd = h->link > 0 ? h->link_fd : -1, .events = POLLIN } };
        int wait = h->link_due ? (int)ZL_MIN(h->link_due - ZL_MIN(now, h->link_due), (uint64_t)PAUSE_MAX_MS) : -1;
        if (poll(p, ZL_ARRAY_LEN(p), wait) < 0)
            continue;
        if (p[2].revents)
            pasta_ended(h);
        if (p[0].revents || p[1].revents)
            break;
    }
    end_child(h->link);
    end_child(h->inner);
    return 0;
}

static int say(const struct failure *f)
{
    char text[300], hint[240];
    inside_explain(f, text, hint);
    dprintf(ZL_INSIDE_FD_READY, "%s\n%s\n", text, hint);
    return 1;
}

int inside_hold(int argc, char **argv)
{
    struct hold h = { .folder = argv[0],
                      .pasta = zl_streq(argv[1], "-") ? NULL : argv[1],
                      .uplink = argv[2],
                      .join = argc > 3 && zl_streq(argv[3], "join"),
                      .inner_fd = -EBADF,
                      .link_fd = -EBADF,
                      .pause_ms = PAUSE_MIN_MS };
    struct report r = { .f = { 0 } };
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &ends, NULL);
    for (size_t i = 0; i < ZL_ARRAY_LEN(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
    (void)fcntl(ZL_INSIDE_FD_LOCK, F_SETFD, FD_CLOEXEC);
    (void)fcntl(ZL_INSIDE_FD_READY, F_SETFD, FD_CLOEXEC);
    (void)prctl(PR_SET_NAME, "zl-hold", 0, 0, 0);
    int signals = signalfd(-1, &ends, SFD_CLOEXEC);
    int e = signals < 0 ? inside_fail(&r.f, -errno, "wait for signals") : start_inner(&h, &r);
    if (e == 0 && (e = write_record(&h, &r)) < 0)
        ZL_IGNORE(inside_fail(&r.f, e, "write the holder's record"));
    for (int fd = ZL_INSIDE_FD_USER; fd <= ZL_INSIDE_FD_NET; fd++)
        (void)close(fd);
    if (e < 0) {
        end_child(h.inner);
        return say(&r.f);
    }
    dprintf(ZL_INSIDE_FD_READY, "ok %d\n", r.overlay);
    (void)close(ZL_INSIDE_FD_READY);
    start_pasta(&h);
    return supervise(&h, signals);
}
