/* Changes of desired state that clients ask for. */
#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <stdio.h>

struct change {
    struct zl_agent *agent;
    zl_agent_done done;
    void *arg;
    unsigned left; /* proposals that have not been answered */
    struct zl_err err;
    char deployment[ZL_NAME_MAX + 1];
    bool story, force, bound; /* story: a new one begins, also where the generation stays */
    uint32_t first_listener;  /* of those that this deploy bound */
    uint64_t grace_ms;
};

static void finish(struct change *c)
{
    struct zl_agent *a = c->agent;
    struct doc *d = agent_doc(a, c->deployment);
    if (!c->err.code && d && c->grace_ms)
        d->grace_ms = c->grace_ms;
    if (!c->err.code && d && c->force)
        d->force = true;
    if (!c->err.code && c->story) {
        struct zl_state_deployment *s = zl_state_deployment(zl_cluster_state(a->cluster), c->deployment);
        if (s)
            agent_event_begin(a, c->deployment, s->generation);
    }
    if (c->err.code && c->bound)
        agent_unbind(a, c->first_listener);
    a->members_dirty = true;
    a->publish_wanted = true;
    c->done(c->arg, &c->err);
    if (!a->closing)
        agent_step_soon(a);
    free(c);
}

static void answered(void *arg, const struct zl_state_result *result, const struct zl_err *err)
{
    struct change *c = arg;
    (void)result;
    c->agent->open_calls--;
    if (err && !c->err.code)
        c->err = *err;
    if (--c->left == 0)
        finish(c);
}

static void propose(struct change *c, const struct zl_command *cmd)
{
    c->left++;
    c->agent->open_calls++;
    zl_cluster_propose(c->agent->cluster, cmd, answered, c);
}

static struct change *begin(struct zl_agent *a, const char *deployment, zl_agent_done done, void *arg)
{
    struct change *c = zl_xcalloc(1, sizeof *c);
    c->agent = a;
    c->done = done;
    c->arg = arg;
    snprintf(c->deployment, sizeof c->deployment, "%s", deployment);
    return c;
}

static void give_up(void *arg)
{
    finish(arg);
}

/* What a fresh store needs before its first deployment: the node, its ranges, a block of addresses. */
static int prepare_node(struct zl_agent *a, struct change *c)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    uint64_t node = zl_cluster_node(a->cluster);
    struct zl_command cmd = { .deployment = "", .service = "", .node = node, .now_ms = zl_clock_wall_ms() };
    bool block = false;
    if (s->node == 0) {
        cmd.kind = ZL_COMMAND_NODE_INIT;
        propose(c, &cmd);
    }
    if (s->ndeployments == 0 && s->nblocks == 0) {
        struct zl_net_ranges r;
        if (zl_node_net_choose_ranges(&r, &c->err) < 0)
            return c->err.code;
        cmd.kind = ZL_COMMAND_RANGES_SET;
        cmd.ranges = (struct zl_ranges){ ntohl(r.replicas.s_addr), ntohl(r.services.s_addr), ntohl(r.uplinks.s_addr) };
        propose(c, &cmd);
    }
    for (unsigned i = 0; i < s->nblocks; i++)
        block |= s->blocks[i].node == node;
    if (!block) {
        cmd.kind = ZL_COMMAND_BLOCK_TAKE;
        propose(c, &cmd);
    }
    return 0;
}

void zl_agent_deploy(struct zl_agent *a, const struct zl_agent_deploy *d, zl_agent_done done, void *arg)
{
    struct change *c = begin(a, d->spec->deployment, done, arg);
    const struct zl_err *damage = zl_cluster_damage(a->cluster);
    c->bound = c->story = true;
    c->first_listener = a->next_listener;
    if (damage && damage->code)
        c->err = *damage;
    if (c->err.code || agent_bind(a, d->spec, &c->err) < 0 || prepare_node(a, c) < 0) {
        if (c->left == 0)
            zl_loop_defer(a->loop, give_up, c);
        return;
    }
    struct zl_arena arena;
    zl_arena_init(&arena);
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, zl_spec_print(&arena, d->spec), 0);
    struct zl_command_service *services = zl_arena_alloc(&arena, (d->spec->services.n + 1) * sizeof *services);
    for (unsigned i = 0; i < d->spec->services.n; i++) {
        const struct zl_service *s = d->spec->services.v[i];
        services[i] = (struct zl_command_service){ .name = s->name,
                                                   .fingerprint = zl_service_fingerprint(s),
                                                   .replicas = zl_service_replicas(s, 0),
                                                   .keep_replicas = s->scale.mode == ZL_SCALE_MANUAL,
                                                   .address = s->endpoints.n > 0 };
    }
    struct zl_command cmd = { .kind = ZL_COMMAND_DEPLOYMENT_PUT,
                              .deployment = d->spec->deployment,
                              .service = "",
                              .spec = text.p,
                              .owner = d->owner,
                              .services = services,
                              .nservices = d->spec->services.n,
                              .now_ms = zl_clock_wall_ms() };
    propose(c, &cmd);
    zl_arena_done(&arena);
}

void zl_agent_stop(struct zl_agent *a, const char *deployment, bool force, uint64_t grace_ms, zl_agent_done done,
                   void *arg)
{
    struct change *c = begin(a, deployment, done, arg);
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), deployment);
    c->story = true;
    c->force = force;
    c->grace_ms = grace_ms;
    if (!d) {
        zl_hint(&c->err, zl_fail(&c->err, ZL_E_NOT_FOUND, "there is no deployment '%.70s'", deployment),
                "`zlayer status` lists what there is");
        zl_loop_defer(a->loop, give_up, c);
        return;
    }
    if (d->stopping) { /* again: only grace and force can change */
        zl_loop_defer(a->loop, give_up, c);
        c->story = false;
        return;
    }
    struct zl_command cmd = { .kind = ZL_COMMAND_DEPLOYMENT_STOP,
                              .deployment = deployment,
                              .service = "",
                              .generation = d->generation,
                              .now_ms = zl_clock_wall_ms() };
    propose(c, &cmd);
}

void zl_agent_scale_down(struct zl_agent *a, const char *deployment, const char *service, uint64_t grace_ms,
                         zl_agent_done done, void *arg)
{
    struct change *c = begin(a, deployment, done, arg);
    c->grace_ms = grace_ms;
    struct zl_command cmd = { .kind = ZL_COMMAND_SERVICE_SCALE,
                              .deployment = deployment,
                              .service = service,
                              .replicas = 0,
                              .now_ms = zl_clock_wall_ms() };
    propose(c, &cmd);
}

/* --- owners --- */

bool agent_owner_there(const struct doc *doc, const char *owner)
{
    for (const struct lease *l = doc->leases; l; l = l->next)
        if (zl_streq(l->owner, owner))
            return true;
    return false;
}

int zl_agent_lease(struct zl_agent *a, const char *deployment, const char *owner, bool held, struct zl_err *err)
{
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), deployment);
    struct doc *doc = d ? agent_doc_of(a, d) : agent_doc(a, deployment);
    if (held && !d)
        return zl_fail(err, ZL_E_NOT_FOUND, "there is no deployment '%.70s'", deployment);
    if (held && !zl_streq(d->owner, owner))
        return zl_fail(err, ZL_E_CONFLICT, "the deployment '%.70s' has another owner", deployment);
    if (held) {
        struct lease *l = zl_xcalloc(1, sizeof *l);
        snprintf(l->owner, sizeof l->owner, "%s", owner);
        l->next = doc->leases;
        doc->leases = l;
    }
    for (struct lease **at = doc && !held ? &doc->leases : NULL; at && *at; at = &(*at)->next) {
        if (zl_streq((*at)->owner, owner)) {
            struct lease *l = *at;
            *at = l->next;
            free(l);
            break;
        }
    }
    if (!a->closing)
        agent_step_soon(a);
    return 0;
}
