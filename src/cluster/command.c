#include "cluster/command.h"

#include "base/assert.h"
#include "cluster/json.h"

#include <limits.h>

enum {
    F_NODE = 1 << 0,
    F_RANGES = 1 << 1,
    F_DEPLOYMENT = 1 << 2,
    F_SPEC = 1 << 3,
    F_OWNER = 1 << 4,
    F_SERVICES = 1 << 5,
    F_NOW = 1 << 6,
    F_GENERATION = 1 << 7,
    F_SERVICE = 1 << 8,
    F_REPLICAS = 1 << 9,
};
enum { SERVICES_MAX = 4096, REPLICAS_MAX = 1000000 };

static const struct {
    const char *name;
    unsigned fields;
} kinds[ZL_COMMAND_KINDS] = {
    [ZL_COMMAND_NODE_INIT] = { "node_init", F_NODE },
    [ZL_COMMAND_RANGES_SET] = { "ranges_set", F_RANGES },
    [ZL_COMMAND_DEPLOYMENT_PUT] = { "deployment_put", F_DEPLOYMENT | F_SPEC | F_OWNER | F_SERVICES | F_NOW },
    [ZL_COMMAND_DEPLOYMENT_STOP] = { "deployment_stop", F_DEPLOYMENT | F_NOW },
    [ZL_COMMAND_DEPLOYMENT_REMOVE] = { "deployment_remove", F_DEPLOYMENT | F_GENERATION },
    [ZL_COMMAND_SERVICE_SCALE] = { "service_scale", F_DEPLOYMENT | F_SERVICE | F_REPLICAS | F_NOW },
    [ZL_COMMAND_BLOCK_TAKE] = { "block_take", F_NODE },
};

static const struct {
    const char *key;
    unsigned field;
} keys[] = {
    { "node", F_NODE },         { "ranges", F_RANGES },         { "deployment", F_DEPLOYMENT },
    { "spec", F_SPEC },         { "owner", F_OWNER },           { "services", F_SERVICES },
    { "now_ms", F_NOW },        { "generation", F_GENERATION }, { "service", F_SERVICE },
    { "replicas", F_REPLICAS },
};

const char *zl_command_name(enum zl_command_kind kind)
{
    return kind < ZL_COMMAND_KINDS ? kinds[kind].name : "unknown";
}

static struct zl_value *services_value(struct zl_arena *arena, const struct zl_command *c)
{
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    for (unsigned i = 0; i < c->nservices; i++) {
        const struct zl_command_service *s = &c->services[i];
        struct zl_value *m = zl_value_new(arena, ZL_MAP);
        zl_value_set(arena, m, "name", zl_value_string(arena, zl_str(s->name)));
        zl_value_set(arena, m, "fingerprint", zl_hex_value(arena, s->fingerprint));
        zl_value_set(arena, m, "replicas", zl_value_int(arena, s->replicas));
        zl_value_set(arena, m, "keep_replicas", zl_value_bool(arena, s->keep_replicas));
        zl_value_set(arena, m, "address", zl_value_bool(arena, s->address));
        zl_value_append(list, m);
    }
    return list;
}

static struct zl_value *text(struct zl_arena *arena, const char *s)
{
    return zl_value_string(arena, zl_str(s ? s : ""));
}

void zl_command_encode(struct zl_buf *out, const struct zl_command *c)
{
    zl_assert(c->kind < ZL_COMMAND_KINDS);
    struct zl_arena arena;
    zl_arena_init(&arena);
    unsigned f = kinds[c->kind].fields;
    struct zl_value *m = zl_value_new(&arena, ZL_MAP);
    zl_value_set(&arena, m, "kind", text(&arena, kinds[c->kind].name));
    if (f & F_NODE)
        zl_value_set(&arena, m, "node", zl_hex_value(&arena, c->node));
    if (f & F_RANGES) {
        struct zl_value *r = zl_value_new(&arena, ZL_MAP);
        zl_value_set(&arena, r, "replicas", zl_value_int(&arena, c->ranges.replicas));
        zl_value_set(&arena, r, "services", zl_value_int(&arena, c->ranges.services));
        zl_value_set(&arena, r, "uplinks", zl_value_int(&arena, c->ranges.uplinks));
        zl_value_set(&arena, m, "ranges", r);
    }
    if (f & F_DEPLOYMENT)
        zl_value_set(&arena, m, "deployment", text(&arena, c->deployment));
    if (f & F_SPEC)
        zl_value_set(&arena, m, "spec", text(&arena, c->spec));
    if (f & F_OWNER)
        zl_value_set(&arena, m, "owner", text(&arena, c->owner));
    if (f & F_SERVICES)
        zl_value_set(&arena, m, "services", services_value(&arena, c));
    if (f & F_NOW)
        zl_value_set(&arena, m, "now_ms", zl_value_int(&arena, (int64_t)c->now_ms));
    if (f & F_GENERATION)
        zl_value_set(&arena, m, "generation", zl_value_int(&arena, (int64_t)c->generation));
    if (f & F_SERVICE)
        zl_value_set(&arena, m, "service", text(&arena, c->service));
    if (f & F_REPLICAS)
        zl_value_set(&arena, m, "replicas", zl_value_int(&arena, c->replicas));
    zl_buf_putc(out, ZL_STORE_VERSION);
    zl_json_print(out, m, 0);
    zl_arena_done(&arena);
}

static void read_services(struct zl_reader *r, struct zl_arena *arena, const struct zl_value *map,
                          struct zl_command *ret)
{
    const struct zl_value *list = zl_read_list(r, map, "services", SERVICES_MAX);
    if (!list)
        return;
    ret->services = zl_arena_alloc(arena, (list->count + 1) * sizeof *ret->services);
    for (const struct zl_value *v = list->first; v; v = v->next) {
        struct zl_command_service *s = &ret->services[ret->nservices++];
        s->name = zl_read_name(r, v, "name");
        s->fingerprint = zl_read_hex(r, v, "fingerprint");
        s->replicas = (unsigned)zl_read_u64(r, v, "replicas", REPLICAS_MAX);
        s->keep_replicas = zl_read_bool(r, v, "keep_replicas");
        s->address = zl_read_bool(r, v, "address");
        for (struct zl_command_service *other = ret->services; other < s; other++)
            if (!r->bad && zl_streq(other->name, s->name))
                r->bad = "services";
    }
}

static void read_fields(struct zl_reader *r, struct zl_arena *arena, const struct zl_value *map, unsigned f,
                        struct zl_command *ret)
{
    if (f & F_NODE)
        ret->node = zl_read_hex(r, map, "node");
    if (f & F_RANGES) {
        const struct zl_value *v = zl_value_get(map, "ranges");
        ret->ranges.replicas = (uint32_t)zl_read_u64(r, v, "replicas", UINT32_MAX);
        ret->ranges.services = (uint32_t)zl_read_u64(r, v, "services", UINT32_MAX);
        ret->ranges.uplinks = (uint32_t)zl_read_u64(r, v, "uplinks", UINT32_MAX);
    }
    if (f & F_DEPLOYMENT)
        ret->deployment = zl_read_name(r, map, "deployment");
    if (f & F_SPEC)
        ret->spec = zl_read_str(r, map, "spec");
    if (f & F_OWNER)
        ret->owner = zl_read_str(r, map, "owner");
    if (f & F_SERVICES)
        read_services(r, arena, map, ret);
    if (f & F_NOW)
        ret->now_ms = zl_read_u64(r, map, "now_ms", INT64_MAX);
    if (f & F_GENERATION)
        ret->generation = zl_read_u64(r, map, "generation", INT64_MAX);
    if (f & F_SERVICE) {
        const char *s = zl_read_str(r, map, "service");
        ret->service = *s ? zl_read_name(r, map, "service") : s;
    }
    if (f & F_REPLICAS)
        ret->replicas = (unsigned)zl_read_u64(r, map, "replicas", REPLICAS_MAX);
}

static bool key_known(struct zl_str key, unsigned fields)
{
    if (zl_str_is(key, "kind"))
        return true;
    for (unsigned i = 0; i < ZL_ARRAY_LEN(keys); i++)
        if (keys[i].field & fields && zl_str_is(key, keys[i].key))
            return true;
    return false;
}

int zl_command_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_command *ret, struct zl_err *err)
{
    static const struct zl_parse_limits limits = { ZL_COMMAND_MAX, 8, 64 + SERVICES_MAX * 8 };
    *ret = (struct zl_command){ .deployment = "", .service = "", .spec = "", .owner = "" };
    if (bytes.n < 1 || bytes.p[0] < 1)
        return zl_fail(err, ZL_E_PARSE, "a command has no version");
    if (bytes.p[0] > ZL_STORE_VERSION)
        return zl_fail(err, ZL_E_STORE_NEWER, "a command of version %d, this release knows %d", bytes.p[0],
                       ZL_STORE_VERSION);
    struct zl_parse_error pe;
    struct zl_value *map;
    int r = zl_json_parse(arena, zl_str_n(bytes.p + 1, bytes.n - 1), &limits, &map, &pe);
    if (r < 0)
        return zl_fail(err, ZL_E_PARSE, "a command is no JSON: %s", pe.text);
    if (map->kind != ZL_MAP)
        return zl_fail(err, ZL_E_PARSE, "a command is %s", zl_value_kind_name(map->kind));
    struct zl_reader reader = { NULL };
    const char *kind = zl_read_str(&reader, map, "kind");
    while (ret->kind < ZL_COMMAND_KINDS && !zl_streq(kinds[ret->kind].name, kind))
        ret->kind++;
    if (ret->kind == ZL_COMMAND_KINDS && !reader.bad)
        return zl_fail(err, ZL_E_STORE_NEWER, "a command of the unknown kind \"%.40s\"", kind);
    if (!reader.bad) {
        read_fields(&reader, arena, map, kinds[ret->kind].fields, ret);
        for (const struct zl_value *v = map->first; v && !reader.bad; v = v->next)
            if (!key_known(v->key->text, kinds[ret->kind].fields))
                return zl_fail(err, ZL_E_STORE_NEWER, "a command with the unknown key \"%.40s\"", v->key->text.p);
    }
    if (!reader.bad && strlen(ret->owner) > 32)
        reader.bad = "owner";
    if (reader.bad)
        return zl_fail(err, ZL_E_PARSE, "a command's %s is missing or wrong", reader.bad);
    return 0;
}
