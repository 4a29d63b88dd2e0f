#include "imagejob/layers.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/chain_lock.h"
#include "imagejob/layer.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* A layer in work takes a thread for its blob, one for its stream and one for its files; AHEAD bounds what waits for
 * the layers below it, COMMIT_MS how long a layer that is whole waits for others to be written to the disk with. */
enum { THREADS_MAX = 3, PROGRESS_MS = 100, AHEAD = 32, COMMIT_MS = 500 };

/* What has become of a layer. Only its fetching thread moves it out of WAITING. */
enum layer_state { WAITING, PLACED, DONE };

struct layer {
    const struct zl_oci_descriptor *blob;
    const char *chain_id, *diff_id;
    enum layer_state state;
    bool committed;
    int fd;        /* of the blob, while it is in work */
    int lock;      /* of the chain, from before fetching to the commit */
    int dir;       /* for the layers above: of a layer that was there already */
    char file[24]; /* in the staging folder */
    struct zl_feed feed;
    struct zl_layer layer;
    int placed; /* how placing it ended */
    struct zl_err err;
};

struct work {
    struct zl_image_job *job;
    struct zl_registry *registry;
    struct layer *layers;
    unsigned n;
    atomic_bool *stop;
    pthread_mutex_t turn; /* chains are locked in their order, so that two jobs never wait for each other */
    pthread_mutex_t lock; /* of what follows and of the layers' states */
    pthread_cond_t changed;
    unsigned next, settled;
    int failed; /* the first thread's error, and its text */
    struct zl_err err;
};

struct progress {
    struct work *w;
    struct layer *layer;
    uint64_t told_ms;
};

static void fail_work(struct work *w, int r, const struct zl_err *err)
{
    pthread_mutex_lock(&w->lock);
    if (!w->failed) {
        w->failed = r;
        w->err = *err;
    }
    atomic_store(w->stop, true);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void tell(struct zl_image_job *job, const struct layer *l, uint64_t current)
{
    char name[16];
    snprintf(name, sizeof name, "%.12s", l->blob->digest + 7);
    zl_image_job_progress(job, name, current, (uint64_t)l->blob->size);
}

static void on_bytes(void *arg, uint64_t got)
{
    struct progress *p = arg;
    uint64_t now = zl_clock_mono_ms();
    zl_feed_set(&p->layer->feed, got);
    if (now - p->told_ms >= PROGRESS_MS && got < (uint64_t)p->layer->blob->size) {
        p->told_ms = now;
        tell(p->w->job, p->layer, got);
    }
}

/* Places the blob behind its fetching. A disk that is full ends the job at once; what is wrong with the layer itself
 * counts only when the blob turns out to be what was asked for. */
static void *placer(void *arg)
{
    struct progress *p = arg;
    struct layer *l = p->layer;
    l->placed = zl_layer_place(&l->layer, l->fd, &l->feed, &l->err);
    if (l->placed == ZL_E_DISK_FULL)
        fail_work(p->w, l->placed, &l->err);
    return NULL;
}

static int fetch(struct work *w, struct layer *l, struct progress *p, struct zl_err *err)
{
    if (!w->registry)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the layer %.19s… is not there", l->blob->digest);
    tell(w->job, l, 0);
    int r = zl_registry_blob(w->registry, l->blob, l->fd, on_bytes, p, err);
    if (r < 0)
        return zl_wrap(err, r, "fetch the layer %.19s…", l->blob->digest);
    return zl_image_job_keep_blob(w->job, l->file, l->blob->digest, err);
}

/* The blob came in more than one attempt from its start, and what was placed behind the first is worth nothing. */
static int place_again(struct work *w, struct layer *l)
{
    zl_layer_close(&l->layer);
    l->err = (struct zl_err){ 0 };
    l->feed.rewound = false;
    int r = zl_layer_open(w->job, &l->layer, &l->err);
    return r < 0 ? r : zl_layer_place(&l->layer, l->fd, &l->feed, &l->err);
}

static int fetch_and_place(struct work *w, struct layer *l, bool stored, struct zl_err *err)
{
    struct progress p = { .w = w, .layer = l };
    pthread_t thread;
    int r = zl_layer_open(w->job, &l->layer, err);
    if (r < 0)
        return r;
    if (stored)
        zl_feed_set(&l->feed, (uint64_t)l->blob->size);
    if (pthread_create(&thread, NULL, placer, &p) != 0)
        return zl_fail(err, -EAGAIN, "start a thread");
    r = stored ? 0 : fetch(w, l, &p, err);
    zl_feed_end(&l->feed, r < 0);
    tell(w->job, l, (uint64_t)l->blob->size);
    zl_phase("pull.blob");
    (void)pthread_join(thread, NULL);
    if (r == 0 && l->feed.rewound)
        l->placed = place_again(w, l);
    if (r == 0 && l->placed == 0 && !zl_streq(l->layer.diff_id, l->diff_id))
        l->placed = zl_fail(&l->err, ZL_E_DIGEST, "it unpacks to %s, the config says %s", l->layer.diff_id, l->diff_id);
    if (r < 0 || l->placed == 0)
        return r;
    *err = l->err;
    return zl_wrap(err, l->placed, "unpack the layer %.19s…", l->blob->digest);
}

static int get_layer(struct work *w, struct layer *l, struct zl_err *err)
{
    if (zl_store_has_layer(&w->job->store, l->chain_id)) {
        l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
        tell(w->job, l, (uint64_t)l->blob->size);
        return DONE;
    }
    l->fd = zl_image_job_stored_blob(w->job, l->blob->digest, l->blob->size);
    bool stored = l->fd >= 0;
    if (!stored)
        l->fd = zl_openat(w->job->staging, l->file, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (l->fd < 0)
        return zl_fail_errno(err, l->fd == -ENOSPC ? ZL_E_DISK_FULL : l->fd, l->fd, "make a staging file");
    int r = fetch_and_place(w, l, stored, err);
    l->fd = zl_close(l->fd);
    return r < 0 ? r : PLACED;
}

/* The next layer that is missing, its chain locked; NULL when there is none, or when the work has failed. */
static struct layer *next_layer(struct work *w)
{
    struct layer *l = NULL;
    struct zl_err err = { 0 };
    pthread_mutex_lock(&w->turn);
    pthread_mutex_lock(&w->lock);
    while (w->next < w->n && w->layers[w->next].state == DONE)
        w->next++;
    while (!w->failed && w->next < w->n && w->next >= w->settled + AHEAD)
        pthread_cond_wait(&w->changed, &w->lock);
    if (!w->failed && w->next < w->n)
        l = &w->layers[w->next++];
    pthread_mutex_unlock(&w->lock);
    if (l && (l->lock = zl_chain_lock(&w->job->store, l->chain_id, w->stop, &err)) < 0) {
        fail_work(w, l->lock, &err);
        l = NULL;
    }
    pthread_mutex_unlock(&w->turn);
    return l;
}

static void *fetcher(void *arg)
{
    struct work *w = arg;
    struct layer *l;
    while ((l = next_layer(w))) {
        struct zl_err err = { 0 };
        int r = get_layer(w, l, &err);
        if (r < 0) {
            fail_work(w, r, &err);
            break;
        }
        pthread_mutex_lock(&w->lock);
        l->state = (enum layer_state)r;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* Layers that are whole become the store's, behind one writing of all of them to the disk. */
static int commit(struct work *w, unsigned end, struct zl_err *err)
{
    int r = 0;
    bool flushed = false;
    for (unsigned i = 0; r == 0 && i < end; i++) {
        struct layer *l = &w->layers[i];
        if (l->state != PLACED || l->committed)
            continue;
        r = flushed ? 0 : zl_image_job_flush(w->job, err);
        flushed = true;
        r = r < 0 ? r : zl_layer_commit(&l->layer, l->chain_id, err);
        l->committed = r == 0;
        l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
    }
    return r;
}

static int wait_for(struct work *w, const struct layer *l, struct zl_err *err)
{
    pthread_mutex_lock(&w->lock);
    while (l->state == WAITING && !w->failed)
        pthread_cond_wait(&w->changed, &w->lock);
    int r = l->state == WAITING ? w->failed : 0;
    if (r < 0)
        *err = w->err;
    pthread_mutex_unlock(&w->lock);
    return r;
}

/* Waits for each layer in turn and settles it above those below. */
static int settle_all(struct work *w, struct zl_err *err)
{
    int *dirs = zl_arena_alloc(&w->job->arena, (w->n + 1) * sizeof *dirs);
    uint64_t committed_ms = zl_clock_mono_ms();
    unsigned i = 0;
    int r = 0;
    for (; r == 0 && i < w->n; i++) {
        struct layer *l = &w->layers[i];
        const struct zl_lowers lowers = { dirs, i };
        char path[ZL_LAYER_PATH_SIZE];
        r = wait_for(w, l, err);
        if (r == 0 && l->state == PLACED) {
            r = zl_layer_settle(&l->layer, &lowers, err);
            r = r < 0 ? zl_wrap(err, r, "unpack the layer %.19s…", l->blob->digest) : 0;
            dirs[i] = l->layer.root;
        } else if (r == 0) {
            r = l->dir = dirs[i] =
                zl_openat(AT_FDCWD, zl_store_layer_path(&w->job->store, l->chain_id, path), O_PATH | O_DIRECTORY, 0);
            r = r < 0 ? zl_fail(err, r, "open the layer %.20s…", l->chain_id) : 0;
        }
        if (r < 0)
            break;
        pthread_mutex_lock(&w->lock);
        w->settled = i + 1;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        if (zl_clock_mono_ms() - committed_ms > COMMIT_MS) {
            r = commit(w, i + 1, err);
            committed_ms = zl_clock_mono_ms();
        }
    }
    /* What is whole stays, also when a later layer was not to be had: the next attempt begins there. */
    int last = commit(w, i, r < 0 ? NULL : err);
    return r < 0 ? r : last;
}

static int run(struct work *w, unsigned missing, struct zl_err *err)
{
    pthread_t threads[THREADS_MAX];
    unsigned n = 0, wanted = ZL_MIN(missing, (unsigned)THREADS_MAX);
    while (n < wanted && pthread_create(&threads[n], NULL, fetcher, w) == 0)
        n++;
    int r = n == 0 && wanted > 0 ? zl_fail(err, -EAGAIN, "start a thread") : settle_all(w, err);
    if (r < 0)
        fail_work(w, r, err);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
    return r;
}

int zl_layers_fetch(struct zl_image_job *job, struct zl_registry *registry, const struct zl_oci_manifest *manifest,
                    const struct zl_strings *chain_ids, const struct zl_strings *diff_ids, atomic_bool *stop,
                    struct zl_err *err)
{
    struct work w = { .job = job, .registry = registry, .n = manifest->n, .stop = stop };
    unsigned missing = 0;
    w.layers = zl_arena_alloc(&job->arena, (w.n + 1) * sizeof *w.layers);
    for (unsigned i = 0; i < w.n; i++) {
        struct layer *l = &w.layers[i];
        *l = (struct layer){ .blob = &manifest->items[i],
                             .chain_id = chain_ids->v[i],
                             .diff_id = diff_ids->v[i],
                             .fd = -EBADF,
                             .dir = -EBADF,
                             .lock = -EBADF };
        snprintf(l->file, sizeof l->file, "blob.%u", i);
        zl_feed_init(&l->feed);
        l->state = zl_store_has_layer(&job->store, l->chain_id) ? DONE : WAITING;
        missing += l->state == WAITING;
    }
    zl_assert(pthread_mutex_init(&w.lock, NULL) == 0 && pthread_mutex_init(&w.turn, NULL) == 0 &&
              pthread_cond_init(&w.changed, NULL) == 0);
    int r = missing ? run(&w, missing, err) : 0;
    for (unsigned i = 0; i < w.n; i++) {
        struct layer *l = &w.layers[i];
        l->fd = zl_close(l->fd);
        l->dir = zl_close(l->dir);
        zl_layer_close(&l->layer);
        l->lock = zl_chain_unlock(&job->store, l->chain_id, l->lock);
        zl_feed_done(&l->feed);
    }
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.turn);
    pthread_mutex_destroy(&w.lock);
    return r;
}
