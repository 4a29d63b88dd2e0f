#include "imagejob/decoders.h"

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
