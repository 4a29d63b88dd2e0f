/*
 * The container's log: output becomes CRI lines, `<time> stdout|stderr P|F <text>`, split at 16 KiB, bytes untouched.
 * The current file is `log`; when it is full it becomes `log.<generation>` (from 1, counting up) and the oldest of too
 * many goes. Whatever the disk does, feeding never waits and never fails: lines that can't be written are dropped,
 * counted, and said in one line once there is room again.
 * Thread: the shim's. Owns: a zl_shim_log holds one descriptor. Fails: open only.
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <stdint.h>

enum { SHIM_LOG_TEXT_MAX = 16384, SHIM_LOG_BATCH = 65536, SHIM_LOG_PART_MS = 200 };

struct shim_log_stream {
    const char *name;
    size_t n;          /* bytes of a line whose end has not come */
    uint64_t since_ms; /* when the first of them came */
    char part[SHIM_LOG_TEXT_MAX];
};

struct shim_log {
    int dir, fd;
    uint64_t size, max_bytes, generation;
    unsigned max_files;
    uint64_t dropped;
    size_t batched;
    struct shim_log_stream streams[2]; /* stdout, stderr */
    char batch[SHIM_LOG_BATCH];
};

int shim_log_open(struct shim_log *l, int dir, uint64_t max_bytes, unsigned max_files) ZL_MUST;
/* What the container wrote to stream 0 (stdout) or 1 (stderr). */
void shim_log_feed(struct shim_log *l, unsigned stream, struct zl_str bytes, uint64_t now_ms);
/* Writes unfinished lines that are old enough as partial ones; returns in how many ms to come again, -1: no need. */
int shim_log_tick(struct shim_log *l, uint64_t now_ms);
/* Everything that is left. */
void shim_log_close(struct shim_log *l);
/* On a full disk, after close: gives the last lines up for something that matters more. */
void shim_log_give_way(int dir);
