/*
 * A layer's bytes on their way from a blob to the tar reader: hashed as they are, decompressed (gzip by isa-l, zstd, or
 * none, told by their first bytes), hashed again. A zstd frame may ask for a window of 8 MiB at most. Thread: one at a
 * time. Owns: the stream, not the descriptor. Fails: ZL_E_BAD_IMAGE for damaged compression, ZL_E_LIMIT for a bomb or a
 * window too great, ZL_E_CANCELLED when the feed failed.
 */
#pragma once

#include "base/error.h"
#include "imagejob/decoders.h"
#include "imagejob/digest.h"
#include "imagejob/feed.h"

#include <sys/types.h>

struct zl_stream;

/* Whether a blob of these first bytes is zstd: a frame, or a skippable one before it (RFC 8878, 3.1; pzstd writes
 * such). */
bool zl_stream_is_zstd(const unsigned char head[4]);

/* Reads the file from its start on, whatever its position is. `feed`: somebody still writes it, and has its digest (so
 * the blob is not hashed here); NULL: it is whole. `decoders` may be NULL. */
struct zl_stream *zl_stream_new(int fd, struct zl_feed *feed, struct zl_decoders *decoders);
struct zl_stream *zl_stream_free(struct zl_stream *s);
/* All of a small blob at once, which is there already: 1, and *ret is valid as long as the stream; 0: it is to be read
 * piece by piece. Before the first reading. */
int zl_stream_whole(struct zl_stream *s, const void **ret, size_t *n, struct zl_err *err) ZL_MUST;
/* At most `size` bytes into `p`; 0 at the end. */
ssize_t zl_stream_read(struct zl_stream *s, void *p, size_t size, struct zl_err *err) ZL_MUST;
/* Behind the end: reads what is left of the blob and gives both digests; blob is "" of a stream with a feed. */
int zl_stream_finish(struct zl_stream *s, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE],
                     struct zl_err *err) ZL_MUST;
