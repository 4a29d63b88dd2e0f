#include "net/overlay/nft_priv.h"

#include "base/fd.h"
#include "sys/nft.h"
#include "sys/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const struct zl_parse_limits zl_nft_limits = { 64 << 20, 64, 4000000 };

enum { OUTPUT_MAX = 64 << 20 };

struct job {
    const char *program;
    const struct zl_inside *inside; /* NULL: where we are */
    bool json;
    int in, out, err; /* memory files, so that neither side waits for the other */
    int status;
};

/* On the thread whose namespaces nft is to have: a spawned program gets those of the thread that spawns. */
static int run(void *arg)
{
    struct job *j = arg;
    char *const plain[] = { (char[]){ "nft" }, (char[]){ "-f" }, (char[]){ "/proc/self/fd/0" }, NULL };
    char *const json[] = { (char[]){ "nft" },
                           (char[]){ "-j" },
                           (char[]){ "-a" },
                           (char[]){ "-n" },
                           (char[]){ "-f" },
                           (char[]){ "/proc/self/fd/0" },
                           NULL };
    char *const env[] = { (char[]){ "LC_ALL=C" }, (char[]){ "PATH=/usr/sbin:/usr/bin:/sbin:/bin" }, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    pid_t pid;
    if (j->inside) {
        const char *argv[] = { j->program, "-f", "/proc/self/fd/0", NULL };
        const int streams[] = { j->in, j->out, j->err };
        return zl_inside_run(j->inside, argv, (const char *const *)env, streams, &j->status);
    }
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_adddup2(&files, j->in, 0);
    posix_spawn_file_actions_adddup2(&files, j->out, 1);
    posix_spawn_file_actions_adddup2(&files, j->err, 2);
    int r = -posix_spawn(&pid, j->program, &files, &attr, j->json ? json : plain, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (r < 0)
        return r;
    while (waitpid(pid, &j->status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* "/dev/stdin:1:1-5: Error: Could not process rule: Operation not permitted", and then a drawing of the place. */
static int refused(struct zl_str said, int status, struct zl_err *err)
{
    struct zl_str rest, line = zl_str_cut(said, '\n', &rest);
    bool denied = memmem(said.p, said.n, "Operation not permitted", strlen("Operation not permitted")) != NULL;
    if (!line.n)
        return zl_fail(err, ZL_E_NETWORK, "change firewall rules: nft ended with %s %d",
                       WIFSIGNALED(status) ? "signal" : "exit code",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return zl_fail(err, denied ? ZL_E_PERMISSION : ZL_E_NETWORK, "change firewall rules: %.*s",
                   (int)ZL_MIN(line.n, (size_t)300), line.p);
}

static int read_memory(int fd, struct zl_buf *ret)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return zl_read_file(AT_FDCWD, path, OUTPUT_MAX, ret);
}

static int run_commands(int netns, const struct zl_inside *inside, const char *commands, struct zl_buf *ret,
                        struct zl_err *err)
{
    struct job j = { .program = zl_nft_program(), .json = ret != NULL, .inside = inside };
    if (!j.program)
        return zl_hint(err, zl_fail(err, ZL_E_NETWORK, "there is no program nft to set firewall rules with"),
                       "install the package nftables");
    zl_auto_close int in = zl_sealed_memfd("nft-in", commands, strlen(commands));
    zl_auto_close int out = memfd_create("nft-out", MFD_CLOEXEC);
    zl_auto_close int said = memfd_create("nft-err", MFD_CLOEXEC);
    if (in < 0 || out < 0 || said < 0 || lseek(in, 0, SEEK_SET) < 0)
        return zl_fail(err, -ENOMEM, "start nft");
    j.in = in;
    j.out = out;
    j.err = said;
    int r = netns < 0 ? run(&j) : zl_netns_run(netns, run, &j);
    if (r < 0)
        return zl_fail(err, r, "run %s", j.program);
    zl_auto_buf text = ZL_BUF_INIT;
    if (j.status != 0)
        return read_memory(said, &text) < 0 ? zl_fail(err, ZL_E_NETWORK, "change firewall rules")
                                            : refused(zl_buf_view(&text), j.status, err);
    r = ret ? read_memory(out, ret) : 0;
    return r < 0 ? zl_fail(err, r, "read what nft says") : 0;
}

int zl_nft_run(int netns, const char *commands, struct zl_buf *ret, struct zl_err *err)
{
    return run_commands(netns, NULL, commands, ret, err);
}

int zl_nft_run_inside(const struct zl_inside *in, const char *commands, struct zl_err *err)
{
    return run_commands(-1, in, commands, NULL, err);
}
