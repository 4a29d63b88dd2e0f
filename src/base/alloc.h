/*
 * Memory. Small fixed sizes abort when there is none (zl_x*); sizes that come from outside go through zl_try_* under
 * a limit that the caller checked, and give NULL. An arena frees everything of one parse, plan or request at once.
 * Thread: any (an arena: one at a time). Owns: the caller owns what is returned, unless it came from an arena.
 */
#pragma once

#include "base/macros.h"

#include <stddef.h>
#include <stdlib.h>

void *zl_xmalloc(size_t size) ZL_MUST;
void *zl_xcalloc(size_t n, size_t size) ZL_MUST;
void *zl_xrealloc(void *p, size_t n, size_t size) ZL_MUST;
char *zl_xstrdup(const char *s) ZL_MUST;
char *zl_xstrndup(const char *s, size_t n) ZL_MUST;
char *zl_xasprintf(const char *fmt, ...) ZL_PRINTF(1, 2) ZL_MUST;

void *zl_try_malloc(size_t size) ZL_MUST;
void *zl_try_realloc(void *p, size_t size) ZL_MUST;

/* Test hook: the n-th zl_try_* call from now on (1 = the next) fails, once. 0 switches it off. */
void zl_try_fail_after(unsigned n);

static inline void zl_auto_free_(void *p)
{
    free(*(void **)p);
}
#define zl_auto_free ZL_CLEANUP(zl_auto_free_)

/* Grows `*array` so that index `n` exists, doubling; elements beyond the old capacity are not initialised. */
#define ZL_GROW(array, n, cap)                                                 \
    do {                                                                       \
        if ((size_t)(n) >= (size_t)(cap)) {                                    \
            (cap) = (__typeof__(cap))ZL_MAX((size_t)(cap)*2, (size_t)(n) + 8); \
            (array) = zl_xrealloc((array), (size_t)(cap), sizeof(*(array)));   \
        }                                                                      \
    } while (0)

struct zl_arena_chunk;
struct zl_arena {
    struct zl_arena_chunk *chunks;
};

void zl_arena_init(struct zl_arena *arena);
void zl_arena_done(struct zl_arena *arena);
/* Zeroed and aligned for any type. */
void *zl_arena_alloc(struct zl_arena *arena, size_t size) ZL_MUST;
char *zl_arena_strndup(struct zl_arena *arena, const char *s, size_t n) ZL_MUST;
char *zl_arena_strdup(struct zl_arena *arena, const char *s) ZL_MUST;
char *zl_arena_printf(struct zl_arena *arena, const char *fmt, ...) ZL_PRINTF(2, 3) ZL_MUST;
