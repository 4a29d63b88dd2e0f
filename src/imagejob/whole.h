/*
 * A small compressed blob, unpacked in one go: faster than piece by piece, as nothing is kept between pieces. What does
 * not fit (several gzip members or zstd frames, bytes behind them, no size said, too large, damaged) is the stream's,
 * which also says what is wrong. Formats: RFC 1952, RFC 8878. Thread: any. Owns: nothing.
 */
#pragma once

#include "imagejob/decoders.h"

#include <stddef.h>

enum { ZL_WHOLE_IN_MAX = 1 << 20, ZL_WHOLE_OUT_MAX = 4 << 20 };

/* What `in` unpacks to, the caller's to free, and *size of it; NULL: not in this way. `decoders` may be NULL. */
unsigned char *zl_whole_unpack(const unsigned char *in, size_t n, struct zl_decoders *decoders, size_t *size);
