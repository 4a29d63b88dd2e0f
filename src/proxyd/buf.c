#include "proxyd/buf_priv.h"

#include "base/alloc.h"

#include <string.h>

bool buf_get(struct buf_pool *pool, struct buf *b)
{
    if (b->p)
        return true;
    void *p = pool->free;
    if (p) {
        memcpy(&pool->free, p, sizeof pool->free);
        pool->n--;
    } else {
        p = zl_try_malloc(BUF_SIZE);
        if (!p)
            return false;
    }
    *b = (struct buf){ .p = p, .cap = BUF_SIZE };
    return true;
}

void buf_put(struct buf_pool *pool, struct buf *b)
{
    if (b->p && b->cap == BUF_SIZE && pool->n < BUF_KEEP) {
        memcpy(b->p, &pool->free, sizeof pool->free);
        pool->free = b->p;
        pool->n++;
    } else {
        free(b->p);
    }
    *b = (struct buf){ 0 };
}

bool buf_grow(struct buf_pool *pool, struct buf *b, uint32_t cap)
{
    uint32_t n = buf_len(b);
    if (b->cap >= cap) {
        if (b->start)
            memmove(b->p, b->p + b->start, n);
        b->start = 0;
        b->end = n;
        return true;
    }
    char *p = zl_try_malloc(cap);
    if (!p)
        return false;
    if (n)
        memcpy(p, b->p + b->start, n);
    buf_put(pool, b);
    *b = (struct buf){ .p = p, .end = n, .cap = cap };
    return true;
}

void buf_pool_done(struct buf_pool *pool)
{
    while (pool->free) {
        void *p = pool->free;
        memcpy(&pool->free, p, sizeof pool->free);
        free(p);
    }
    pool->n = 0;
}
