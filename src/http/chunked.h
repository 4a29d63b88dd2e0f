/*
 * The chunked transfer coding, decoded strictly and piece by piece: CRLF only, sizes of 1 to 15 hex digits, extensions
 * without control bytes, trailers that are headers and change no framing. Pure.
 * Thread: any. Owns: views point into the bytes given. Fails: -EBADMSG, -EMSGSIZE (size lines, trailers).
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <stdint.h>
#include <sys/types.h>

enum {
    ZL_CHUNKED_LINE_MAX = 1024,        /* a size line with its extensions */
    ZL_CHUNKED_TRAILER_MAX = 8 * 1024, /* all trailers */
    ZL_CHUNKED_HEAD_SIZE = 20,         /* what zl_chunked_head writes at most */
};

struct zl_chunked {
    uint64_t left; /* bytes of the current chunk still to come */
    uint32_t line; /* bytes of the current line so far */
    uint32_t trailer;
    uint8_t state;
    uint8_t digits;
    uint8_t name_n; /* of the current trailer's name, as far as it is kept */
    char name[20];
};

enum zl_chunked_result { ZL_CHUNKED_MORE = 0, ZL_CHUNKED_DATA = 1, ZL_CHUNKED_END = 2 };

void zl_chunked_init(struct zl_chunked *c);
/*
 * Takes bytes off `*in`. ZL_CHUNKED_DATA: `*ret_data` are the next bytes of the body (never empty). ZL_CHUNKED_END: the
 * body is over, what is left in `*in` belongs to what follows. ZL_CHUNKED_MORE: all was taken.
 */
int zl_chunked_next(struct zl_chunked *c, struct zl_str *in, struct zl_str *ret_data) ZL_MUST;
/* The line before `n` (> 0) bytes of data, which "\r\n" must follow; the end of a body is "0\r\n\r\n". Returns its
 * size. */
size_t zl_chunked_head(char ret[ZL_CHUNKED_HEAD_SIZE], uint64_t n);
