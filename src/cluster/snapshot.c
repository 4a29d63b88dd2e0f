#include "base/alloc.h"
#include "cluster/json.h"
#include "cluster/state.h"

#include <limits.h>
#include <stdio.h>

enum { DEPLOYMENTS_MAX = 100000, SERVICES_MAX = 4096, REPLICAS_MAX = 1000000 };

static struct zl_value *text(struct zl_arena *arena, const char *s)
{
    return zl_value_string(arena, zl_str(s));
}

static struct zl_value *number(struct zl_arena *arena, uint64_t v)
{
    return zl_value_int(arena, (int64_t)v);
}

static struct zl_value *service_value(struct zl_arena *arena, const struct zl_state_service *s)
{
    struct zl_value *m = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, m, "name", text(arena, s->name));
    zl_value_set(arena, m, "address", number(arena, s->address));
    zl_value_set(arena, m, "generation", number(arena, s->generation));
    zl_value_set(arena, m, "fingerprint", zl_hex_value(arena, s->fingerprint));
    zl_value_set(arena, m, "replicas", number(arena, s->replicas));
    return m;
}

static struct zl_value *deployment_value(struct zl_arena *arena, const struct zl_state_deployment *d)
{
    struct zl_value *m = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, m, "name", text(arena, d->name));
    zl_value_set(arena, m, "spec", text(arena, d->spec));
    zl_value_set(arena, m, "owner", text(arena, d->owner));
    zl_value_set(arena, m, "generation", number(arena, d->generation));
    zl_value_set(arena, m, "stopping", zl_value_bool(arena, d->stopping));
    zl_value_set(arena, m, "created_ms", number(arena, d->created_ms));
    zl_value_set(arena, m, "updated_ms", number(arena, d->updated_ms));
    struct zl_value *services = zl_value_new(arena, ZL_LIST);
    for (unsigned i = 0; i < d->nservices; i++)
        zl_value_append(services, service_value(arena, &d->services[i]));
    zl_value_set(arena, m, "services", services);
    return m;
}

void zl_state_encode(struct zl_buf *out, const struct zl_state *s)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_value *m = zl_value_new(&arena, ZL_MAP);
    zl_value_set(&arena, m, "applied", number(&arena, s->applied));
    zl_value_set(&arena, m, "chain", zl_hex_value(&arena, s->chain));
    zl_value_set(&arena, m, "node", zl_hex_value(&arena, s->node));
    struct zl_value *ranges = zl_value_new(&arena, ZL_MAP);
    zl_value_set(&arena, ranges, "replicas", number(&arena, s->ranges.replicas));
    zl_value_set(&arena, ranges, "services", number(&arena, s->ranges.services));
    zl_value_set(&arena, ranges, "uplinks", number(&arena, s->ranges.uplinks));
    zl_value_set(&arena, m, "ranges", ranges);
    struct zl_value *blocks = zl_value_new(&arena, ZL_LIST);
    for (unsigned i = 0; i < s->nblocks; i++) {
        struct zl_value *b = zl_value_new(&arena, ZL_MAP);
        zl_value_set(&arena, b, "base", number(&arena, s->blocks[i].base));
        zl_value_set(&arena, b, "node", zl_hex_value(&arena, s->blocks[i].node));
        zl_value_append(blocks, b);
    }
    zl_value_set(&arena, m, "blocks", blocks);
    zl_value_set(&arena, m, "last_generation", number(&arena, s->last_generation));
    zl_value_set(&arena, m, "next_service", number(&arena, s->next_service));
    struct zl_value *deployments = zl_value_new(&arena, ZL_LIST);
    for (unsigned i = 0; i < s->ndeployments; i++)
        zl_value_append(deployments, deployment_value(&arena, &s->deployments[i]));
    zl_value_set(&arena, m, "deployments", deployments);
    zl_buf_putc(out, ZL_STORE_VERSION);
    zl_json_print(out, m, 0);
    zl_arena_done(&arena);
}

static void read_service(struct zl_reader *r, const struct zl_value *v, struct zl_state_deployment *d)
{
    const char *name = zl_read_name(r, v, "name");
    if (!r->bad && zl_state_service(d, name))
        r->bad = "services";
    struct zl_state_service *s = &d->services[d->nservices++];
    s->name = zl_xstrdup(name);
    s->address = (uint32_t)zl_read_u64(r, v, "address", UINT32_MAX);
    s->generation = zl_read_u64(r, v, "generation", INT64_MAX);
    s->fingerprint = zl_read_hex(r, v, "fingerprint");
    s->replicas = (unsigned)zl_read_u64(r, v, "replicas", REPLICAS_MAX);
}

static void read_deployment(struct zl_reader *r, const struct zl_value *v, struct zl_state *s)
{
    struct zl_state_deployment *d = &s->deployments[s->ndeployments++];
    d->name = zl_xstrdup(zl_read_name(r, v, "name"));
    d->spec = zl_xstrdup(zl_read_str(r, v, "spec"));
    const char *owner = zl_read_str(r, v, "owner");
    if (strlen(owner) >= sizeof d->owner && !r->bad)
        r->bad = "owner";
    (void)snprintf(d->owner, sizeof d->owner, "%s", owner);
    d->generation = zl_read_u64(r, v, "generation", INT64_MAX);
    d->stopping = zl_read_bool(r, v, "stopping");
    d->created_ms = zl_read_u64(r, v, "created_ms", INT64_MAX);
    d->updated_ms = zl_read_u64(r, v, "updated_ms", INT64_MAX);
    const struct zl_value *services = zl_read_list(r, v, "services", SERVICES_MAX);
    d->services = zl_xcalloc(services ? services->count + 1 : 1, sizeof *d->services);
    for (const struct zl_value *e = services ? services->first : NULL; e && !r->bad; e = e->next)
        read_service(r, e, d);
    /* The order is what look-ups rely on. */
    if (!r->bad && s->ndeployments > 1 && strcmp(d[-1].name, d->name) >= 0)
        r->bad = "deployments";
}

static void read_blocks(struct zl_reader *r, const struct zl_value *map, struct zl_state *s)
{
    const struct zl_value *list = zl_read_list(r, map, "blocks", 256);
    s->blocks = zl_xcalloc(list ? list->count + 1 : 1, sizeof *s->blocks);
    for (const struct zl_value *v = list ? list->first : NULL; v; v = v->next) {
        struct zl_state_block *b = &s->blocks[s->nblocks++];
        b->base = (uint32_t)zl_read_u64(r, v, "base", UINT32_MAX);
        b->node = zl_read_hex(r, v, "node");
    }
}

static void read_state(struct zl_reader *r, const struct zl_value *map, struct zl_state *s)
{
    s->applied = zl_read_u64(r, map, "applied", INT64_MAX);
    s->chain = zl_read_hex(r, map, "chain");
    s->node = zl_read_hex(r, map, "node");
    const struct zl_value *ranges = zl_value_get(map, "ranges");
    s->ranges.replicas = (uint32_t)zl_read_u64(r, ranges, "replicas", UINT32_MAX);
    s->ranges.services = (uint32_t)zl_read_u64(r, ranges, "services", UINT32_MAX);
    s->ranges.uplinks = (uint32_t)zl_read_u64(r, ranges, "uplinks", UINT32_MAX);
    read_blocks(r, map, s);
    s->last_generation = zl_read_u64(r, map, "last_generation", INT64_MAX);
    s->next_service = (uint32_t)zl_read_u64(r, map, "next_service", 0xffff);
    const struct zl_value *list = zl_read_list(r, map, "deployments", DEPLOYMENTS_MAX);
    s->deployments = zl_xcalloc(list ? list->count + 1 : 1, sizeof *s->deployments);
    for (const struct zl_value *v = list ? list->first : NULL; v && !r->bad; v = v->next)
        read_deployment(r, v, s);
}

int zl_state_decode(struct zl_str bytes, struct zl_state **ret, struct zl_err *err)
{
    static const struct zl_parse_limits limits = { (size_t)1 << 30, 8, 20000000 };
    if (bytes.n < 1 || bytes.p[0] < 1)
        return zl_fail(err, ZL_E_PARSE, "a snapshot has no version");
    if (bytes.p[0] > ZL_STORE_VERSION)
        return zl_fail(err, ZL_E_STORE_NEWER, "a snapshot of version %d, this release knows %d", bytes.p[0],
                       ZL_STORE_VERSION);
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_parse_error pe;
    struct zl_value *map;
    int r = zl_json_parse(&arena, zl_str_n(bytes.p + 1, bytes.n - 1), &limits, &map, &pe);
    if (r < 0)
        r = zl_fail(err, ZL_E_PARSE, "a snapshot is no JSON: %s", pe.text);
    else {
        struct zl_reader reader = { NULL };
        ZL_AUTO(zl_state) s = zl_state_new();
        read_state(&reader, map, s);
        if (reader.bad)
            r = zl_fail(err, ZL_E_PARSE, "a snapshot's %s is missing or wrong", reader.bad);
        else
            *ret = ZL_TAKE(s);
    }
    zl_arena_done(&arena);
    return r;
}
