/*
 * Reading an instance's log: files `log` (the current one) and `log.<generation>` (ended ones) of CRI lines, written
 * by its shim only. A cursor (generation, offset) names the place behind an entry; reading on from there gives every
 * later entry once and in order, across rotation. Memory is bounded by ZL_LOG_LINE_MAX.
 * Thread: one at a time a reader; file reads only, which do not wait. Owns: the caller, until zl_log_reader_free; an
 * entry is valid until the next call. Fails: -errno; -EPROTO never (a line that is none is given as it is).
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* A longer line comes in several entries, each but the last `partial`. */
enum { ZL_LOG_LINE_MAX = 64 * 1024 };

struct zl_log_cursor {
    uint64_t generation; /* from 1; 0: the oldest there is */
    uint64_t offset;
};

struct zl_log_entry {
    struct zl_str time; /* RFC 3339; "" when the line has none */
    bool is_stderr;
    bool partial;
    struct zl_str text;          /* without the newline; any bytes */
    struct zl_log_cursor cursor; /* to go on behind it */
};

struct zl_log_reader;

/* `containers` is the folder of instances (borrowed for the call). -ENOENT when there is no such instance. */
int zl_log_reader_open(int containers, const char *id, struct zl_log_reader **ret) ZL_MUST;
/* Where to start: a cursor of before (a place that was rotated away moves to the oldest there is) … */
void zl_log_reader_seek(struct zl_log_reader *r, struct zl_log_cursor cursor);
/* … or so that the last n lines follow. */
int zl_log_reader_seek_last(struct zl_log_reader *r, uint64_t lines) ZL_MUST;
/* 1: an entry; 0: no more for now. Parts of one line are joined, lines of the two streams keep their order. */
int zl_log_reader_next(struct zl_log_reader *r, struct zl_log_entry *ret) ZL_MUST;
/* A descriptor that polls readable when there may be more, or the instance has ended (its `exit` appeared) or was
 * removed; zl_log_reader_next empties it. Made at the first call. */
int zl_log_reader_fd(struct zl_log_reader *r) ZL_MUST;
/* The instance has ended and everything was read. */
bool zl_log_reader_ended(struct zl_log_reader *r);
struct zl_log_reader *zl_log_reader_free(struct zl_log_reader *r);
