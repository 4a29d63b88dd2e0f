#include "net/proxy/bind.h"

#include "base/fd.h"
#include "net/proxy/snapshot.h"

#include <sys/socket.h>

enum { BACKLOG = 4096 };

static int bind_to(const struct sockaddr_storage *sa, socklen_t len, int *ret)
{
    zl_auto_close int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* REUSEADDR only lets old connections in TIME_WAIT not stand in the way; a port that is listened on stays taken. */
    int on = 1, off = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        return -errno;
    if (sa->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)sa, len) < 0 || listen(fd, BACKLOG) < 0)
        return -errno;
    *ret = ZL_TAKE_FD(fd);
    return 0;
}

static int report(int r, const char *where, uint16_t port, struct zl_err *err)
{
    if (r == -EADDRINUSE) {
        zl_fail_errno(err, ZL_E_PORT_TAKEN, r, "listen on %s port %u", where, port);
        return zl_hint(err, ZL_E_PORT_TAKEN, "another program listens there: `ss -ltnp 'sport = :%u'` shows it", port);
    }
    if (r == -EACCES || r == -EPERM) {
        zl_fail_errno(err, ZL_E_PERMISSION, r, "listen on %s port %u", where, port);
        return zl_hint(
            err, ZL_E_PERMISSION,
            "ports below net.ipv4.ip_unprivileged_port_start need root: use a higher port, or lower that sysctl");
    }
    return zl_fail(err, r, "listen on %s port %u", where, port);
}

int zl_px_bind_public(uint16_t port, struct zl_err *err)
{
    struct sockaddr_storage sa;
    uint8_t any[16] = { 0 };
    int fd;
    socklen_t n = zl_px_sockaddr(any, port, &sa);
    int r = bind_to(&sa, n, &fd);
    if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL) { /* no IPv6 here */
        any[10] = any[11] = 0xff;
        n = zl_px_sockaddr(any, port, &sa);
        r = bind_to(&sa, n, &fd);
    }
    return r < 0 ? report(r, "every address,", port, err) : fd;
}

int zl_px_bind_at(const char *address, uint16_t port, struct zl_err *err)
{
    uint8_t bytes[16];
    if (zl_px_address(address, bytes) < 0)
        return zl_fail(err, ZL_E_INVALID, "'%s' is no address", address);
    struct sockaddr_storage sa;
    int fd;
    socklen_t n = zl_px_sockaddr(bytes, port, &sa);
    int r = bind_to(&sa, n, &fd);
    return r < 0 ? report(r, address, port, err) : fd;
}
