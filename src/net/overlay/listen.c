#include "net/overlay/node_net.h"

#include "base/fd.h"
#include "sys/ns.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

struct listener {
    const struct zl_inside *inside; /* the socket is one of that network; NULL: of the calling thread's */
    const struct in_addr *addr;     /* NULL: all addresses of both families */
    uint16_t port;
    int fd;
};

static int make_socket(const struct zl_inside *inside, int family)
{
    if (inside) /* wherever it is bound from, its addresses are those of where it was made */
        return zl_inside_socket(inside, family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

static int listen_at(const struct zl_inside *inside, int family, const struct sockaddr *sa, socklen_t n)
{
    zl_auto_close int fd = make_socket(inside, family);
    if (fd < 0)
        return fd;
    /* REUSEADDR only lets us take a port whose old connections are still in TIME_WAIT. */
    int on = 1, off = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        return -errno;
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
        return -errno;
    if (bind(fd, sa, n) < 0 || listen(fd, 4096) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

static int make_listener(void *arg)
{
    struct listener *l = arg;
    l->fd = -EAFNOSUPPORT;
    if (!l->addr) {
        struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(l->port), .sin6_addr = in6addr_any };
        l->fd = listen_at(l->inside, AF_INET6, (const struct sockaddr *)&any, sizeof any);
    }
    /* A host without IPv6, built in or switched off, says one of these. */
    if (l->addr || l->fd == -EAFNOSUPPORT || l->fd == -EADDRNOTAVAIL) {
        struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(l->port) };
        sa.sin_addr = l->addr ? *l->addr : (struct in_addr){ htonl(INADDR_ANY) };
        l->fd = listen_at(l->inside, AF_INET, (const struct sockaddr *)&sa, sizeof sa);
    }
    return l->fd < 0 ? l->fd : 0;
}

int zl_node_net_listen(const struct zl_node_net *nn, enum zl_net_side side, const struct in_addr *addr, uint16_t port,
                       struct zl_err *err)
{
    struct listener l = { side == ZL_NET_INSIDE ? zl_node_net_inside(nn) : NULL, addr, port, -EBADF };
    int r =
        side == ZL_NET_INSIDE && !l.inside ? zl_netns_run(zl_node_net_fd(nn), make_listener, &l) : make_listener(&l);
    char text[INET_ADDRSTRLEN] = "all addresses";
    if (addr)
        (void)inet_ntop(AF_INET, addr, text, sizeof text);
    return r < 0 ? zl_fail(err, r, "listen on port %u of %s", (unsigned)port, text) : l.fd;
}
