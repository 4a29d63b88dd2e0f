/* The story of each deployment, as events: kept, so that who asks late hears it from the beginning. */
#include "agent/agent_priv.h"

#include "base/clock.h"

#include <stdio.h>

enum { HISTORY_MAX = 400, PROGRESS_MAX = 200, CRASHES_BEFORE_FAILED = 3, GONE_KEPT = 16 };

static struct event_log *find(struct zl_agent *a, const char *deployment, bool make)
{
    for (struct event_log *l = a->logs; l; l = l->next)
        if (zl_streq(l->deployment, deployment))
            return l;
    if (!make)
        return NULL;
    struct event_log *l = zl_xcalloc(1, sizeof *l);
    l->deployment = zl_xstrdup(deployment);
    l->next = a->logs;
    a->logs = l;
    return l;
}

static void clear(struct event_log *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        zl_buf_done(&l->names[i]);
        zl_buf_done(&l->datas[i]);
    }
    for (unsigned i = 0; i < l->nphases; i++)
        free(l->phases[i]);
    free(l->phases);
    l->phases = NULL;
    l->n = l->nphases = 0;
    l->last = l->terminal = false;
}

static void drop(struct event_log **at)
{
    struct event_log *l = *at;
    *at = l->next;
    clear(l);
    free(l->names);
    free(l->datas);
    free(l->deployment);
    free(l);
}

void agent_events_free(struct zl_agent *a)
{
    while (a->logs)
        drop(&a->logs);
}

/* Of deployments that are gone only the latest few are told to who asks late. */
static void prune(struct zl_agent *a)
{
    unsigned gone = 0;
    for (struct event_log **at = &a->logs; *at;) {
        bool watched = false;
        for (const struct zl_agent_watch *w = a->watches; w && !watched; w = w->next)
            watched = zl_streq(w->deployment, (*at)->deployment);
        bool kept = watched || zl_state_deployment(zl_cluster_state(a->cluster), (*at)->deployment);
        if (kept || ++gone <= GONE_KEPT)
            at = &(*at)->next;
        else
            drop(at);
    }
}

static void deliver(void *arg)
{
    struct zl_agent_watch *w = arg; /* stays scheduled meanwhile: its callback may free it */
    struct event_log *l = w->freed ? NULL : find(w->agent, w->deployment, false);
    while (l && !w->freed && w->sent < l->n) {
        unsigned i = w->sent++;
        w->fn(w->arg, l->names[i].p, zl_buf_view(&l->datas[i]), l->last && i + 1 == l->n);
    }
    w->scheduled = false;
    if (w->freed) {
        free(w->deployment);
        free(w);
    }
}

static void schedule(struct zl_agent_watch *w)
{
    if (w->scheduled)
        return;
    w->scheduled = true;
    zl_loop_defer(w->agent->loop, deliver, w);
}

static void wake_watches(struct zl_agent *a, const char *deployment)
{
    for (struct zl_agent_watch *w = a->watches; w; w = w->next)
        if (zl_streq(w->deployment, deployment))
            schedule(w);
}

struct zl_agent_watch *zl_agent_watch_new(struct zl_agent *a, const char *deployment, zl_agent_event fn, void *arg)
{
    struct zl_agent_watch *w = zl_xcalloc(1, sizeof *w);
    w->agent = a;
    w->deployment = zl_xstrdup(deployment);
    w->fn = fn;
    w->arg = arg;
    w->next = a->watches;
    a->watches = w;
    schedule(w);
    return w;
}

struct zl_agent_watch *zl_agent_watch_free(struct zl_agent_watch *w)
{
    if (!w)
        return NULL;
    for (struct zl_agent_watch **at = &w->agent->watches; *at; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    w->freed = true;
    if (!w->scheduled)
        schedule(w); /* the memory goes at the end of the turn: this may be its own callback */
    return NULL;
}

void agent_event(struct zl_agent *a, const char *deployment, const char *name, struct zl_str data, bool last)
{
    struct event_log *l = find(a, deployment, true);
    /* Progress, of which there may be much, does not take the place of what tells how things stand. */
    unsigned max = zl_streq(name, "pull") ? PROGRESS_MAX : HISTORY_MAX;
    if (l->last || (l->n >= max && !last))
        return;
    if (l->n >= l->cap) {
        l->cap = l->cap * 2 + 16;
        l->names = zl_xrealloc(l->names, l->cap, sizeof *l->names);
        l->datas = zl_xrealloc(l->datas, l->cap, sizeof *l->datas);
    }
    l->names[l->n] = l->datas[l->n] = (struct zl_buf)ZL_BUF_INIT;
    zl_buf_puts(&l->names[l->n], name);
    zl_buf_add_str(&l->datas[l->n++], data);
    l->last = last;
    wake_watches(a, deployment);
}

/* A new generation is a new story; who listens hears it from its start. */
void agent_event_begin(struct zl_agent *a, const char *deployment, uint64_t generation)
{
    struct event_log *l = find(a, deployment, true);
    clear(l);
    l->generation = generation;
    for (struct zl_agent_watch *w = a->watches; w; w = w->next)
        if (zl_streq(w->deployment, deployment))
            w->sent = 0;
}

void agent_event_gone(struct zl_agent *a, const char *deployment)
{
    struct event_log *l = find(a, deployment, true);
    if (l->terminal)
        return;
    l->last = false;
    agent_event(a, deployment, "gone", ZL_STR("{}"), true);
    l->terminal = true;
}

static const char *message(struct zl_agent *a, struct zl_arena *arena, const struct zl_service_status *s)
{
    struct pull *p = agent_pull_of(a, s->deployment->name, s->service->name, s->service->generation, false);
    if (a->trouble.code)
        return a->trouble.text;
    if (s->phase == ZL_PHASE_PULL_FAILED && p)
        return p->err.hint[0] ? zl_arena_printf(arena, "%s (%s)", p->err.text, p->err.hint) : p->err.text;
    if (s->phase == ZL_PHASE_WAITING || s->phase == ZL_PHASE_DEPEND_FAILED)
        return zl_arena_printf(arena, s->phase == ZL_PHASE_WAITING ? "waits for %s" : "%s was not there in time",
                               s->depend ? s->depend : "a dependency");
    if (s->phase != ZL_PHASE_BACKOFF)
        return NULL;
    const struct inst *newest = NULL;
    for (const struct inst *i = a->instances; i; i = i->next)
        if (i->state == ZL_ACTUAL_ENDED && zl_streq(i->deployment, s->deployment->name) &&
            zl_streq(i->service, s->service->name) && (!newest || i->ended_ms > newest->ended_ms))
            newest = i;
    if (newest && newest->failure[0])
        return newest->failure;
    if (newest && newest->outcome.reason == ZL_RT_REASON_OOM_KILLED)
        return zl_arena_printf(arena, "%s-%u ran out of memory", newest->service, newest->slot);
    return newest ? zl_arena_printf(arena, "%s-%u ended with %s %d", newest->service, newest->slot,
                                    newest->outcome.signal ? "signal" : "exit code",
                                    newest->outcome.signal ? newest->outcome.signal : newest->outcome.code)
                  : NULL;
}

static bool has_failed(struct zl_agent *a, const struct zl_service_status *s)
{
    if (a->trouble.code)
        return true;
    struct pull *p = agent_pull_of(a, s->deployment->name, s->service->name, s->service->generation, false);
    if (s->phase == ZL_PHASE_PULL_FAILED)
        return p && (p->permanent || p->failures >= CRASHES_BEFORE_FAILED);
    if (s->phase == ZL_PHASE_DEPEND_FAILED)
        return true;
    for (const struct inst *i = a->instances; s->phase == ZL_PHASE_BACKOFF && i; i = i->next)
        if (i->state == ZL_ACTUAL_ENDED && i->generation == s->service->generation &&
            i->attempt + 1 >= CRASHES_BEFORE_FAILED && zl_streq(i->deployment, s->deployment->name) &&
            zl_streq(i->service, s->service->name))
            return true;
    return false;
}

static void one_service(struct zl_agent *a, struct event_log *l, unsigned index, const struct zl_service_status *s)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    const char *text = message(a, &arena, s);
    struct zl_value *v = zl_value_new(&arena, ZL_MAP);
    zl_value_set(&arena, v, "service", zl_value_string(&arena, zl_str(s->service->name)));
    zl_value_set(&arena, v, "status", zl_value_string(&arena, zl_str(zl_service_phase_name(s->phase))));
    zl_value_set(&arena, v, "running", zl_value_int(&arena, s->running));
    zl_value_set(&arena, v, "ready", zl_value_int(&arena, s->ready));
    zl_value_set(&arena, v, "replicas", zl_value_int(&arena, s->service->replicas));
    if (text)
        zl_value_set(&arena, v, "message", zl_value_string(&arena, zl_str(text)));
    zl_auto_buf data = ZL_BUF_INIT;
    zl_json_print(&data, v, 0);
    if (index >= l->nphases) {
        l->phases = zl_xrealloc(l->phases, index + 1, sizeof *l->phases);
        while (l->nphases <= index)
            l->phases[l->nphases++] = NULL;
    }
    if (!l->phases[index] || !zl_streq(l->phases[index], data.p)) {
        free(l->phases[index]);
        l->phases[index] = zl_xstrdup(data.p);
        agent_event(a, l->deployment, "service", zl_buf_view(&data), false);
    }
    if (has_failed(a, s)) {
        zl_auto_buf failed = ZL_BUF_INIT;
        struct zl_value *f = zl_value_new(&arena, ZL_MAP);
        zl_value_set(&arena, f, "service", zl_value_string(&arena, zl_str(s->service->name)));
        zl_value_set(&arena, f, "message",
                     zl_value_string(&arena, zl_str(text ? text : zl_service_phase_name(s->phase))));
        zl_json_print(&failed, f, 0);
        agent_event(a, l->deployment, "failed", zl_buf_view(&failed), true);
    }
    zl_arena_done(&arena);
}

void agent_events_step(struct zl_agent *a, const struct zl_reconcile_plan *plan)
{
    const struct zl_state *state = zl_cluster_state(a->cluster);
    for (unsigned i = 0; i < state->ndeployments; i++) {
        const struct zl_state_deployment *d = &state->deployments[i];
        struct event_log *l = find(a, d->name, true);
        if (l->generation != d->generation && !d->stopping)
            agent_event_begin(a, d->name, d->generation);
        unsigned index = 0, ready = 0;
        for (unsigned k = 0; k < plan->nservices; k++) {
            if (!zl_streq(plan->services[k].deployment->name, d->name))
                continue;
            one_service(a, l, index++, &plan->services[k]);
            ready += plan->services[k].phase == ZL_PHASE_READY || plan->services[k].phase == ZL_PHASE_STOPPED;
        }
        if (ready == d->nservices && !d->stopping)
            agent_event(a, d->name, "ready", ZL_STR("{}"), true);
    }
    prune(a);
}
