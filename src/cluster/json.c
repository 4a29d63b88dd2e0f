#include "cluster/json.h"

#include "spec/spec.h"

static const struct zl_value *want(struct zl_reader *r, const struct zl_value *map, const char *key,
                                   enum zl_value_kind kind)
{
    const struct zl_value *v = zl_value_get(map, key);
    if (v && v->kind == kind)
        return v;
    if (!r->bad)
        r->bad = key;
    return NULL;
}

static void complain(struct zl_reader *r, const char *key)
{
    if (!r->bad)
        r->bad = key;
}

uint64_t zl_read_u64(struct zl_reader *r, const struct zl_value *map, const char *key, uint64_t max)
{
    const struct zl_value *v = want(r, map, key, ZL_INT);
    if (!v)
        return 0;
    if (v->integer < 0 || (uint64_t)v->integer > max) {
        complain(r, key);
        return 0;
    }
    return (uint64_t)v->integer;
}

uint64_t zl_read_hex(struct zl_reader *r, const struct zl_value *map, const char *key)
{
    const struct zl_value *v = want(r, map, key, ZL_STRING);
    if (!v)
        return 0;
    uint64_t n = 0;
    for (size_t i = 0; i < v->text.n; i++) {
        char c = v->text.p[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 16;
        if (digit > 15) {
            complain(r, key);
            return 0;
        }
        n = n << 4 | digit;
    }
    if (v->text.n != 16) {
        complain(r, key);
        return 0;
    }
    return n;
}

bool zl_read_bool(struct zl_reader *r, const struct zl_value *map, const char *key)
{
    const struct zl_value *v = want(r, map, key, ZL_BOOL);
    return v && v->boolean;
}

const char *zl_read_str(struct zl_reader *r, const struct zl_value *map, const char *key)
{
    const struct zl_value *v = want(r, map, key, ZL_STRING);
    if (!v)
        return "";
    if (v->text.n && memchr(v->text.p, 0, v->text.n)) {
        complain(r, key);
        return "";
    }
    return v->text.p ? v->text.p : "";
}

const char *zl_read_name(struct zl_reader *r, const struct zl_value *map, const char *key)
{
    const char *s = zl_read_str(r, map, key);
    if (!zl_name_valid(zl_str(s)))
        complain(r, key);
    return s;
}

const struct zl_value *zl_read_list(struct zl_reader *r, const struct zl_value *map, const char *key, unsigned max)
{
    const struct zl_value *v = want(r, map, key, ZL_LIST);
    if (v && v->count > max) {
        complain(r, key);
        return NULL;
    }
    return v;
}

struct zl_value *zl_hex_value(struct zl_arena *arena, uint64_t v)
{
    return zl_value_string(arena, zl_str(zl_arena_printf(arena, "%016llx", (unsigned long long)v)));
}
