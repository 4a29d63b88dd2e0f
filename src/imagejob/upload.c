#include "imagejob/upload.h"

#include "imagejob/digest.h"
#include "imagejob/registry_priv.h"

#include <stdio.h>
#include <unistd.h>

/* Where the server writes what it was sent to its own storage before it answers. */
enum { COMMIT_STALLS = 6 };

struct upload {
    struct zl_endpoint *at;
    const struct zl_upload *u;
    char location[4096]; /* of the session; "": there is none */
    uint64_t there;      /* bytes that the session has */
    uint64_t chunk;
    bool whole; /* the registry takes no pieces */
};

static bool is_success(long status)
{
    return status >= 200 && status < 300;
}

/* 1: the repository has it; 0: it does not. */
static int has_blob(struct zl_endpoint *at, const struct zl_upload *u, struct zl_err *err)
{
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/blobs/%s", at->base, at->repository, u->digest);
    struct zl_fetch_reply reply = { 0 };
    int x;
    for (unsigned tried = 0;; tried++) {
        struct zl_fetch f = { .method = "HEAD", .url = url, .total_s = ZL_REGISTRY_DOCUMENT_S };
        x = zl_endpoint_request(at, &f, &reply, err);
        if (x == 0 && reply.status == 404)
            break;
        if (x == 0 && !is_success(reply.status))
            x = zl_endpoint_refuse(at, &reply, err);
        if (x == 0 || !reply.transient || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    int r = x < 0 ? x : reply.status != 404;
    zl_fetch_reply_done(&reply);
    return r;
}

/* Opens a session, or mounts the blob: 1. */
static int begin(struct upload *s, bool mount, struct zl_fetch_reply *reply, struct zl_err *err)
{
    struct zl_endpoint *at = s->at;
    zl_auto_free char *query = mount ? zl_xasprintf("?mount=%s&from=%s", s->u->digest, s->u->from) : zl_xstrdup("");
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/blobs/uploads/%s", at->base, at->repository, query);
    struct zl_fetch f = { .method = "POST", .url = url, .sends = true, .total_s = ZL_REGISTRY_DOCUMENT_S };
    int x = zl_endpoint_request(at, &f, reply, err);
    if (x < 0)
        return x;
    if (mount && reply->status == 201)
        return 1;
    if (reply->status != 202)
        return zl_endpoint_refuse(at, reply, err);
    if (!reply->location[0])
        return zl_fail(err, ZL_E_REGISTRY, "the registry does not say where the upload goes");
    snprintf(s->location, sizeof s->location, "%s", reply->location);
    s->chunk = ZL_MAX(s->u->chunk, reply->chunk_min);
    s->there = 0;
    return 0;
}

static void follow(struct upload *s, const struct zl_fetch_reply *reply)
{
    if (reply->location[0])
        snprintf(s->location, sizeof s->location, "%s", reply->location);
}

/* Asks the session how far it has come; without an answer there is none any more. */
static int ask(struct upload *s, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    struct zl_fetch f = { .url = s->location, .total_s = ZL_REGISTRY_DOCUMENT_S };
    int x = zl_endpoint_request(s->at, &f, &reply, err);
    if (x == 0 && is_success(reply.status) && reply.has_range && reply.range <= s->u->size) {
        s->there = reply.range;
        follow(s, &reply);
    } else {
        s->location[0] = 0;
    }
    zl_fetch_reply_done(&reply);
    return x == ZL_E_CANCELLED ? x : 0;
}

static void on_sent(void *arg, uint64_t bytes)
{
    const struct upload *s = arg;
    if (s->u->progress)
        s->u->progress(s->u->arg, s->there + bytes);
}

static int send_piece(struct upload *s, struct zl_fetch_reply *reply, struct zl_err *err)
{
    uint64_t n = ZL_MIN(s->chunk, s->u->size - s->there);
    char range[64];
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)s->there, (unsigned long long)(s->there + n - 1));
    struct zl_fetch f = { .method = "PATCH",
                          .url = s->location,
                          .content_range = range,
                          .fd = s->u->fd,
                          .at = s->there,
                          .body = n,
                          .sends = true,
                          .sent = on_sent,
                          .arg = s };
    int x = zl_endpoint_request(s->at, &f, reply, err);
    if (x < 0)
        return x;
    if (!is_success(reply->status)) {
        x = zl_endpoint_refuse(s->at, reply, err);
        reply->transient |= reply->status == 416; /* it has another idea of how far it is */
        s->whole |= s->there == 0 && !reply->transient && x != ZL_E_UNAUTHORIZED;
        return x;
    }
    follow(s, reply);
    uint64_t end = s->there + n;
    if (reply->has_range && reply->range != end && !(end == 1 && reply->range == 0)) {
        if (reply->range > end || reply->range < s->there)
            return zl_fail(err, ZL_E_REGISTRY, "the registry says that it has %llu bytes of an upload of %llu",
                           (unsigned long long)reply->range, (unsigned long long)end);
        end = reply->range; /* it took a part */
    }
    if (end == s->there)
        return zl_fail(err, ZL_E_REGISTRY, "the registry takes no bytes of the upload");
    s->there = end;
    return 0;
}

/* The last request: with all of the blob when nothing of it is there yet, else without a body. */
static int finish(struct upload *s, struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_free char *url =
        zl_xasprintf("%s%cdigest=%s", s->location, strchr(s->location, '?') ? '&' : '?', s->u->digest);
    struct zl_fetch f = { .method = "PUT",
                          .url = url,
                          .fd = s->u->fd,
                          .at = s->there,
                          .body = s->u->size - s->there,
                          .sends = true,
                          .stall_s = s->at->registry->o.stall_s * COMMIT_STALLS,
                          .sent = on_sent,
                          .arg = s };
    int x = zl_endpoint_request(s->at, &f, reply, err);
    if (x < 0)
        return x;
    if (reply->status == 404 || reply->status == 416) { /* the session is gone, or has come less far */
        zl_endpoint_refuse(s->at, reply, err);
        reply->transient = true;
        return err->code = ZL_E_REGISTRY;
    }
    if (!is_success(reply->status))
        return zl_endpoint_refuse(s->at, reply, err);
    if (reply->digest[0] && !zl_streq(reply->digest, s->u->digest))
        return zl_fail(err, ZL_E_DIGEST, "the registry says that it got %s", reply->digest);
    return 0;
}

static int send_all(struct upload *s, struct zl_fetch_reply *reply, struct zl_err *err)
{
    int x = 0;
    bool in_one = s->there == 0 && (s->whole || s->u->size <= s->chunk);
    while (x == 0 && !in_one && s->there < s->u->size)
        x = send_piece(s, reply, err);
    return x < 0 ? x : finish(s, reply, err);
}

/* What the registry refused as wrong may be wrong here: a disk that lost bytes. */
static int look_at_own(const struct zl_upload *u, int x, struct zl_err *err)
{
    char text[ZL_DIGEST_SIZE];
    if (zl_digest_of_file(u->fd, text) < 0)
        return x;
    if (zl_streq(text, u->digest))
        return x;
    return zl_hint(err, zl_fail(err, ZL_E_BAD_IMAGE, "the stored blob is damaged: its digest is %s", text),
                   "pull the image again");
}

static int upload(struct upload *s, enum zl_upload_how *how, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    bool mount = s->u->from;
    int x;
    for (unsigned tried = 0, all = 0;; tried++, all++) {
        uint64_t before = s->there;
        bool pieces = !s->whole;
        x = s->location[0] ? 0 : begin(s, mount, &reply, err);
        if (x < 0 && mount && reply.status >= 400 && reply.status < 500 && !reply.transient) {
            mount = false; /* who may not read the other repository may still write to this one */
            *err = (struct zl_err){ 0 };
            continue;
        }
        mount = false;
        if (x == 1) {
            *how = ZL_UPLOAD_MOUNTED;
            x = 0;
            break;
        }
        x = x < 0 ? x : send_all(s, &reply, err);
        if (x == 0) {
            *how = ZL_UPLOAD_SENT;
            break;
        }
        if (pieces && s->whole) { /* once, as a whole */
            s->location[0] = 0;
            *err = (struct zl_err){ 0 };
            continue;
        }
        if (s->there > before)
            tried = 0;
        if (!reply.transient || tried + 1 >= ZL_REGISTRY_TRIES || all + 1 >= ZL_REGISTRY_TRIES_ALTOGETHER ||
            zl_endpoint_back_off(s->at, tried, &reply, err) < 0)
            break;
        struct zl_err asked = { 0 };
        int has = has_blob(s->at, s->u, &asked); /* the answer to the last request may be all that was lost */
        if (has == 1) {
            *how = ZL_UPLOAD_SENT;
            x = 0;
            break;
        }
        if (s->location[0] && ask(s, &asked) < 0) {
            x = asked.code;
            *err = asked;
            break;
        }
        if (s->whole && s->there > 0) /* the rest would be a piece */
            s->location[0] = 0;
    }
    if (x < 0 && reply.status == 400)
        x = look_at_own(s->u, x, err);
    zl_fetch_reply_done(&reply);
    return x;
}

int zl_registry_push_blob(struct zl_registry *r, const struct zl_upload *u, enum zl_upload_how *ret, struct zl_err *err)
{
    struct upload s = { .at = zl_registry_itself(r), .u = u, .chunk = u->chunk };
    int x = has_blob(s.at, u, err);
    *ret = ZL_UPLOAD_THERE;
    return x == 0 ? upload(&s, ret, err) : x < 0 ? x : 0;
}

/* ---- manifests ---- */

int zl_registry_push_manifest(struct zl_registry *r, const char *name, const char *media_type, struct zl_str body,
                              const char *digest, bool *subject, struct zl_err *err)
{
    struct zl_endpoint *at = zl_registry_itself(r);
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/manifests/%s", at->base, at->repository, name);
    struct zl_fetch_reply reply = { 0 };
    int x;
    for (unsigned tried = 0;; tried++) {
        struct zl_fetch f = { .method = "PUT",
                              .url = url,
                              .content_type = media_type,
                              .memory = body.p,
                              .body = body.n,
                              .sends = true,
                              .total_s = ZL_REGISTRY_DOCUMENT_S };
        x = zl_endpoint_request(at, &f, &reply, err);
        if (x == 0 && !is_success(reply.status))
            x = zl_endpoint_refuse(at, &reply, err);
        if (x == 0 || !reply.transient || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    if (x == 0 && reply.digest[0] && !zl_streq(reply.digest, digest))
        x = zl_fail(err, ZL_E_DIGEST, "the registry says that it got %s, sent was %s", reply.digest, digest);
    *subject = reply.subject;
    zl_fetch_reply_done(&reply);
    return x;
}
