#include "cluster/state.h"

#include "base/alloc.h"

#include <stdio.h>

struct zl_state *zl_state_new(void)
{
    return zl_xcalloc(1, sizeof(struct zl_state));
}

static void services_free(struct zl_state_service *services, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(services[i].name);
    free(services);
}

static void deployment_done(struct zl_state_deployment *d)
{
    services_free(d->services, d->nservices);
    free(d->name);
    free(d->spec);
}

struct zl_state *zl_state_free(struct zl_state *s)
{
    if (!s)
        return NULL;
    for (unsigned i = 0; i < s->ndeployments; i++)
        deployment_done(&s->deployments[i]);
    free(s->deployments);
    free(s->blocks);
    free(s);
    return NULL;
}

/* Where `name` is, or belongs. */
static unsigned position(const struct zl_state *s, const char *name, bool *found)
{
    unsigned low = 0, high = s->ndeployments;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        int order = strcmp(s->deployments[mid].name, name);
        if (order == 0) {
            *found = true;
            return mid;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *found = false;
    return low;
}

struct zl_state_deployment *zl_state_deployment(const struct zl_state *s, const char *name)
{
    bool found;
    unsigned i = position(s, name, &found);
    return found ? &s->deployments[i] : NULL;
}

struct zl_state_service *zl_state_service(const struct zl_state_deployment *d, const char *name)
{
    for (unsigned i = 0; d && i < d->nservices; i++)
        if (zl_streq(d->services[i].name, name))
            return &d->services[i];
    return NULL;
}

static void refuse(struct zl_state_result *ret, int code, const char *fmt, ...) ZL_PRINTF(3, 4);
static void refuse(struct zl_state_result *ret, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(ret->text, sizeof ret->text, fmt, ap);
    va_end(ap);
    ret->code = code;
}

static void node_init(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    if (c->node == 0)
        refuse(ret, ZL_E_INVALID, "a node's id can't be 0");
    else if (s->node && s->node != c->node)
        refuse(ret, ZL_E_CONFLICT, "the store belongs to node %016llx", (unsigned long long)s->node);
    else
        ret->value = s->node = c->node;
}

static bool addresses_used(const struct zl_state *s)
{
    if (s->nblocks)
        return true;
    for (unsigned i = 0; i < s->ndeployments; i++)
        for (unsigned j = 0; j < s->deployments[i].nservices; j++)
            if (s->deployments[i].services[j].address)
                return true;
    return false;
}

static void ranges_set(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    const struct zl_ranges *r = &c->ranges;
    bool same =
        s->ranges.replicas == r->replicas && s->ranges.services == r->services && s->ranges.uplinks == r->uplinks;
    if (((r->replicas | r->services | r->uplinks) & 0xffff) || !r->replicas || !r->services || !r->uplinks ||
        r->replicas == r->services || r->replicas == r->uplinks || r->services == r->uplinks)
        refuse(ret, ZL_E_INVALID, "address ranges are three different networks of 16 bits");
    else if (!same && addresses_used(s))
        refuse(ret, ZL_E_CONFLICT, "the address ranges can't change while addresses are in use");
    else if (!same) {
        s->ranges = *r;
        s->next_service = 0;
    }
}

/* A set of the low 16 bits of the service addresses that other services hold. */
struct used {
    unsigned char bits[65536 / 8];
};

static void used_fill(struct used *u, const struct zl_state *s, const struct zl_state_deployment *but)
{
    for (unsigned i = 0; i < s->ndeployments; i++) {
        const struct zl_state_deployment *d = &s->deployments[i];
        for (unsigned j = 0; d != but && j < d->nservices; j++) {
            unsigned low = d->services[j].address & 0xffff;
            u->bits[low / 8] |= (unsigned char)(1u << low % 8);
        }
    }
}

static bool used_test_and_set(struct used *u, unsigned low)
{
    unsigned char bit = (unsigned char)(1u << low % 8);
    bool was = u->bits[low / 8] & bit;
    u->bits[low / 8] |= bit;
    return was;
}

/* Goes on behind the last one given, so that an address rests as long as possible. 0: none is free. */
static uint32_t take_address(const struct zl_state *s, struct used *u, uint32_t *cursor)
{
    for (unsigned tries = 0; tries < 65536; tries++) {
        unsigned low = (*cursor + tries) & 0xffff;
        if (low == 0 || low == 0xffff || used_test_and_set(u, low))
            continue;
        *cursor = (low + 1) & 0xffff;
        return s->ranges.services | low;
    }
    return 0;
}

static struct zl_state_service *make_services(struct zl_state *s, const struct zl_command *c,
                                              const struct zl_state_deployment *old, struct zl_state_result *ret)
{
    zl_auto_free struct used *used = zl_xcalloc(1, sizeof *used);
    used_fill(used, s, NULL);
    uint32_t cursor = s->next_service;
    struct zl_state_service *services = zl_xcalloc(c->nservices + 1, sizeof *services);
    for (unsigned i = 0; i < c->nservices; i++) {
        const struct zl_command_service *in = &c->services[i];
        const struct zl_state_service *was = zl_state_service(old, in->name);
        struct zl_state_service *out = &services[i];
        out->name = zl_xstrdup(in->name);
        out->fingerprint = in->fingerprint;
        out->generation = was && was->fingerprint == in->fingerprint ? was->generation : s->last_generation + 1;
        out->replicas = was && in->keep_replicas ? was->replicas : in->replicas;
        out->address = was && in->address ? was->address : 0;
        if (!in->address || out->address)
            continue;
        if (!s->ranges.services)
            refuse(ret, ZL_E_INVALID, "the address ranges are not set yet");
        else if (!(out->address = take_address(s, used, &cursor)))
            refuse(ret, ZL_E_LIMIT, "no service address is free any more");
        if (ret->code) {
            services_free(services, i + 1);
            return NULL;
        }
    }
    s->next_service = cursor;
    return services;
}

/* Whether a put says what is there already: one that is sent again, because its answer was lost, changes nothing. */
static bool says_the_same(const struct zl_state_deployment *d, const struct zl_command *c,
                          const struct zl_state_service *services)
{
    bool same =
        !d->stopping && d->nservices == c->nservices && zl_streq(d->spec, c->spec) && zl_streq(d->owner, c->owner);
    for (unsigned i = 0; same && i < c->nservices; i++) {
        const struct zl_state_service *a = &d->services[i], *b = &services[i];
        same = zl_streq(a->name, b->name) && a->address == b->address && a->generation == b->generation &&
               a->fingerprint == b->fingerprint && a->replicas == b->replicas;
    }
    return same;
}

static void deployment_put(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    bool found;
    unsigned i = position(s, c->deployment, &found);
    struct zl_state_service *services = make_services(s, c, found ? &s->deployments[i] : NULL, ret);
    if (!services)
        return;
    if (found && says_the_same(&s->deployments[i], c, services)) {
        services_free(services, c->nservices);
        ret->value = s->deployments[i].generation;
        s->deployments[i].updated_ms = c->now_ms;
        return;
    }
    if (!found) {
        s->deployments = zl_xrealloc(s->deployments, s->ndeployments + 1, sizeof *s->deployments);
        memmove(s->deployments + i + 1, s->deployments + i, (s->ndeployments - i) * sizeof *s->deployments);
        s->ndeployments++;
        s->deployments[i] = (struct zl_state_deployment){ .name = zl_xstrdup(c->deployment), .created_ms = c->now_ms };
    }
    struct zl_state_deployment *d = &s->deployments[i];
    services_free(d->services, d->nservices);
    d->services = services;
    d->nservices = c->nservices;
    free(d->spec);
    d->spec = zl_xstrdup(c->spec);
    (void)snprintf(d->owner, sizeof d->owner, "%s", c->owner);
    d->generation = ret->value = ++s->last_generation;
    d->stopping = false;
    d->updated_ms = c->now_ms;
}

static void deployment_stop(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    struct zl_state_deployment *d = zl_state_deployment(s, c->deployment);
    if (!d) {
        refuse(ret, ZL_E_NOT_FOUND, "there is no deployment %s", c->deployment);
        return;
    }
    ret->value = d->generation;
    if (!d->stopping)
        d->updated_ms = c->now_ms;
    d->stopping = true;
}

static void deployment_remove(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    bool found;
    unsigned i = position(s, c->deployment, &found);
    if (!found)
        refuse(ret, ZL_E_NOT_FOUND, "there is no deployment %s", c->deployment);
    else if (!s->deployments[i].stopping || s->deployments[i].generation != c->generation)
        refuse(ret, ZL_E_CONFLICT, "deployment %s was put again meanwhile", c->deployment);
    else {
        deployment_done(&s->deployments[i]);
        s->ndeployments--;
        memmove(s->deployments + i, s->deployments + i + 1, (s->ndeployments - i) * sizeof *s->deployments);
    }
}

static void service_scale(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    struct zl_state_deployment *d = zl_state_deployment(s, c->deployment);
    if (!d)
        refuse(ret, ZL_E_NOT_FOUND, "there is no deployment %s", c->deployment);
    else if (d->stopping)
        refuse(ret, ZL_E_CONFLICT, "deployment %s is stopping", c->deployment);
    else if (*c->service && !zl_state_service(d, c->service))
        refuse(ret, ZL_E_NOT_FOUND, "deployment %s has no service %s", c->deployment, c->service);
    else {
        for (unsigned i = 0; i < d->nservices; i++)
            if (!*c->service || zl_streq(d->services[i].name, c->service))
                d->services[i].replicas = c->replicas;
        d->updated_ms = c->now_ms;
        ret->value = d->generation;
    }
}

static void block_take(struct zl_state *s, const struct zl_command *c, struct zl_state_result *ret)
{
    if (!s->ranges.replicas) {
        refuse(ret, ZL_E_INVALID, "the address ranges are not set yet");
        return;
    }
    bool taken[256] = { false };
    for (unsigned i = 0; i < s->nblocks; i++)
        taken[s->blocks[i].base >> 8 & 0xff] = true;
    for (unsigned third = 0; third < 256; third++) {
        if (taken[third])
            continue;
        s->blocks = zl_xrealloc(s->blocks, s->nblocks + 1, sizeof *s->blocks);
        s->blocks[s->nblocks++] = (struct zl_state_block){ s->ranges.replicas | third << 8, c->node };
        ret->value = s->ranges.replicas | third << 8;
        return;
    }
    refuse(ret, ZL_E_LIMIT, "no block of replica addresses is free any more");
}

/* FNV-1a 64, begun with the chain so far: order, loss and change of any command show. */
uint64_t zl_state_chain(uint64_t chain, struct zl_str bytes)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (unsigned i = 0; i < 64; i += 8)
        h = (h ^ (chain >> i & 0xff)) * 0x100000001b3u;
    for (size_t i = 0; i < bytes.n; i++)
        h = (h ^ (unsigned char)bytes.p[i]) * 0x100000001b3u;
    return h;
}

void zl_state_apply(struct zl_state *s, const struct zl_command *c, struct zl_str bytes, struct zl_state_result *ret)
{
    static void (*const apply[ZL_COMMAND_KINDS])(struct zl_state *, const struct zl_command *,
                                                 struct zl_state_result *) = {
        [ZL_COMMAND_NODE_INIT] = node_init,
        [ZL_COMMAND_RANGES_SET] = ranges_set,
        [ZL_COMMAND_DEPLOYMENT_PUT] = deployment_put,
        [ZL_COMMAND_DEPLOYMENT_STOP] = deployment_stop,
        [ZL_COMMAND_DEPLOYMENT_REMOVE] = deployment_remove,
        [ZL_COMMAND_SERVICE_SCALE] = service_scale,
        [ZL_COMMAND_BLOCK_TAKE] = block_take,
    };
    *ret = (struct zl_state_result){ 0 };
    apply[c->kind](s, c, ret);
    s->applied++;
    s->chain = zl_state_chain(s->chain, bytes);
}
