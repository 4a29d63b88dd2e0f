/* Hooks (config.md, POSIX-platform Hooks): programs of the engine's, run as the caller, told the state on stdin. */
#include "ocirun/ocirun.h"

#include "base/clock.h"
#include "base/fd.h"
#include "sys/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const *list_of(struct zl_arena *a, const struct zl_strings *s, const char *first)
{
    const char **v = zl_arena_alloc(a, (s->n + 2) * sizeof *v);
    unsigned n = 0;
    if (s->n == 0 && first)
        v[n++] = first;
    for (unsigned i = 0; i < s->n; i++)
        v[n++] = s->v[i];
    return v;
}

/* In seconds; 0: without end. Returns -ETIMEDOUT after it was killed. */
static int wait_for(pid_t pid, int64_t timeout_s, int *status)
{
    zl_auto_close int pidfd = zl_pidfd_open(pid);
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    uint64_t end = zl_clock_mono_ms() + (uint64_t)timeout_s * 1000;
    int late = 0;
    while (timeout_s && pidfd >= 0 && !p.revents) {
        uint64_t now = zl_clock_mono_ms();
        if (now >= end) {
            (void)kill(pid, SIGKILL);
            late = -ETIMEDOUT;
            break;
        }
        (void)poll(&p, 1, (int)ZL_MIN(end - now, (uint64_t)1000));
    }
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return late;
}

static int run(struct ocirun *r, const char *kind, unsigned i, const struct zl_oci_hook *h, int state)
{
    pid_t pid;
    int status = 0;
    const char *const *argv = list_of(&r->arena, &h->args, h->path), *const *env = list_of(&r->arena, &h->env, NULL);
    if (lseek(state, 0, SEEK_SET) < 0)
        return zl_fail(&r->err, -errno, "hooks.%s[%u]: give it the state", kind, i);
    int e = zl_spawn(h->path, argv, env, state, -EBADF, &pid);
    if (e < 0)
        return zl_fail(&r->err, e, "hooks.%s[%u]: run %s", kind, i, h->path);
    e = wait_for(pid, h->timeout_s, &status);
    if (e == -ETIMEDOUT)
        return zl_fail(&r->err, ZL_E_TIMEOUT, "hooks.%s[%u]: %s took over %lld s", kind, i, h->path,
                       (long long)h->timeout_s);
    if (e < 0)
        return zl_fail(&r->err, e, "hooks.%s[%u]: wait for %s", kind, i, h->path);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return zl_fail(&r->err, ZL_E_RUNTIME, "hooks.%s[%u]: %s ended with %s %d", kind, i, h->path,
                       WIFSIGNALED(status) ? "signal" : "exit code",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 0;
}

int ocirun_hooks(struct ocirun *r, const struct zl_oci_runtime *c, enum zl_oci_hook_kind kind,
                 const struct ocirun_state *s, const char *status)
{
    const struct zl_items *hooks = &c->hooks[kind];
    if (hooks->n == 0)
        return 0;
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, ocirun_show_as(r, s, status, zl_streq(status, "stopped") ? 0 : s->pid), 0);
    zl_auto_close int state = zl_sealed_memfd("state", text.p, text.n);
    if (state < 0)
        return zl_fail(&r->err, state, "hooks.%s: write the state", zl_oci_hook_names[kind]);
    int e = 0;
    for (unsigned i = 0; i < hooks->n && e == 0; i++)
        e = run(r, zl_oci_hook_names[kind], i, hooks->v[i], state);
    return e;
}
