#include "base/alloc.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static _Atomic unsigned fail_countdown;

static ZL_NORETURN void out_of_memory(void)
{
    static const char text[] = "out of memory\n";
    fwrite(text, 1, sizeof text - 1, stderr);
    abort();
}

void *zl_xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *zl_xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *zl_xrealloc(void *p, size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        out_of_memory();
    p = realloc(p, total ? total : 1);
    if (!p)
        out_of_memory();
    return p;
}

char *zl_xstrdup(const char *s)
{
    return zl_xstrndup(s, strlen(s));
}

char *zl_xstrndup(const char *s, size_t n)
{
    char *copy = zl_xmalloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

static char *vprint(struct zl_arena *arena, const char *fmt, va_list ap) ZL_PRINTF(2, 0);
static char *vprint(struct zl_arena *arena, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    zl_assert(n >= 0);
    char *s = arena ? zl_arena_alloc(arena, (size_t)n + 1) : zl_xmalloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

char *zl_xasprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vprint(NULL, fmt, ap);
    va_end(ap);
    return s;
}

static int fault_due(void)
{
    unsigned left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (left == 0)
        return 0;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void *zl_try_malloc(size_t size)
{
    return fault_due() || size > PTRDIFF_MAX ? NULL : malloc(size ? size : 1);
}

void *zl_try_realloc(void *p, size_t size)
{
    return fault_due() || size > PTRDIFF_MAX ? NULL : realloc(p, size ? size : 1);
}

void zl_try_fail_after(unsigned n)
{
    atomic_store(&fail_countdown, n);
}

struct zl_arena_chunk {
    struct zl_arena_chunk *next;
    size_t used, size;
    max_align_t data[];
};

enum { CHUNK_SIZE = 4096 - sizeof(struct zl_arena_chunk) };

void zl_arena_init(struct zl_arena *arena)
{
    arena->chunks = NULL;
}

void zl_arena_done(struct zl_arena *arena)
{
    while (arena->chunks) {
        struct zl_arena_chunk *c = arena->chunks;
        arena->chunks = c->next;
        free(c);
    }
}

void *zl_arena_alloc(struct zl_arena *arena, size_t size)
{
    size = (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    struct zl_arena_chunk *c = arena->chunks;
    if (!c || c->size - c->used < size) {
        size_t want = ZL_MAX(size, (size_t)CHUNK_SIZE);
        c = zl_xcalloc(1, sizeof *c + want);
        c->size = want;
        /* A chunk made for one big object goes behind the current one, which still has room. */
        if (arena->chunks && want > CHUNK_SIZE) {
            c->next = arena->chunks->next;
            arena->chunks->next = c;
        } else {
            c->next = arena->chunks;
            arena->chunks = c;
        }
    }
    void *p = (char *)c->data + c->used;
    c->used += size;
    return p;
}

char *zl_arena_strndup(struct zl_arena *arena, const char *s, size_t n)
{
    char *copy = zl_arena_alloc(arena, n + 1);
    memcpy(copy, s, n);
    return copy;
}

char *zl_arena_strdup(struct zl_arena *arena, const char *s)
{
    return zl_arena_strndup(arena, s, strlen(s));
}

char *zl_arena_printf(struct zl_arena *arena, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vprint(arena, fmt, ap);
    va_end(ap);
    return s;
}
