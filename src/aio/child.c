#include "aio/child.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct zl_child {
    struct zl_loop *loop;
    pid_t pid;
    int pidfd;
    struct zl_watch *watch;
    void (*exited)(void *arg, int status);
    void *arg;
};

static void ended(void *arg, int events)
{
    struct zl_child *c = arg;
    int status = 0;
    (void)events;
    if (waitpid(c->pid, &status, WNOHANG) != c->pid)
        return;
    zl_watch_free(c->watch);
    zl_close(c->pidfd);
    void (*exited)(void *, int) = c->exited;
    void *a = c->arg;
    free(c);
    if (exited)
        exited(a, status);
}

/*
 * posix_spawn's dup2 actions run in order, so a source that is also somebody's target would be overwritten: all sources
 * are first lifted above every target. close_range is what closes the rest; everything is CLOEXEC anyway.
 */
static int file_actions(posix_spawn_file_actions_t *fa, const struct zl_child_options *o, int *lifted)
{
    int above = 16;
    for (unsigned i = 0; i < o->nfds; i++)
        above = ZL_MAX(above, o->fds[i].to + 1);
    for (int fd = 0; fd <= 2; fd++) {
        bool named = false;
        for (unsigned i = 0; i < o->nfds; i++)
            named |= o->fds[i].to == fd;
        if (!named)
            posix_spawn_file_actions_addopen(fa, fd, "/dev/null", O_RDWR, 0);
    }
    for (unsigned i = 0; i < o->nfds; i++) {
        if (o->fds[i].from < 0) {
            posix_spawn_file_actions_addopen(fa, o->fds[i].to, "/dev/null", O_RDWR, 0);
            continue;
        }
        lifted[i] = fcntl(o->fds[i].from, F_DUPFD_CLOEXEC, above);
        if (lifted[i] < 0)
            return -errno;
        posix_spawn_file_actions_adddup2(fa, lifted[i], o->fds[i].to);
    }
    return 0;
}

int zl_child_spawn(struct zl_loop *loop, const struct zl_child_options *o, struct zl_child **ret)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t all, none;
    zl_auto_free int *lifted = zl_xmalloc((o->nfds + 1) * sizeof *lifted);
    for (unsigned i = 0; i < o->nfds; i++)
        lifted[i] = -EBADF;
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&attr);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(
        &attr, (short)(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | (o->session ? POSIX_SPAWN_SETSID : 0)));
    struct zl_child *c = zl_xcalloc(1, sizeof *c);
    c->loop = loop;
    c->exited = o->exited;
    c->arg = o->arg;
    c->pidfd = -EBADF;
    static const char *const no_env[] = { NULL };
    int r = file_actions(&fa, o, lifted);
    if (r == 0)
        r = -posix_spawn(&c->pid, o->path, &fa, &attr, (char *const *)(uintptr_t)o->argv,
                         (char *const *)(uintptr_t)(o->envp ? o->envp : no_env));
    for (unsigned i = 0; i < o->nfds; i++)
        zl_close(lifted[i]);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attr);
    if (r == 0) {
        c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
        r = c->pidfd < 0 ? -errno : zl_watch_new(loop, c->pidfd, ZL_READABLE, ended, c, &c->watch);
        if (r < 0) {
            (void)kill(c->pid, SIGKILL);
            (void)waitpid(c->pid, NULL, 0);
        }
    }
    if (r < 0) {
        zl_close(c->pidfd);
        free(c);
        return r;
    }
    if (ret)
        *ret = c;
    return 0;
}

pid_t zl_child_pid(const struct zl_child *c)
{
    return c->pid;
}

struct zl_child *zl_child_free(struct zl_child *c)
{
    if (c) {
        zl_watch_free(c->watch);
        zl_close(c->pidfd);
        free(c);
    }
    return NULL;
}
