#include "imagejob/layers.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/chain_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MAX = 3, PROGRESS_MS = 100 };

/* What has become of a layer. Only its fetching thread moves it out of WAITING, only the unpacker to DONE. */
enum layer_state { WAITING, FETCHED, DONE };

struct layer {
    const struct zl_oci_descriptor *blob;
    const char *chain_id, *diff_id;
    enum layer_state state;
    int fd;        /* of the blob, once FETCHED */
    bool in_store; /* the blob is among the store's already */
    int lock;      /* of the chain, from before fetching to the commit */
    char file[24]; /* in the staging folder */
};

struct work {
    struct zl_image_job *job;
    struct zl_registry *registry;
    struct layer *layers;
    unsigned n;
    atomic_bool *stop;
    pthread_mutex_t lock; /* of what follows and of the layers' states */
    pthread_cond_t changed;
    unsigned next;
    int failed; /* the first thread's error, and its text */
    struct zl_err err;
};

struct progress {
    struct zl_image_job *job;
    const struct layer *layer;
    uint64_t told_ms;
};

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
    if (now - p->told_ms >= PROGRESS_MS && got < (uint64_t)p->layer->blob->size) {
        p->told_ms = now;
        tell(p->job, p->layer, got);
    }
}

/* The blob from the store, when it is there whole. */
static int stored_blob(struct work *w, const struct layer *l)
{
    char path[100], digest[ZL_DIGEST_SIZE];
    snprintf(path, sizeof path, "blobs/sha256/%s", l->blob->digest + 7);
    zl_auto_close int fd = zl_openat(w->job->store.dir, path, O_RDONLY | O_NOFOLLOW, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != l->blob->size)
        return -ENOENT;
    struct zl_digest *d = zl_digest_new();
    zl_auto_free char *block = zl_xmalloc(1 << 18);
    ssize_t n;
    while ((n = zl_read_full(fd, block, 1 << 18)) > 0)
        zl_digest_add(d, block, (size_t)n);
    zl_digest_finish(d, digest);
    zl_digest_free(d);
    return n == 0 && zl_streq(digest, l->blob->digest) ? ZL_TAKE_FD(fd) : -ENOENT;
}

static int fetch_layer(struct work *w, struct layer *l, struct zl_err *err)
{
    struct progress p = { .job = w->job, .layer = l };
    int r = l->lock = zl_chain_lock(&w->job->store, l->chain_id, w->stop, err);
    if (r < 0)
        return r;
    if (zl_store_has_layer(&w->job->store, l->chain_id)) {
        l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
        tell(w->job, l, (uint64_t)l->blob->size);
        return DONE;
    }
    l->fd = stored_blob(w, l);
    l->in_store = l->fd >= 0;
    if (!l->in_store) {
        l->fd = zl_openat(w->job->staging, l->file, O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (l->fd < 0)
            return zl_fail_errno(err, l->fd == -ENOSPC ? ZL_E_DISK_FULL : l->fd, l->fd, "make a staging file");
        tell(w->job, l, 0);
        r = zl_registry_blob(w->registry, l->blob->digest, (uint64_t)l->blob->size, l->fd, on_bytes, &p, err);
        if (r < 0)
            return zl_wrap(err, r, "fetch the layer %.19s…", l->blob->digest);
    }
    tell(w->job, l, (uint64_t)l->blob->size);
    zl_phase("pull.blob");
    return FETCHED;
}

static void *fetcher(void *arg)
{
    struct work *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->failed && w->next < w->n) {
        struct layer *l = &w->layers[w->next++];
        if (l->state == DONE)
            continue;
        struct zl_err err = { 0 };
        pthread_mutex_unlock(&w->lock);
        int r = fetch_layer(w, l, &err);
        pthread_mutex_lock(&w->lock);
        if (r >= 0) {
            l->state = (enum layer_state)r;
        } else if (!w->failed) {
            w->failed = r;
            w->err = err;
            atomic_store(w->stop, true);
        }
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int unpack_layer(struct work *w, unsigned i, const char **lowers, struct zl_err *err)
{
    struct layer *l = &w->layers[i];
    struct zl_layer made;
    if (lseek(l->fd, 0, SEEK_SET) < 0)
        return zl_fail(err, -errno, "read the staged layer");
    int r = zl_image_job_unpack(w->job, l->fd, i ? w->layers[i - 1].chain_id : "", lowers, i, l->blob->digest,
                                l->diff_id, &made, err);
    if (r == 0 && !l->in_store)
        r = zl_image_job_keep_blob(w->job, l->file, l->blob->digest, err);
    l->lock = zl_chain_unlock(&w->job->store, l->chain_id, l->lock);
    l->fd = zl_close(l->fd);
    return r < 0 ? zl_wrap(err, r, "unpack the layer %.19s…", l->blob->digest) : 0;
}

/* Waits for each layer in turn and unpacks it. */
static int unpack_all(struct work *w, struct zl_err *err)
{
    const char **lowers = zl_arena_alloc(&w->job->arena, (w->n + 1) * sizeof *lowers);
    int r = 0;
    for (unsigned i = 0; r == 0 && i < w->n; i++) {
        struct layer *l = &w->layers[i];
        pthread_mutex_lock(&w->lock);
        while (l->state == WAITING && !w->failed)
            pthread_cond_wait(&w->changed, &w->lock);
        enum layer_state state = l->state;
        if (state == WAITING) {
            r = w->failed;
            *err = w->err;
        }
        pthread_mutex_unlock(&w->lock);
        if (state == FETCHED)
            r = unpack_layer(w, i, lowers, err);
        lowers[i] = zl_arena_alloc(&w->job->arena, ZL_LAYER_PATH_SIZE);
        zl_store_layer_path(&w->job->store, l->chain_id, (char *)(uintptr_t)lowers[i]);
    }
    return r;
}

static int run(struct work *w, unsigned missing, struct zl_err *err)
{
    pthread_t threads[THREADS_MAX];
    unsigned n = 0, wanted = ZL_MIN(missing, (unsigned)THREADS_MAX);
    while (n < wanted && pthread_create(&threads[n], NULL, fetcher, w) == 0)
        n++;
    int r = n == 0 && wanted > 0 ? zl_fail(err, -EAGAIN, "start a thread") : unpack_all(w, err);
    if (r < 0) {
        pthread_mutex_lock(&w->lock);
        if (!w->failed)
            w->failed = r;
        atomic_store(w->stop, true);
        pthread_mutex_unlock(&w->lock);
    }
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
                             .lock = -EBADF };
        snprintf(l->file, sizeof l->file, "blob.%u", i);
        l->state = zl_store_has_layer(&job->store, l->chain_id) ? DONE : WAITING;
        missing += l->state == WAITING;
    }
    zl_assert(pthread_mutex_init(&w.lock, NULL) == 0 && pthread_cond_init(&w.changed, NULL) == 0);
    int r = missing ? run(&w, missing, err) : 0;
    for (unsigned i = 0; i < w.n; i++) {
        w.layers[i].fd = zl_close(w.layers[i].fd);
        w.layers[i].lock = zl_chain_unlock(&job->store, w.layers[i].chain_id, w.layers[i].lock);
    }
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.lock);
    return r;
}
