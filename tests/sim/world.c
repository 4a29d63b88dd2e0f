#include "world.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(w, condition)                              \
    do {                                                 \
        if (!(condition))                                \
            broken((w), #condition, __func__, __LINE__); \
    } while (0)

ZL_NORETURN static void broken(struct world *w, const char *what, const char *func, int line)
{
    size_t from = w->trace.n > 3000 ? w->trace.n - 3000 : 0;
    fprintf(stderr, "seed %llu, step %u, t=%llu: %s:%d: %s\n%s\n", (unsigned long long)w->seed, w->steps,
            (unsigned long long)w->now, func, line, what, w->trace.p ? w->trace.p + from : "");
    for (unsigned i = 0; i < W_INSTANCES; i++) {
        const struct zl_actual_instance *a = &w->instances[i].a;
        if (w->instances[i].used)
            fprintf(stderr, "  %s %s.%s.%u gen %llu state %d%s%s%s%s%s\n", a->id, a->deployment, a->service, a->slot,
                    (unsigned long long)a->generation, (int)a->state, a->healthy ? " healthy" : "",
                    a->routed ? " routed" : "", a->applied ? " applied" : "", a->draining ? " draining" : "",
                    a->term_ms ? " termed" : "");
    }
    abort();
}

/* splitmix64 */
uint64_t world_random(struct world *w, uint64_t below)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

static bool chance(struct world *w, unsigned per_mille)
{
    return per_mille && world_random(w, 1000) < per_mille;
}

static uint64_t after(struct world *w, uint64_t most)
{
    return w->now + (w->exact ? most : most / 2 + (most > 1 ? world_random(w, most / 2 + 1) : 0));
}

void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){ .seed = seed,
                         .random = seed,
                         .now = 1000,
                         .create_ms = 20,
                         .healthy_ms = 50,
                         .end_ms = 20,
                         .ack_ms = 10,
                         .pull_ms = 100 };
}

void world_done(struct world *w)
{
    zl_buf_done(&w->trace);
}

struct w_deployment *world_deploy(struct world *w, const char *name, unsigned services, unsigned replicas)
{
    struct w_deployment *d = w->deployments;
    while (d->exists)
        d++;
    *d = (struct w_deployment){ .exists = true };
    (void)snprintf(d->name, sizeof d->name, "%s", name);
    d->d = (struct zl_desired_deployment){
        .name = d->name, .since_ms = w->now, .services = d->services, .nservices = services
    };
    for (unsigned i = 0; i < services; i++) {
        d->names[i][0] = (char)('a' + i);
        d->services[i] = (struct zl_desired_service){ .name = d->names[i],
                                                      .generation = ++w->generation,
                                                      .replicas = replicas,
                                                      .has_health = true,
                                                      .has_routes = true,
                                                      .grace_ms = 5000,
                                                      .depends = d->depends[i] };
    }
    return d;
}

void world_depend(struct w_deployment *d, unsigned from, unsigned on, enum zl_depend_condition condition,
                  enum zl_depend_timeout on_timeout, uint64_t timeout_ms)
{
    struct zl_desired_service *s = &d->services[from];
    d->depends[from][s->ndepends++] = (struct zl_desired_depend){ on, condition, on_timeout, timeout_ms };
}

void world_put(struct world *w, struct w_deployment *d, unsigned changed_mask)
{
    d->d.since_ms = w->now;
    d->d.stopping = d->d.force = d->d.owner_gone = false;
    for (unsigned i = 0; i < W_SERVICES; i++)
        if (changed_mask & 1u << i)
            d->services[i].generation = ++w->generation;
}

struct w_instance *world_instance(struct world *w, const char *service, unsigned slot)
{
    for (unsigned i = 0; i < W_INSTANCES; i++)
        if (w->instances[i].used && w->instances[i].a.state == ZL_ACTUAL_RUNNING && w->instances[i].a.slot == slot &&
            zl_streq(w->instances[i].service, service))
            return &w->instances[i];
    return NULL;
}

static void ended(struct world *w, struct w_instance *i)
{
    i->a.state = ZL_ACTUAL_ENDED;
    i->a.ended_ms = w->now;
    i->a.stopped = i->asked;
    i->a.healthy = false;
    i->healthy_at = i->crash_at = i->end_at = i->created_at = 0;
}

void world_crash(struct world *w, struct w_instance *i)
{
    ended(w, i);
}

/* What a killed agent forgets, and what its death does to what it was making. */
void world_kill_agent(struct world *w)
{
    zl_buf_printf(&w->trace, "%llu agent killed\n", (unsigned long long)w->now);
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        struct w_instance *i = &w->instances[k];
        if (!i->used)
            continue;
        if (i->a.state == ZL_ACTUAL_CREATING || i->a.state == ZL_ACTUAL_CREATED)
            ended(w, i);
        i->a.draining = i->a.drained = false;
        i->a.draining_ms = i->a.term_ms = i->a.kill_ms = 0;
    }
    for (unsigned k = 0; k < w->nimages; k++)
        if (w->images[k].a.state == ZL_IMAGE_PULLING || w->images[k].a.state == ZL_IMAGE_FAILED) {
            w->images[k].a.state = ZL_IMAGE_ABSENT;
            w->images[k].a.failures = 0;
        }
    for (unsigned k = 0; k < W_DEPLOYMENTS; k++)
        w->deployments[k].d.since_ms = w->now;
}

static const struct zl_desired_service *desired_of(struct world *w, const struct zl_actual_instance *a,
                                                   struct w_deployment **d)
{
    for (unsigned k = 0; k < W_DEPLOYMENTS; k++)
        for (unsigned j = 0; w->deployments[k].exists && j < w->deployments[k].d.nservices; j++)
            if (zl_streq(w->deployments[k].name, a->deployment) &&
                zl_streq(w->deployments[k].services[j].name, a->service)) {
                *d = &w->deployments[k];
                return &w->deployments[k].services[j];
            }
    return NULL;
}

static bool is_ending(const struct zl_actual_instance *a)
{
    return a->draining || a->term_ms || a->kill_ms;
}

static bool is_ready(const struct zl_actual_instance *a)
{
    return a->state == ZL_ACTUAL_RUNNING && !is_ending(a) && a->healthy && a->routed && a->applied;
}

/* How many of a slot are alive; and how many ready ones of the wanted generation, and old running ones, besides
 * `but`. */
static unsigned slot_alive(struct world *w, const struct zl_actual_instance *a, uint64_t generation, unsigned *fresh,
                           unsigned *old)
{
    unsigned n = 0;
    *fresh = *old = 0;
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        const struct zl_actual_instance *b = &w->instances[k].a;
        if (!w->instances[k].used || b->state == ZL_ACTUAL_ENDED || b->slot != a->slot ||
            !zl_streq(b->service, a->service) || !zl_streq(b->deployment, a->deployment))
            continue;
        n++;
        if (b == a)
            continue;
        *fresh += b->generation == generation && !is_ending(b);
        *old += b->generation != generation && !is_ending(b) && b->state == ZL_ACTUAL_RUNNING;
    }
    return n;
}

static void check_world(struct world *w)
{
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        const struct zl_actual_instance *a = &w->instances[k].a;
        struct w_deployment *d;
        if (!w->instances[k].used || a->state == ZL_ACTUAL_ENDED)
            continue;
        unsigned fresh, old;
        CHECK(w, slot_alive(w, a, 0, &fresh, &old) <= 2);
        for (unsigned j = 0; j < k; j++) {
            const struct zl_actual_instance *b = &w->instances[j].a;
            if (w->instances[j].used && b->state != ZL_ACTUAL_ENDED && b->slot == a->slot &&
                zl_streq(b->service, a->service) && zl_streq(b->deployment, a->deployment))
                CHECK(w, a->generation != b->generation);
        }
        const struct zl_desired_service *s = desired_of(w, a, &d);
        if (!s || a->slot > s->replicas || slot_alive(w, a, 0, &fresh, &old) < 2)
            continue;
        for (unsigned j = 0; j < W_INSTANCES; j++) { /* the surge is one slot a service */
            const struct zl_actual_instance *b = &w->instances[j].a;
            if (w->instances[j].used && b->state != ZL_ACTUAL_ENDED && b->slot != a->slot && b->slot <= s->replicas &&
                zl_streq(b->service, a->service) && zl_streq(b->deployment, a->deployment))
                CHECK(w, slot_alive(w, b, 0, &fresh, &old) < 2);
        }
    }
}

static void check_create(struct world *w, const struct zl_action *c)
{
    const struct zl_desired_service *s = c->service;
    const struct zl_desired_deployment *d = c->deployment;
    CHECK(w, !d->stopping && c->slot >= 1 && c->slot <= s->replicas && c->generation == s->generation);
    bool present = false;
    for (unsigned k = 0; k < w->nimages; k++)
        present |= w->images[k].a.generation == c->generation && w->images[k].a.state == ZL_IMAGE_PRESENT;
    CHECK(w, present);
    for (unsigned j = 0; j < s->ndepends; j++) {
        bool met = false;
        for (unsigned k = 0; k < W_INSTANCES; k++) {
            const struct zl_actual_instance *a = &w->instances[k].a;
            if (!w->instances[k].used || a->state != ZL_ACTUAL_RUNNING || is_ending(a) ||
                !zl_streq(a->deployment, d->name) || !zl_streq(a->service, d->services[s->depends[j].service].name))
                continue;
            met |= s->depends[j].condition == ZL_DEPEND_STARTED ||
                   (s->depends[j].condition == ZL_DEPEND_HEALTHY && a->healthy) || is_ready(a);
        }
        CHECK(w,
              met || (s->depends[j].on_timeout != ZL_DEPEND_FAIL && w->now >= d->since_ms + s->depends[j].timeout_ms));
    }
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        const struct zl_actual_instance *a = &w->instances[k].a;
        if (w->instances[k].used && a->state == ZL_ACTUAL_ENDED && !a->stopped && a->generation == c->generation &&
            a->slot == c->slot && zl_streq(a->deployment, d->name) && zl_streq(a->service, s->name))
            CHECK(w, w->now >= a->ended_ms + ZL_BACKOFF_FIRST_MS);
    }
}

static struct w_instance *own(struct world *w, const struct zl_actual_instance *a)
{
    for (unsigned k = 0; k < W_INSTANCES; k++)
        if (w->instances[k].used && zl_streq(w->instances[k].id, a->id))
            return &w->instances[k];
    abort();
}

/* Nothing that the plan should keep is touched, and nothing is asked to end too early. */
static void check_end(struct world *w, const struct zl_action *c)
{
    const struct zl_actual_instance *a = c->instance;
    struct w_deployment *d = NULL;
    const struct zl_desired_service *s = desired_of(w, a, &d);
    bool forced = false;
    for (unsigned k = 0; k < W_DEPLOYMENTS; k++)
        forced |= w->deployments[k].exists && w->deployments[k].d.stopping && w->deployments[k].d.force &&
                  zl_streq(w->deployments[k].name, a->deployment);
    if (c->kind == ZL_ACTION_TERM)
        CHECK(w, a->state == ZL_ACTUAL_RUNNING && (own(w, a)->busy_until <= w->now ||
                                                   (a->draining && w->now >= a->draining_ms + ZL_DRAIN_TIMEOUT_MS)));
    if (c->kind == ZL_ACTION_KILL)
        CHECK(w, forced || a->state == ZL_ACTUAL_CREATED || a->kill_ms ||
                     (a->term_ms && w->now >= a->term_ms + (s ? s->grace_ms : (uint64_t)ZL_GRACE_MS)));
    if (!s || d->d.stopping || a->slot > s->replicas || is_ending(a))
        return;
    unsigned fresh, old;
    (void)slot_alive(w, a, s->generation, &fresh, &old);
    if (a->generation == s->generation)
        CHECK(w, fresh > 0);
    else if (a->state == ZL_ACTUAL_RUNNING) {
        bool replaced = false;
        for (unsigned k = 0; k < W_INSTANCES; k++)
            replaced |= w->instances[k].used && is_ready(&w->instances[k].a) &&
                        w->instances[k].a.generation == s->generation && w->instances[k].a.slot == a->slot &&
                        zl_streq(w->instances[k].service, a->service) &&
                        zl_streq(w->instances[k].deployment, a->deployment);
        CHECK(w, replaced || old > 0);
    }
}

static void do_create(struct world *w, const struct zl_action *c)
{
    struct w_instance *i = w->instances;
    while (i->used && i < w->instances + W_INSTANCES - 1)
        i++;
    CHECK(w, !i->used);
    *i = (struct w_instance){ .used = true };
    (void)snprintf(i->id, sizeof i->id, "i%llu", (unsigned long long)++w->next_id);
    (void)snprintf(i->deployment, sizeof i->deployment, "%s", c->deployment->name);
    (void)snprintf(i->service, sizeof i->service, "%s", c->service->name);
    i->a = (struct zl_actual_instance){ .id = i->id,
                                        .deployment = i->deployment,
                                        .service = i->service,
                                        .slot = c->slot,
                                        .generation = c->generation,
                                        .attempt = c->attempt,
                                        .state = ZL_ACTUAL_CREATING,
                                        .created_ms = w->now };
    if (chance(w, w->faults.create))
        i->end_at = after(w, w->create_ms);
    else
        i->created_at = after(w, w->create_ms);
    i->deaf = chance(w, w->faults.deaf);
    w->creates++;
}

static void do_pull(struct world *w, const struct zl_action *c)
{
    struct w_image *m = w->images;
    while (m < w->images + w->nimages && m->a.generation != c->generation)
        m++;
    CHECK(w, m < w->images + W_IMAGES);
    if (m == w->images + w->nimages) {
        w->nimages++;
        *m = (struct w_image){ 0 };
        (void)snprintf(m->deployment, sizeof m->deployment, "%s", c->deployment->name);
        (void)snprintf(m->service, sizeof m->service, "%s", c->service->name);
        m->a =
            (struct zl_actual_image){ .deployment = m->deployment, .service = m->service, .generation = c->generation };
    }
    CHECK(w, m->a.state == ZL_IMAGE_ABSENT || m->a.state == ZL_IMAGE_FAILED);
    if (m->a.state == ZL_IMAGE_FAILED)
        CHECK(w, w->now >= m->a.failed_ms + zl_backoff_ms(m->a.failures));
    m->a.state = ZL_IMAGE_PULLING;
    m->done_at = after(w, w->pull_ms);
    m->fails = chance(w, w->faults.pull);
}

static void do_publish(struct world *w, const struct zl_reconcile_plan *p)
{
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        struct w_instance *i = &w->instances[k];
        if (!i->used)
            continue;
        bool wanted = false;
        for (unsigned r = 0; r < p->nroutes; r++)
            wanted |= p->routes[r] == &i->a || zl_streq(p->routes[r]->id, i->id);
        if (i->a.routed && !wanted)
            i->drained_at = i->busy_until = after(w, w->ack_ms * 4);
        if (wanted != i->a.routed)
            i->a.applied = false;
        i->a.routed = wanted;
    }
    w->applied_at = after(w, w->ack_ms);
}

static void do_action(struct world *w, const struct zl_action *c, const struct zl_reconcile_plan *p)
{
    struct w_instance *i = c->instance ? own(w, c->instance) : NULL;
    switch (c->kind) {
    case ZL_ACTION_PULL:
        do_pull(w, c);
        break;
    case ZL_ACTION_CREATE:
        do_create(w, c);
        break;
    case ZL_ACTION_START:
        i->a.state = ZL_ACTUAL_RUNNING;
        i->a.started_ms = w->now;
        i->healthy_at = chance(w, w->faults.health) ? 0 : after(w, w->healthy_ms);
        i->crash_at = chance(w, w->faults.crash) ? after(w, 1 + world_random(w, 90000)) : 0;
        break;
    case ZL_ACTION_PUBLISH:
        do_publish(w, p);
        break;
    case ZL_ACTION_DRAIN:
        i->a.draining = true;
        i->a.draining_ms = w->now;
        i->a.drained = !i->a.routed && !i->drained_at;
        break;
    case ZL_ACTION_TERM:
        i->a.term_ms = w->now;
        i->asked = true;
        if (!i->deaf)
            i->end_at = after(w, w->end_ms);
        break;
    case ZL_ACTION_KILL:
        i->end_at = i->a.kill_ms || !i->deaf || w->faults.deaf == 0 || chance(w, 500) ? after(w, 4) : 0;
        i->a.kill_ms = w->now;
        i->asked = true;
        break;
    case ZL_ACTION_REMOVE:
        i->used = false;
        break;
    case ZL_ACTION_EXPIRE:
    case ZL_ACTION_FORGET:
        for (unsigned k = 0; k < W_DEPLOYMENTS; k++)
            if (&w->deployments[k].d == c->deployment ||
                (w->deployments[k].exists && zl_streq(w->deployments[k].name, c->deployment->name))) {
                if (c->kind == ZL_ACTION_EXPIRE)
                    w->deployments[k].d.stopping = true;
                else
                    w->deployments[k].exists = false;
            }
        break;
    }
}

static void check_plan(struct world *w, const struct zl_reconcile_plan *p)
{
    CHECK(w, p->wake_ms == 0 || p->wake_ms > w->now);
    for (unsigned k = 0; k < p->nactions; k++) {
        const struct zl_action *c = &p->actions[k];
        for (unsigned j = 0; c->instance && j < k; j++)
            CHECK(w, p->actions[j].instance != c->instance);
        if (c->kind == ZL_ACTION_CREATE)
            check_create(w, c);
        if (c->kind == ZL_ACTION_TERM || c->kind == ZL_ACTION_KILL || c->kind == ZL_ACTION_DRAIN)
            check_end(w, c);
        if (c->kind == ZL_ACTION_START)
            CHECK(w, c->instance->state == ZL_ACTUAL_CREATED && c->generation == c->service->generation);
        if (c->kind == ZL_ACTION_REMOVE)
            CHECK(w, c->instance->state == ZL_ACTUAL_ENDED);
        for (unsigned k2 = 0; c->kind == ZL_ACTION_FORGET && k2 < W_INSTANCES; k2++)
            CHECK(w, !w->instances[k2].used || !zl_streq(w->instances[k2].deployment, c->deployment->name));
    }
    for (unsigned k = 0; k < p->nroutes; k++)
        CHECK(w, p->routes[k]->state == ZL_ACTUAL_RUNNING && !is_ending(p->routes[k]));
}

static void trace_plan(struct world *w, const struct zl_reconcile_plan *p)
{
    if (p->nactions == 0)
        return;
    zl_buf_printf(&w->trace, "%llu", (unsigned long long)w->now);
    for (unsigned k = 0; k < p->nactions; k++) {
        const struct zl_action *c = &p->actions[k];
        zl_buf_printf(&w->trace, " %s", zl_action_name(c->kind));
        if (c->kind == ZL_ACTION_PULL)
            zl_buf_printf(&w->trace, ":%s", c->service->name);
        else if (c->kind == ZL_ACTION_CREATE)
            zl_buf_printf(&w->trace, ":%s.%u/%u", c->service->name, c->slot, c->attempt);
        else if (c->instance)
            zl_buf_printf(&w->trace, ":%s.%u(%s)", c->instance->service, c->slot, c->instance->id);
        else if (c->kind == ZL_ACTION_PUBLISH)
            zl_buf_printf(&w->trace, ":%u", p->nroutes);
    }
    zl_buf_putc(&w->trace, '\n');
}

void world_step(struct world *w)
{
    static struct zl_actual_instance instances[W_INSTANCES];
    static struct zl_actual_image images[W_IMAGES];
    struct zl_desired_deployment deployments[W_DEPLOYMENTS];
    struct zl_reconcile_desired desired = { deployments, 0 };
    struct zl_reconcile_actual actual = { .instances = instances, .images = images, .nimages = w->nimages };
    for (unsigned k = 0; k < W_DEPLOYMENTS; k++)
        if (w->deployments[k].exists)
            deployments[desired.ndeployments++] = w->deployments[k].d;
    for (unsigned k = 0; k < W_INSTANCES; k++)
        if (w->instances[k].used)
            instances[actual.ninstances++] = w->instances[k].a;
    for (unsigned k = 0; k < w->nimages; k++)
        images[k] = w->images[k].a;
    struct zl_arena arena;
    struct zl_reconcile_plan plan;
    zl_arena_init(&arena);
    zl_reconcile_step(&arena, &desired, &actual, w->now, &plan);
    w->steps++;
    trace_plan(w, &plan);
    check_plan(w, &plan);
    for (unsigned k = 0; k < plan.nactions; k++)
        do_action(w, &plan.actions[k], &plan);
    check_world(w);
    w->idle = plan.nactions == 0;
    w->wake_ms = plan.wake_ms;
    zl_arena_done(&arena);
}

static void sooner(uint64_t *next, uint64_t when)
{
    if (when && (*next == 0 || when < *next))
        *next = when;
}

static bool due(struct world *w, uint64_t *when)
{
    if (!*when || *when > w->now)
        return false;
    *when = 0;
    return true;
}

static void happen(struct world *w)
{
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        struct w_instance *i = &w->instances[k];
        if (!i->used || i->a.state == ZL_ACTUAL_ENDED)
            continue;
        if (due(w, &i->end_at) || due(w, &i->crash_at)) {
            ended(w, i);
            continue;
        }
        if (due(w, &i->created_at))
            i->a.state = ZL_ACTUAL_CREATED;
        if (due(w, &i->healthy_at))
            i->a.healthy = true;
        if (due(w, &i->drained_at) && i->a.draining)
            i->a.drained = true;
    }
    if (due(w, &w->applied_at))
        for (unsigned k = 0; k < W_INSTANCES; k++)
            w->instances[k].a.applied = w->instances[k].a.routed;
    for (unsigned k = 0; k < w->nimages; k++) {
        struct w_image *m = &w->images[k];
        if (m->a.state != ZL_IMAGE_PULLING || !due(w, &m->done_at))
            continue;
        m->a.state = m->fails ? ZL_IMAGE_FAILED : ZL_IMAGE_PRESENT;
        m->a.failures = m->fails ? m->a.failures + 1 : 0;
        m->a.failed_ms = w->now;
    }
}

bool world_advance(struct world *w, uint64_t limit)
{
    uint64_t next = 0;
    sooner(&next, w->wake_ms);
    sooner(&next, w->applied_at);
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        const struct w_instance *i = &w->instances[k];
        if (!i->used || i->a.state == ZL_ACTUAL_ENDED)
            continue;
        sooner(&next, i->created_at);
        sooner(&next, i->healthy_at);
        sooner(&next, i->crash_at);
        sooner(&next, i->end_at);
        sooner(&next, i->drained_at);
    }
    for (unsigned k = 0; k < w->nimages; k++)
        if (w->images[k].a.state == ZL_IMAGE_PULLING)
            sooner(&next, w->images[k].done_at);
    bool moves = next && next <= limit;
    w->now = moves ? ZL_MAX(next, w->now) : limit;
    happen(w);
    return moves;
}

void world_run(struct world *w, uint64_t ms)
{
    uint64_t limit = w->now + ms;
    do {
        for (unsigned tries = 0;; tries++) {
            world_step(w);
            if (w->idle)
                break;
            CHECK(w, tries < 20); /* a plan's effects must not call for the same again and again */
        }
    } while (world_advance(w, limit));
}

static void count_service(struct world *w, const struct w_deployment *d, unsigned service, unsigned *alive,
                          unsigned *ready)
{
    *alive = *ready = 0;
    for (unsigned i = 0; i < W_INSTANCES; i++) {
        const struct zl_actual_instance *a = &w->instances[i].a;
        if (!w->instances[i].used || a->state == ZL_ACTUAL_ENDED || !zl_streq(a->deployment, d->name) ||
            !zl_streq(a->service, d->services[service].name))
            continue;
        ++*alive;
        *ready += is_ready(a) && a->generation == d->services[service].generation;
    }
}

/* It waits for ever for a service that has nothing that is ready, as the document says. */
static bool shut(struct world *w, const struct w_deployment *d, unsigned service)
{
    const struct zl_desired_service *s = &d->services[service];
    for (unsigned i = 0; i < s->ndepends; i++) {
        unsigned alive, ready;
        count_service(w, d, s->depends[i].service, &alive, &ready);
        if (s->depends[i].on_timeout == ZL_DEPEND_FAIL && ready == 0)
            return true;
    }
    return false;
}

static void check_settled(struct world *w)
{
    for (unsigned k = 0; k < W_DEPLOYMENTS; k++) {
        struct w_deployment *d = &w->deployments[k];
        if (!d->exists)
            continue;
        CHECK(w, !d->d.stopping);
        for (unsigned j = 0; j < d->d.nservices; j++) {
            unsigned ready, alive;
            count_service(w, d, j, &alive, &ready);
            CHECK(w, shut(w, d, j) ? ready <= d->services[j].replicas : ready == d->services[j].replicas);
            CHECK(w, shut(w, d, j) || alive == ready);
        }
    }
    for (unsigned k = 0; k < W_INSTANCES; k++) {
        struct w_deployment *d;
        const struct zl_actual_instance *a = &w->instances[k].a;
        if (!w->instances[k].used)
            continue;
        CHECK(w, desired_of(w, a, &d)); /* what was removed leaves nothing */
        unsigned ended_there = 0;
        for (unsigned j = 0; j < W_INSTANCES; j++)
            ended_there += w->instances[j].used && w->instances[j].a.state == ZL_ACTUAL_ENDED &&
                           w->instances[j].a.slot == a->slot && zl_streq(w->instances[j].service, a->service) &&
                           zl_streq(w->instances[j].deployment, a->deployment);
        CHECK(w, ended_there <= ZL_ENDED_KEPT);
    }
}

void world_settle(struct world *w, uint64_t limit_ms)
{
    world_run(w, limit_ms);
    CHECK(w, w->idle && w->wake_ms == 0);
    check_settled(w);
}
