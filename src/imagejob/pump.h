/*
 * A layer's stream in a thread of its own, which decompresses and hashes ahead of whoever takes the bytes, by a few
 * blocks. A small blob that is there whole goes without: the taker does the work. Thread: one taker. Owns: the stream
 * and the thread, until _free. Fails: as the stream; -EAGAIN when no thread starts.
 */
#pragma once

#include "imagejob/stream.h"

#include <archive.h>

struct zl_pump;

/* As zl_stream_new; the file stays open until _free. */
int zl_pump_new(int fd, struct zl_feed *feed, struct zl_decoders *decoders, struct zl_pump **ret,
                struct zl_err *err) ZL_MUST;
/* Ends the thread, also in the middle. */
struct zl_pump *zl_pump_free(struct zl_pump *p);
/* The next block, valid until the next call; 0 at the end. */
ssize_t zl_pump_read(struct zl_pump *p, const void **ret, struct zl_err *err) ZL_MUST;
/* Takes what is left and gives both digests (zl_stream_finish). */
int zl_pump_finish(struct zl_pump *p, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE],
                   struct zl_err *err) ZL_MUST;

/* For archive_read_open: the blocks of a pump. What the stream said of its end stands in `err`, and is more than what
 * the archive's reader makes of it. */
struct zl_pump_source {
    struct zl_pump *pump;
    struct zl_err err;
};
la_ssize_t zl_pump_next_block(struct archive *a, void *source, const void **ret);
