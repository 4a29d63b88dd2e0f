/*
 * What tests run inside containers: one static program that does as its arguments say, in order.
 *
 *   serve PORT          answer HTTP/1.1 requests with "HOSTNAME COUNT\n" for ever (keep-alive; /health too)
 *   lines RATE          from now on write numbered lines "line N" to stdout, RATE a second (a child does it)
 *   say TEXT            write a line
 *   err TEXT            write a line to stderr
 *   sleep MS            wait
 *   alloc MIB           touch that much memory and keep it
 *   child-alloc MIB     a child does, and is waited for
 *   burn MS             use the processor for so long
 *   cat PATH            print a file
 *   ls PATH             print the names in a folder, with where links lead
 *   get ADDRESS:PORT    connect, ask for / and write the reply's last line, or why there is none
 *   key NAME            whether a key of type user is found in the session keyring
 *   exit CODE           end
 *   signal N            end by that signal (its default action)
 *   forever             wait for SIGTERM, then end with 0
 *   until-term CODE     wait for SIGTERM, then end with CODE
 *   until-signal N      wait for that signal and no other, say so, end
 *   echo                write what is read to the other end, until its end; then "end"
 *   slow-echo MS        the same, with a pause before
 *   fill KIB            write so much of a pattern to stdout at once
 *   line KIB            write one line of so much, of all bytes but the newline
 *   hex TEXT            write the bytes of that many hexadecimal digits
 *   direct KIB          write so much to a file past the cache, or say why not
 *   touch PATH          make a file
 *   open PATH           open a file to read, and say whether that goes
 *   tty                 say whether input is a terminal, its size, whether it is the controlling one
 *   size                say the terminal's size whenever it changes, for ever
 *   children N          make so many processes that wait
 *   orphan MS           a child's child stays for so long, its parent ends at once
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
    stop = sig;
}

static long number(const char *s)
{
    char *end;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (errno || *end || end == s || v < 0) {
        fprintf(stderr, "workload: not a number: %s\n", s);
        exit(2);
    }
    return v;
}

static long long now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long long)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void pause_ms(long ms)
{
    long long end = now_ns() + ms * 1000000LL;
    while (!stop && now_ns() < end) {
        struct timespec ts = { 0, 5000000 };
        nanosleep(&ts, NULL);
    }
}

/* A batch every 10 ms, until the pipe breaks or SIGTERM comes; the last number is said on the way out. */
static void lines(long rate)
{
    if (fork() != 0)
        return;
    long long start = now_ns(), written = 0;
    static char batch[1 << 20];
    while (!stop) {
        long long due = (now_ns() - start) / 1000 * rate / 1000000;
        size_t n = 0;
        while (written < due && n < sizeof batch - 64)
            n += (size_t)snprintf(batch + n, 64, "line %lld\n", ++written);
        for (size_t done = 0; done < n;) {
            ssize_t w = write(1, batch + done, n - done);
            if (w < 0 && errno != EINTR)
                _exit(1);
            done += w > 0 ? (size_t)w : 0;
        }
        struct timespec ts = { 0, 10000000 };
        nanosleep(&ts, NULL);
    }
    _exit(0);
}

static void alloc(long mib)
{
    for (long i = 0; i < mib; i++) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            exit(3);
        memset(p, 1, 1 << 20);
    }
}

static void child_alloc(long mib)
{
    pid_t pid = fork();
    if (pid == 0) {
        alloc(mib);
        _exit(0);
    }
    int status = 0;
    (void)waitpid(pid, &status, 0);
    printf("child %s %d\n", WIFSIGNALED(status) ? "signal" : "exit",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
}

static int listener(long port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 512) < 0) {
        perror("workload: serve");
        exit(1);
    }
    return fd;
}

static void answer(int fd, const char *host, unsigned long count)
{
    char body[128], head[256];
    int n = snprintf(body, sizeof body, "%s %lu\n", host, count);
    int h = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
                     n, body);
    (void)!write(fd, head, (size_t)h);
}

/* Requests are taken to be without a body, and one read holds whole ones: enough for tests on a fast network. */
static void serve(long port)
{
    enum { MAX = 1000 };
    static struct pollfd fds[MAX];
    char host[65] = "", buf[65536];
    gethostname(host, sizeof host - 1);
    unsigned long count = 0;
    int n = 1;
    fds[0] = (struct pollfd){ .fd = listener(port), .events = POLLIN };
    while (!stop) {
        if (poll(fds, (nfds_t)n, -1) < 0)
            continue;
        if ((fds[0].revents & POLLIN) && n < MAX) {
            int c = accept(fds[0].fd, NULL, NULL);
            if (c >= 0)
                fds[n++] = (struct pollfd){ .fd = c, .events = POLLIN };
        }
        for (int i = n - 1; i > 0; i--) {
            if (!fds[i].revents)
                continue;
            ssize_t r = read(fds[i].fd, buf, sizeof buf - 1);
            if (r <= 0) {
                close(fds[i].fd);
                fds[i] = fds[--n];
                continue;
            }
            buf[r] = 0;
            for (char *p = buf; (p = strstr(p, "\r\n\r\n")) != NULL; p += 4)
                answer(fds[i].fd, host, ++count);
        }
    }
    exit(0);
}

static void cat(const char *path)
{
    char buf[4096];
    size_t n;
    FILE *f = fopen(path, "r");
    if (!f) {
        printf("%s: %s\n", path, strerror(errno));
        fflush(stdout);
        return;
    }
    while ((n = fread(buf, 1, sizeof buf, f)) > 0)
        fwrite(buf, 1, n, stdout);
    fclose(f);
    fflush(stdout);
}

static void ls(const char *path)
{
    char target[4096];
    DIR *d = opendir(path);
    struct dirent *e;
    if (!d) {
        printf("%s: %s\n", path, strerror(errno));
        fflush(stdout);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
        printf("%s%s%.*s\n", e->d_name, n < 0 ? "" : " -> ", n < 0 ? 0 : (int)n, target);
    }
    closedir(d);
    fflush(stdout);
}

static void get(const char *where)
{
    char host[64], buf[4096];
    const char *colon = strrchr(where, ':');
    struct sockaddr_in a = { .sin_family = AF_INET };
    struct timeval tv = { .tv_sec = 3 };
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - where) : 0, where);
    if (!colon || inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        fprintf(stderr, "workload: not ADDRESS:PORT: %s\n", where);
        exit(2);
    }
    a.sin_port = htons((unsigned short)number(colon + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0), n = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv); /* of connect, too */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    n = snprintf(buf, sizeof buf, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", where);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 || write(fd, buf, (size_t)n) != n) {
        printf("%s: %s\n", where, strerrorname_np(errno));
    } else {
        size_t got = 0;
        ssize_t r;
        while (got < sizeof buf - 1 && (r = read(fd, buf + got, sizeof buf - 1 - got)) > 0) {
            got += (size_t)r;
            buf[got] = 0;
            if (strstr(buf, "\r\n\r\n") && buf[got - 1] == '\n' && !strstr(buf + got - 4, "\r\n\r\n"))
                break;
        }
        buf[got] = 0;
        char *body = strstr(buf, "\r\n\r\n");
        printf("%s: %s", where, body && body[4] ? body + 4 : got ? "no body\n" : "no reply\n");
    }
    fflush(stdout);
    close(fd);
}

static void write_all(const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t w = write(1, (const char *)p + done, n - done);
        if (w < 0 && errno != EINTR)
            exit(1);
        done += w > 0 ? (size_t)w : 0;
    }
}

static void echo(void)
{
    char buf[4096];
    ssize_t n;
    while ((n = read(0, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR))
        write_all(buf, n > 0 ? (size_t)n : 0);
    dprintf(1, "end\n");
}

/* Byte i is i mod 251, as tests expect it. */
static void fill(long kib)
{
    static unsigned char block[251 * 256];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (unsigned char)(i % 251);
    for (size_t left = (size_t)kib * 1024; left > 0;) {
        size_t n = left < sizeof block ? left : sizeof block;
        write_all(block, n);
        left -= n;
    }
}

static void line(long kib)
{
    static char block[1024];
    for (long k = 0; k < kib; k++) {
        for (size_t i = 0; i < sizeof block; i++) {
            size_t byte = ((size_t)k * sizeof block + i) % 251;
            block[i] = (char)(byte == '\n' ? 255 : byte);
        }
        write_all(block, sizeof block);
    }
    write_all("\n", 1);
}

static void hex(const char *text)
{
    for (; text[0] && text[1]; text += 2) {
        char two[3] = { text[0], text[1], 0 }, byte = (char)strtol(two, NULL, 16);
        write_all(&byte, 1);
    }
}

static void say_size(void)
{
    struct winsize w = { 0 };
    int r = ioctl(0, TIOCGWINSZ, &w);
    dprintf(1, "size %d %d %d\n", r, w.ws_row, w.ws_col);
}

static void on_size(int sig)
{
    (void)sig;
    say_size();
}

static void tty(void)
{
    int fd = open("/dev/tty", O_RDWR);
    struct stat st = { 0 };
    dprintf(1, "tty %d %d %d controlling %s leader %s", isatty(0), isatty(1), isatty(2), fd >= 0 ? "yes" : "no",
            getsid(0) == getpid() ? "yes" : "no");
    (void)fstat(0, &st);
    dprintf(1, " owner %d\n", (int)st.st_uid);
    close(fd);
    say_size();
}

static void direct(long kib)
{
    enum { BLOCK = 64 * 1024 };
    void *block = NULL;
    int fd = open("/direct", O_WRONLY | O_CREAT | O_DIRECT, 0644);
    if (fd < 0 || posix_memalign(&block, 4096, BLOCK) != 0) {
        dprintf(1, "direct: %s\n", strerrorname_np(errno));
        return;
    }
    memset(block, 'd', BLOCK);
    for (long left = kib * 1024; left > 0; left -= BLOCK)
        if (write(fd, block, BLOCK) != BLOCK) {
            dprintf(1, "direct: %s\n", strerrorname_np(errno));
            return;
        }
    (void)fsync(fd);
    free(block);
    dprintf(1, "direct: written\n");
}

static void children(long n)
{
    for (long i = 0; i < n; i++)
        if (fork() == 0)
            for (;;)
                pause();
}

static void orphan(long ms)
{
    if (fork() == 0) {
        if (fork() == 0) {
            close(0);
            close(1);
            close(2);
            pause_ms(ms);
        }
        _exit(0);
    }
    (void)wait(NULL);
}

int main(int argc, char **argv)
{
    struct sigaction sa = { .sa_handler = on_term };
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i < argc; i++) {
        const char *verb = argv[i];
        if (strcmp(verb, "forever") == 0) {
            while (!stop)
                pause_ms(1000);
            return 0;
        }
        if (strcmp(verb, "echo") == 0) {
            echo();
            continue;
        }
        if (strcmp(verb, "tty") == 0) {
            tty();
            continue;
        }
        if (strcmp(verb, "size") == 0) {
            struct sigaction resized = { .sa_handler = on_size };
            sigaction(SIGWINCH, &resized, NULL);
            say_size();
            while (!stop)
                pause();
            return 0;
        }
        const char *arg = i + 1 < argc ? argv[++i] : "";
        if (strcmp(verb, "say") == 0 || strcmp(verb, "err") == 0) {
            dprintf(verb[0] == 's' ? 1 : 2, "%s\n", arg);
        } else if (strcmp(verb, "cat") == 0) {
            cat(arg);
        } else if (strcmp(verb, "ls") == 0) {
            ls(arg);
        } else if (strcmp(verb, "key") == 0) {
            long key = syscall(SYS_request_key, "user", arg, NULL, 0);
            dprintf(1, "%s\n", key >= 0 ? "found" : strerrorname_np(errno));
        } else if (strcmp(verb, "serve") == 0) {
            serve(number(arg));
        } else if (strcmp(verb, "get") == 0) {
            get(arg);
        } else if (strcmp(verb, "lines") == 0) {
            lines(number(arg));
        } else if (strcmp(verb, "sleep") == 0) {
            pause_ms(number(arg));
        } else if (strcmp(verb, "slow-echo") == 0) {
            pause_ms(number(arg));
            echo();
        } else if (strcmp(verb, "fill") == 0) {
            fill(number(arg));
        } else if (strcmp(verb, "line") == 0) {
            line(number(arg));
        } else if (strcmp(verb, "hex") == 0) {
            hex(arg);
        } else if (strcmp(verb, "touch") == 0) {
            int fd = open(arg, O_WRONLY | O_CREAT, 0644);
            if (fd < 0 || close(fd) < 0)
                return 1;
        } else if (strcmp(verb, "open") == 0) {
            int fd = open(arg, O_RDONLY | O_NONBLOCK | O_NOCTTY);
            dprintf(1, "%s: %s\n", arg, fd >= 0 ? "open" : strerrorname_np(errno));
        } else if (strcmp(verb, "direct") == 0) {
            direct(number(arg));
        } else if (strcmp(verb, "children") == 0) {
            children(number(arg));
        } else if (strcmp(verb, "orphan") == 0) {
            orphan(number(arg));
        } else if (strcmp(verb, "alloc") == 0) {
            alloc(number(arg));
        } else if (strcmp(verb, "child-alloc") == 0) {
            child_alloc(number(arg));
        } else if (strcmp(verb, "burn") == 0) {
            for (long long end = now_ns() + number(arg) * 1000000LL; now_ns() < end;) {
            }
        } else if (strcmp(verb, "exit") == 0) {
            return (int)number(arg);
        } else if (strcmp(verb, "until-term") == 0) {
            while (!stop)
                pause_ms(1000);
            return (int)number(arg);
        } else if (strcmp(verb, "until-signal") == 0) {
            sigaction((int)number(arg), &sa, NULL);
            while (stop != (int)number(arg))
                pause_ms(1000);
            printf("ended by signal %d\n", (int)stop);
            return 0;
        } else if (strcmp(verb, "signal") == 0) {
            signal((int)number(arg), SIG_DFL);
            raise((int)number(arg));
        } else {
            fprintf(stderr, "workload: no verb '%s'\n", verb);
            return 2;
        }
    }
    return 0;
}
