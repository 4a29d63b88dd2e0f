/*
 * A web server of a few lines: `/` says which replica answers, `/health` that it lives; a line a request on stdout;
 * SIGTERM ends it. One request a connection, one at a time: enough to see replicas, not to serve the world.
 * `hello check` asks the server beside it for its health.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void end(int sig)
{
    (void)sig;
    ended = 1;
}

static int serve(int port)
{
    struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any };
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int on = 1, s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0;
    if (s >= 0 && setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 &&
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(s, (struct sockaddr *)&a, sizeof a) == 0 &&
        listen(s, 128) == 0)
        return s;
    if (s >= 0)
        close(s);
    s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* a kernel without IPv6 */
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(s, (struct sockaddr *)&a4, sizeof a4) < 0 || listen(s, 128) < 0)
        return -1;
    return s;
}

/* Reads up to the empty line behind the headers; 1 when there is a whole head. */
static int read_head(int c, char *head, size_t size)
{
    size_t n = 0;
    while (n + 1 < size && !ended) {
        ssize_t r = read(c, head + n, size - 1 - n);
        if (r <= 0)
            return 0;
        n += (size_t)r;
        head[n] = 0;
        if (strstr(head, "\r\n\r\n"))
            return 1;
    }
    return 0;
}

static void answer(int c, const char *host)
{
    char head[8192], path[1024], body[512], reply[1024];
    if (!read_head(c, head, sizeof head) || sscanf(head, "%*15s %1023s", path) != 1)
        return;
    int status = 200;
    if (strcmp(path, "/health") == 0) {
        snprintf(body, sizeof body, "ok\n");
    } else if (strcmp(path, "/") == 0) {
        snprintf(body, sizeof body, "hello from %s\n", host);
    } else {
        status = 404;
        snprintf(body, sizeof body, "nothing here\n");
    }
    int n = snprintf(reply, sizeof reply,
                     "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                     status, status == 200 ? "OK" : "Not Found", strlen(body), body);
    if (strcmp(path, "/health") != 0)
        printf("%s %s %d\n", host, path, status);
    for (int at = 0; at < n;) {
        ssize_t w = write(c, reply + at, (size_t)(n - at));
        if (w <= 0)
            return;
        at += (int)w;
    }
}

static int check(void)
{
    static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(8080), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    char reply[1024];
    size_t n = 0;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof a) < 0 || write(s, request, sizeof request - 1) < 0) {
        fprintf(stderr, "hello: nobody answers on port 8080: %s\n", strerror(errno));
        return 1;
    }
    for (ssize_t r; n + 1 < sizeof reply && (r = read(s, reply + n, sizeof reply - 1 - n)) > 0;)
        n += (size_t)r;
    reply[n] = 0;
    close(s);
    const char *body = strstr(reply, "\r\n\r\n");
    printf("%s", body ? body + 4 : "no reply\n");
    return body ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "check") == 0)
        return check();
    char host[256] = "?";
    long port = argc > 1 ? strtol(argv[1], NULL, 10) : 8080;
    struct sigaction sa = { .sa_handler = end }; /* without SA_RESTART: accept returns */
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    (void)gethostname(host, sizeof host - 1);
    int s = port > 0 && port < 65536 ? serve((int)port) : -1;
    if (s < 0) {
        fprintf(stderr, "hello: can't listen on port %ld: %s\n", port, strerror(errno));
        return 1;
    }
    printf("%s listens on %ld\n", host, port);
    while (!ended) {
        int c = accept4(s, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0)
            continue;
        struct timeval patience = { .tv_sec = 5 };
        setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        answer(c, host);
        shutdown(c, SHUT_WR);
        close(c);
    }
    printf("%s ends\n", host);
    return 0;
}
