#include "imagejob/pump.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "imagejob/whole.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { BLOCKS = 6, BLOCK_SIZE = 256 << 10 };

struct block {
    ssize_t n;
    unsigned char p[BLOCK_SIZE];
};

/* made counts blocks that are filled, taken those that the taker is through with: a ring between two threads. */
struct zl_pump {
    bool apart; /* in a thread of its own; otherwise there is one block, and none of what follows up to `stream` */
    bool begun; /* not apart: what comes first was asked for */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct zl_stream *stream;
    unsigned made, taken;
    bool holds; /* the taker has the block `taken` */
    bool stop, ended;
    struct zl_err err; /* err.code != 0: how it ended */
    char blob[ZL_DIGEST_SIZE], diff_id[ZL_DIGEST_SIZE];
    struct block block[];
};

static bool wait_for_room(struct zl_pump *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->made - p->taken == BLOCKS && !p->stop)
        pthread_cond_wait(&p->changed, &p->lock);
    bool go_on = !p->stop;
    pthread_mutex_unlock(&p->lock);
    return go_on;
}

/* Whole blocks, so that small pieces of the stream cost no hand-over each. Gives what the last reading did: 0: this was
 * the last block, and the digests are there; the error is kept. */
static ssize_t fill(struct zl_pump *p, struct block *b)
{
    ssize_t n = 1;
    b->n = 0;
    while ((size_t)b->n < sizeof b->p &&
           (n = zl_stream_read(p->stream, b->p + b->n, sizeof b->p - (size_t)b->n, &p->err)) > 0)
        b->n += n;
    if (n == 0)
        ZL_IGNORE(zl_stream_finish(p->stream, p->blob, p->diff_id, &p->err));
    return n;
}

static void *run(void *arg)
{
    struct zl_pump *p = arg;
    ssize_t n = 1;
    while (n > 0 && wait_for_room(p)) {
        struct block *b = &p->block[p->made % BLOCKS]; /* only this thread changes `made` */
        n = fill(p, b);
        if (b->n && n >= 0) {
            pthread_mutex_lock(&p->lock);
            p->made++;
            pthread_cond_signal(&p->changed);
            pthread_mutex_unlock(&p->lock);
        }
    }
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool is_small(int fd, struct zl_feed *feed)
{
    struct stat st;
    return feed ? zl_feed_whole(feed, ZL_WHOLE_IN_MAX) > 0 : fstat(fd, &st) == 0 && st.st_size <= ZL_WHOLE_IN_MAX;
}

int zl_pump_new(int fd, struct zl_feed *feed, struct zl_decoders *decoders, struct zl_pump **ret, struct zl_err *err)
{
    bool apart = !is_small(fd, feed);
    struct zl_pump *p = zl_xmalloc(sizeof *p + (apart ? BLOCKS : 1) * sizeof *p->block);
    *p = (struct zl_pump){ .apart = apart, .stream = zl_stream_new(fd, feed, decoders) };
    *ret = p;
    if (!apart)
        return 0;
    zl_assert(pthread_mutex_init(&p->lock, NULL) == 0 && pthread_cond_init(&p->changed, NULL) == 0);
    int e = pthread_create(&p->thread, NULL, run, p);
    if (e) {
        zl_stream_free(p->stream);
        free(p);
        *ret = NULL;
        return zl_fail(err, -e, "start a thread");
    }
    return 0;
}

struct zl_pump *zl_pump_free(struct zl_pump *p)
{
    if (!p)
        return NULL;
    if (p->apart) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_signal(&p->changed);
        pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->thread, NULL);
        pthread_cond_destroy(&p->changed);
        pthread_mutex_destroy(&p->lock);
    }
    zl_stream_free(p->stream);
    free(p);
    return NULL;
}

/* In the taker's own thread. */
static ssize_t read_here(struct zl_pump *p, const void **ret, struct zl_err *err)
{
    size_t n = 0;
    int r = p->begun ? 0 : zl_stream_whole(p->stream, ret, &n, &p->err);
    p->begun = true;
    if (r == 1 && n > 0)
        return (ssize_t)n;
    p->ended |= r < 0;
    if (!p->ended)
        p->ended = fill(p, p->block) <= 0;
    else
        p->block->n = 0;
    *ret = p->block->p;
    if (p->err.code)
        *err = p->err;
    return p->err.code ? p->err.code : p->block->n;
}

ssize_t zl_pump_read(struct zl_pump *p, const void **ret, struct zl_err *err)
{
    if (!p->apart)
        return read_here(p, ret, err);
    pthread_mutex_lock(&p->lock);
    if (p->holds) {
        p->taken++;
        p->holds = false;
        pthread_cond_signal(&p->changed);
    }
    while (p->made == p->taken && !p->ended)
        pthread_cond_wait(&p->changed, &p->lock);
    ssize_t n = 0;
    if (p->made != p->taken) {
        const struct block *b = &p->block[p->taken % BLOCKS];
        p->holds = true;
        *ret = b->p;
        n = b->n;
    } else if (p->err.code) {
        *err = p->err;
        n = p->err.code;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

int zl_pump_finish(struct zl_pump *p, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE], struct zl_err *err)
{
    const void *block;
    ssize_t n;
    while ((n = zl_pump_read(p, &block, err)) > 0)
        ;
    if (n < 0)
        return (int)n;
    memcpy(blob, p->blob, ZL_DIGEST_SIZE);
    memcpy(diff_id, p->diff_id, ZL_DIGEST_SIZE);
    return 0;
}

la_ssize_t zl_pump_next_block(struct archive *a, void *source, const void **ret)
{
    struct zl_pump_source *s = source;
    ssize_t n = zl_pump_read(s->pump, ret, &s->err);
    if (n < 0) {
        archive_set_error(a, EIO, "%s", s->err.text);
        return ARCHIVE_FATAL;
    }
    return n;
}
