/*
 * Strings: views that own nothing (zl_str), a growing buffer that is always NUL-terminated (zl_buf), and numbers
 * parsed with a range. Thread: any. Fails: only the zl_parse_* and zl_buf_try_* functions.
 */
#pragma once

#include "base/macros.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct zl_str {
    const char *p;
    size_t n;
};

#define ZL_STR(literal) ((struct zl_str){ "" literal, sizeof(literal) - 1 })
#define ZL_STR_FMT(s)   (int)(s).n, (s).p /* for "%.*s" */

static inline struct zl_str zl_str(const char *s)
{
    return (struct zl_str){ s, s ? strlen(s) : 0 };
}
static inline struct zl_str zl_str_n(const char *p, size_t n)
{
    return (struct zl_str){ p, n };
}
static inline bool zl_str_eq(struct zl_str a, struct zl_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool zl_str_is(struct zl_str a, const char *b)
{
    return zl_str_eq(a, zl_str(b));
}
static inline bool zl_streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}
bool zl_str_starts(struct zl_str s, struct zl_str prefix);
bool zl_str_ends(struct zl_str s, struct zl_str suffix);
bool zl_str_eq_nocase(struct zl_str a, struct zl_str b);
/* Without spaces and tabs at both ends. */
struct zl_str zl_str_trim(struct zl_str s);
/* Splits at the first `sep`: the head is returned, `*rest` is what follows (p = NULL when there was no sep). */
struct zl_str zl_str_cut(struct zl_str s, char sep, struct zl_str *rest);

/* Whole-string decimal numbers. -EINVAL: not a number; -ERANGE: outside [min, max]. *ret is set only on success. */
int zl_parse_u64(struct zl_str s, uint64_t min, uint64_t max, uint64_t *ret) ZL_MUST;
int zl_parse_i64(struct zl_str s, int64_t min, int64_t max, int64_t *ret) ZL_MUST;

/* The edit distance of two names (a swap of neighbours counts once), as for "did you mean"; at most `max`, which is
 * returned for anything farther. */
unsigned zl_str_distance(struct zl_str a, struct zl_str b, unsigned max);

struct zl_buf {
    char *p;  /* never NULL after the first append; p[n] is NUL */
    size_t n; /* without the NUL */
    size_t cap;
};

#define ZL_BUF_INIT \
    {               \
        NULL, 0, 0  \
    }
void zl_buf_done(struct zl_buf *b);
#define zl_auto_buf ZL_CLEANUP(zl_buf_done) struct zl_buf
void zl_buf_clear(struct zl_buf *b);
void zl_buf_reserve(struct zl_buf *b, size_t more);
/* -ENOMEM; for sizes from outside. */
int zl_buf_try_reserve(struct zl_buf *b, size_t more) ZL_MUST;
void zl_buf_add(struct zl_buf *b, const void *p, size_t n);
void zl_buf_add_str(struct zl_buf *b, struct zl_str s);
void zl_buf_puts(struct zl_buf *b, const char *s);
void zl_buf_putc(struct zl_buf *b, char c);
void zl_buf_printf(struct zl_buf *b, const char *fmt, ...) ZL_PRINTF(2, 3);
void zl_buf_vprintf(struct zl_buf *b, const char *fmt, va_list ap) ZL_PRINTF(2, 0);
/* Drops the first `n` bytes. */
void zl_buf_drop(struct zl_buf *b, size_t n);
/* The content as a string that the caller frees; the buffer is empty afterwards. Never NULL. */
char *zl_buf_take(struct zl_buf *b) ZL_MUST;
static inline struct zl_str zl_buf_view(const struct zl_buf *b)
{
    return (struct zl_str){ b->p ? b->p : "", b->n };
}
