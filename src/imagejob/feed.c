#include "imagejob/feed.h"

#include "base/assert.h"

#include <stdlib.h>

void zl_feed_init(struct zl_feed *f)
{
    *f = (struct zl_feed){ 0 };
    zl_assert(pthread_mutex_init(&f->lock, NULL) == 0 && pthread_cond_init(&f->more, NULL) == 0);
}

void zl_feed_forget(struct zl_feed *f)
{
    free(f->bytes);
    f->bytes = NULL;
}

void zl_feed_done(struct zl_feed *f)
{
    zl_feed_forget(f);
    pthread_cond_destroy(&f->more);
    pthread_mutex_destroy(&f->lock);
}

void zl_feed_set(struct zl_feed *f, uint64_t got)
{
    pthread_mutex_lock(&f->lock);
    f->rewound |= got < f->got;
    f->got = got;
    pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

void zl_feed_end(struct zl_feed *f, bool failed)
{
    pthread_mutex_lock(&f->lock);
    f->ended = true;
    f->failed |= failed;
    pthread_cond_signal(&f->more);
    pthread_mutex_unlock(&f->lock);
}

size_t zl_feed_whole(struct zl_feed *f, size_t most)
{
    pthread_mutex_lock(&f->lock);
    size_t n = f->ended && !f->failed && f->got <= most ? (size_t)f->got : 0;
    pthread_mutex_unlock(&f->lock);
    return n;
}

int64_t zl_feed_wait(struct zl_feed *f, uint64_t at, struct zl_err *err)
{
    pthread_mutex_lock(&f->lock);
    while (f->got <= at && !f->ended && !f->failed)
        pthread_cond_wait(&f->more, &f->lock);
    int64_t n = f->failed ? ZL_E_CANCELLED : f->got > at ? (int64_t)(f->got - at) : 0;
    pthread_mutex_unlock(&f->lock);
    return n < 0 ? zl_fail(err, ZL_E_CANCELLED, "the blob did not come") : n;
}
