#include "codec/fields.h"

#include <errno.h>

/* clang-format off */
static const struct {
    const char *names; /* a space around each */
    uint64_t ns;
} units[] = {
    { " ns nsec nanos ", 1 },
    { " us \xc2\xb5s usec ", 1000 },
    { " ms msec millis ", 1000000 },
    { " s sec secs second seconds ", UINT64_C(1000000000) },
    { " m min mins minute minutes ", UINT64_C(60000000000) },
    { " h hr hrs hour hours ", UINT64_C(3600000000000) },
    { " d day days ", UINT64_C(86400000000000) },
    { " w wk wks week weeks ", UINT64_C(604800000000000) },
    { " M month months ", UINT64_C(2630016000000000) },
    { " y yr yrs year years ", UINT64_C(31557600000000000) },
};
/* clang-format on */

static uint64_t unit_ns(struct zl_str unit)
{
    char padded[16];
    if (unit.n == 0 || unit.n > sizeof padded - 3)
        return 0;
    padded[0] = ' ';
    memcpy(padded + 1, unit.p, unit.n);
    padded[unit.n + 1] = ' ';
    padded[unit.n + 2] = 0;
    for (size_t i = 0; i < ZL_ARRAY_LEN(units); i++)
        if (strstr(units[i].names, padded))
            return units[i].ns;
    return 0;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

int zl_parse_duration_ms(struct zl_str s, uint64_t *ret)
{
    uint64_t total = 0;
    size_t i = 0, spans = 0;
    if (zl_str_is(s, "0")) {
        *ret = 0;
        return 0;
    }
    while (i < s.n) {
        size_t start = i;
        while (i < s.n && digit(s.p[i]))
            i++;
        uint64_t number, span;
        int r = zl_parse_u64(zl_str_n(s.p + start, i - start), 0, UINT64_MAX, &number);
        if (r < 0)
            return r;
        while (i < s.n && s.p[i] == ' ')
            i++;
        start = i;
        while (i < s.n && !digit(s.p[i]) && s.p[i] != ' ')
            i++;
        uint64_t ns = unit_ns(zl_str_n(s.p + start, i - start));
        if (ns == 0)
            return -EINVAL;
        if (__builtin_mul_overflow(number, ns, &span) || __builtin_add_overflow(total, span, &total))
            return -ERANGE;
        while (i < s.n && s.p[i] == ' ')
            i++;
        spans++;
    }
    if (spans == 0)
        return -EINVAL;
    *ret = total / 1000000;
    return 0;
}

char *zl_print_duration(struct zl_arena *arena, uint64_t ms)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } parts[] = { { 86400000, "day" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" }, { 1, "ms" } };
    zl_auto_buf b = ZL_BUF_INIT;
    for (size_t i = 0; i < ZL_ARRAY_LEN(parts); i++) {
        uint64_t n = ms / parts[i].ms;
        ms %= parts[i].ms;
        if (n)
            zl_buf_printf(&b, "%s%llu%s%s", b.n ? " " : "", (unsigned long long)n, parts[i].name,
                          i == 0 && n > 1 ? "s" : "");
    }
    return zl_arena_strdup(arena, b.n ? b.p : "0s");
}

int zl_parse_size(struct zl_str s, uint64_t *ret)
{
    static const char letters[] = "KMGT";
    if (s.n < 3 || s.p[s.n - 1] != 'i')
        return -EINVAL;
    const char *at = s.p[s.n - 2] ? strchr(letters, s.p[s.n - 2]) : NULL;
    uint64_t n;
    if (!at)
        return -EINVAL;
    int r = zl_parse_u64(zl_str_n(s.p, s.n - 2), 1, UINT64_MAX, &n);
    if (r < 0)
        return r;
    if (__builtin_mul_overflow(n, UINT64_C(1) << (10 * (at - letters + 1)), &n) || n > INT64_MAX)
        return -ERANGE;
    *ret = n;
    return 0;
}

char *zl_print_size(struct zl_arena *arena, uint64_t bytes)
{
    static const char letters[] = "KMGT";
    int unit = -1;
    while (unit < 3 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    return unit < 0 ? zl_arena_printf(arena, "%llu", (unsigned long long)bytes)
                    : zl_arena_printf(arena, "%llu%ci", (unsigned long long)bytes, letters[unit]);
}

const char *zl_nearest(struct zl_str s, const char *const *names)
{
    const char *best = NULL;
    unsigned best_distance = s.n <= 4 ? 2 : 3; /* farther than this - 1 is another word */
    for (; *names; names++) {
        const char *name = **names == '!' ? *names + 1 : *names;
        if (*name == '-')
            continue;
        unsigned d = zl_str_distance(s, zl_str(name), best_distance);
        if (d < best_distance) {
            best_distance = d;
            best = name;
        }
    }
    return best;
}
