#include "runtime/runtime.h"

#include <stdio.h>

void zl_rt_link_name(const char *id, char ret[ZL_RT_LINK_SIZE])
{
    snprintf(ret, ZL_RT_LINK_SIZE, "zr%.10s", id);
}

const char *zl_rt_reason_name(enum zl_rt_reason reason)
{
    switch (reason) {
    case ZL_RT_REASON_EXITED:
        return "exited";
    case ZL_RT_REASON_SIGNAL:
        return "signal";
    case ZL_RT_REASON_OOM_KILLED:
        return "oom_killed";
    case ZL_RT_REASON_RUNTIME_ERROR:
        return "runtime_error";
    }
    return "runtime_error";
}

const char *zl_rt_state_name(enum zl_rt_state state)
{
    switch (state) {
    case ZL_RT_CREATED:
        return "created";
    case ZL_RT_RUNNING:
        return "running";
    case ZL_RT_EXITED:
        return "exited";
    }
    return "exited";
}

static uint64_t submit(struct zl_runtime *rt, struct zl_rt_req req, zl_rt_done done, void *arg)
{
    return rt->ops->submit(rt, &req, done, arg);
}

uint64_t zl_runtime_list(struct zl_runtime *rt, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_LIST }, done, arg);
}

uint64_t zl_runtime_create(struct zl_runtime *rt, const struct zl_rt_spec *spec, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_CREATE, .id = spec->id, .create = spec }, done, arg);
}

uint64_t zl_runtime_start(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_START, .id = id }, done, arg);
}

uint64_t zl_runtime_kill(struct zl_runtime *rt, const char *id, int signal, bool all, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_KILL, .id = id, .kill = { signal, all } }, done, arg);
}

uint64_t zl_runtime_remove(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_REMOVE, .id = id }, done, arg);
}

uint64_t zl_runtime_exec(struct zl_runtime *rt, const char *id, const struct zl_rt_exec *exec, zl_rt_done done,
                         void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_EXEC, .id = id, .exec = exec }, done, arg);
}

uint64_t zl_runtime_stats(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_STATS, .id = id }, done, arg);
}

uint64_t zl_runtime_pause(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_PAUSE, .id = id }, done, arg);
}

uint64_t zl_runtime_resume(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_RESUME, .id = id }, done, arg);
}

uint64_t zl_runtime_top(struct zl_runtime *rt, const char *id, zl_rt_done done, void *arg)
{
    return submit(rt, (struct zl_rt_req){ .kind = ZL_RT_TOP, .id = id }, done, arg);
}

struct zl_rt_session *zl_runtime_session(struct zl_runtime *rt, const char *id, const struct zl_rt_session_spec *spec,
                                         const struct zl_rt_session_events *events, void *arg)
{
    return rt->ops->session(rt, id, spec, events, arg);
}

int zl_rt_session_write(struct zl_rt_session *s, struct zl_str bytes)
{
    return s->ops->write(s, bytes);
}

void zl_rt_session_end_input(struct zl_rt_session *s)
{
    s->ops->end_input(s);
}

void zl_rt_session_resize(struct zl_rt_session *s, unsigned rows, unsigned columns)
{
    s->ops->resize(s, rows, columns);
}

void zl_rt_session_hold(struct zl_rt_session *s, bool on)
{
    s->ops->hold(s, on);
}

struct zl_rt_session *zl_rt_session_close(struct zl_rt_session *s)
{
    if (s)
        s->ops->close(s);
    return NULL;
}

struct zl_runtime *zl_runtime_close(struct zl_runtime *rt)
{
    if (rt)
        rt->ops->close(rt);
    return NULL;
}
