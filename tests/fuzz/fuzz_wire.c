/* A message of the proxy's control socket, with a descriptor beside it: taken whole, or refused without keeping it. */
#include "base/assert.h"
#include "base/fd.h"
#include "net/proxy/wire.h"

#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
    struct iovec iov = { (void *)(uintptr_t)data, size };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    if (size > 2 * ZL_PX_WIRE_MAX)
        return 0;
    zl_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    memcpy(CMSG_DATA(&control.header), &ends[0], sizeof ends[0]);
    zl_assert(sendmsg(ends[0], &m, MSG_NOSIGNAL) == (ssize_t)size);
    zl_close(ends[0]);
    struct zl_px_in in = { .fd = -EBADF };
    if (zl_px_receive(ends[1], &in) == 0) {
        zl_assert(in.fd >= 0 && strnlen(in.text, sizeof in.text) < sizeof in.text);
        zl_close(in.fd);
    } else {
        zl_assert(in.fd == -EBADF);
    }
    zl_close(ends[1]);
    return 0;
}
