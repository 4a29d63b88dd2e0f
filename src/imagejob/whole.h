/*
 * A small compressed blob, unpacked in one go: faster than piece by piece, as nothing is kept between pieces. What does
 * not fit (several gzip members or zstd frames, bytes behind them, no size said, too large, damaged) is the stream's,
 * which also says what is wrong. Formats: RFC 1952, RFC 8878. Thread: any. Owns: nothing.
 */
#pragma once

#include "imagejob/decoders.h"

#include <stdbool.h>
#include <stddef.h>

enum { ZL_WHOLE_IN_MAX = 1 << 20 };

/* Whether it was unpacked: *size bytes in `room`, which has ZL_DECODER_ROOM. `decoders` may be NULL. */
bool zl_whole_unpack(const unsigned char *in, size_t n, struct zl_decoders *decoders, unsigned char *room,
                     size_t *size);
