/*
 * A layer's bytes on their way from a blob to the tar reader: hashed as they are, decompressed (gzip by isa-l, zstd, or
 * none, told by their first bytes), hashed again. Thread: one at a time. Owns: the stream, not the descriptor.
 * Fails: ZL_E_BAD_IMAGE for damaged compression, ZL_E_LIMIT for a bomb.
 */
#pragma once

#include "base/error.h"
#include "imagejob/digest.h"

#include <sys/types.h>

struct zl_stream;

struct zl_stream *zl_stream_new(int fd);
struct zl_stream *zl_stream_free(struct zl_stream *s);
/* The next block, valid until the next call; 0 at the end. */
ssize_t zl_stream_read(struct zl_stream *s, const void **ret, struct zl_err *err) ZL_MUST;
/* Reads what is left and gives both digests. */
int zl_stream_finish(struct zl_stream *s, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE],
                     struct zl_err *err) ZL_MUST;
