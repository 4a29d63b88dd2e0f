/*
 * Byte buffers of connections: 16 KiB blocks from a worker's own free list, taken when there are bytes and given back
 * when there are none, so that an idle connection holds no memory. A head that does not fit gets a larger block.
 * Thread: the worker's. Owns: the holder, until buf_put. Fails: buf_get and buf_grow give false when memory is out.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUF_SIZE = 16 * 1024, BUF_KEEP = 64 };

struct buf {
    char *p; /* NULL: no block */
    uint32_t start, end, cap;
};

struct buf_pool {
    void *free; /* a list through the blocks' first bytes */
    unsigned n;
};

bool buf_get(struct buf_pool *pool, struct buf *b) ZL_MUST;
/* Gives the block back, whatever is in it. */
void buf_put(struct buf_pool *pool, struct buf *b);
/* Room for `cap` bytes in all; what is in it moves to the block's start. */
bool buf_grow(struct buf_pool *pool, struct buf *b, uint32_t cap) ZL_MUST;
void buf_pool_done(struct buf_pool *pool);

static inline uint32_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}
static inline uint32_t buf_room(const struct buf *b)
{
    return b->cap - b->end;
}
/* Drops bytes at the start. */
static inline void buf_drop(struct buf *b, uint32_t n)
{
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}
