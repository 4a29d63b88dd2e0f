/*
 * zstd decoders that streams take in turn: the memory of a window is there already when the next layer needs it.
 * Thread: any. Owns: the spare ones, until _done; a taken one is the taker's until it is given back.
 */
#pragma once

#include <pthread.h>
#include <zstd.h>

enum { ZL_DECODER_WINDOW_LOG_MAX = 23 };

struct zl_decoders {
    pthread_mutex_t lock;
    ZSTD_DStream *spare[4]; /* as many as layers are unpacked at once */
    unsigned n;
};

void zl_decoders_init(struct zl_decoders *d);
void zl_decoders_done(struct zl_decoders *d);
/* At the start of a stream, a window of 8 MiB at most allowed. d may be NULL, here and below: then it is a new one. */
ZSTD_DStream *zl_decoders_take(struct zl_decoders *d);
ZSTD_DStream *zl_decoders_give(struct zl_decoders *d, ZSTD_DStream *z);
