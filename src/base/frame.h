/*
 * The frame of every local protocol (shim, proxy): a fixed header, then a body of records. Both are additive only: a
 * reader skips record types that it does not know, a version below its own is still read.
 *
 *   header: magic u32 · version u16 · type u16 · length u32 (of the body) · zero u32     little-endian, 16 bytes
 *   record: type u16 · zero u16 · length u32 · bytes · padding to a multiple of 8
 *
 * Thread: any. Fails: -EPROTO for bytes that are no frame, -EMSGSIZE over the limit. Owns: readers are views.
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <stdint.h>
#include <sys/types.h>

enum { ZL_FRAME_HEADER_SIZE = 16 };

struct zl_frame {
    uint16_t version, type;
    struct zl_str body; /* a view into the bytes given to zl_frame_parse */
};

/* Starts a frame at the end of `b`; returns its offset for zl_frame_end, which fills the length in. */
size_t zl_frame_begin(struct zl_buf *b, uint32_t magic, uint16_t version, uint16_t type);
void zl_frame_end(struct zl_buf *b, size_t start);

void zl_record_add(struct zl_buf *b, uint16_t type, const void *p, size_t n);
void zl_record_add_str(struct zl_buf *b, uint16_t type, struct zl_str s);
void zl_record_add_u64(struct zl_buf *b, uint16_t type, uint64_t v);

/* The size of the whole frame, 0 when `in` does not hold all of it yet, or an error. */
ssize_t zl_frame_parse(struct zl_str in, uint32_t magic, size_t limit, struct zl_frame *ret) ZL_MUST;

struct zl_record {
    uint16_t type;
    struct zl_str bytes;
};
/* Takes one record off `*body`: 1, 0 at the end, -EPROTO. */
int zl_record_next(struct zl_str *body, struct zl_record *ret) ZL_MUST;
/* -EPROTO unless the record has exactly 8 bytes. */
int zl_record_u64(const struct zl_record *r, uint64_t *ret) ZL_MUST;
