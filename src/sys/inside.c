#include "sys/inside.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ABOVE = 64, WORDS_MAX = 64 };

void zl_inside_done(struct zl_inside *in)
{
    in->user = zl_close(in->user);
    in->mnt = zl_close(in->mnt);
    in->net = zl_close(in->net);
}

static int open_namespace(int pid, const char *name)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE);
    return high < 0 ? -errno : high;
}

int zl_inside_open(struct zl_inside *in, int pid)
{
    struct zl_inside next = *in;
    next.user = open_namespace(pid, "user");
    next.mnt = open_namespace(pid, "mnt");
    next.net = open_namespace(pid, "net");
    if (next.user < 0 || next.mnt < 0 || next.net < 0) {
        int r = next.user < 0 ? next.user : next.mnt < 0 ? next.mnt : next.net;
        zl_inside_done(&next);
        return r;
    }
    zl_inside_done(in);
    *in = next;
    return 0;
}

/* The sources of `pairs` (from, to) are above each target, or the target itself comes first. */
static int run(const char *program, const char *const *argv, const char *const *envp, const int (*pairs)[2],
               unsigned npairs, int *ret_status)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    pid_t pid;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    for (unsigned i = 0; i < npairs; i++)
        posix_spawn_file_actions_adddup2(&files, pairs[i][0], pairs[i][1]);
    int r = -posix_spawn(&pid, program, &files, &attr, (char *const *)(uintptr_t)argv,
                         (char *const *)(uintptr_t)(envp ? envp : (const char *const *)environ));
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (r < 0)
        return r;
    while (waitpid(pid, ret_status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* A descriptor above every target, so that no target overwrites a source. */
static int lift(int fd)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, ABOVE);
    return high < 0 ? -errno : high;
}

static int receive(int from)
{
    char byte;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = { &byte, 1 };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    ssize_t n = recvmsg(from, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    int fd;
    if (!c || c->cmsg_type != SCM_RIGHTS)
        return -EPROTO;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

int zl_inside_socket(const struct zl_inside *in, int family, int type, int protocol)
{
    int ends[2], status = 0;
    char numbers[3][16];
    if (in->net < 0)
        return -ENOTCONN;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    zl_auto_close int here = ends[0];
    zl_auto_close int low = ends[1];
    zl_auto_close int there = lift(low);
    snprintf(numbers[0], sizeof numbers[0], "%d", family);
    snprintf(numbers[1], sizeof numbers[1], "%d", type);
    snprintf(numbers[2], sizeof numbers[2], "%d", protocol);
    const char *argv[] = { "zl-inside", "socket", numbers[0], numbers[1], numbers[2], NULL };
    const int pairs[][2] = {
        { there, 3 }, { in->user, ZL_INSIDE_FD_USER }, { in->mnt, ZL_INSIDE_FD_MNT }, { in->net, ZL_INSIDE_FD_NET }
    };
    int r = there < 0 ? there : run(in->program, argv, NULL, pairs, ZL_ARRAY_LEN(pairs), &status);
    if (r < 0)
        return r;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return WIFEXITED(status) && WEXITSTATUS(status) < 200 ? -WEXITSTATUS(status) : -ECHILD;
    return receive(here);
}

int zl_inside_run(const struct zl_inside *in, const char *const *argv, const char *const *envp, const int streams[3],
                  int *ret_status)
{
    const char *words[WORDS_MAX] = { "zl-inside", "enter", argv[0] };
    unsigned n = 3;
    if (in->net < 0)
        return -ENOTCONN;
    for (const char *const *a = argv; *a; a++) {
        if (n + 1 == WORDS_MAX)
            return -E2BIG;
        words[n++] = *a;
    }
    zl_auto_close int input = lift(streams[0]);
    zl_auto_close int output = lift(streams[1]);
    zl_auto_close int errors = lift(streams[2]);
    if (input < 0 || output < 0 || errors < 0)
        return -EMFILE;
    const int pairs[][2] = { { input, 0 },
                             { output, 1 },
                             { errors, 2 },
                             { in->user, ZL_INSIDE_FD_USER },
                             { in->mnt, ZL_INSIDE_FD_MNT },
                             { in->net, ZL_INSIDE_FD_NET } };
    return run(in->program, words, envp, pairs, ZL_ARRAY_LEN(pairs), ret_status);
}

int zl_inside_spawn(const char *program, const char *const *argv, int out, int *ret_status)
{
    zl_auto_close int high = lift(out);
    const int pairs[][2] = { { high, 1 } };
    return high < 0 ? high : run(program, argv, NULL, pairs, ZL_ARRAY_LEN(pairs), ret_status);
}

int zl_inside_remove(const char *program, int dir, const char *const *names)
{
    const char *words[WORDS_MAX] = { "zl-inside", "remove" };
    unsigned n = 2;
    int status = 0;
    for (const char *const *a = names; *a && n + 1 < WORDS_MAX; a++)
        words[n++] = *a;
    zl_auto_close int high = lift(dir);
    const int pairs[][2] = { { high, 3 } };
    int r = high < 0 ? high : run(program, words, NULL, pairs, 1, &status);
    return r < 0 ? r : WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EACCES;
}
