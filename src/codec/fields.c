#include "codec/fields.h"

#include "base/assert.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

void zl_decoder_init(struct zl_decoder *d, struct zl_arena *arena)
{
    *d = (struct zl_decoder){ .arena = arena };
}

void zl_decoder_done(struct zl_decoder *d)
{
    zl_buf_done(&d->path);
}

void zl_problem_add(struct zl_decoder *d, const struct zl_value *v, const char *code, const char *hint, const char *fmt,
                    ...)
{
    if (d->count++ >= ZL_PROBLEMS_MAX)
        return;
    struct zl_problem *p = zl_arena_alloc(d->arena, sizeof *p);
    p->code = code;
    p->path = zl_arena_strndup(d->arena, d->path.n ? d->path.p : "", d->path.n);
    p->line = v ? v->line : 0;
    p->column = v ? v->column : 0;
    p->width = v && v->text.n ? (unsigned)ZL_MIN(v->text.n, (size_t)200) : 1;
    p->hint = hint ? zl_arena_strdup(d->arena, hint) : "";
    va_list ap;
    char text[400];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->message = zl_arena_strdup(d->arena, text);
    if (d->last)
        d->last->next = p;
    else
        d->first = p;
    d->last = p;
}

size_t zl_path_push(struct zl_decoder *d, const char *fmt, ...)
{
    size_t mark = d->path.n;
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(&d->path, fmt, ap);
    va_end(ap);
    return mark;
}

void zl_path_pop(struct zl_decoder *d, size_t mark)
{
    d->path.n = mark;
    if (d->path.p)
        d->path.p[mark] = 0;
}

static size_t push_key(struct zl_decoder *d, const char *name)
{
    return zl_path_push(d, "%s%s", d->path.n ? "." : "", name);
}

/* The start of a value as a message shows it. */
static const char *shown(struct zl_decoder *d, const struct zl_value *v)
{
    if (v->kind == ZL_LIST || v->kind == ZL_MAP || v->kind == ZL_NULL)
        return zl_value_kind_name(v->kind);
    return zl_arena_printf(d->arena, "'%.*s'%s", (int)ZL_MIN(v->text.n, (size_t)60), v->text.p,
                           v->text.n > 60 ? "…" : "");
}

static void expected(struct zl_decoder *d, const struct zl_value *v, const struct zl_field *f, const char *what)
{
    zl_problem_add(d, v, f->code && v->kind != ZL_LIST && v->kind != ZL_MAP ? f->code : "yaml_error", NULL,
                   "'%s' expects %s, got %s", f->name, what, shown(d, v));
}

static void decode_int(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, int64_t *out)
{
    bool any = f->min == 0 && f->max == 0;
    if (v->kind == ZL_INT && (any || d->filling || (v->integer >= f->min && v->integer <= f->max))) {
        *out = v->integer;
        return;
    }
    char what[80];
    if (any)
        snprintf(what, sizeof what, "an integer");
    else if (f->max == INT64_MAX)
        snprintf(what, sizeof what, "an integer of at least %lld", (long long)f->min);
    else
        snprintf(what, sizeof what, "an integer from %lld to %lld", (long long)f->min, (long long)f->max);
    expected(d, v, f, what);
}

static void decode_double(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, double *out)
{
    double x = v->kind == ZL_INT ? (double)v->integer : v->kind == ZL_DOUBLE ? v->real : NAN;
    if (!isfinite(x) || ((f->flags & ZL_F_POSITIVE) && !(x > 0)) || (f->max && x > (double)f->max))
        expected(d, v, f, (f->flags & ZL_F_POSITIVE) ? "a number above 0" : "a number");
    else
        *out = x;
}

static bool is_text(const struct zl_decoder *d, const struct zl_value *v)
{
    if (d->strict && !d->filling && v->kind != ZL_STRING)
        return false;
    return v->kind != ZL_LIST && v->kind != ZL_MAP && v->kind != ZL_NULL && strlen(v->text.p) == v->text.n;
}

static void decode_string(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, const char **out)
{
    if (!is_text(d, v))
        expected(d, v, f, "a string");
    else if ((f->flags & ZL_F_NONEMPTY) && v->text.n == 0)
        zl_problem_add(d, v, f->code ? f->code : "yaml_error", NULL, "'%s' must not be empty", f->name);
    else
        *out = v->text.p;
}

static void decode_enum(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, int *out)
{
    zl_auto_buf list = ZL_BUF_INIT;
    for (int i = 0; f->names[i]; i++) {
        if (f->names[i][0] == '-')
            continue;
        bool later = f->names[i][0] == '!';
        const char *name = f->names[i] + later;
        if (is_text(d, v) && zl_str_is(v->text, name)) {
            if (later)
                zl_problem_add(d, v, "not_supported_yet", NULL, "'%s: %s' is not supported yet", f->name, name);
            else
                *out = i;
            return;
        }
        if (!later)
            zl_buf_printf(&list, "%s%s", list.n ? ", " : "", name);
    }
    const char *near = is_text(d, v) ? zl_nearest(v->text, f->names) : NULL;
    char hint[120] = "";
    if (near)
        snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    zl_problem_add(d, v, "yaml_error", hint, "'%s' expects one of %s, got %s", f->name, list.p ? list.p : "nothing",
                   shown(d, v));
}

static void decode_strings(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v,
                           struct zl_strings *out)
{
    if (v->kind != ZL_LIST) {
        expected(d, v, f, "a list of strings");
        return;
    }
    if ((f->flags & ZL_F_NONEMPTY) && !v->first)
        zl_problem_add(d, v, f->code ? f->code : "yaml_error", NULL, "'%s' must not be empty", f->name);
    out->v = zl_arena_alloc(d->arena, v->count * sizeof *out->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        size_t mark = zl_path_push(d, "[%u]", out->n);
        if (is_text(d, i))
            out->v[out->n++] = i->text.p;
        else
            expected(d, i, f, "strings");
        zl_path_pop(d, mark);
    }
}

static void decode_items(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, struct zl_items *out)
{
    bool map = f->kind == ZL_K_MAP;
    if (v->kind != (map ? ZL_MAP : ZL_LIST)) {
        expected(d, v, f, map ? "a map" : "a list");
        return;
    }
    out->v = zl_arena_alloc(d->arena, v->count * sizeof *out->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        size_t mark = map ? push_key(d, i->key->text.p) : zl_path_push(d, "[%u]", out->n);
        void *object = zl_decode(d, f->type, i);
        if (map)
            *(const char **)(void *)((char *)object + f->type->key_offset) = i->key->text.p;
        out->v[out->n++] = object;
        zl_path_pop(d, mark);
    }
}

static void decode_into(struct zl_decoder *d, const struct zl_type *type, const struct zl_value *v, void *object);

static void decode_field(struct zl_decoder *d, const struct zl_field *f, const struct zl_value *v, void *at)
{
    int r;
    switch (f->kind) {
    case ZL_K_BOOL:
        if (v->kind == ZL_BOOL)
            *(bool *)at = v->boolean;
        else
            expected(d, v, f, "true or false");
        break;
    case ZL_K_INT:
        decode_int(d, f, v, at);
        break;
    case ZL_K_DOUBLE:
        decode_double(d, f, v, at);
        break;
    case ZL_K_STRING:
        decode_string(d, f, v, at);
        break;
    case ZL_K_DURATION:
        r = is_text(d, v) ? zl_parse_duration_ms(v->text, at) : -EINVAL;
        if (r < 0)
            expected(d, v, f, r == -ERANGE ? "a duration that fits 64 bits" : "a duration such as 30s or 1m 30s");
        break;
    case ZL_K_SIZE:
        r = is_text(d, v) ? zl_parse_size(v->text, at) : -EINVAL;
        if (r < 0)
            expected(d, v, f, r == -ERANGE ? "a size that fits 63 bits" : "a size such as 256Mi (Ki, Mi, Gi, Ti)");
        break;
    case ZL_K_PERCENT: {
        struct zl_str s = is_text(d, v) ? v->text : ZL_STR("");
        uint64_t n;
        if (zl_parse_u64(zl_str_ends(s, ZL_STR("%")) ? zl_str_n(s.p, s.n - 1) : s, 1, 100, &n) < 0)
            expected(d, v, f, "a percentage from 1 to 100");
        else
            *(int64_t *)at = (int64_t)n;
        break;
    }
    case ZL_K_ENUM:
        decode_enum(d, f, v, at);
        break;
    case ZL_K_STRINGS:
        decode_strings(d, f, v, at);
        break;
    case ZL_K_STRUCT:
        decode_into(d, f->type, v, at);
        break;
    case ZL_K_LIST:
    case ZL_K_MAP:
        decode_items(d, f, v, at);
        break;
    case ZL_K_CUSTOM:
        f->decode(d, v, at);
        break;
    case ZL_K_NOT_YET:
        zl_problem_add(d, v->key ? v->key : v, "not_supported_yet", NULL, "'%s' is not supported yet", f->name);
        break;
    }
}

static void unknown_key(struct zl_decoder *d, const struct zl_type *type, const struct zl_value *item)
{
    const char *names[128];
    unsigned n = 0;
    for (unsigned i = 0; i < type->count && n < ZL_ARRAY_LEN(names) - 1; i++)
        names[n++] = type->fields[i].name;
    names[n] = NULL;
    const char *near = zl_nearest(item->key->text, names);
    char hint[120] = "";
    if (near)
        snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    zl_problem_add(d, item->key, "yaml_error", hint, "unknown key '%.60s' in %s", item->key->text.p, type->name);
}

/* A default is a plain scalar, decoded by the same row, so that the two can't drift apart. */
static void apply_default(struct zl_decoder *d, const struct zl_field *f, void *at)
{
    unsigned before = d->count;
    d->filling = true;
    decode_field(d, f, zl_value_plain(d->arena, zl_str(f->fallback)), at);
    d->filling = false;
    zl_assert(d->count == before);
}

static void decode_into(struct zl_decoder *d, const struct zl_type *type, const struct zl_value *v, void *object)
{
    static const struct zl_value nothing = { .kind = ZL_MAP };
    unsigned before = d->count;
    if (type->normalise)
        v = type->normalise(d, v);
    if (v && v->kind != ZL_MAP) {
        zl_problem_add(d, v, "yaml_error", NULL, "%s must be a map, got %s", type->name, shown(d, v));
        v = NULL;
    }
    const struct zl_value *map = v ? v : &nothing;
    for (const struct zl_value *i = map->first; i; i = i->next) {
        unsigned k = 0;
        while (k < type->count && !zl_str_is(i->key->text, type->fields[k].name))
            k++;
        size_t mark = push_key(d, i->key->text.p);
        if (k < type->count)
            decode_field(d, &type->fields[k], i, (char *)object + type->fields[k].offset);
        else if (!type->open)
            unknown_key(d, type, i);
        zl_path_pop(d, mark);
    }
    for (unsigned k = 0; k < type->count; k++) {
        const struct zl_field *f = &type->fields[k];
        if (zl_value_get(map, f->name))
            continue;
        if (f->fallback)
            apply_default(d, f, (char *)object + f->offset);
        else if (f->kind == ZL_K_STRUCT)
            decode_into(d, f->type, NULL, (char *)object + f->offset);
        if ((f->flags & ZL_F_REQUIRED) && v)
            zl_problem_add(d, v, "yaml_error", NULL, "%s needs the key '%s'", type->name, f->name);
    }
    if (type->check && v && d->count == before)
        type->check(d, v, object);
}

void *zl_decode(struct zl_decoder *d, const struct zl_type *type, const struct zl_value *v)
{
    void *object = zl_arena_alloc(d->arena, type->size);
    decode_into(d, type, v, object);
    return object;
}

static struct zl_value *print_field(struct zl_arena *a, const struct zl_field *f, const void *at)
{
    struct zl_value *v = NULL;
    switch (f->kind) {
    case ZL_K_BOOL:
        return zl_value_bool(a, *(const bool *)at);
    case ZL_K_INT:
    case ZL_K_PERCENT:
        return zl_value_int(a, *(const int64_t *)at);
    case ZL_K_DOUBLE:
        v = zl_value_new(a, ZL_DOUBLE);
        v->real = *(const double *)at;
        return v;
    case ZL_K_STRING: {
        const char *s = *(const char *const *)at;
        return s ? zl_value_string(a, zl_str(s)) : zl_value_new(a, ZL_NULL);
    }
    case ZL_K_DURATION:
        return zl_value_string(a, zl_str(zl_print_duration(a, *(const uint64_t *)at)));
    case ZL_K_SIZE:
        return zl_value_string(a, zl_str(zl_print_size(a, *(const uint64_t *)at)));
    case ZL_K_ENUM:
        return zl_value_string(a, zl_str(f->names[*(const int *)at]));
    case ZL_K_STRINGS: {
        const struct zl_strings *s = at;
        v = zl_value_new(a, ZL_LIST);
        for (unsigned i = 0; i < s->n; i++)
            zl_value_append(v, zl_value_string(a, zl_str(s->v[i])));
        return v;
    }
    case ZL_K_STRUCT:
        return zl_print(a, f->type, at);
    case ZL_K_LIST:
    case ZL_K_MAP: {
        const struct zl_items *items = at;
        v = zl_value_new(a, f->kind == ZL_K_MAP ? ZL_MAP : ZL_LIST);
        for (unsigned i = 0; i < items->n; i++) {
            struct zl_value *item = zl_print(a, f->type, items->v[i]);
            const char *object = items->v[i];
            if (f->kind == ZL_K_MAP)
                zl_value_set(a, v, *(const char *const *)(const void *)(object + f->type->key_offset), item);
            else
                zl_value_append(v, item);
        }
        return v;
    }
    case ZL_K_CUSTOM:
        return f->print(a, at);
    case ZL_K_NOT_YET:
        break;
    }
    return NULL;
}

static bool is_empty(const struct zl_field *f, const struct zl_value *v)
{
    switch (f->kind) {
    case ZL_K_INT:
    case ZL_K_PERCENT:
        return v->integer == 0;
    case ZL_K_DOUBLE:
        return !(v->real > 0) && !(v->real < 0);
    case ZL_K_DURATION:
        return zl_str_is(v->text, "0s");
    case ZL_K_SIZE:
        return zl_str_is(v->text, "0");
    case ZL_K_ENUM:
        return v->text.p[0] == '-';
    default:
        return v->kind == ZL_NULL || ((v->kind == ZL_LIST || v->kind == ZL_MAP) && !v->first) ||
               (v->kind == ZL_BOOL && !v->boolean);
    }
}

struct zl_value *zl_print(struct zl_arena *arena, const struct zl_type *type, const void *object)
{
    struct zl_value *map = zl_value_new(arena, ZL_MAP);
    for (unsigned k = 0; k < type->count; k++) {
        const struct zl_field *f = &type->fields[k];
        struct zl_value *v = print_field(arena, f, (const char *)object + f->offset);
        if (v && !((f->flags & ZL_F_OMIT) && is_empty(f, v)))
            zl_value_set(arena, map, f->name, v);
    }
    return map;
}
