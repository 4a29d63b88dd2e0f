/* One blob into a file: hashed as it comes, bounded by its size, continued where it broke off, here or at the next
 * endpoint, as a digest names the same bytes everywhere. */
#include "imagejob/registry_priv.h"

#include "base/fd.h"
#include "imagejob/digest.h"

#include <unistd.h>

struct blob {
    const char *digest;
    int fd;
    uint64_t size, got;
    struct zl_digest *hash;
    void (*progress)(void *arg, uint64_t got);
    void *arg;
    bool begun;         /* this exchange's first bytes are in */
    unsigned exchanges; /* that what is there came from */
};

static int start_again(struct blob *b, struct zl_err *err)
{
    if (ftruncate(b->fd, 0) < 0 || lseek(b->fd, 0, SEEK_SET) < 0)
        return zl_fail(err, -errno, "start the file again");
    b->got = 0;
    b->exchanges = 0;
    zl_digest_restart(b->hash);
    if (b->progress) /* who reads the file while it grows must hear of it */
        b->progress(b->arg, 0);
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
    r = zl_write_full(b->fd, p, n);
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : r, r, "write the blob");
    zl_digest_add(b->hash, p, n);
    b->got += n;
    if (b->progress)
        b->progress(b->arg, b->got);
    return 0;
}

static int blob_once(struct zl_endpoint *at, struct blob *b, struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/blobs/%s", at->base, at->repository, b->digest);
    b->begun = false;
    struct zl_fetch f = { .url = url, .from = b->got, .sink = add_blob, .arg = b };
    int x = zl_endpoint_request(at, &f, reply, err);
    if (x == 0 && reply->status == 416 && b->got > 0) { /* it has fewer bytes than came before: from the start */
        x = start_again(b, err);
        reply->transient = x == 0;
        return x < 0 ? x : zl_fail(err, ZL_E_REGISTRY, "the registry does not have the range that was asked for");
    }
    if (x == 0 && reply->status != 200 && reply->status != 206) {
        x = zl_endpoint_refuse(at, reply, err);
        if (x == ZL_E_IMAGE_NOT_FOUND) /* the manifest names it, so its absence is the registry's fault */
            x = err->code = ZL_E_REGISTRY;
    }
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

static int blob_at(struct zl_endpoint *at, struct blob *b, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    bool again = false;
    int x;
    for (unsigned tried = 0, all = 0;; tried++, all++) {
        uint64_t before = b->got;
        x = b->got > 0 && b->got == b->size ? 0 : blob_once(at, b, &reply, err);
        if (x < 0 && b->got > 0 && b->got == b->size && reply.transient)
            x = 0; /* the connection broke behind the last byte */
        if (x == 0) {
            *err = (struct zl_err){ 0 };
            x = check(b, &again, err);
            if (x == 0 || start_again(b, err) < 0 || !again)
                break;
            continue;
        }
        if (b->got > before)
            tried = 0;
        if (!reply.transient || (!at->last && b->got == before) || tried + 1 >= ZL_REGISTRY_TRIES ||
            all + 1 >= ZL_REGISTRY_TRIES_ALTOGETHER || zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    if (x < 0 && reply.status == 0)
        zl_endpoint_mark_down(at);
    zl_fetch_reply_done(&reply);
    return x;
}

int zl_registry_blob(struct zl_registry *r, const char *digest, uint64_t size, int fd,
                     void (*progress)(void *arg, uint64_t got), void *arg, struct zl_err *err)
{
    struct blob b = {
        .digest = digest, .fd = fd, .size = size, .hash = zl_digest_new(), .progress = progress, .arg = arg
    };
    struct zl_err mirrors = { 0 };
    int x = ZL_E_REGISTRY;
    for (unsigned i = 0; i < r->n; i++) {
        struct zl_endpoint *at = &r->endpoints[i];
        if (zl_endpoint_down(at))
            continue;
        *err = (struct zl_err){ 0 };
        x = blob_at(at, &b, err);
        if (x == 0 || !zl_registry_goes_on(x))
            break;
        if (!at->last) {
            mirrors = *err;
            zl_wrap(&mirrors, x, "the mirror %.100s", at->place->host->name);
        }
    }
    zl_digest_free(b.hash);
    return x < 0 ? zl_registry_add_mirrors(&mirrors, err) : 0;
}
