/*
 * Who was killed for want of memory. The kernel counts kills of a cgroup and announces that one is due (v1: before the
 * victim is chosen; v2: once the count has risen); it does not say which process. So a look at the counter follows each
 * announcement until it has risen, and whether the first process is then dying by SIGKILL tells it apart from a child.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "shim/shim.h"
#include "sys/process.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OOM_WATCH_MS = 1000 };

void shim_oom_start(struct shim *s)
{
    s->oom_fd = zl_cgroup_oom_fd(&s->setup.cgroup); /* without one, the count at the end still tells most cases */
    if (s->oom_fd >= 0)
        ZL_IGNORE(zl_set_nonblock(s->oom_fd, true));
    ZL_IGNORE(zl_cgroup_oom_kills(&s->setup.cgroup, &s->oom_seen));
}

void shim_oom_look(struct shim *s)
{
    char event[512];
    uint64_t count;
    if (s->oom_fd >= 0 && read(s->oom_fd, event, sizeof event) > 0)
        s->oom_watch_until = zl_clock_mono_ms() + OOM_WATCH_MS;
    if (zl_cgroup_oom_kills(&s->setup.cgroup, &count) < 0 || count <= s->oom_seen)
        return;
    s->oom_seen = count;
    if (!s->killed && zl_process_dying(s->setup.pid))
        s->oom_first = true;
}

void shim_oom_judge(struct shim *s, int status)
{
    struct shim_outcome *o = &s->outcome;
    uint64_t count = s->oom_seen;
    if (zl_cgroup_oom_kills(&s->setup.cgroup, &count) == 0 && count > s->oom_seen && !s->killed)
        s->oom_first = true; /* counted since the last look, and the first process died meanwhile */
    o->oom_kills = count;
    o->finished_ms = zl_clock_wall_ms();
    if (WIFEXITED(status)) {
        o->reason = SHIM_EXITED;
        o->code = WEXITSTATUS(status);
        return;
    }
    o->signal = WTERMSIG(status);
    o->code = 128 + o->signal;
    o->reason = o->signal == SIGKILL && s->oom_first ? SHIM_OOM_KILLED : SHIM_SIGNAL;
}
