/* What the tables cannot say in a row: other spellings, names, and rules across fields. */
#include "base/alloc.h"
#include "spec/reference.h"
#include "spec/spec_priv.h"

#include <stdio.h>

typedef __typeof__(((struct zl_service *)0)->image) image_part;
typedef __typeof__(((struct zl_service *)0)->command) command_part;
typedef __typeof__(((struct zl_service *)0)->scale) scale_part;
typedef __typeof__(((struct zl_service *)0)->health) health_part;
typedef __typeof__(((struct zl_service *)0)->health.check) check_part;

bool zl_name_valid(struct zl_str s)
{
    if (s.n == 0 || s.n > 63 || s.p[0] == '-' || s.p[s.n - 1] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-'))
            return false;
    return true;
}

const struct zl_value *zl_spec_image_form(struct zl_decoder *d, const struct zl_value *v)
{
    if (!v || v->kind != ZL_STRING)
        return v;
    zl_problem_add(d, v, "yaml_error", "write image: {name: …}", "'image' expects a map, got '%.60s'", v->text.p);
    return NULL;
}

const struct zl_value *zl_spec_command_form(struct zl_decoder *d, const struct zl_value *v)
{
    if (!v || v->kind != ZL_LIST)
        return v;
    struct zl_value *map = zl_value_new(d->arena, ZL_MAP), *args = zl_arena_alloc(d->arena, sizeof *args);
    map->line = v->line;
    map->column = v->column;
    *args = *v;
    args->next = NULL;
    zl_value_set(d->arena, map, "args", args);
    return map;
}

static bool env_name_valid(struct zl_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || !((c >= '0' && c <= '9') || c == '.' || c == '-')))
            return false;
    }
    return s.n > 0;
}

static void add_env(struct zl_decoder *d, struct zl_items *env, const struct zl_value *name,
                    const struct zl_value *value)
{
    if (!env_name_valid(name->text)) {
        zl_problem_add(
            d, name, "invalid_env_var", NULL,
            "the variable name '%.60s' must be letters, digits, '_', '.' and '-', not beginning with a digit",
            name->text.p);
        return;
    }
    if (value->kind == ZL_LIST || value->kind == ZL_MAP || strlen(value->text.p) != value->text.n) {
        zl_problem_add(d, value, "yaml_error", NULL, "the variable '%.60s' expects a string, got %s", name->text.p,
                       zl_value_kind_name(value->kind));
        return;
    }
    if (zl_str_starts(value->text, ZL_STR("$S:")) || zl_str_starts(value->text, ZL_STR("$E:"))) {
        zl_problem_add(d, value, "not_supported_yet", NULL, "references such as '%.3s…' are not supported yet",
                       value->text.p);
        return;
    }
    for (unsigned i = 0; i < env->n; i++) {
        if (zl_str_is(name->text, ((struct zl_env *)env->v[i])->name)) {
            zl_problem_add(d, name, "yaml_error", NULL, "the variable '%.60s' is given twice", name->text.p);
            return;
        }
    }
    struct zl_env *e = zl_arena_alloc(d->arena, sizeof *e);
    e->name = name->text.p;
    e->value = value->text.p;
    env->v[env->n++] = e;
}

void zl_spec_decode_env(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_items *env = field;
    if (v->kind != ZL_MAP && v->kind != ZL_LIST) {
        zl_problem_add(d, v, "yaml_error", NULL, "'env' expects a map, or a list of {name, value}, got %s",
                       zl_value_kind_name(v->kind));
        return;
    }
    env->v = zl_arena_alloc(d->arena, v->count * sizeof *env->v);
    unsigned index = 0;
    for (const struct zl_value *i = v->first; i; i = i->next, index++) {
        if (v->kind == ZL_MAP) {
            add_env(d, env, i->key, i);
            continue;
        }
        size_t mark = zl_path_push(d, "[%u]", index);
        const struct zl_value *name = zl_value_get(i, "name"), *value = zl_value_get(i, "value");
        if (i->kind != ZL_MAP || i->count != 2 || !name || !value || name->kind == ZL_LIST || name->kind == ZL_MAP)
            zl_problem_add(d, i, "yaml_error", "write {name: KEY, value: text}",
                           "an item of 'env' has exactly the keys 'name' and 'value'");
        else
            add_env(d, env, name, value);
        zl_path_pop(d, mark);
    }
}

struct zl_value *zl_spec_print_env(struct zl_arena *arena, const void *field)
{
    const struct zl_items *env = field;
    struct zl_value *map = zl_value_new(arena, ZL_MAP);
    for (unsigned i = 0; i < env->n; i++) {
        const struct zl_env *e = env->v[i];
        zl_value_set(arena, map, e->name, zl_value_string(arena, zl_str(e->value)));
    }
    return map;
}

void zl_spec_check_image(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const image_part *image = object;
    struct zl_reference ref;
    const char *why;
    if (zl_reference_parse(zl_str(image->name), &ref, &why) < 0)
        zl_problem_add(d, zl_value_get(v, "name"), "yaml_error", NULL, "'%.80s' is no image reference: %s", image->name,
                       why);
}

void zl_spec_check_command(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    command_part *c = object;
    c->has_entrypoint = zl_value_get(v, "entrypoint") != NULL;
    c->has_args = zl_value_get(v, "args") != NULL;
    if (c->workdir && c->workdir[0] != '/')
        zl_problem_add(d, zl_value_get(v, "workdir"), "yaml_error", NULL, "'workdir' must be an absolute path");
}

void zl_spec_check_endpoint(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    struct zl_endpoint *e = object;
    (void)d;
    if (!zl_value_get(v, "target_port"))
        e->target_port = e->port;
    e->at = v;
}

void zl_spec_check_scale(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    scale_part *s = object;
    static const char *const of[] = { "adaptive", "fixed", "manual" };
    static const struct {
        const char *key;
        int mode;
    } keys[] = { { "min", ZL_SCALE_ADAPTIVE },
                 { "max", ZL_SCALE_ADAPTIVE },
                 { "cooldown", ZL_SCALE_ADAPTIVE },
                 { "targets", ZL_SCALE_ADAPTIVE },
                 { "replicas", ZL_SCALE_FIXED } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(keys); i++) {
        const struct zl_value *k = zl_value_get(v, keys[i].key);
        if (k && keys[i].mode != s->mode)
            zl_problem_add(d, k->key, "yaml_error", NULL, "'%s' goes with mode: %s", keys[i].key, of[keys[i].mode]);
        if (!k && ((s->mode == ZL_SCALE_ADAPTIVE && i < 2) || (s->mode == ZL_SCALE_FIXED && i == 4)))
            zl_problem_add(d, v, "yaml_error", NULL, "mode: %s needs the key '%s'", of[s->mode], keys[i].key);
    }
    if (s->mode == ZL_SCALE_ADAPTIVE && s->min > s->max && zl_value_get(v, "max"))
        zl_problem_add(d, zl_value_get(v, "min"), "invalid_scale_range", NULL, "'min' (%lld) is above 'max' (%lld)",
                       (long long)s->min, (long long)s->max);
}

void zl_spec_check_check(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const check_part *c = object;
    const struct zl_value *url = zl_value_get(v, "url"), *port = zl_value_get(v, "port"),
                          *status = zl_value_get(v, "expect_status");
    if (c->type == ZL_CHECK_HTTP && !url)
        zl_problem_add(d, v, "yaml_error", NULL, "type: http needs the key 'url'");
    if (c->type != ZL_CHECK_HTTP && (url || status))
        zl_problem_add(d, url ? url->key : status->key, "yaml_error", NULL, "'%s' goes with type: http",
                       url ? "url" : "expect_status");
    if (c->type != ZL_CHECK_TCP && port)
        zl_problem_add(d, port->key, "yaml_error", NULL, "'port' goes with type: tcp");
    if (url && c->url) {
        for (const char *s = c->url; *s; s++) {
            if (*s <= ' ' || *s == 0x7f) {
                zl_problem_add(d, url, "yaml_error", NULL, "'url' has a space or control character");
                return;
            }
        }
        if (c->url[0] != '/')
            zl_problem_add(d, url, "not_supported_yet", "a path such as /health is asked of the first http endpoint",
                           "a 'url' that is not a path is not supported yet");
    }
}

void zl_spec_check_health(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const health_part *h = object;
    if (h->interval_ms == 0)
        zl_problem_add(d, zl_value_get(v, "interval"), "yaml_error", NULL, "'interval' must be above 0");
    if (h->timeout_ms == 0)
        zl_problem_add(d, zl_value_get(v, "timeout"), "yaml_error", NULL, "'timeout' must be above 0");
}

void zl_spec_check_depend(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    (void)d;
    ((struct zl_depend *)object)->at = v;
}

void zl_spec_check_service(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    struct zl_service *s = object;
    s->at = v;
    for (unsigned i = 0; i < s->endpoints.n; i++) {
        const struct zl_endpoint *e = s->endpoints.v[i];
        for (unsigned k = 0; k < i; k++) {
            const struct zl_endpoint *other = s->endpoints.v[k];
            if (zl_streq(e->name, other->name))
                zl_problem_add(d, zl_value_get(e->at, "name"), "duplicate_endpoint", NULL,
                               "the endpoint '%.60s' is there twice", e->name);
            if (e->port == other->port)
                zl_problem_add(d, zl_value_get(e->at, "port"), "duplicate_port", NULL,
                               "port %lld is already the port of the endpoint '%.60s'", (long long)e->port,
                               other->name);
        }
    }
    if (!zl_value_get(v, "scale")) {
        s->scale.min = 1;
        s->scale.max = 10;
    }
    bool http = false, any = s->endpoints.n > 0;
    for (unsigned i = 0; i < s->endpoints.n; i++)
        http |= ((const struct zl_endpoint *)s->endpoints.v[i])->protocol == ZL_PROTOCOL_HTTP;
    const struct zl_value *health = zl_value_get(v, "health");
    if (!health)
        s->health.check.type = any ? ZL_CHECK_TCP : ZL_CHECK_NONE;
    else if (s->health.check.type == ZL_CHECK_HTTP && !http)
        zl_problem_add(d, health, "yaml_error", NULL, "an http check needs an http endpoint");
    else if (s->health.check.type == ZL_CHECK_TCP && s->health.check.port == 0 && !any)
        zl_problem_add(d, health, "yaml_error", NULL, "a tcp check without 'port' needs an endpoint");
}

/* --- the whole document --- */

static void check_ports(struct zl_decoder *d, const struct zl_spec *spec)
{
    for (unsigned i = 0; i < spec->services.n; i++) {
        const struct zl_service *s = spec->services.v[i];
        for (unsigned k = 0; k < s->endpoints.n; k++) {
            const struct zl_endpoint *e = s->endpoints.v[k];
            for (unsigned j = 0; e->expose == ZL_EXPOSE_PUBLIC && j < i; j++) {
                const struct zl_service *other = spec->services.v[j];
                for (unsigned l = 0; l < other->endpoints.n; l++) {
                    const struct zl_endpoint *o = other->endpoints.v[l];
                    if (o->expose == ZL_EXPOSE_PUBLIC && o->port == e->port)
                        zl_problem_add(d, zl_value_get(e->at, "port"), "duplicate_port", NULL,
                                       "public port %lld is already taken by the service '%s'", (long long)e->port,
                                       other->name);
                }
            }
        }
    }
}

static int index_of(const struct zl_spec *spec, const char *name)
{
    for (unsigned i = 0; i < spec->services.n; i++)
        if (zl_streq(((const struct zl_service *)spec->services.v[i])->name, name))
            return (int)i;
    return -1;
}

/* Depth-first with colours: 0 not seen, 1 on the way, 2 done. */
static void walk(struct zl_decoder *d, const struct zl_spec *spec, unsigned i, unsigned char *colour)
{
    const struct zl_service *s = spec->services.v[i];
    colour[i] = 1;
    for (unsigned k = 0; k < s->depends.n; k++) {
        const struct zl_depend *dep = s->depends.v[k];
        int to = index_of(spec, dep->service);
        if (to < 0 || colour[to] == 2)
            continue;
        if (colour[to] == 1)
            zl_problem_add(d, zl_value_get(dep->at, "service"), "circular_dependency", NULL,
                           to == (int)i ? "'%s' depends on itself" : "'%s' and '%s' depend on each other", s->name,
                           dep->service);
        else
            walk(d, spec, (unsigned)to, colour);
    }
    colour[i] = 2;
}

void zl_spec_check_spec(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    struct zl_spec *spec = object;
    if (!zl_streq(spec->version, "v1"))
        zl_problem_add(d, zl_value_get(v, "version"), "invalid_version", NULL, "'version' must be v1, got '%.40s'",
                       spec->version);
    if (strlen(spec->deployment) < 3 || !zl_name_valid(zl_str(spec->deployment)))
        zl_problem_add(d, zl_value_get(v, "deployment"), "invalid_deployment_name", NULL,
                       "'deployment' must be 3 to 63 lower-case letters, digits and '-', no '-' at the ends");
    const struct zl_value *services = zl_value_get(v, "services");
    if (spec->services.n > 1000)
        zl_problem_add(d, services, "yaml_error", NULL, "more than 1000 services");
    for (const struct zl_value *i = services ? services->first : NULL; i; i = i->next)
        if (!zl_name_valid(i->key->text))
            zl_problem_add(
                d, i->key, "invalid_service_name", NULL,
                "the service name '%.70s' must be 1 to 63 lower-case letters, digits and '-', no '-' at the ends",
                i->key->text.p);
    check_ports(d, spec);
    const char **names = zl_arena_alloc(d->arena, (spec->services.n + 1) * sizeof *names);
    for (unsigned i = 0; i < spec->services.n; i++)
        names[i] = ((const struct zl_service *)spec->services.v[i])->name;
    for (unsigned i = 0; i < spec->services.n; i++) {
        const struct zl_service *s = spec->services.v[i];
        for (unsigned k = 0; k < s->depends.n; k++) {
            const struct zl_depend *dep = s->depends.v[k];
            if (index_of(spec, dep->service) >= 0)
                continue;
            const char *near = zl_nearest(zl_str(dep->service), names);
            char hint[120] = "";
            if (near)
                snprintf(hint, sizeof hint, "did you mean '%s'?", near);
            zl_problem_add(d, zl_value_get(dep->at, "service"), "unknown_dependency", hint,
                           "'%s' depends on '%.60s', which is no service of this document", s->name, dep->service);
        }
    }
    unsigned char *colour = zl_arena_alloc(d->arena, spec->services.n + 1);
    for (unsigned i = 0; i < spec->services.n && spec->services.n <= 1000; i++)
        if (colour[i] == 0)
            walk(d, spec, i, colour);
}
