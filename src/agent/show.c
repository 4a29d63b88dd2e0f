/* What there is, as the API shows it. */
#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/fd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>

static struct zl_value *text(struct zl_arena *arena, const char *s)
{
    return zl_value_string(arena, zl_str(s));
}

static struct zl_value *wall(struct zl_arena *arena, uint64_t ms)
{
    char t[ZL_TIME_TEXT_SIZE];
    return text(arena, zl_time_text_s(ms, t));
}

static const struct zl_service_status *status_of(struct zl_agent *a, const char *deployment, const char *service)
{
    for (unsigned i = 0; i < a->plan.nservices; i++) {
        const struct zl_service_status *s = &a->plan.services[i];
        if (zl_streq(s->deployment->name, deployment) && zl_streq(s->service->name, service))
            return s;
    }
    return NULL;
}

static struct zl_value *show_endpoint(struct zl_agent *a, struct zl_arena *arena, const char *deployment,
                                      const char *service, const struct zl_endpoint *e)
{
    struct zl_value *v = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, v, "name", text(arena, e->name));
    zl_value_set(arena, v, "protocol", text(arena, e->protocol == ZL_PROTOCOL_HTTP ? "http" : "tcp"));
    zl_value_set(arena, v, "port", zl_value_int(arena, e->port));
    zl_value_set(arena, v, "target_port", zl_value_int(arena, e->target_port));
    zl_value_set(arena, v, "expose", text(arena, e->expose == ZL_EXPOSE_PUBLIC ? "public" : "internal"));
    zl_value_set(arena, v, "listen", agent_listen_list(a, arena, deployment, service, e));
    return v;
}

static struct zl_value *show_service(struct zl_agent *a, struct zl_arena *arena, const char *deployment,
                                     const struct zl_state_service *s)
{
    char address[INET_ADDRSTRLEN];
    struct zl_value *v = zl_value_new(arena, ZL_MAP), *endpoints = zl_value_new(arena, ZL_LIST);
    const struct zl_service *spec = agent_service(a, deployment, s->name);
    const struct zl_service_status *st = status_of(a, deployment, s->name);
    const struct pull *p = agent_pull_of(a, deployment, s->name, s->generation, false);
    zl_value_set(arena, v, "name", text(arena, s->name));
    zl_value_set(arena, v, "image", text(arena, spec ? spec->image.name : ""));
    zl_value_set(arena, v, "status", text(arena, st ? zl_service_phase_name(st->phase) : "starting"));
    zl_value_set(arena, v, "replicas", zl_value_int(arena, s->replicas));
    zl_value_set(arena, v, "running", zl_value_int(arena, st ? st->running : 0));
    zl_value_set(arena, v, "ready", zl_value_int(arena, st ? st->ready : 0));
    if (s->address) {
        struct in_addr in = { htonl(s->address) };
        zl_value_set(arena, v, "address", text(arena, inet_ntop(AF_INET, &in, address, sizeof address)));
    }
    if (st && st->phase == ZL_PHASE_PULL_FAILED && p)
        zl_value_set(arena, v, "message", text(arena, p->err.text));
    for (unsigned k = 0; spec && k < spec->endpoints.n; k++)
        zl_value_append(endpoints, show_endpoint(a, arena, deployment, s->name, spec->endpoints.v[k]));
    zl_value_set(arena, v, "endpoints", endpoints);
    return v;
}

static const char *overall(struct zl_agent *a, const struct zl_state_deployment *d)
{
    unsigned ready = 0, stopped = 0, bad = 0;
    if (d->stopping)
        return "stopping";
    for (unsigned k = 0; k < d->nservices; k++) {
        const struct zl_service_status *s = status_of(a, d->name, d->services[k].name);
        ready += s && s->phase == ZL_PHASE_READY;
        stopped += s && s->phase == ZL_PHASE_STOPPED;
        bad += s &&
               (s->phase == ZL_PHASE_PULL_FAILED || s->phase == ZL_PHASE_DEPEND_FAILED || s->phase == ZL_PHASE_BACKOFF);
    }
    if (d->nservices && stopped == d->nservices)
        return "stopped";
    if (ready + stopped == d->nservices)
        return "ready";
    return bad ? ready ? "degraded" : "failed" : "starting";
}

static struct zl_value *show_deployment(struct zl_agent *a, struct zl_arena *arena, const struct zl_state_deployment *d)
{
    struct zl_value *v = zl_value_new(arena, ZL_MAP), *services = zl_value_new(arena, ZL_LIST);
    zl_value_set(arena, v, "name", text(arena, d->name));
    zl_value_set(arena, v, "status", text(arena, overall(a, d)));
    zl_value_set(arena, v, "generation", zl_value_int(arena, (int64_t)d->generation));
    zl_value_set(arena, v, "owned", zl_value_bool(arena, d->owner[0] != 0));
    zl_value_set(arena, v, "created_at", wall(arena, d->created_ms));
    if (a->trouble.code)
        zl_value_set(arena, v, "message", text(arena, a->trouble.text));
    const char *warnings[AGENT_WARNINGS];
    const struct doc *doc = agent_doc_of(a, d);
    unsigned nwarnings = agent_warnings(a, arena, doc ? doc->spec : NULL, d->owner[0] != 0, warnings);
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    for (unsigned k = 0; k < nwarnings; k++)
        zl_value_append(list, text(arena, warnings[k]));
    if (nwarnings)
        zl_value_set(arena, v, "warnings", list);
    for (unsigned k = 0; k < d->nservices; k++)
        zl_value_append(services, show_service(a, arena, d->name, &d->services[k]));
    zl_value_set(arena, v, "services", services);
    return v;
}

struct zl_value *zl_agent_show_deployment(struct zl_agent *a, struct zl_arena *arena, const char *name)
{
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), name);
    return d ? show_deployment(a, arena, d) : NULL;
}

bool zl_agent_has_deployment(struct zl_agent *a, const char *name)
{
    return zl_state_deployment(zl_cluster_state(a->cluster), name) != NULL;
}

struct zl_value *zl_agent_show_deployments(struct zl_agent *a, struct zl_arena *arena)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    for (unsigned i = 0; i < s->ndeployments; i++)
        zl_value_append(list, show_deployment(a, arena, &s->deployments[i]));
    return list;
}

static struct zl_value *show_exit(struct zl_arena *arena, const struct inst *i)
{
    struct zl_value *v = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, v, "code", zl_value_int(arena, i->outcome.code));
    zl_value_set(arena, v, "signal", zl_value_int(arena, i->outcome.signal));
    zl_value_set(arena, v, "reason", text(arena, zl_rt_reason_name(i->outcome.reason)));
    zl_value_set(arena, v, "oom_kills", zl_value_int(arena, (int64_t)i->outcome.oom_kills));
    zl_value_set(arena, v, "finished_at", wall(arena, i->outcome.finished_at_ms));
    return v;
}

/* The shim writes it; read once, when somebody wants to see it. */
static pid_t first_process(struct zl_agent *a, struct zl_arena *arena, struct inst *i)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_value *v;
    struct zl_parse_error pe;
    char path[4200];
    if (i->pid || i->state != ZL_ACTUAL_RUNNING)
        return i->pid;
    snprintf(path, sizeof path, "%s/%s/state", a->o.home->containers, i->id);
    if (zl_read_file(AT_FDCWD, path, 4096, &text) == 0 &&
        zl_json_parse(arena, zl_buf_view(&text), &zl_limits_document, &v, &pe) == 0)
        i->pid = (pid_t)ZL_MIN(zl_value_u64(v, "pid", 0), (uint64_t)INT32_MAX);
    return i->pid;
}

static struct zl_value *show_instance(struct zl_agent *a, struct zl_arena *arena, struct inst *i)
{
    static const char *const states[] = { "creating", "created", "running", "exited" };
    char address[INET_ADDRSTRLEN];
    const struct zl_service *s = agent_service(a, i->deployment, i->service);
    struct zl_value *v = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, v, "id", text(arena, i->id));
    zl_value_set(arena, v, "name", text(arena, zl_arena_printf(arena, "%s.%s.%u", i->deployment, i->service, i->slot)));
    zl_value_set(arena, v, "deployment", text(arena, i->deployment));
    zl_value_set(arena, v, "service", text(arena, i->service));
    zl_value_set(arena, v, "slot", zl_value_int(arena, i->slot));
    zl_value_set(arena, v, "image", text(arena, i->image));
    zl_value_set(arena, v, "state",
                 text(arena, i->term_ms && i->state != ZL_ACTUAL_ENDED ? "stopping" : states[i->state]));
    bool checked = s && s->health.check.type != ZL_CHECK_NONE && i->state == ZL_ACTUAL_RUNNING;
    zl_value_set(arena, v, "health", text(arena, !checked ? "none" : agent_healthy(a, i, s) ? "healthy" : "unhealthy"));
    if (i->address.s_addr)
        zl_value_set(arena, v, "address", text(arena, inet_ntop(AF_INET, &i->address, address, sizeof address)));
    if (first_process(a, arena, i) > 0)
        zl_value_set(arena, v, "pid", zl_value_int(arena, i->pid));
    zl_value_set(arena, v, "restarts", zl_value_int(arena, i->attempt));
    zl_value_set(arena, v, "created_at", wall(arena, i->created_wall_ms));
    if (i->started_wall_ms)
        zl_value_set(arena, v, "started_at", wall(arena, i->started_wall_ms));
    if (i->state == ZL_ACTUAL_ENDED)
        zl_value_set(arena, v, "exit", show_exit(arena, i));
    if (i->failure[0])
        zl_value_set(arena, v, "message", text(arena, i->failure));
    return v;
}

static int by_slot(const void *x, const void *y)
{
    const struct inst *a = *(struct inst *const *)x, *b = *(struct inst *const *)y;
    int r = strcmp(a->deployment, b->deployment);
    r = r ? r : strcmp(a->service, b->service);
    r = r ? r : (a->slot > b->slot) - (a->slot < b->slot);
    return r ? r : (a->created_wall_ms > b->created_wall_ms) - (a->created_wall_ms < b->created_wall_ms);
}

static struct inst **sorted(struct zl_agent *a, struct zl_arena *arena, unsigned *ret_n)
{
    unsigned n = 0;
    for (struct inst *i = a->instances; i; i = i->next)
        n++;
    struct inst **v = zl_arena_alloc(arena, (n + 1) * sizeof(struct inst *));
    n = 0;
    for (struct inst *i = a->instances; i; i = i->next)
        if (!i->dropped)
            v[n++] = i;
    qsort(v, n, sizeof *v, by_slot);
    *ret_n = n;
    return v;
}

struct zl_value *zl_agent_show_containers(struct zl_agent *a, struct zl_arena *arena)
{
    unsigned n;
    struct inst **v = sorted(a, arena, &n);
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    for (unsigned i = 0; i < n; i++)
        zl_value_append(list, show_instance(a, arena, v[i]));
    return list;
}

void zl_agent_each_instance(struct zl_agent *a, const char *deployment,
                            void (*fn)(void *arg, const char *id, const char *service, unsigned slot, bool running),
                            void *arg)
{
    struct zl_arena arena;
    unsigned n;
    zl_arena_init(&arena);
    struct inst **v = sorted(a, &arena, &n);
    for (unsigned i = 0; i < n; i++)
        if (zl_streq(v[i]->deployment, deployment))
            fn(arg, v[i]->id, v[i]->service, v[i]->slot, v[i]->state == ZL_ACTUAL_RUNNING);
    zl_arena_done(&arena);
}

struct zl_value *zl_agent_show_store(struct zl_agent *a, struct zl_arena *arena)
{
    struct zl_value *v = zl_value_new(arena, ZL_MAP);
    const struct zl_err *damage = zl_cluster_damage(a->cluster);
    bool ok = !damage || !damage->code;
    zl_value_set(arena, v, "state", text(arena, ok ? "ok" : "damaged"));
    if (!ok)
        zl_value_set(arena, v, "message", text(arena, zl_arena_printf(arena, "%s (%s)", damage->text, damage->hint)));
    return v;
}

struct zl_value *zl_agent_plan(struct zl_agent *a, struct zl_arena *arena, const struct zl_spec *spec)
{
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), spec->deployment);
    for (unsigned i = 0; i < spec->services.n; i++) {
        const struct zl_service *s = spec->services.v[i];
        const struct zl_state_service *old = d ? zl_state_service(d, s->name) : NULL;
        const struct zl_service *before = d ? agent_service(a, d->name, s->name) : NULL;
        unsigned replicas = zl_service_replicas(s, old ? old->replicas : 0);
        const char *action = !old                                            ? "create"
                             : old->fingerprint != zl_service_fingerprint(s) ? "replace"
                             : old->replicas != replicas                     ? "scale"
                                                                             : "none";
        if (zl_streq(action, "none") && before &&
            !zl_value_equal(zl_print(arena, &zl_type_service, before), zl_print(arena, &zl_type_service, s)))
            action = "update";
        struct zl_value *v = zl_value_new(arena, ZL_MAP);
        zl_value_set(arena, v, "service", text(arena, s->name));
        zl_value_set(arena, v, "action", text(arena, action));
        zl_value_set(arena, v, "replicas", zl_value_int(arena, replicas));
        zl_value_append(list, v);
    }
    for (unsigned k = 0; d && k < d->nservices; k++) {
        if (zl_spec_service(spec, d->services[k].name))
            continue;
        struct zl_value *v = zl_value_new(arena, ZL_MAP);
        zl_value_set(arena, v, "service", text(arena, d->services[k].name));
        zl_value_set(arena, v, "action", text(arena, "remove"));
        zl_value_set(arena, v, "replicas", zl_value_int(arena, 0));
        zl_value_append(list, v);
    }
    return list;
}
