#include "imagejob/decoders.h"

#include "base/alloc.h"
#include "base/assert.h"

void zl_decoders_init(struct zl_decoders *d)
{
    *d = (struct zl_decoders){ 0 };
    zl_assert(pthread_mutex_init(&d->lock, NULL) == 0);
}

void zl_decoders_done(struct zl_decoders *d)
{
    while (d->n > 0)
        ZSTD_freeDStream(d->spare[--d->n]);
    while (d->n_rooms > 0)
        free(d->rooms[--d->n_rooms]);
    pthread_mutex_destroy(&d->lock);
}

ZSTD_DStream *zl_decoders_take(struct zl_decoders *d)
{
    ZSTD_DStream *z = NULL;
    if (d) {
        pthread_mutex_lock(&d->lock);
        z = d->n ? d->spare[--d->n] : NULL;
        pthread_mutex_unlock(&d->lock);
    }
    if (!z) {
        z = ZSTD_createDStream();
        zl_assert(z);
        ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZL_DECODER_WINDOW_LOG_MAX);
    }
    return z;
}

ZSTD_DStream *zl_decoders_give(struct zl_decoders *d, ZSTD_DStream *z)
{
    if (d && z && !ZSTD_isError(ZSTD_DCtx_reset(z, ZSTD_reset_session_only))) {
        pthread_mutex_lock(&d->lock);
        if (d->n < ZL_ARRAY_LEN(d->spare)) {
            d->spare[d->n++] = z;
            z = NULL;
        }
        pthread_mutex_unlock(&d->lock);
    }
    ZSTD_freeDStream(z);
    return NULL;
}

unsigned char *zl_decoders_take_room(struct zl_decoders *d)
{
    unsigned char *room = NULL;
    if (d) {
        pthread_mutex_lock(&d->lock);
        room = d->n_rooms ? d->rooms[--d->n_rooms] : NULL;
        pthread_mutex_unlock(&d->lock);
    }
    return room ? room : zl_try_malloc(ZL_DECODER_ROOM);
}

unsigned char *zl_decoders_give_room(struct zl_decoders *d, unsigned char *room)
{
    if (d && room) {
        pthread_mutex_lock(&d->lock);
        if (d->n_rooms < ZL_ARRAY_LEN(d->rooms)) {
            d->rooms[d->n_rooms++] = room;
            room = NULL;
        }
        pthread_mutex_unlock(&d->lock);
    }
    free(room);
    return NULL;
}
