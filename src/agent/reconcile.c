#include "agent/reconcile.h"

#include "base/str.h"

/* A desired service and its instances: a range of the sorted table. */
struct view {
    const struct zl_desired_service *want;
    const struct zl_actual_instance **v;
    unsigned n;
    unsigned alive, running, healthy, ready; /* of any generation; ready and healthy without those that are ending */
};

/* How the services of a deployment stand, for dependencies and for the order of a stop. */
struct scope {
    const struct zl_desired_deployment *deployment;
    struct view *views;
};

struct step {
    struct zl_arena *arena;
    const struct zl_reconcile_actual *actual;
    uint64_t now;
    const struct zl_actual_instance **sorted;
    unsigned n;
    struct zl_reconcile_plan *plan;
    unsigned actions_cap, routes_cap;
    bool publish;
};

static void *grow(struct zl_arena *arena, void *old, unsigned n, unsigned *cap, size_t size)
{
    if (n < *cap)
        return old;
    *cap = *cap ? *cap * 2 : 16;
    void *p = zl_arena_alloc(arena, *cap * size);
    if (n)
        memcpy(p, old, n * size);
    return p;
}

static struct zl_action *act(struct step *s, enum zl_action_kind kind)
{
    struct zl_reconcile_plan *p = s->plan;
    p->actions = grow(s->arena, p->actions, p->nactions, &s->actions_cap, sizeof *p->actions);
    struct zl_action *a = &p->actions[p->nactions++];
    *a = (struct zl_action){ .kind = kind };
    return a;
}

static void act_on(struct step *s, enum zl_action_kind kind, const struct scope *scope,
                   const struct zl_desired_service *service, const struct zl_actual_instance *i)
{
    struct zl_action *a = act(s, kind);
    a->deployment = scope ? scope->deployment : NULL;
    a->service = service;
    a->instance = i;
    a->generation = i->generation;
    a->slot = i->slot;
    a->attempt = i->attempt;
}

static void wake_at(struct step *s, uint64_t when)
{
    if (s->plan->wake_ms == 0 || when < s->plan->wake_ms)
        s->plan->wake_ms = when;
}

/* Whether `when` has come; else the plan asks to be called then. */
static bool is_time(struct step *s, uint64_t when)
{
    if (s->now >= when)
        return true;
    wake_at(s, when);
    return false;
}

static bool alive(const struct zl_actual_instance *i)
{
    return i->state != ZL_ACTUAL_ENDED;
}

/* Its end was begun; there is no way back. */
static bool ending(const struct zl_actual_instance *i)
{
    return i->draining || i->term_ms || i->kill_ms;
}

static bool healthy(const struct zl_desired_service *want, const struct zl_actual_instance *i)
{
    return i->state == ZL_ACTUAL_RUNNING && !ending(i) && (!want->has_health || i->healthy);
}

static bool ready(const struct zl_desired_service *want, const struct zl_actual_instance *i)
{
    return healthy(want, i) && (!want->has_routes || (i->routed && i->applied));
}

uint64_t zl_backoff_ms(unsigned attempt)
{
    if (attempt == 0)
        return 0;
    if (attempt > 6)
        return ZL_BACKOFF_MAX_MS;
    return (uint64_t)ZL_BACKOFF_FIRST_MS << (attempt - 1);
}

/*
 * One instance towards its end: out of the routes and drained, asked, killed.
 *   RUNNING ─ DRAIN ─► draining ─ drained or 10 s ─► TERM ─ grace ─► KILL ─ 5 s ─► KILL …
 */
static void end(struct step *s, const struct scope *scope, const struct zl_desired_service *service,
                const struct zl_actual_instance *i, bool force)
{
    if (i->state == ZL_ACTUAL_CREATING || i->state == ZL_ACTUAL_ENDED)
        return; /* a creation ends soon, in CREATED or in ENDED */
    if (i->kill_ms) {
        if (is_time(s, i->kill_ms + ZL_KILL_AGAIN_MS))
            act_on(s, ZL_ACTION_KILL, scope, service, i);
    } else if (force || i->state == ZL_ACTUAL_CREATED) {
        act_on(s, ZL_ACTION_KILL, scope, service, i);
    } else if (i->term_ms) {
        if (is_time(s, i->term_ms + (service ? service->grace_ms : (uint64_t)ZL_GRACE_MS)))
            act_on(s, ZL_ACTION_KILL, scope, service, i);
    } else if (i->draining) {
        if (i->drained || is_time(s, i->draining_ms + ZL_DRAIN_TIMEOUT_MS))
            act_on(s, ZL_ACTION_TERM, scope, service, i);
    } else {
        /* Also when it is out of the routes already: a killed agent may have begun to drain it. */
        bool drains = i->routed || !service || service->has_routes;
        act_on(s, drains ? ZL_ACTION_DRAIN : ZL_ACTION_TERM, scope, service, i);
    }
}

/* An instance that stays: it belongs into the routes, and is started when it only waits for that. */
static void keep(struct step *s, const struct scope *scope, const struct zl_desired_service *service,
                 const struct zl_actual_instance *i)
{
    if (i->state == ZL_ACTUAL_CREATED)
        act_on(s, ZL_ACTION_START, scope, service, i);
    if (i->state != ZL_ACTUAL_RUNNING || !service->has_routes)
        return;
    struct zl_reconcile_plan *p = s->plan;
    p->routes = grow(s->arena, p->routes, p->nroutes, &s->routes_cap, sizeof *p->routes);
    p->routes[p->nroutes++] = i;
    if (!i->routed)
        s->publish = true;
}

/* The better of two instances of the same generation: farther on its way, then older. */
static bool better(const struct zl_desired_service *want, const struct zl_actual_instance *a,
                   const struct zl_actual_instance *b)
{
    if (ready(want, a) != ready(want, b))
        return ready(want, a);
    if (healthy(want, a) != healthy(want, b))
        return healthy(want, a);
    if (a->state != b->state)
        return a->state > b->state; /* ENDED is never asked about */
    if (a->created_ms != b->created_ms)
        return a->created_ms < b->created_ms;
    return strcmp(a->id, b->id) < 0;
}

static bool ended_later(const struct zl_actual_instance *a, const struct zl_actual_instance *b)
{
    if (a->ended_ms != b->ended_ms)
        return a->ended_ms > b->ended_ms;
    if (a->created_ms != b->created_ms)
        return a->created_ms > b->created_ms;
    return strcmp(a->id, b->id) > 0;
}

/* Of a slot's ended instances all but the latest few go. */
static void prune(struct step *s, const struct scope *scope, const struct zl_desired_service *service,
                  const struct zl_actual_instance **v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned later = 0;
        for (unsigned j = 0; !alive(v[i]) && j < n; j++)
            later += j != i && !alive(v[j]) && ended_later(v[j], v[i]);
        if (later >= ZL_ENDED_KEPT)
            act_on(s, ZL_ACTION_REMOVE, scope, service, v[i]);
    }
}

enum gate { GATE_OPEN, GATE_WAIT, GATE_SHUT };

/* Whether a service's dependencies let it start. */
static enum gate dependencies(struct step *s, const struct scope *scope, const struct zl_desired_service *want,
                              struct zl_service_status *status)
{
    enum gate gate = GATE_OPEN;
    for (unsigned i = 0; i < want->ndepends; i++) {
        const struct zl_desired_depend *d = &want->depends[i];
        const struct view *v = &scope->views[d->service];
        unsigned met = d->condition == ZL_DEPEND_STARTED   ? v->running
                       : d->condition == ZL_DEPEND_HEALTHY ? v->healthy
                                                           : v->ready;
        if (met)
            continue;
        bool overdue = is_time(s, scope->deployment->since_ms + d->timeout_ms);
        if (overdue && d->on_timeout != ZL_DEPEND_FAIL) {
            status->depend_overdue |= d->on_timeout == ZL_DEPEND_WARN;
            status->depend = status->depend ? status->depend : v->want->name;
            continue;
        }
        if (gate == GATE_OPEN || (gate == GATE_WAIT && overdue))
            status->depend = v->want->name;
        gate = overdue || gate == GATE_SHUT ? GATE_SHUT : GATE_WAIT;
    }
    return gate;
}

static void raise_phase(struct zl_service_status *status, enum zl_service_phase phase)
{
    /* The later in this list, the more worth telling. */
    static const unsigned weight[] = {
        [ZL_PHASE_READY] = 0,   [ZL_PHASE_STARTING] = 1,      [ZL_PHASE_PULLING] = 2,     [ZL_PHASE_WAITING] = 3,
        [ZL_PHASE_BACKOFF] = 4, [ZL_PHASE_DEPEND_FAILED] = 5, [ZL_PHASE_PULL_FAILED] = 6,
    };
    if (weight[phase] > weight[status->phase])
        status->phase = phase;
}

static void retry_at(struct zl_service_status *status, uint64_t when)
{
    if (status->retry_ms == 0 || when < status->retry_ms)
        status->retry_ms = when;
}

/* What all slots of a service share when they want to create. */
struct creation {
    bool image, looked;
    enum gate gate;
    unsigned surge; /* slots with an old and a new instance */
};

static bool image_present(struct step *s, const struct scope *scope, const struct zl_desired_service *want,
                          struct zl_service_status *status)
{
    const struct zl_actual_image *image = NULL;
    for (unsigned i = 0; !image && i < s->actual->nimages; i++) {
        const struct zl_actual_image *m = &s->actual->images[i];
        if (m->generation == want->generation && zl_streq(m->service, want->name) &&
            zl_streq(m->deployment, scope->deployment->name))
            image = m;
    }
    if (image && image->state == ZL_IMAGE_PRESENT)
        return true;
    raise_phase(status, ZL_PHASE_PULLING);
    if (image && image->state == ZL_IMAGE_PULLING)
        return false;
    if (image && image->state == ZL_IMAGE_FAILED) {
        raise_phase(status, ZL_PHASE_PULL_FAILED);
        if (image->permanent)
            return false;
        uint64_t when = image->failed_ms + zl_backoff_ms(image->failures);
        if (!is_time(s, when)) {
            retry_at(status, when);
            return false;
        }
    }
    struct zl_action *a = act(s, ZL_ACTION_PULL);
    a->deployment = scope->deployment;
    a->service = want;
    a->generation = want->generation;
    return false;
}

/* Plans a new instance of a slot if nothing is in its way. `v` are the slot's instances. */
static void create(struct step *s, const struct scope *scope, const struct view *view, unsigned slot,
                   const struct zl_actual_instance **v, unsigned n, struct creation *c,
                   struct zl_service_status *status)
{
    const struct zl_desired_service *want = view->want;
    raise_phase(status, ZL_PHASE_STARTING);
    if (!c->looked) {
        c->looked = true;
        c->image = image_present(s, scope, want, status);
        c->gate = dependencies(s, scope, want, status);
        if (c->gate != GATE_OPEN)
            raise_phase(status, c->gate == GATE_WAIT ? ZL_PHASE_WAITING : ZL_PHASE_DEPEND_FAILED);
    }
    const struct zl_actual_instance *last = NULL;
    for (unsigned i = 0; i < n; i++)
        if (!alive(v[i]) && v[i]->generation == want->generation && (!last || ended_later(v[i], last)))
            last = v[i];
    unsigned attempt = 0;
    if (last && !last->stopped) {
        bool long_run = last->started_ms && last->ended_ms >= last->started_ms + ZL_BACKOFF_RESET_MS;
        attempt = long_run || last->attempt == 0 ? 1 : ZL_MIN(last->attempt, 1000u) + 1;
        uint64_t when = last->ended_ms + zl_backoff_ms(attempt);
        if (!is_time(s, when)) {
            raise_phase(status, ZL_PHASE_BACKOFF);
            retry_at(status, when);
            return;
        }
    }
    if (!c->image || c->gate != GATE_OPEN)
        return;
    struct zl_action *a = act(s, ZL_ACTION_CREATE);
    a->deployment = scope->deployment;
    a->service = want;
    a->generation = want->generation;
    a->slot = slot;
    a->attempt = attempt;
}

struct slot {
    const struct zl_actual_instance *fresh, *old; /* the one of each kind that stays, or NULL */
    unsigned alive;
};

/* Sorts a slot's instances into what stays and what ends. */
static struct slot judge(struct step *s, const struct scope *scope, const struct zl_desired_service *want,
                         const struct zl_actual_instance **v, unsigned n)
{
    struct slot r = { 0 };
    for (unsigned i = 0; i < n; i++) {
        if (!alive(v[i]))
            continue;
        r.alive++;
        if (ending(v[i]))
            continue;
        if (v[i]->generation == want->generation) {
            if (!r.fresh || better(want, v[i], r.fresh))
                r.fresh = v[i];
        } else if (v[i]->state == ZL_ACTUAL_RUNNING && (!r.old || better(want, v[i], r.old))) {
            r.old = v[i];
        }
    }
    if (r.fresh && ready(want, r.fresh))
        r.old = NULL;
    for (unsigned i = 0; i < n; i++)
        if (alive(v[i]) && v[i] != r.fresh && v[i] != r.old)
            end(s, scope, want, v[i], false);
    return r;
}

static unsigned slot_end(const struct view *view, unsigned from)
{
    unsigned to = from;
    while (to < view->n && view->v[to]->slot == view->v[from]->slot)
        to++;
    return to;
}

static unsigned count_alive(const struct zl_actual_instance **v, unsigned n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++)
        count += alive(v[i]);
    return count;
}

/* Slots beyond the wanted number go, the highest first. */
static void scale_down(struct step *s, const struct scope *scope, const struct view *view)
{
    for (unsigned i = view->n; i-- > 0;)
        if (view->v[i]->slot > view->want->replicas || view->v[i]->slot == 0)
            end(s, scope, view->want, view->v[i], false);
}

static void step_service(struct step *s, const struct scope *scope, const struct view *view,
                         struct zl_service_status *status)
{
    const struct zl_desired_service *want = view->want;
    struct creation c = { 0 };
    unsigned from = 0, settled = 0;
    status->phase = ZL_PHASE_READY;
    for (unsigned to, i = 0; i < view->n; i = to) {
        to = slot_end(view, i);
        c.surge += view->v[i]->slot <= want->replicas && count_alive(view->v + i, to - i) > 1;
        prune(s, scope, want, view->v + i, to - i);
    }
    while (from < view->n && view->v[from]->slot == 0)
        from++;
    for (unsigned slot = 1; slot <= want->replicas; slot++) {
        const struct zl_actual_instance **v = view->v + from;
        unsigned n = from < view->n && v[0]->slot == slot ? slot_end(view, from) - from : 0;
        struct slot j = judge(s, scope, want, v, n);
        if (j.old)
            keep(s, scope, want, j.old);
        if (j.fresh)
            keep(s, scope, want, j.fresh);
        if (!j.fresh && (j.alive == 0 || (j.old && j.alive == 1 && c.surge == 0))) {
            c.surge += j.old != NULL;
            create(s, scope, view, slot, v, n, &c, status);
        }
        settled += j.fresh && ready(want, j.fresh);
        from += n;
    }
    scale_down(s, scope, view);
    status->ready = settled;
    if (settled < want->replicas || status->old)
        raise_phase(status, ZL_PHASE_STARTING);
    if (want->replicas == 0)
        status->phase = view->alive ? ZL_PHASE_STOPPING : ZL_PHASE_STOPPED;
}

/* A service may end when nothing that depends on it is left. */
static bool may_end(const struct scope *scope, unsigned service)
{
    for (unsigned i = 0; i < scope->deployment->nservices; i++)
        for (unsigned j = 0; scope->views[i].alive && j < scope->views[i].want->ndepends; j++)
            if (i != service && scope->views[i].want->depends[j].service == service)
                return false;
    return true;
}

static void stop_deployment(struct step *s, const struct scope *scope, const struct zl_actual_instance **mine,
                            unsigned nmine)
{
    const struct zl_desired_deployment *d = scope->deployment;
    bool any = false;
    for (unsigned i = 0; i < d->nservices; i++)
        any |= scope->views[i].alive && may_end(scope, i);
    for (unsigned i = d->nservices; i-- > 0;) {
        const struct view *v = &scope->views[i];
        /* Documents have no cycles; if one came in, it must not keep anything alive. */
        bool now = d->force || !any || may_end(scope, i);
        for (unsigned j = v->n; j-- > 0;) {
            if (!alive(v->v[j]))
                continue;
            if (now || ending(v->v[j]) || v->v[j]->state != ZL_ACTUAL_RUNNING)
                end(s, scope, v->want, v->v[j], d->force);
            else
                keep(s, scope, v->want, v->v[j]);
        }
    }
    if (count_alive(mine, nmine))
        return;
    for (unsigned i = 0; i < nmine; i++)
        act_on(s, ZL_ACTION_REMOVE, scope, NULL, mine[i]);
    if (nmine == 0)
        act(s, ZL_ACTION_FORGET)->deployment = d;
}

/* Instances that no document knows: they end, and leave nothing. */
static void strays(struct step *s, const struct scope *scope, const struct zl_actual_instance **v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        bool known = false;
        for (unsigned j = 0; scope && j < scope->deployment->nservices; j++)
            known |= zl_streq(scope->deployment->services[j].name, v[i]->service);
        if (known)
            continue;
        if (alive(v[i]))
            end(s, scope, NULL, v[i], scope && scope->deployment->force && scope->deployment->stopping);
        else if (!scope || !scope->deployment->stopping)
            act_on(s, ZL_ACTION_REMOVE, scope, NULL, v[i]);
    }
}

static int by_place(const void *a, const void *b)
{
    const struct zl_actual_instance *x = *(const struct zl_actual_instance *const *)a;
    const struct zl_actual_instance *y = *(const struct zl_actual_instance *const *)b;
    int r = strcmp(x->deployment, y->deployment);
    if (r == 0)
        r = strcmp(x->service, y->service);
    if (r == 0)
        r = (x->slot > y->slot) - (x->slot < y->slot);
    if (r == 0)
        r = (x->created_ms > y->created_ms) - (x->created_ms < y->created_ms);
    return r ? r : strcmp(x->id, y->id);
}

/* The instances of a deployment within the sorted table. */
static const struct zl_actual_instance **find_deployment(const struct step *s, const char *name, unsigned *n)
{
    unsigned low = 0, high = s->n;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (strcmp(s->sorted[mid]->deployment, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    unsigned to = low;
    while (to < s->n && zl_streq(s->sorted[to]->deployment, name))
        to++;
    *n = to - low;
    return s->sorted + low;
}

static void make_view(struct view *view, const struct zl_desired_service *want, const struct zl_actual_instance **mine,
                      unsigned nmine)
{
    view->want = want;
    while (nmine && strcmp(mine[0]->service, want->name) != 0) {
        mine++;
        nmine--;
    }
    view->v = mine;
    while (view->n < nmine && zl_streq(mine[view->n]->service, want->name)) {
        const struct zl_actual_instance *i = mine[view->n++];
        view->alive += alive(i);
        view->running += i->state == ZL_ACTUAL_RUNNING && !ending(i);
        view->healthy += healthy(want, i);
        view->ready += ready(want, i);
    }
}

static void step_deployment(struct step *s, const struct zl_desired_deployment *d)
{
    unsigned nmine;
    const struct zl_actual_instance **mine = find_deployment(s, d->name, &nmine);
    struct scope scope = { d, zl_arena_alloc(s->arena, (d->nservices + 1) * sizeof *scope.views) };
    struct zl_service_status *statuses = s->plan->services + s->plan->nservices;
    s->plan->nservices += d->nservices;
    for (unsigned i = 0; i < d->nservices; i++) {
        struct zl_service_status *status = &statuses[i];
        make_view(&scope.views[i], &d->services[i], mine, nmine);
        *status = (struct zl_service_status){ .deployment = d, .service = &d->services[i] };
        for (unsigned j = 0; j < scope.views[i].n; j++) {
            const struct zl_actual_instance *a = scope.views[i].v[j];
            status->running += a->state == ZL_ACTUAL_RUNNING && a->generation == d->services[i].generation;
            status->old += alive(a) && a->generation != d->services[i].generation;
        }
    }
    if (d->owner_gone && !d->stopping)
        act(s, ZL_ACTION_EXPIRE)->deployment = d;
    if (d->stopping)
        stop_deployment(s, &scope, mine, nmine);
    for (unsigned i = 0; i < d->nservices; i++) {
        if (d->stopping)
            statuses[i].phase = scope.views[i].alive ? ZL_PHASE_STOPPING : ZL_PHASE_STOPPED;
        else
            step_service(s, &scope, &scope.views[i], &statuses[i]);
    }
    strays(s, &scope, mine, nmine);
}

void zl_reconcile_step(struct zl_arena *arena, const struct zl_reconcile_desired *desired,
                       const struct zl_reconcile_actual *actual, uint64_t now_ms, struct zl_reconcile_plan *ret)
{
    struct step s = { .arena = arena, .actual = actual, .now = now_ms, .n = actual->ninstances, .plan = ret };
    unsigned services = 0;
    *ret = (struct zl_reconcile_plan){ 0 };
    for (unsigned i = 0; i < desired->ndeployments; i++)
        services += desired->deployments[i].nservices;
    ret->services = zl_arena_alloc(arena, (services + 1) * sizeof *ret->services);
    s.sorted = zl_arena_alloc(arena, (s.n + 1) * sizeof(struct zl_actual_instance *));
    for (unsigned i = 0; i < s.n; i++)
        s.sorted[i] = &actual->instances[i];
    qsort(s.sorted, s.n, sizeof(struct zl_actual_instance *), by_place);
    for (unsigned i = 0; i < desired->ndeployments; i++)
        step_deployment(&s, &desired->deployments[i]);
    for (unsigned i = 0, n; i < s.n; i += n) {
        bool known = false;
        const struct zl_actual_instance **v = find_deployment(&s, s.sorted[i]->deployment, &n);
        for (unsigned j = 0; j < desired->ndeployments; j++)
            known |= zl_streq(desired->deployments[j].name, v[0]->deployment);
        if (!known)
            strays(&s, NULL, v, n);
    }
    unsigned routed = 0;
    for (unsigned i = 0; i < s.n; i++)
        routed += s.sorted[i]->routed;
    /* Every route that is wanted is there and as many are there as are wanted: then they are the same. */
    if (s.publish || routed != ret->nroutes)
        (void)act(&s, ZL_ACTION_PUBLISH);
}

const char *zl_action_name(enum zl_action_kind kind)
{
    static const char *const names[] = {
        [ZL_ACTION_PULL] = "pull",       [ZL_ACTION_CREATE] = "create", [ZL_ACTION_START] = "start",
        [ZL_ACTION_PUBLISH] = "publish", [ZL_ACTION_DRAIN] = "drain",   [ZL_ACTION_TERM] = "term",
        [ZL_ACTION_KILL] = "kill",       [ZL_ACTION_REMOVE] = "remove", [ZL_ACTION_EXPIRE] = "expire",
        [ZL_ACTION_FORGET] = "forget",
    };
    return names[kind];
}

const char *zl_service_phase_name(enum zl_service_phase phase)
{
    static const char *const names[] = {
        [ZL_PHASE_READY] = "ready",     [ZL_PHASE_STARTING] = "starting",
        [ZL_PHASE_PULLING] = "pulling", [ZL_PHASE_PULL_FAILED] = "pull_failed",
        [ZL_PHASE_WAITING] = "waiting", [ZL_PHASE_DEPEND_FAILED] = "dependency_failed",
        [ZL_PHASE_BACKOFF] = "backoff", [ZL_PHASE_STOPPING] = "stopping",
        [ZL_PHASE_STOPPED] = "stopped",
    };
    return names[phase];
}
