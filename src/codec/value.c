#include "codec/value.h"

#include "base/assert.h"

const struct zl_parse_limits zl_limits_document = { 1 << 20, 64, 100000 };

struct zl_value *zl_value_new(struct zl_arena *arena, enum zl_value_kind kind)
{
    struct zl_value *v = zl_arena_alloc(arena, sizeof *v);
    v->kind = kind;
    v->text = ZL_STR("");
    return v;
}

struct zl_value *zl_value_string(struct zl_arena *arena, struct zl_str s)
{
    struct zl_value *v = zl_value_new(arena, ZL_STRING);
    v->text = zl_str_n(zl_arena_strndup(arena, s.n ? s.p : "", s.n), s.n);
    return v;
}

struct zl_value *zl_value_int(struct zl_arena *arena, int64_t i)
{
    struct zl_value *v = zl_value_new(arena, ZL_INT);
    v->integer = i;
    v->text = zl_str(zl_arena_printf(arena, "%lld", (long long)i));
    return v;
}

struct zl_value *zl_value_bool(struct zl_arena *arena, bool b)
{
    struct zl_value *v = zl_value_new(arena, ZL_BOOL);
    v->boolean = b;
    v->text = b ? ZL_STR("true") : ZL_STR("false");
    return v;
}

void zl_value_append(struct zl_value *list, struct zl_value *item)
{
    zl_assert(list->kind == ZL_LIST || list->kind == ZL_MAP);
    if (list->last)
        list->last->next = item;
    else
        list->first = item;
    list->last = item;
    list->count++;
}

void zl_value_set(struct zl_arena *arena, struct zl_value *map, const char *key, struct zl_value *item)
{
    item->key = zl_value_string(arena, zl_str(key));
    zl_value_append(map, item);
}

struct zl_value *zl_value_get(const struct zl_value *map, const char *key)
{
    if (!map || map->kind != ZL_MAP)
        return NULL;
    for (struct zl_value *v = map->first; v; v = v->next)
        if (zl_str_is(v->key->text, key))
            return v;
    return NULL;
}

struct zl_str zl_value_str(const struct zl_value *map, const char *key)
{
    const struct zl_value *v = zl_value_get(map, key);
    return v && v->kind == ZL_STRING ? v->text : (struct zl_str){ NULL, 0 };
}

const char *zl_value_cstr(const struct zl_value *map, const char *key)
{
    struct zl_str s = zl_value_str(map, key);
    return s.p && strlen(s.p) == s.n ? s.p : "";
}

uint64_t zl_value_u64(const struct zl_value *map, const char *key, uint64_t fallback)
{
    const struct zl_value *v = zl_value_get(map, key);
    return v && v->kind == ZL_INT && v->integer >= 0 ? (uint64_t)v->integer : fallback;
}

bool zl_value_true(const struct zl_value *map, const char *key)
{
    const struct zl_value *v = zl_value_get(map, key);
    return v && v->kind == ZL_BOOL && v->boolean;
}

bool zl_value_equal(const struct zl_value *a, const struct zl_value *b)
{
    if (!a || !b)
        return a == b;
    if (a->kind != b->kind || a->count != b->count)
        return false;
    switch (a->kind) {
    case ZL_NULL:
        return true;
    case ZL_BOOL:
        return a->boolean == b->boolean;
    case ZL_INT:
        return a->integer == b->integer;
    case ZL_DOUBLE:
        return a->real >= b->real && a->real <= b->real;
    case ZL_STRING:
        return zl_str_eq(a->text, b->text);
    case ZL_LIST:
    case ZL_MAP:
        break;
    }
    const struct zl_value *x = a->first, *y = b->first;
    for (; x && y; x = x->next, y = y->next)
        if ((x->key && !zl_str_eq(x->key->text, y->key->text)) || !zl_value_equal(x, y))
            return false;
    return !x && !y;
}

const char *zl_value_kind_name(enum zl_value_kind kind)
{
    static const char *const names[] = { "nothing",  "true or false", "an integer", "a number",
                                         "a string", "a list",        "a map" };
    return names[kind];
}
