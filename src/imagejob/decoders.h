/*
 * zstd decoders, and room for what small blobs unpack to, that streams take in turn: the memory is there already when
 * the next layer needs it. Thread: any. Owns: the spare ones, until _done; a taken one is the taker's until it is given
 * back.
 */
#pragma once

#include <pthread.h>
#include <zstd.h>

enum { ZL_DECODER_WINDOW_LOG_MAX = 23, ZL_DECODER_ROOM = 4 << 20, ZL_DECODERS_SPARE = 4 };

struct zl_decoders {
    pthread_mutex_t lock;
    ZSTD_DStream *spare[ZL_DECODERS_SPARE]; /* as many as layers are unpacked at once */
    unsigned char *rooms[ZL_DECODERS_SPARE];
    unsigned n, n_rooms;
};

void zl_decoders_init(struct zl_decoders *d);
void zl_decoders_done(struct zl_decoders *d);
/* At the start of a stream, a window of 8 MiB at most allowed. d may be NULL, here and below: then it is a new one. */
ZSTD_DStream *zl_decoders_take(struct zl_decoders *d);
ZSTD_DStream *zl_decoders_give(struct zl_decoders *d, ZSTD_DStream *z);
/* ZL_DECODER_ROOM bytes; NULL when there is no memory. */
unsigned char *zl_decoders_take_room(struct zl_decoders *d);
unsigned char *zl_decoders_give_room(struct zl_decoders *d, unsigned char *room);
