/* events: what a container takes, each interval or once, and between that each time that it ran out of memory. */
#include "ocirun/ocirun.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <unistd.h>

struct watch {
    const char *id;
    struct ocirun_state *s;
    struct zl_cgroup g;
    int oom, process; /* to poll; -EBADF: there is none */
    uint64_t kills;
};

static int say(struct ocirun *r, const char *type, const char *id, struct zl_value *data)
{
    struct zl_arena *a = &r->arena;
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    zl_auto_buf text = ZL_BUF_INIT;
    zl_value_set(a, v, "type", zl_value_string(a, zl_str(type)));
    zl_value_set(a, v, "id", zl_value_string(a, zl_str(id)));
    if (data)
        zl_value_set(a, v, "data", data);
    zl_json_print(&text, v, 0);
    printf("%s\n", text.p);
    return fflush(stdout) ? zl_fail(&r->err, -errno, "write what happened") : 0;
}

/* Also its end makes the group's descriptor readable on v1, and on v2 each time that memory is short. */
static int say_oom(struct ocirun *r, struct watch *w)
{
    char unused[4096];
    uint64_t kills = w->kills;
    while (read(w->oom, unused, sizeof unused) > 0 && w->g.layout == ZL_CGROUP_V2)
        ;
    if (zl_cgroup_oom_kills(&w->g, &kills) < 0) /* the group has gone */
        return 0;
    bool grown = kills > w->kills;
    w->kills = kills;
    return grown || w->g.layout != ZL_CGROUP_V2 ? say(r, "oom", w->id, NULL) : 0;
}

/* 1: it has ended. */
static int wait_for_more(struct ocirun *r, struct watch *w, uint64_t ms)
{
    uint64_t until = zl_clock_mono_ms() + ms;
    for (;;) {
        uint64_t now = zl_clock_mono_ms();
        struct pollfd fds[] = { { w->oom, POLLIN, 0 }, { w->process, POLLIN, 0 } };
        if (now >= until)
            return 0;
        int n = poll(fds, 2, (int)ZL_MIN(until - now, (uint64_t)86400000));
        if (n < 0 && errno != EINTR)
            return zl_fail(&r->err, -errno, "wait for %s", w->id);
        int e = n > 0 && fds[0].revents ? say_oom(r, w) : 0;
        if (e < 0 || (n > 0 && fds[1].revents))
            return e < 0 ? e : 1;
    }
}

static int look(struct ocirun *r, struct watch *w)
{
    enum ocirun_status status;
    int e = ocirun_find(r, w->id, &w->s, &w->g, &status);
    return e == 0 && status == OCIRUN_STOPPED ? zl_fail(&r->err, ZL_E_CONFLICT, "container not running: %s", w->id) : e;
}

int ocirun_events(struct ocirun *r, const char *id)
{
    struct watch w = { .id = id };
    uint64_t ms = 5000;
    if (r->o.interval && (zl_parse_duration_ms(zl_str(r->o.interval), &ms) < 0 || ms == 0))
        return zl_fail(&r->err, ZL_E_USAGE, "--interval takes a duration such as 5s, not '%.40s'", r->o.interval);
    int e = look(r, &w);
    if (e < 0 || r->o.stats)
        return e < 0 ? e : say(r, "stats", id, ocirun_stats(r, &w.g));
    zl_auto_close int process = pidfd_open((pid_t)w.s->pid, 0);
    if (process < 0)
        return zl_fail(&r->err, -errno, "watch the process of %s", id);
    zl_auto_close int oom = zl_cgroup_oom_fd(&w.g); /* without the controller there is no such event */
    w.process = process;
    w.oom = oom;
    ZL_IGNORE(zl_cgroup_oom_kills(&w.g, &w.kills));
    e = look(r, &w); /* that it was this one's process that was opened */
    while (e == 0) {
        struct zl_arena kept = r->arena;
        zl_arena_init(&r->arena); /* what each round takes is given back */
        e = say(r, "stats", id, ocirun_stats(r, &w.g));
        zl_arena_done(&r->arena);
        r->arena = kept;
        e = e < 0 ? e : wait_for_more(r, &w, ms);
    }
    return e < 0 ? e : 0;
}
