/* What the store wants and what there is, in the form that the step takes. */
#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/log.h"

enum { DEFAULT_GRACE_MS = 30000 };

struct doc *agent_doc(struct zl_agent *a, const char *deployment)
{
    for (struct doc *d = a->docs; d; d = d->next)
        if (zl_streq(d->deployment, deployment))
            return d;
    return NULL;
}

/* The document of a deployment of the store. It was checked when it was put, so failing to parse is damage. */
struct doc *agent_doc_of(struct zl_agent *a, const struct zl_state_deployment *d)
{
    struct doc *doc = agent_doc(a, d->name);
    if (doc && doc->generation == d->generation)
        return doc;
    if (!doc) {
        doc = zl_xcalloc(1, sizeof *doc);
        doc->deployment = zl_xstrdup(d->name);
        doc->next = a->docs;
        a->docs = doc;
        zl_arena_init(&doc->arena);
    } else {
        /* A new generation of it; who holds a lease stays. */
        zl_arena_done(&doc->arena);
        doc->force = false;
        doc->grace_ms = 0;
        doc->lost_ms = 0;
    }
    struct zl_decoder dec;
    struct zl_err err = { 0 };
    doc->generation = d->generation;
    doc->spec = NULL;
    zl_decoder_init(&dec, &doc->arena);
    if (zl_spec_parse(&dec, zl_str(d->spec), &doc->spec, &err) < 0) {
        doc->spec = NULL;
        zl_log_error("the stored document of deployment=%s can't be used, it is left as it is: %s", d->name, err.text);
    }
    zl_decoder_done(&dec);
    return doc;
}

const struct zl_service *agent_service(struct zl_agent *a, const char *deployment, const char *service)
{
    struct doc *d = agent_doc(a, deployment);
    return d && d->spec ? zl_spec_service(d->spec, service) : NULL;
}

static int index_of(const struct zl_state_deployment *d, const char *service)
{
    for (unsigned i = 0; i < d->nservices; i++)
        if (zl_streq(d->services[i].name, service))
            return (int)i;
    return -1;
}

static void desired_service(struct zl_arena *arena, const struct zl_state_deployment *d, const struct doc *doc,
                            const struct zl_state_service *s, struct zl_desired_service *ret)
{
    static const enum zl_depend_condition conditions[] = { [ZL_CONDITION_HEALTHY] = ZL_DEPEND_HEALTHY,
                                                           [ZL_CONDITION_STARTED] = ZL_DEPEND_STARTED,
                                                           [ZL_CONDITION_READY] = ZL_DEPEND_READY };
    static const enum zl_depend_timeout timeouts[] = { [ZL_ON_TIMEOUT_FAIL] = ZL_DEPEND_FAIL,
                                                       [ZL_ON_TIMEOUT_WARN] = ZL_DEPEND_WARN,
                                                       [ZL_ON_TIMEOUT_CONTINUE] = ZL_DEPEND_CONTINUE };
    const struct zl_service *spec = doc->spec ? zl_spec_service(doc->spec, s->name) : NULL;
    /* The last plan is shown until the next step, and the state's own strings may go before. */
    *ret = (struct zl_desired_service){ .name = zl_arena_strdup(arena, s->name),
                                        .generation = s->generation,
                                        .replicas = s->replicas,
                                        .grace_ms = doc->grace_ms ? doc->grace_ms : DEFAULT_GRACE_MS };
    if (!spec)
        return;
    ret->has_health = spec->health.check.type != ZL_CHECK_NONE;
    ret->has_routes = spec->endpoints.n > 0 || ret->has_health; /* probes are the proxy's, too */
    struct zl_desired_depend *deps = zl_arena_alloc(arena, (spec->depends.n + 1) * sizeof *deps);
    for (unsigned i = 0; i < spec->depends.n; i++) {
        const struct zl_depend *dep = spec->depends.v[i];
        int at = index_of(d, dep->service);
        if (at >= 0)
            deps[ret->ndepends++] = (struct zl_desired_depend){ (unsigned)at, conditions[dep->condition],
                                                                timeouts[dep->on_timeout], dep->timeout_ms };
    }
    ret->depends = deps;
}

void agent_desired(struct zl_agent *a, struct zl_arena *arena, struct zl_reconcile_desired *ret)
{
    const struct zl_state *state = zl_cluster_state(a->cluster);
    struct zl_desired_deployment *all = zl_arena_alloc(arena, (state->ndeployments + 1) * sizeof *all);
    uint64_t now = agent_now(a), wall = zl_clock_wall_ms();
    for (struct doc *d = a->docs; d; d = d->next)
        d->used = false;
    for (unsigned i = 0; i < state->ndeployments; i++) {
        const struct zl_state_deployment *d = &state->deployments[i];
        struct doc *doc = agent_doc_of(a, d);
        doc->used = true;
        if (!d->owner[0] || agent_owner_there(doc, d->owner))
            doc->lost_ms = 0;
        else if (!doc->lost_ms)
            doc->lost_ms = now;
        struct zl_desired_service *services = zl_arena_alloc(arena, (d->nservices + 1) * sizeof *services);
        for (unsigned k = 0; k < d->nservices; k++)
            desired_service(arena, d, doc, &d->services[k], &services[k]);
        uint64_t ago = wall > d->updated_ms ? wall - d->updated_ms : 0;
        all[i] = (struct zl_desired_deployment){
            .name = zl_arena_strdup(arena, d->name),
            .stopping = d->stopping,
            .force = doc->force,
            .owner_gone = doc->lost_ms && now >= doc->lost_ms + OWNER_LOST_MS,
            .since_ms = ZL_MAX(ago < now ? now - ago : 1, a->opened_ms),
            .services = services,
            .nservices = d->nservices,
        };
    }
    for (struct doc **at = &a->docs; *at;) {
        struct doc *d = *at;
        if (d->used || d->leases) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        zl_arena_done(&d->arena);
        free(d->deployment);
        free(d);
    }
    ret->deployments = all;
    ret->ndeployments = state->ndeployments;
}

static void actual_instance(struct zl_agent *a, const struct inst *i, struct zl_actual_instance *ret)
{
    const struct zl_service *s = agent_service(a, i->deployment, i->service);
    *ret = (struct zl_actual_instance){
        .id = i->id,
        .deployment = i->deployment,
        .service = i->service,
        .slot = i->slot,
        .generation = i->generation,
        .attempt = i->attempt,
        .state = i->state,
        .healthy = s && agent_healthy(a, i, s),
        .routed = i->routed,
        .applied = i->routed && a->proxy && zl_proxy_applied(a->proxy, i->routed_in),
        .draining = i->draining,
        .drained = agent_inst_drained(a, i, s),
        .stopped = i->stopped,
        .draining_ms = i->draining_ms,
        .term_ms = i->term_ms,
        .kill_ms = i->kill_ms,
        .created_ms = i->created_ms,
        .started_ms = i->started_ms,
        .ended_ms = i->ended_ms,
    };
}

void agent_actual(struct zl_agent *a, struct zl_arena *arena, struct zl_reconcile_actual *ret)
{
    unsigned n = 0, m = 0;
    for (const struct inst *i = a->instances; i; i = i->next)
        n++;
    for (const struct pull *p = a->pulls; p; p = p->next)
        m++;
    struct zl_actual_instance *instances = zl_arena_alloc(arena, (n + 1) * sizeof *instances);
    struct zl_actual_image *images = zl_arena_alloc(arena, (m + 1) * sizeof *images);
    n = m = 0;
    for (const struct inst *i = a->instances; i; i = i->next)
        actual_instance(a, i, &instances[n++]);
    for (const struct pull *p = a->pulls; p; p = p->next)
        images[m++] = (struct zl_actual_image){ p->deployment, p->service,   p->generation, p->state,
                                                p->failures,   p->failed_ms, p->permanent };
    *ret = (struct zl_reconcile_actual){ instances, n, images, m };
}
