/*
 * push: what a record names goes to a registry as it came: blobs that are lacking there, side by side, then manifests
 * from the leaves up, byte for byte, the name last.
 */
#include "base/assert.h"
#include "base/fd.h"
#include "base/clock.h"
#include "image/credentials.h"
#include "imagejob/confine.h"
#include "imagejob/job.h"
#include "imagejob/referrers.h"
#include "imagejob/upload.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MAX = 4, PROGRESS_MS = 100, MOUNTS_MAX = 8, DOCUMENTS_MAX = 64 };

struct document {
    const char *digest;
    struct zl_str body;
    struct zl_oci_manifest m;
};

struct blob {
    struct zl_oci_descriptor d;
    const char *from; /* a repository to mount it from */
};

struct push {
    struct zl_image_job *job;
    const struct zl_image_record *record;
    struct zl_reference to;
    char text[ZL_REFERENCE_TEXT_SIZE];
    struct zl_registry *registry;
    struct zl_strings mount_from;
    struct document documents[DOCUMENTS_MAX]; /* children before their index */
    unsigned ndocuments;
    struct blob *blobs;
    unsigned nblobs, cap;
    atomic_bool stop;
    pthread_mutex_t lock; /* of what follows */
    unsigned next, there, mounted, sent;
    int failed;
    struct zl_err err;
};

/* ---- what is to be pushed ---- */

static int open_blob(struct push *p, const char *digest)
{
    char path[100];
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    return zl_openat(p->job->store.dir, path, O_RDONLY | O_NOFOLLOW, 0);
}

/* A manifest from the store, into the arena. */
static int read_document(struct push *p, const char *digest, struct document *ret, struct zl_err *err)
{
    char path[100], text[ZL_DIGEST_SIZE];
    zl_auto_buf body = ZL_BUF_INIT;
    struct zl_arena *a = &p->job->arena;
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    int r = zl_read_file(p->job->store.dir, path, ZL_OCI_DOCUMENT_MAX, &body);
    if (r < 0)
        return zl_fail(err, r == -ENOENT ? ZL_E_BAD_IMAGE : r, "the manifest %.19s… is not in the store", digest);
    if (!zl_streq(zl_digest_of(body.p ? body.p : "", body.n, text), digest))
        return zl_hint(err, zl_fail(err, ZL_E_BAD_IMAGE, "the stored manifest %.19s… is damaged", digest),
                       "pull the image again");
    ret->digest = digest;
    ret->body = zl_str_n(zl_arena_strndup(a, body.n ? body.p : "", body.n), body.n);
    return zl_oci_manifest_parse(a, ret->body, NULL, &ret->m, err);
}

static void add_blob(struct push *p, const struct zl_oci_descriptor *d)
{
    for (unsigned i = 0; i < p->nblobs; i++)
        if (zl_streq(p->blobs[i].d.digest, d->digest))
            return;
    ZL_GROW(p->blobs, p->nblobs, p->cap);
    p->blobs[p->nblobs++] = (struct blob){ .d = *d };
}

/* Whether the store has a manifest and all that it names. */
static bool is_here(struct push *p, const char *digest, unsigned depth)
{
    struct document d;
    if (read_document(p, digest, &d, NULL) < 0 || depth > ZL_OCI_INDEX_DEPTH_MAX)
        return false;
    for (unsigned i = 0; i < d.m.n; i++) {
        if (d.m.kind == ZL_OCI_INDEX && !is_here(p, d.m.items[i].digest, depth + 1))
            return false;
        zl_auto_close int fd =
            d.m.kind == ZL_OCI_INDEX || d.m.items[i].foreign ? -EBADF : open_blob(p, d.m.items[i].digest);
        if (fd < 0 && d.m.kind == ZL_OCI_MANIFEST && !d.m.items[i].foreign)
            return false;
    }
    zl_auto_close int config = d.m.kind == ZL_OCI_INDEX ? -EBADF : open_blob(p, d.m.config.digest);
    return d.m.kind == ZL_OCI_INDEX || config >= 0;
}

/* Adds a manifest with its blobs, or an index with those of its manifests that are here: children first. */
static int gather(struct push *p, const char *digest, unsigned depth, struct zl_err *err)
{
    struct document d;
    for (unsigned i = 0; i < p->ndocuments; i++)
        if (zl_streq(p->documents[i].digest, digest))
            return 0;
    int r = read_document(p, digest, &d, err);
    if (r == 0 && depth > ZL_OCI_INDEX_DEPTH_MAX)
        r = zl_fail(err, ZL_E_BAD_IMAGE, "its index names an index that names an index");
    for (unsigned i = 0; r == 0 && i < d.m.n; i++) {
        const struct zl_oci_descriptor *item = &d.m.items[i];
        if (d.m.kind == ZL_OCI_INDEX && is_here(p, item->digest, depth + 1))
            r = gather(p, item->digest, depth + 1, err);
        else if (d.m.kind == ZL_OCI_MANIFEST && !item->foreign)
            add_blob(p, item);
    }
    if (r == 0 && d.m.kind == ZL_OCI_MANIFEST)
        add_blob(p, &d.m.config);
    if (r == 0 && p->ndocuments == DOCUMENTS_MAX)
        r = zl_fail(err, ZL_E_LIMIT, "it has more than %d manifests", DOCUMENTS_MAX);
    if (r == 0)
        p->documents[p->ndocuments++] = d;
    return r;
}

/* ---- where blobs may come from ---- */

static bool has_digest(const struct zl_image_record *r, const char *digest)
{
    bool has = zl_streq(r->config, digest);
    for (unsigned i = 0; i < r->layers.n && !has; i++)
        has = zl_streq(r->layers.v[i], digest);
    return has;
}

/* Other repositories of the same registry whose images share blobs with this one. */
static int find_mounts(struct push *p, struct zl_err *err)
{
    struct zl_items records;
    int r = zl_store_list(&p->job->store, &p->job->arena, &records, err);
    p->mount_from.v = zl_arena_alloc(&p->job->arena, MOUNTS_MAX * sizeof *p->mount_from.v);
    for (unsigned i = 0; r == 0 && i < records.n && p->mount_from.n < MOUNTS_MAX; i++) {
        const struct zl_image_record *record = records.v[i];
        struct zl_reference ref;
        const char *why, *from = NULL;
        if (zl_reference_parse(zl_str(record->reference), &ref, &why) < 0 || !zl_streq(ref.registry, p->to.registry) ||
            zl_streq(ref.repository, p->to.repository))
            continue;
        for (unsigned k = 0; k < p->nblobs; k++)
            if (!p->blobs[k].from && has_digest(record, p->blobs[k].d.digest)) {
                from = from ? from : zl_arena_strdup(&p->job->arena, ref.repository);
                p->blobs[k].from = from;
            }
        if (from)
            p->mount_from.v[p->mount_from.n++] = from;
    }
    return r;
}

/* What is pushed stays until it is through. */
static int keep(struct push *p, struct zl_err *err)
{
    unsigned n = 0;
    const char **all = zl_arena_alloc(&p->job->arena, (p->nblobs + p->ndocuments) * sizeof *all);
    for (unsigned i = 0; i < p->nblobs; i++)
        all[n++] = p->blobs[i].d.digest;
    for (unsigned i = 0; i < p->ndocuments; i++)
        all[n++] = p->documents[i].digest;
    return zl_image_job_keep(p->job, all, n, err);
}

/* ---- blobs ---- */

struct progress {
    struct push *p;
    const struct blob *blob;
    uint64_t told_ms;
};

static void tell(struct push *p, const struct blob *b, uint64_t current)
{
    char name[16];
    snprintf(name, sizeof name, "%.12s", b->d.digest + 7);
    zl_image_job_progress(p->job, name, current, (uint64_t)b->d.size);
}

static void on_bytes(void *arg, uint64_t sent)
{
    struct progress *g = arg;
    uint64_t now = zl_clock_mono_ms();
    if (now - g->told_ms >= PROGRESS_MS && sent < (uint64_t)g->blob->d.size) {
        g->told_ms = now;
        tell(g->p, g->blob, sent);
    }
}

static int push_blob(struct push *p, const struct blob *b, enum zl_upload_how *how, struct zl_err *err)
{
    struct progress g = { .p = p, .blob = b };
    struct stat st;
    zl_auto_close int fd = open_blob(p, b->d.digest);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != b->d.size)
        return zl_hint(err,
                       zl_fail(err, ZL_E_BAD_IMAGE, "the blob %.19s… is not in the store, or not whole", b->d.digest),
                       "pull the image again");
    tell(p, b, 0);
    struct zl_upload u = { .digest = b->d.digest,
                           .size = (uint64_t)b->d.size,
                           .fd = fd,
                           .from = b->from,
                           .chunk = (uint64_t)p->job->request->chunk_bytes,
                           .progress = on_bytes,
                           .arg = &g };
    int r = zl_registry_push_blob(p->registry, &u, how, err);
    if (r < 0)
        return zl_wrap(err, r, "push the blob %.19s…", b->d.digest);
    tell(p, b, (uint64_t)b->d.size);
    return 0;
}

static void *pusher(void *arg)
{
    struct push *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->failed && p->next < p->nblobs) {
        const struct blob *b = &p->blobs[p->next++];
        struct zl_err err = { 0 };
        enum zl_upload_how how = ZL_UPLOAD_THERE;
        pthread_mutex_unlock(&p->lock);
        int r = push_blob(p, b, &how, &err);
        pthread_mutex_lock(&p->lock);
        *(how == ZL_UPLOAD_THERE ? &p->there : how == ZL_UPLOAD_MOUNTED ? &p->mounted : &p->sent) += r == 0;
        if (r < 0 && !p->failed) {
            p->failed = r;
            p->err = err;
            atomic_store(&p->stop, true);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int push_blobs(struct push *p, struct zl_err *err)
{
    pthread_t threads[THREADS_MAX];
    unsigned n = 0;
    zl_assert(pthread_mutex_init(&p->lock, NULL) == 0);
    while (n < ZL_MIN(p->nblobs, (unsigned)THREADS_MAX) && pthread_create(&threads[n], NULL, pusher, p) == 0)
        n++;
    if (n == 0)
        (void)pusher(p);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
    pthread_mutex_destroy(&p->lock);
    if (p->failed)
        *err = p->err;
    return p->failed;
}

/* ---- manifests ---- */

static int push_document(struct push *p, const struct document *d, const char *name, struct zl_err *err)
{
    bool subject = false;
    int r = zl_registry_push_manifest(p->registry, name, d->m.media_type, d->body, d->digest, &subject, err);
    if (r == 0 && d->m.subject[0] && !subject)
        r = zl_registry_add_referrer(p->registry, &d->m, d->digest, d->body, err);
    return r < 0 ? zl_wrap(err, r, "push the manifest %.19s…", d->digest) : 0;
}

/* Of an index's manifests those that are not here must be there already. 1: so it is. */
static int rest_is_there(struct push *p, const struct document *index, struct zl_err *err)
{
    for (unsigned i = 0; i < index->m.n; i++) {
        struct zl_registry_manifest m;
        const char *digest = index->m.items[i].digest;
        bool ours = false;
        for (unsigned k = 0; k < p->ndocuments; k++)
            ours |= zl_streq(p->documents[k].digest, digest);
        int r = ours ? 0 : zl_registry_manifest(p->registry, digest, true, &m, err);
        if (r == ZL_E_IMAGE_NOT_FOUND) {
            *err = (struct zl_err){ 0 };
            return 0;
        }
        if (r < 0)
            return zl_wrap(err, r, "look for the manifest %.19s…", digest);
    }
    return 1;
}

static int push_documents(struct push *p, const char **digest, char *warning, size_t size, struct zl_err *err)
{
    const char *name = p->to.tag[0] ? p->to.tag : p->to.digest;
    int r = 0;
    unsigned top = p->ndocuments - 1;
    if (p->documents[top].m.kind == ZL_OCI_INDEX) {
        r = rest_is_there(p, &p->documents[top], err);
        if (r == 0 && p->to.digest[0])
            return zl_fail(err, ZL_E_BAD_IMAGE,
                           "not all images of its index are here, and the index is what %.19s… names", p->to.digest);
        if (r == 0 && (!p->record->manifest || !zl_streq(p->documents[0].digest, p->record->manifest)))
            return zl_fail(err, ZL_E_BAD_IMAGE, "no image of its index is here");
        if (r == 0) { /* the one that was chosen, which was gathered first, goes alone */
            top = 0;
            snprintf(warning, size,
                     "not all images of the index %.19s… are here; the one for %.40s/%.40s was pushed, alone",
                     p->record->digest, p->record->os ? p->record->os : "",
                     p->record->architecture ? p->record->architecture : "");
        }
        r = r < 0 ? r : 0;
    }
    for (unsigned i = 0; r == 0 && i <= top; i++)
        r = push_document(p, &p->documents[i], i == top ? name : p->documents[i].digest, err);
    *digest = p->documents[top].digest;
    return r;
}

static int run(struct push *p, struct zl_err *err)
{
    char warning[300] = "", note[400];
    const char *digest;
    int r = push_blobs(p, err);
    r = r < 0 ? r : push_documents(p, &digest, warning, sizeof warning, err);
    if (r < 0)
        return r;
    snprintf(note, sizeof note, "{\"there\":%u,\"mounted\":%u,\"sent\":%u}", p->there, p->mounted, p->sent);
    zl_image_job_pushed(p->job, p->text, digest, note, warning[0] ? warning : NULL);
    return 0;
}

static int connect_and_run(struct push *p, struct zl_err *err)
{
    struct zl_hosts hosts;
    struct zl_credentials given;
    zl_image_job_credentials(p->job, &given);
    int r = zl_hosts_load(&hosts, &p->to, &given, true, err);
    zl_credentials_done(&given);
    if (r < 0)
        return r;
    r = zl_confine(&p->job->store, NULL, err);
    if (r == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        r = zl_fail(err, ZL_E_INTERNAL, "libcurl does not start");
    if (r == 0) {
        struct zl_registry_options o = { .hosts = &hosts,
                                         .push = true,
                                         .mount_from = p->mount_from,
                                         .stop = &p->stop,
                                         .stall_s = (unsigned)p->job->request->stall_s };
        p->registry = zl_registry_new(&p->to, &o);
        r = run(p, err);
        p->registry = zl_registry_free(p->registry);
        curl_global_cleanup();
    }
    zl_hosts_done(&hosts);
    return r;
}

int zl_push(struct zl_image_job *job, struct zl_err *err)
{
    struct push p = { .job = job };
    struct zl_image_record *record;
    const char *why, *name = job->request->reference, *to = job->request->destination;
    to = to && *to ? to : name;
    if (zl_reference_parse(zl_str(to), &p.to, &why) < 0)
        return zl_fail(err, ZL_E_INVALID, "'%.100s' is no image reference: %s", to, why);
    zl_reference_print(&p.to, p.text);
    int r = zl_store_find(&job->store, &job->arena, name, &record, err);
    if (r < 0)
        return r;
    p.record = record;
    if (p.to.digest[0] && !zl_streq(p.to.digest, record->digest))
        return zl_fail(err, ZL_E_INVALID, "'%.200s' has the digest %.71s, not that of the destination", name,
                       record->digest);
    if (record->manifest && is_here(&p, record->manifest, 0))
        r = gather(&p, record->manifest, 0, err);
    r = r < 0 ? r : gather(&p, record->digest, 0, err);
    r = r < 0 ? r : find_mounts(&p, err);
    r = r < 0 ? r : keep(&p, err);
    r = r < 0 ? r : connect_and_run(&p, err);
    free(p.blobs);
    if (r >= 0)
        return 0;
    zl_wrap(err, r, "push %.200s to %.200s", name, p.text);
    if (r == ZL_E_IMAGE_NOT_FOUND)
        return zl_hint(err, r, "is the name '%.80s' right, and may it be pushed to?", p.to.repository);
    return r;
}
