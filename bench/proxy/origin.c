/*
 * The origin behind the proxies of bench/proxy: one thread, epoll, a canned reply for each whole request head, kept
 * connections. `origin PORT`; GET /N replies with N bytes. It does as little as an origin can, so that the proxy before
 * it is what is measured.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_BODY = 1 << 20, MAX_FDS = 65536 };

static char reply[MAX_BODY + 256];
static struct {
    size_t have, left;
    char in[4096];
    const char *out;
} * conns[MAX_FDS];

static size_t body_size, reply_size;
static const char *reply_start;

static void prepare(size_t n)
{
    if (n == body_size && reply_start)
        return;
    char head[128];
    int h =
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", n);
    memcpy(reply, head, (size_t)h);
    memset(reply + h, 'x', n);
    reply_start = reply;
    reply_size = (size_t)h + n;
    body_size = n;
}

static void drop(int fd)
{
    close(fd);
    free(conns[fd]);
    conns[fd] = NULL;
}

static void serve(int fd)
{
    for (;;) {
        while (conns[fd]->left) {
            ssize_t n = send(fd, conns[fd]->out, conns[fd]->left, MSG_NOSIGNAL);
            if (n < 0) {
                if (errno != EAGAIN)
                    drop(fd);
                return;
            }
            conns[fd]->out += n;
            conns[fd]->left -= (size_t)n;
        }
        char *in = conns[fd]->in;
        in[conns[fd]->have] = 0;
        char *end = strstr(in, "\r\n\r\n");
        if (end) {
            size_t used = (size_t)(end + 4 - in);
            size_t n = strtoul(in + 5, NULL, 10);
            prepare(n < MAX_BODY ? n : MAX_BODY);
            conns[fd]->have -= used;
            memmove(in, in + used, conns[fd]->have);
            conns[fd]->out = reply_start;
            conns[fd]->left = reply_size;
            continue;
        }
        ssize_t n = recv(fd, in + conns[fd]->have, sizeof conns[fd]->in - 1 - conns[fd]->have, 0);
        if (n <= 0) {
            if (n == 0 || errno != EAGAIN)
                drop(fd);
            return;
        }
        conns[fd]->have += (size_t)n;
    }
}

int main(int argc, char **argv)
{
    int on = 1, port = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    struct sockaddr_in sa = { .sin_family = AF_INET,
                              .sin_port = htons((unsigned short)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(listener, 4096) < 0) {
        perror("origin");
        return 1;
    }
    struct epoll_event e = { .events = EPOLLIN, .data.fd = listener }, events[128];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, events, 128, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (conns[fd])
                    serve(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0 && fd < MAX_FDS) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                conns[fd] = calloc(1, sizeof *conns[fd]);
                e = (struct epoll_event){ .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd };
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            }
        }
    }
}
