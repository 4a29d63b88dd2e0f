/* Descriptors that are given to who asked for them: the listener of a filter, a process (--pidfd-socket). */
#include "ocirun/ocirun.h"

#include "base/fd.h"
#include "sys/process.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

int ocirun_connect(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : ZL_TAKE_FD(fd);
}

/* One message, as receivers take the descriptor with the first, and that for the whole text. */
int ocirun_send_fd(int to, struct zl_str text, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec data = { (char *)(uintptr_t)text.p, text.n };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    ssize_t n = sendmsg(to, &m, MSG_NOSIGNAL);
    if (n < 0)
        return -errno;
    while ((size_t)n < text.n) {
        ssize_t more = send(to, text.p + n, text.n - (size_t)n, MSG_NOSIGNAL); /* who hears it may end */
        if (more < 0 && errno != EINTR)
            return -errno;
        n += ZL_MAX(more, (ssize_t)0);
    }
    return 0;
}

int ocirun_send_pidfd(struct ocirun *r, pid_t pid)
{
    const char *path = r->o.pidfd_socket;
    zl_auto_close int to = ocirun_connect(path);
    zl_auto_close int pidfd = to < 0 ? to : zl_pidfd_open(pid);
    int e = pidfd < 0 ? pidfd : ocirun_send_fd(to, ZL_STR("pidfd"), pidfd);
    return e < 0 ? zl_fail(&r->err, e, "--pidfd-socket: send the process to %s", path) : 0;
}
