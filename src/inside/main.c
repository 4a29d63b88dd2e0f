/*
 * zl-inside: `map PROGRAM ARGV…` becomes a program in a user namespace of its own (zl-image), `enter PROGRAM ARGV…` one
 * in the holder's namespaces (zl-shim, zl-proxy, nft), `socket` hands a socket of the node's network out, `remove`
 * takes trees away whose files are other ids', `check` says whether any of this is possible, `hold` is the holder.
 */
#include "inside/inside.h"

#include "base/error.h"
#include "base/fd.h"
#include "sys/inside.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NO_PROGRAM = 127 };

int inside_fail(struct failure *f, int code, const char *step)
{
    f->code = code;
    snprintf(f->step, sizeof f->step, "%s", step);
    return code;
}

void inside_explain(const struct failure *f, char text[300], char hint[240])
{
    bool namespaces = strncmp(f->step, "make", 4) == 0;
    snprintf(text, 300, "%s: %s", f->step, zl_error_text(f->code));
    *hint = 0;
    if (namespaces && (f->code == -EPERM || f->code == -EACCES))
        snprintf(
            hint, 240,
            "an ordinary user needs user namespaces: kernel.unprivileged_userns_clone=1 (Debian), "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), no filter of a container around it; or be root");
    else if (namespaces && (f->code == -ENOSPC || f->code == -EUSERS))
        snprintf(hint, 240, "user.max_user_namespaces is 0 or used up: raise it by sysctl, or run as root");
    else if (namespaces)
        snprintf(hint, 240, "this kernel has no user namespaces (CONFIG_USER_NS): run as root");
    else if (strncmp(f->step, "map", 3) == 0)
        snprintf(hint, 240,
                 "newuidmap and newgidmap must be setuid root and /etc/subuid and /etc/subgid must give this user what "
                 "they name; `zlayer doctor` looks");
}

/* Who writes the maps stays outside, as only there the user has a say over the own ids. */
static pid_t start_mapper(const struct zl_idmap *map, int go[2])
{
    pid_t self = getpid();
    if (pipe2(go, O_CLOEXEC) < 0)
        return -errno;
    pid_t mapper = fork();
    if (mapper != 0)
        return mapper < 0 ? -errno : mapper;
    char byte;
    const char *failed = "users";
    zl_close(go[1]);
    if (zl_read_full(go[0], &byte, 1) != 1)
        _exit(0);
    int r = zl_idmap_write(self, map->uids, map->gids, &failed);
    _exit(r == 0 ? 0 : *failed == 'u' ? 1 : 2);
}

int inside_map(struct failure *f)
{
    static struct zl_idmap map;
    int go[2] = { -EBADF, -EBADF }, status = 0;
    zl_idmap_own(&map);
    pid_t mapper = start_mapper(&map, go);
    if (mapper < 0)
        return inside_fail(f, mapper, "start a helper");
    int r = unshare(CLONE_NEWUSER) < 0 ? inside_fail(f, -errno, "make a user namespace") : 0;
    if (r == 0)
        ZL_IGNORE(zl_write_full(go[1], "g", 1)); /* its status says it */
    zl_close(go[0]);
    zl_close(go[1]);
    while (waitpid(mapper, &status, 0) < 0 && errno == EINTR) {
    }
    if (r == 0 && status != 0)
        r = inside_fail(f, -EPERM,
                        WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "map the groups of the user namespace"
                                                                      : "map the users of the user namespace");
    return r;
}

/* The event of an image job, whose place we take. */
static int map_and_run(char **argv)
{
    struct failure f;
    if (inside_map(&f) < 0) {
        char text[300], hint[240];
        inside_explain(&f, text, hint);
        printf("{\"event\":\"error\",\"code\":\"%s\",\"message\":\"%s\",\"hint\":\"%s\"}\n",
               zl_error_name(ZL_E_PERMISSION), text, hint);
        return zl_error_exit(ZL_E_PERMISSION);
    }
    execv(argv[0], argv + 1);
    printf("{\"event\":\"error\",\"code\":\"%s\",\"message\":\"start the image job's program: %s\"}\n",
           zl_error_name(ZL_E_INTERNAL), zl_error_text(-errno));
    return NO_PROGRAM;
}

static ZL_NORETURN void check(void)
{
    struct failure f;
    char text[300], hint[240];
    int r = inside_map(&f);
    if (r == 0 && unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        r = inside_fail(&f, -errno, "make namespaces in a user namespace");
    if (r < 0) {
        inside_explain(&f, text, hint);
        printf("%s\n%s\n", text, hint);
    }
    /* A process that waits for its first child in a new process namespace can make no thread, which the leak checker of
     * sanitizer builds wants to at an orderly end. */
    (void)fflush(stdout);
    _exit(r < 0);
}

static int enter_all(void)
{
    static const int order[][2] = { { ZL_INSIDE_FD_USER, CLONE_NEWUSER },
                                    { ZL_INSIDE_FD_NET, CLONE_NEWNET },
                                    { ZL_INSIDE_FD_MNT, CLONE_NEWNS } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(order); i++)
        if (setns(order[i][0], order[i][1]) < 0)
            return -errno;
    for (int fd = ZL_INSIDE_FD_USER; fd <= ZL_INSIDE_FD_PROGRAM; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* A folder that was opened outside is on a mount of outside, which overlayfs does not take: the same one by its path.
 */
static int open_here(int fd)
{
    char link[40], path[4096];
    struct stat before, after;
    if (fstat(fd, &before) < 0 || !S_ISDIR(before.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return -errno;
    path[n] = 0;
    zl_auto_close int here = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (here < 0 || fstat(here, &after) < 0)
        return here < 0 ? here : -errno;
    if (before.st_ino != after.st_ino || before.st_dev != after.st_dev)
        return -ESTALE;
    return dup2(here, fd) < 0 ? -errno : 0;
}

static int enter_and_run(char **argv)
{
    int r = enter_all();
    for (int fd = 3; fd < ZL_INSIDE_FD_USER && r == 0; fd++)
        r = open_here(fd);
    if (r < 0) {
        fprintf(stderr, "zl-inside: enter the holder's namespaces: %s\n", zl_error_text(r));
        return NO_PROGRAM;
    }
    execv(argv[0], argv + 1);
    fprintf(stderr, "zl-inside: start %s: %s\n", argv[0], zl_error_text(-errno));
    return NO_PROGRAM;
}

static int send_socket(char **argv)
{
    uint64_t v[3];
    for (int i = 0; i < 3; i++)
        if (zl_parse_u64(zl_str(argv[i]), 0, INT32_MAX, &v[i]) < 0)
            return EINVAL;
    int r = enter_all();
    int fd = r < 0 ? r : socket((int)v[0], (int)v[1] | SOCK_CLOEXEC, (int)v[2]);
    if (fd < 0)
        return r < 0 ? -r : errno;
    char byte = 's';
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec data = { &byte, 1 };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(3, &m, MSG_NOSIGNAL) == 1 ? 0 : errno;
}

static int remove_trees(char **names)
{
    struct failure f;
    int r = inside_map(&f);
    for (; *names && r == 0; names++)
        r = strchr(*names, '/') ? -EINVAL : zl_remove_tree(3, *names);
    return r < 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (zl_streq(verb, "map") && argc > 3)
        return map_and_run(argv + 2);
    if (zl_streq(verb, "enter") && argc > 3)
        return enter_and_run(argv + 2);
    if (zl_streq(verb, "socket") && argc == 5)
        return send_socket(argv + 2);
    if (zl_streq(verb, "remove") && argc > 2)
        return remove_trees(argv + 2);
    if (zl_streq(verb, "check") && argc == 2)
        check();
    if (zl_streq(verb, "hold") && argc > 4)
        return inside_hold(argc - 2, argv + 2);
    fputs("zl-inside is started by zlayer and zlayerd; there is no use in starting it by hand\n", stderr);
    return 2;
}
