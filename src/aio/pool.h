/*
 * Our own bounded worker pool, for what blocks: a job runs on a worker thread, its completion on the loop. Not libuv's
 * pool, which Raft's disk writes live in.
 * Thread: submit and completions on the loop's; work on a worker. Owns: the caller owns arg.
 * Fails: zl_pool_submit gives -EAGAIN when the queue is full.
 */
#pragma once

#include "aio/loop.h"

struct zl_pool;

struct zl_pool *zl_pool_new(struct zl_loop *loop, unsigned threads, unsigned queue_max);
/* Waits for running jobs; completes what is queued without running it (done with cancelled = true). Returns NULL. */
struct zl_pool *zl_pool_free(struct zl_pool *p);
int zl_pool_submit(struct zl_pool *p, void (*work)(void *arg), void (*done)(void *arg, bool cancelled),
                   void *arg) ZL_MUST;
