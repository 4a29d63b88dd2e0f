#include "base/str.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

bool zl_str_starts(struct zl_str s, struct zl_str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool zl_str_ends(struct zl_str s, struct zl_str suffix)
{
    return s.n >= suffix.n && (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

bool zl_str_eq_nocase(struct zl_str a, struct zl_str b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

struct zl_str zl_str_trim(struct zl_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

struct zl_str zl_str_cut(struct zl_str s, char sep, struct zl_str *rest)
{
    const char *at = s.n ? memchr(s.p, sep, s.n) : NULL;
    if (!at) {
        *rest = (struct zl_str){ NULL, 0 };
        return s;
    }
    size_t head = (size_t)(at - s.p);
    *rest = (struct zl_str){ at + 1, s.n - head - 1 };
    return (struct zl_str){ s.p, head };
}

int zl_parse_u64(struct zl_str s, uint64_t min, uint64_t max, uint64_t *ret)
{
    if (s.n == 0)
        return -EINVAL;
    uint64_t v = 0;
    bool over = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -EINVAL;
        over |= __builtin_mul_overflow(v, 10u, &v);
        over |= __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v);
    }
    if (over || v < min || v > max)
        return -ERANGE;
    *ret = v;
    return 0;
}

int zl_parse_i64(struct zl_str s, int64_t min, int64_t max, int64_t *ret)
{
    bool negative = s.n && s.p[0] == '-';
    uint64_t u;
    int r = zl_parse_u64(negative ? zl_str_n(s.p + 1, s.n - 1) : s, 0, (uint64_t)INT64_MAX + negative, &u);
    if (r < 0)
        return r;
    int64_t v = negative ? (int64_t)(0 - u) : (int64_t)u;
    if (v < min || v > max)
        return -ERANGE;
    *ret = v;
    return 0;
}

unsigned zl_str_distance(struct zl_str a, struct zl_str b, unsigned max)
{
    enum { LONGEST = 64 };
    if (a.n > LONGEST || b.n > LONGEST)
        return max;
    unsigned rows[3][LONGEST + 1];
    for (unsigned j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned change = above[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            unsigned edit = ZL_MIN(above[j], row[j - 1]) + 1;
            row[j] = ZL_MIN(change, edit);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = ZL_MIN(row[j], before[j - 2] + 1);
        }
    }
    return ZL_MIN(rows[a.n % 3][b.n], max);
}

void zl_buf_done(struct zl_buf *b)
{
    free(b->p);
    *b = (struct zl_buf)ZL_BUF_INIT;
}

void zl_buf_clear(struct zl_buf *b)
{
    b->n = 0;
    if (b->p)
        b->p[0] = 0;
}

static size_t wanted(const struct zl_buf *b, size_t more)
{
    size_t want;
    if (__builtin_add_overflow(b->n, more, &want) || __builtin_add_overflow(want, 1u, &want))
        return SIZE_MAX;
    return want <= b->cap ? 0 : ZL_MAX(want, ZL_MIN(b->cap, SIZE_MAX / 4) * 2);
}

void zl_buf_reserve(struct zl_buf *b, size_t more)
{
    size_t cap = wanted(b, more);
    if (!cap)
        return;
    cap = ZL_MAX(cap, (size_t)32);
    b->p = zl_xrealloc(b->p, cap, 1);
    b->cap = cap;
    b->p[b->n] = 0;
}

int zl_buf_try_reserve(struct zl_buf *b, size_t more)
{
    size_t cap = wanted(b, more);
    if (!cap)
        return 0;
    char *p = zl_try_realloc(b->p, cap);
    if (!p)
        return -ENOMEM;
    b->p = p;
    b->cap = cap;
    b->p[b->n] = 0;
    return 0;
}

void zl_buf_add(struct zl_buf *b, const void *p, size_t n)
{
    zl_buf_reserve(b, n);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void zl_buf_add_str(struct zl_buf *b, struct zl_str s)
{
    zl_buf_add(b, s.p, s.n);
}

void zl_buf_puts(struct zl_buf *b, const char *s)
{
    zl_buf_add(b, s, strlen(s));
}

void zl_buf_putc(struct zl_buf *b, char c)
{
    zl_buf_add(b, &c, 1);
}

void zl_buf_vprintf(struct zl_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    zl_assert(n >= 0);
    zl_buf_reserve(b, (size_t)n);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    b->n += (size_t)n;
}

void zl_buf_printf(struct zl_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void zl_buf_drop(struct zl_buf *b, size_t n)
{
    zl_assert(n <= b->n);
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->n - n + 1);
    b->n -= n;
}

char *zl_buf_take(struct zl_buf *b)
{
    zl_buf_reserve(b, 0);
    char *p = b->p;
    *b = (struct zl_buf)ZL_BUF_INIT;
    return p;
}
