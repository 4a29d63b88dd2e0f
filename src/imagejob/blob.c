/* One blob into a file: hashed as it comes, bounded by its size, continued where it broke off, here or at the next
 * place, as a digest names the same bytes everywhere. Places are the mirrors, the registry itself, the URLs of the
 * descriptor, in this order. */
#include "imagejob/registry_priv.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "imagejob/digest.h"
#include "imagejob/whole.h"
#include "oci/manifest.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* libcurl gives 16 KiB at a time: written together, but not held back long from who reads the file while it grows. */
enum { URLS_MAX = 8, PENDING = 64 << 10, PENDING_MS = 50 };

struct place {
    struct zl_registry *registry;
    struct zl_endpoint *at; /* NULL: the URL */
    const char *url;
    bool last;
};

struct blob {
    const char *digest;
    int fd;
    uint64_t size, got, written_ms;
    unsigned char *pending;  /* the last n bytes of what is `got`, of which the first `written` are in the file */
    size_t n, written, room; /* room: for all of a blob that is wanted whole, otherwise PENDING */
    struct zl_digest *hash;
    void (*progress)(void *arg, uint64_t got);
    void *arg;
    bool begun;         /* this exchange's first bytes are in */
    unsigned exchanges; /* that what is there came from */
};

static int start_again(struct blob *b, struct zl_err *err)
{
    b->got = 0;
    b->n = b->written = 0;
    b->exchanges = 0;
    if (ftruncate(b->fd, 0) < 0 || lseek(b->fd, 0, SEEK_SET) < 0)
        return zl_fail(err, -errno, "start the file again");
    zl_digest_restart(b->hash);
    if (b->progress) /* who reads the file while it grows must hear of it */
        b->progress(b->arg, 0);
    return 0;
}

/* When it fails, some of it may be in the file: then nothing counts as there. */
static int write_pending(struct blob *b, struct zl_err *err)
{
    struct zl_err again = { 0 };
    int r = zl_write_full(b->fd, b->pending + b->written, b->n - b->written);
    if (r < 0) {
        ZL_IGNORE(start_again(b, &again)); /* the job ends with the first error */
        return zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : r, r, "write the blob");
    }
    if (b->n == b->room && b->room < b->size) /* more comes; a blob that has room stays whole */
        b->n = 0;
    b->written = b->n;
    b->written_ms = zl_clock_mono_ms();
    if (b->progress)
        b->progress(b->arg, b->got);
    return 0;
}

static int begin(struct blob *b, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    b->begun = true;
    int r = 0;
    if (reply->status == 200 && b->got > 0) /* it does not know ranges */
        r = start_again(b, err);
    else if (reply->status == 206 && (!reply->has_start || reply->start != b->got))
        r = zl_fail(err, ZL_E_REGISTRY, "the registry sent another range than was asked for");
    b->exchanges++;
    return r;
}

static int add_blob(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err)
{
    struct blob *b = arg;
    int r = b->begun ? 0 : begin(b, reply, err);
    if (r < 0)
        return r;
    if (n > b->size - b->got)
        return zl_fail(err, ZL_E_DIGEST, "the registry sends more than the %llu bytes that the manifest says",
                       (unsigned long long)b->size);
    zl_digest_add(b->hash, p, n);
    while (n > 0) {
        size_t part = ZL_MIN(n, b->room - b->n);
        memcpy(b->pending + b->n, p, part);
        b->n += part;
        b->got += part;
        p = (const char *)p + part;
        n -= part;
        if (b->n == b->room && (r = write_pending(b, err)) < 0)
            return r;
    }
    return b->n > b->written && zl_clock_mono_ms() - b->written_ms >= PENDING_MS ? write_pending(b, err) : 0;
}

static int ask(const struct place *p, struct blob *b, struct zl_fetch_reply *reply, struct zl_err *err)
{
    struct zl_fetch f = { .url = p->url, .from = b->got, .sink = add_blob, .arg = b };
    b->begun = false;
    if (!p->at)
        return zl_registry_outside(p->registry, &f, reply, err);
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/blobs/%s", p->at->base, p->at->repository, b->digest);
    f.url = url;
    return zl_endpoint_request(p->at, &f, reply, err);
}

static int refuse(const struct place *p, struct zl_fetch_reply *reply, struct zl_err *err)
{
    if (!p->at) /* without its words, which may be of a server that this image has no business with */
        return zl_fail(err, ZL_E_REGISTRY, "it answered %ld", reply->status);
    int x = zl_endpoint_refuse(p->at, reply, err);
    if (x == ZL_E_IMAGE_NOT_FOUND) /* the manifest names it, so its absence is the registry's fault */
        x = err->code = ZL_E_REGISTRY;
    return x;
}

static int blob_once(const struct place *p, struct blob *b, struct zl_fetch_reply *reply, struct zl_err *err)
{
    b->written_ms = zl_clock_mono_ms();
    int x = ask(p, b, reply, err);
    if (b->n > b->written) { /* also of what broke off: the next attempt goes on there */
        struct zl_err full = { 0 };
        int r = write_pending(b, &full);
        if (r < 0) {
            *err = full;
            return r;
        }
    }
    if (x == 0 && reply->status == 416 && b->got > 0) { /* it has fewer bytes than came before: from the start */
        x = start_again(b, err);
        reply->transient = x == 0;
        return x < 0 ? x : zl_fail(err, ZL_E_REGISTRY, "the registry does not have the range that was asked for");
    }
    if (x == 0 && reply->status != 200 && reply->status != 206)
        x = refuse(p, reply, err);
    if (x == 0 && b->got < b->size)
        x = zl_fail(err, ZL_E_DIGEST, "the registry sent %llu bytes, the manifest says %llu",
                    (unsigned long long)b->got, (unsigned long long)b->size);
    return x;
}

/* Whole, and what it should be. A blob that was put together from several exchanges is worth another try. */
static int check(struct blob *b, bool *again, struct zl_err *err)
{
    char text[ZL_DIGEST_SIZE];
    zl_digest_finish(b->hash, text);
    *again = false;
    if (zl_streq(text, b->digest))
        return 0;
    *again = b->exchanges > 1;
    return zl_fail(err, ZL_E_DIGEST, "what the registry sent has the digest %s", text);
}

static int back_off(const struct place *p, unsigned tried, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    return p->at ? zl_endpoint_back_off(p->at, tried, reply, err)
                 : zl_registry_back_off(p->registry, tried, reply, err);
}

static int blob_from(const struct place *p, struct blob *b, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    bool again = false;
    int x;
    for (unsigned tried = 0, all = 0;; tried++, all++) {
        uint64_t before = b->got;
        x = b->got > 0 && b->got == b->size ? 0 : blob_once(p, b, &reply, err);
        if (x < 0 && b->got > 0 && b->got == b->size && reply.transient)
            x = 0; /* the connection broke behind the last byte */
        if (x == 0) {
            *err = (struct zl_err){ 0 };
            x = check(b, &again, err);
            int started = x < 0 ? start_again(b, err) : 0;
            x = started < 0 ? started : x;
            if (x == 0 || started < 0 || !again)
                break;
            continue;
        }
        if (b->got > before)
            tried = 0;
        if (!reply.transient || (!p->last && b->got == before) || tried + 1 >= ZL_REGISTRY_TRIES ||
            all + 1 >= ZL_REGISTRY_TRIES_ALTOGETHER || back_off(p, tried, &reply, err) < 0)
            break;
    }
    if (x < 0 && reply.status == 0 && p->at)
        zl_endpoint_mark_down(p->at);
    zl_fetch_reply_done(&reply);
    return x;
}

static void name_place(const struct place *p, int x, struct zl_err *err)
{
    if (!p->at)
        zl_wrap(err, x, "its URL %.200s", p->url);
    else if (!p->at->last)
        zl_wrap(err, x, "the mirror %.100s", p->at->place->host->name);
}

/* What is in the file already, from an attempt before. */
static int go_on(struct blob *b, struct zl_err *err)
{
    enum { BLOCK = 128 << 10 };
    struct stat st;
    if (fstat(b->fd, &st) < 0)
        return zl_fail(err, -errno, "look at the file");
    if (st.st_size == 0 || (uint64_t)st.st_size > b->size)
        return st.st_size ? start_again(b, err) : 0;
    zl_auto_free char *block = zl_xmalloc(BLOCK);
    ssize_t n;
    while ((n = zl_read_full(b->fd, block, BLOCK)) > 0) {
        zl_digest_add(b->hash, block, (size_t)n);
        b->got += (uint64_t)n;
    }
    if (n < 0)
        return zl_fail(err, (int)n, "read what is there of the blob");
    b->exchanges = b->got == b->size ? 2 : 1; /* what nobody sends now is nobody's lie */
    if (b->progress)
        b->progress(b->arg, b->got);
    return 0;
}

int zl_registry_blob(struct zl_registry *r, const struct zl_oci_descriptor *d, int fd,
                     void (*progress)(void *arg, uint64_t got), void *arg, unsigned char **whole, struct zl_err *err)
{
    bool small = whole && d->size <= ZL_WHOLE_IN_MAX;
    struct blob b = { .digest = d->digest,
                      .fd = fd,
                      .size = (uint64_t)d->size,
                      .hash = zl_digest_new(),
                      .room = small ? ZL_MAX((size_t)d->size, (size_t)1) : PENDING,
                      .progress = progress,
                      .arg = arg };
    struct zl_err before = { 0 };
    b.pending = zl_xmalloc(b.room);
    int x = go_on(&b, err);
    if (x < 0) {
        zl_digest_free(b.hash);
        free(b.pending);
        return x;
    }
    x = ZL_E_REGISTRY;
    unsigned n = r->n + ZL_MIN(d->urls.n, (unsigned)URLS_MAX);
    for (unsigned i = 0; i < n; i++) {
        bool ours = i < r->n;
        const struct place p = { .registry = r,
                                 .at = ours ? &r->endpoints[i] : NULL,
                                 .url = ours ? NULL : d->urls.v[i - r->n],
                                 .last = ours ? r->endpoints[i].last : i + 1 == n };
        if (ours && zl_endpoint_down(p.at))
            continue;
        *err = (struct zl_err){ 0 };
        x = blob_from(&p, &b, err);
        if (x == 0 || !zl_registry_goes_on(x))
            break;
        name_place(&p, x, err);
        if (i + 1 < n)
            before = *err;
    }
    zl_digest_free(b.hash);
    if (small && x == 0 && b.n == b.size)
        *whole = b.pending;
    else
        free(b.pending);
    return x < 0 ? zl_registry_add_mirrors(&before, err) : 0;
}
