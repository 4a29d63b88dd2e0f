#include "client/client_priv.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_FD = 3, READY_TIMEOUT_MS = 20000, READY_LINE_MAX = 16 * 1024 };

enum zl_agent_state zl_client_probe(const struct zl_place *place, struct zl_err *err)
{
    zl_auto_close int fd = zl_socket_connect(place->socket);
    switch (fd) {
    case -ENOENT:
    case -ENOTDIR:
        (void)zl_fail(err, ZL_E_NO_AGENT, "no agent runs on %s", place->data);
        (void)zl_hint(err, 0, "'zlayer up' and 'zlayer serve' start one");
        return ZL_AGENT_NO_SOCKET;
    case -ECONNREFUSED:
        (void)zl_fail(err, ZL_E_NO_AGENT, "no agent answers on %s: the socket is stale", place->socket);
        (void)zl_hint(err, 0,
                      "an agent ended abruptly; 'zlayer up' starts a new one that takes over, %s/agent.log says more",
                      place->data);
        return ZL_AGENT_REFUSED;
    case -EACCES:
    case -EPERM:
        (void)zl_fail(err, ZL_E_PERMISSION, "no permission to use %s", place->socket);
        (void)zl_hint(err, 0, "run as root, or as the user of that data dir, or name another with --data-dir");
        return ZL_AGENT_DENIED;
    default:
        if (fd >= 0)
            return ZL_AGENT_REACHABLE;
        (void)zl_fail_errno(err, ZL_E_NO_AGENT, fd, "can't reach the agent on %s", place->socket);
        return ZL_AGENT_OTHER;
    }
}

/* In a session of its own, without our terminal, with default signals; READY_FD is the pipe's end. */
static int spawn(const char *program, const char *data, int ready, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, ready, READY_FD);
    posix_spawn_file_actions_addchdir_np(&files, "/");
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    char *argv[] = { (char[]){ "zlayerd" },    (char[]){ "--data-dir" }, (char *)data, (char[]){ "--idle-exit" },
                     (char[]){ "--ready-fd" }, (char[]){ "3" },          NULL };
    int e = posix_spawn(ret, program, &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -e;
}

/* What the agent says on the pipe, to its end: an error body when it could not start, else nothing to worry about. */
static int read_ready(int fd, struct zl_buf *line, struct zl_err *err)
{
    uint64_t deadline = zl_clock_mono_ms() + READY_TIMEOUT_MS;
    for (;;) {
        uint64_t now = zl_clock_mono_ms();
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int r = now >= deadline ? 0 : poll(&p, 1, (int)(deadline - now));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return zl_fail(err, -errno, "wait for the agent to start");
        if (r == 0)
            return zl_fail(err, ZL_E_TIMEOUT, "the agent did not start within %d seconds", READY_TIMEOUT_MS / 1000);
        zl_buf_reserve(line, 1024);
        ssize_t n = read(fd, line->p + line->n, 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return zl_fail(err, -errno, "read from the agent");
        line->n += (size_t)n;
        line->p[line->n] = 0;
        if (n == 0 || memchr(line->p, '\n', line->n))
            return 0;
        if (line->n > READY_LINE_MAX)
            return zl_fail(err, ZL_E_PROTOCOL, "what was started as the agent is none");
    }
}

int zl_client_start_agent(struct zl_client *c, struct zl_err *err)
{
    zl_auto_free char *program = NULL;
    int e = zl_program_find("zlayerd", &program, err);
    if (e < 0)
        return e;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return zl_fail(err, -errno, "start the agent");
    zl_auto_close int from = ends[0];
    zl_auto_close int to = ends[1];
    /* A descriptor that is READY_FD already would keep CLOEXEC through dup2 to itself. */
    if (to == READY_FD) {
        int moved = fcntl(to, F_DUPFD_CLOEXEC, READY_FD + 1);
        if (moved < 0)
            return zl_fail(err, -errno, "start the agent");
        (void)zl_close(to);
        to = moved;
    }
    if (c->starting)
        c->starting(c->arg);
    pid_t pid;
    e = spawn(program, c->place.data, to, &pid);
    if (e < 0)
        return zl_fail(err, e, "start %s", program);
    to = zl_close(to);
    zl_auto_buf line = ZL_BUF_INIT;
    e = read_ready(from, &line, err);
    if (e < 0)
        return zl_hint(err, e, "%s/agent.log says more", c->place.data);
    if (!line.n) {
        int status = 0;
        (void)waitpid(pid, &status, 0);
        bool killed = WIFSIGNALED(status); /* by somebody else: worth another try */
        e = zl_fail(err, killed ? ZL_E_CLOSED : ZL_E_NO_AGENT, "the agent ended while it started (%s %d)",
                    killed ? "signal" : "exit code", killed ? WTERMSIG(status) : WEXITSTATUS(status));
        return zl_hint(err, e, "%s/agent.log says more", c->place.data);
    }
    struct zl_arena arena;
    zl_arena_init(&arena);
    e = zl_error_from_body(c, &arena, zl_buf_view(&line), 500, err);
    zl_arena_done(&arena);
    return e;
}
