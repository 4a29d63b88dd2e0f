#include "imagejob/layers.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/chain_lock.h"
#include "imagejob/layer.h"
#include "imagejob/partial.h"
#include "imagejob/whole.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Layers that are fetched at once, and of those the ones that are unpacked: these may need a zstd window of 8 MiB each.
 * A layer takes a thread for its blob; unless it is small, it is unpacked meanwhile, which takes one for its stream and
 * one for its files. AHEAD bounds what waits for the layers below it. */
enum { FETCHERS_MAX = 12, PLACERS_MAX = 4, PROGRESS_MS = 100, AHEAD = 32 };

/* What was unpacked goes to the disk meanwhile: once there is this much of it, or a layer is whole, but at most half of
 * the time; and once as much was placed since as is to come, so that the last writing, for which all wait, is small. */
enum { WRITE_BYTES = 16 << 20, WRITE_LEAST = 1 << 20, LOOK_MS = 10, COMMIT_MS = 300 };

/* What has become of a layer. Only its fetching thread moves it out of WAITING. */
enum layer_state { WAITING, PLACED, DONE };

struct layer {
    const struct zl_oci_descriptor *blob;
    const char *chain_id, *diff_id;
    enum layer_state state;
    int fd;   /* of the blob, while it is in work */
    int lock; /* of the chain, from before fetching to the commit */
    int dir;  /* for the layers above: of a layer that was there already */
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
    pthread_cond_t changed, finished, room;
    unsigned next, settled, placing;
    bool over;                            /* the committer may end */
    unsigned committed;                   /* the committer's, later the main thread's */
    atomic_uint_fast64_t written, placed; /* bytes of files, of blobs */
    uint64_t bytes;                       /* of all blobs */
    int failed;                           /* the first thread's error, and its text */
    struct zl_err err;
};

struct progress {
    struct work *w;
    struct layer *layer;
    uint64_t told_ms, got;
};

static void fail_work(struct work *w, int r, const struct zl_err *err)
{
    pthread_mutex_lock(&w->lock);
    if (!w->failed) {
        w->failed = r;
        w->err = *err;
    }
    w->job->disk_full |= r == ZL_E_DISK_FULL;
    atomic_store(w->stop, true);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static bool is_large(const struct layer *l)
{
    return l->blob->size > ZL_WHOLE_IN_MAX;
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
    if (is_large(p->layer))                                                           /* which is placed behind it */
        atomic_fetch_add_explicit(&p->w->placed, got - p->got, memory_order_relaxed); /* less, when it begins again */
    p->got = got;
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
    if (l->placed == ZL_E_DISK_FULL) {
        struct zl_err err = l->err;
        fail_work(p->w, zl_wrap(&err, l->placed, "unpack the layer %.19s…", l->blob->digest), &err);
    }
    return NULL;
}

static int fetch(struct work *w, struct layer *l, struct progress *p, struct zl_err *err)
{
    if (!w->registry)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the layer %.19s… is not there", l->blob->digest);
    tell(w->job, l, 0);
    int r = zl_registry_blob(w->registry, l->blob, l->fd, on_bytes, p, &l->feed.bytes, err);
    return r < 0 ? zl_wrap(err, r, "fetch the layer %.19s…", l->blob->digest) : 0;
}

static int keep(struct work *w, const struct layer *l, struct zl_err *err)
{
    char file[ZL_PARTIAL_NAME_SIZE];
    return zl_image_job_keep_blob(w->job, zl_partial_name(l->blob->digest, file), l->blob->digest, err);
}

static int open_layer(struct work *w, struct layer *l, struct zl_err *err)
{
    int r = zl_layer_open(w->job, &l->layer, err);
    l->layer.unpack.written = &w->written;
    return r;
}

/* The blob came in more than one attempt from its start, and what was placed behind the first is worth nothing. */
static int place_again(struct work *w, struct layer *l)
{
    zl_layer_close(&l->layer);
    l->err = (struct zl_err){ 0 };
    l->feed.rewound = false;
    int r = open_layer(w, l, &l->err);
    return r < 0 ? r : zl_layer_place(&l->layer, l->fd, &l->feed, &l->err);
}

static void begin_placing(struct work *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->placing == PLACERS_MAX)
        pthread_cond_wait(&w->room, &w->lock);
    w->placing++;
    pthread_mutex_unlock(&w->lock);
}

static void end_placing(struct work *w)
{
    pthread_mutex_lock(&w->lock);
    w->placing--;
    pthread_cond_signal(&w->room);
    pthread_mutex_unlock(&w->lock);
}

/* The blob becomes the store's, unless it is already. */
static int get_blob(struct work *w, struct progress *p, bool stored, struct zl_err *err)
{
    struct layer *l = p->layer;
    int r = stored ? 0 : fetch(w, l, p, err);
    r = r < 0 || stored ? r : keep(w, l, err);
    zl_feed_end(&l->feed, r < 0);
    tell(w->job, l, (uint64_t)l->blob->size);
    zl_phase("pull.blob");
    return r;
}

static int get_and_place(struct work *w, struct progress *p, bool stored, struct zl_err *err)
{
    struct layer *l = p->layer;
    pthread_t thread;
    if (pthread_create(&thread, NULL, placer, p) != 0)
        return zl_fail(err, -EAGAIN, "start a thread");
    int r = get_blob(w, p, stored, err);
    (void)pthread_join(thread, NULL);
    if (r == 0 && l->feed.rewound)
        l->placed = place_again(w, l);
    return r;
}

static int fetch_and_place(struct work *w, struct layer *l, bool stored, struct zl_err *err)
{
    struct progress p = { .w = w, .layer = l };
    bool behind = is_large(l); /* it is placed behind the fetching, otherwise after it */
    if (stored)
        zl_feed_set(&l->feed, (uint64_t)l->blob->size);
    int r = behind ? 0 : get_blob(w, &p, stored, err);
    if (r < 0)
        return r;
    begin_placing(w);
    r = open_layer(w, l, err);
    if (r == 0 && behind)
        r = get_and_place(w, &p, stored, err);
    else if (r == 0)
        (void)placer(&p);
    end_placing(w);
    zl_feed_forget(&l->feed);
    if (r == 0 && l->placed == 0 && !zl_streq(l->layer.diff_id, l->diff_id))
        l->placed = zl_fail(&l->err, ZL_E_DIGEST, "it unpacks to %s, the config says %s", l->layer.diff_id, l->diff_id);
    if (r < 0 || l->placed == 0)
        return r;
    *err = l->err;
    return zl_wrap(err, l->placed, "unpack the layer %.19s…", l->blob->digest);
}

/* Of a layer that is there, unpacked from another form of it, or whose blob was lost. */
static int fetch_blob_only(struct work *w, struct layer *l, struct zl_err *err)
{
    struct progress p = { .w = w, .layer = l };
    int r = fetch(w, l, &p, err);
    zl_feed_end(&l->feed, r < 0);
    zl_feed_forget(&l->feed);
    return r < 0 ? r : keep(w, l, err);
}

static int get_layer(struct work *w, struct layer *l, struct zl_err *err)
{
    bool unpacked = zl_store_has_layer(&w->job->store, l->chain_id);
    l->fd = zl_image_job_stored_blob(w->job, l->blob->digest, l->blob->size);
    bool stored = l->fd >= 0;
    if (!stored && (l->fd = zl_image_job_stage_blob(w->job, l->blob->digest, err)) < 0)
        return l->fd;
    int r = !unpacked ? fetch_and_place(w, l, stored, err) : stored ? 0 : fetch_blob_only(w, l, err);
    l->fd = zl_close(l->fd);
    if (stored || !is_large(l)) /* otherwise it was counted as it came */
        atomic_fetch_add_explicit(&w->placed, (uint64_t)l->blob->size, memory_order_relaxed);
    if (r == 0 && unpacked) {
        l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
        tell(w->job, l, (uint64_t)l->blob->size);
    }
    return r < 0 ? r : unpacked ? DONE : PLACED;
}

/* Whether one below has the same blob and is still at work on it, so that it is fetched once. */
static bool is_being_fetched(const struct work *w, const struct layer *l)
{
    for (const struct layer *below = w->layers; below < l; below++)
        if (below->state == WAITING && zl_streq(below->blob->digest, l->blob->digest))
            return true;
    return false;
}

static bool has_to_wait(const struct work *w, const struct layer *l)
{
    return w->next >= w->settled + AHEAD || is_being_fetched(w, l);
}

/* The next layer that is missing, its chain locked; NULL when there is none, or when the work has failed. */
static struct layer *next_layer(struct work *w)
{
    struct layer *l = NULL;
    struct zl_err err = { 0 };
    pthread_mutex_lock(&w->turn);
    pthread_mutex_lock(&w->lock);
    while (!w->failed && w->next < w->n && has_to_wait(w, &w->layers[w->next]))
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

/* What was written goes to the disk, and then the layers up to `end`, which are whole, become the store's. */
static int commit(struct work *w, unsigned end, struct zl_err *err)
{
    int r = zl_image_job_flush(w->job, err);
    for (; r == 0 && w->committed < end; w->committed++) {
        struct layer *l = &w->layers[w->committed];
        if (l->state == PLACED) {
            r = zl_layer_commit(&l->layer, l->chain_id, err);
            l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
        }
    }
    return r;
}

/* How far the work is, or was when a writing to the disk began, which then took some time. */
struct at {
    uint64_t ms, took_ms, written, placed;
};

static struct at now_at(const struct work *w)
{
    return (struct at){ zl_clock_mono_ms(), 0, atomic_load(&w->written), atomic_load(&w->placed) };
}

static bool is_due(const struct work *w, const struct at *now, const struct at *last, bool whole)
{
    uint64_t left = w->bytes - ZL_MIN(w->bytes, now->placed), bytes = now->written - last->written;
    uint64_t ended_ms = last->ms + last->took_ms, pause_ms = now->ms - ended_ms;
    if (bytes >= WRITE_LEAST && left > 0 && now->placed - last->placed >= left)
        return true; /* however short the pause */
    return (bytes >= WRITE_BYTES && pause_ms >= last->took_ms) || (whole && pause_ms >= COMMIT_MS);
}

/* Commits while others work, and keeps the disk at work. */
static void *committer(void *arg)
{
    struct work *w = arg;
    struct at last = now_at(w);
    pthread_mutex_lock(&w->lock);
    while (!w->over && !w->failed) {
        uint64_t until = zl_clock_mono_ms() + LOOK_MS;
        const struct timespec t = { (time_t)(until / 1000), (long)(until % 1000) * 1000000 };
        (void)pthread_cond_timedwait(&w->finished, &w->lock, &t);
        struct at now = now_at(w);
        unsigned end = w->settled;
        if (w->over || !is_due(w, &now, &last, end > w->committed))
            continue;
        pthread_mutex_unlock(&w->lock);
        struct zl_err err = { 0 };
        int r = commit(w, end, &err);
        if (r < 0)
            fail_work(w, r, &err);
        last = now;
        last.took_ms = zl_clock_mono_ms() - now.ms;
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
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
    int r = 0;
    for (unsigned i = 0; r == 0 && i < w->n; i++) {
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
    }
    return r;
}

static int run(struct work *w, struct zl_err *err)
{
    pthread_t threads[FETCHERS_MAX], commits;
    unsigned n = 0, wanted = ZL_MIN(w->n, (unsigned)FETCHERS_MAX);
    if (pthread_create(&commits, NULL, committer, w) != 0)
        return zl_fail(err, -EAGAIN, "start a thread");
    while (n < wanted && pthread_create(&threads[n], NULL, fetcher, w) == 0)
        n++;
    int r = n == 0 ? zl_fail(err, -EAGAIN, "start a thread") : settle_all(w, err);
    if (r < 0)
        fail_work(w, r, err);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_cond_signal(&w->finished);
    pthread_mutex_unlock(&w->lock);
    (void)pthread_join(commits, NULL);
    if (r == 0 && w->failed) {
        *err = w->err;
        r = w->failed;
    }
    /* What is whole stays, also when a later layer was not to be had: the next attempt begins there. */
    int last = commit(w, w->settled, r < 0 ? NULL : err);
    return r < 0 ? r : last;
}

int zl_layers_fetch(struct zl_image_job *job, struct zl_registry *registry, const struct zl_oci_manifest *manifest,
                    const struct zl_strings *chain_ids, const struct zl_strings *diff_ids, atomic_bool *stop,
                    struct zl_err *err)
{
    struct work w = { .job = job, .registry = registry, .n = manifest->n, .stop = stop };
    w.layers = zl_arena_alloc(&job->arena, (w.n + 1) * sizeof *w.layers);
    for (unsigned i = 0; i < w.n; i++) {
        struct layer *l = &w.layers[i];
        *l = (struct layer){ .blob = &manifest->items[i],
                             .chain_id = chain_ids->v[i],
                             .diff_id = diff_ids->v[i],
                             .fd = -EBADF,
                             .dir = -EBADF,
                             .lock = -EBADF };
        w.bytes += (uint64_t)l->blob->size;
        zl_feed_init(&l->feed);
    }
    pthread_condattr_t monotonic;
    zl_assert(pthread_condattr_init(&monotonic) == 0 && pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    zl_assert(pthread_mutex_init(&w.lock, NULL) == 0 && pthread_mutex_init(&w.turn, NULL) == 0 &&
              pthread_cond_init(&w.changed, NULL) == 0 && pthread_cond_init(&w.room, NULL) == 0 &&
              pthread_cond_init(&w.finished, &monotonic) == 0);
    int r = w.n ? run(&w, err) : 0;
    for (unsigned i = 0; i < w.n; i++) {
        struct layer *l = &w.layers[i];
        l->fd = zl_close(l->fd);
        l->dir = zl_close(l->dir);
        zl_layer_close(&l->layer);
        l->lock = zl_chain_unlock(&job->store, l->chain_id, l->lock);
        zl_feed_done(&l->feed);
    }
    pthread_cond_destroy(&w.changed);
    pthread_cond_destroy(&w.room);
    pthread_cond_destroy(&w.finished);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_destroy(&w.turn);
    pthread_mutex_destroy(&w.lock);
    return r;
}
