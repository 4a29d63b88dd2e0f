#include "imagejob/registry.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/id.h"
#include "codec/base64.h"
#include "codec/value.h"
#include "imagejob/digest.h"
#include "imagejob/fetch_priv.h"
#include "oci/manifest.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum {
    TRIES = 4, /* without a byte gained in between */
    TRIES_ALTOGETHER = 40,
    BACK_OFF_MS = 250,

    DOCUMENT_S = 120, /* a manifest or a token takes no longer */
    TOKEN_MAX = 1 << 20,
    IDLE_HANDLES = 8,
};

struct zl_registry {
    char base[300], repository[256];
    struct zl_registry_options o;
    pthread_mutex_t lock;     /* of what follows */
    CURL *idle[IDLE_HANDLES]; /* handles with their open connections */
    unsigned nidle;
    char *authorization; /* NULL until the registry asks for one */
    unsigned authorized; /* how often it was made */
};

struct zl_registry *zl_registry_new(const struct zl_reference *ref, const struct zl_registry_options *o)
{
    struct zl_registry *r = zl_xcalloc(1, sizeof *r);
    bool hub = zl_streq(ref->registry, "docker.io");
    struct zl_str host = zl_str(ref->registry);
    for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
        if (host.p[i] == ':')
            host.n = i;
    snprintf(r->base, sizeof r->base, "%s://%s", zl_fetch_is_loopback(host) ? "http" : "https",
             hub ? "registry-1.docker.io" : ref->registry);
    snprintf(r->repository, sizeof r->repository, "%s", ref->repository);
    r->o = *o;
    zl_assert(pthread_mutex_init(&r->lock, NULL) == 0);
    return r;
}

static void wipe(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

struct zl_registry *zl_registry_free(struct zl_registry *r)
{
    if (!r)
        return NULL;
    for (unsigned i = 0; i < r->nidle; i++)
        curl_easy_cleanup(r->idle[i]);
    wipe(r->authorization);
    zl_credentials_done(&r->o.credentials);
    pthread_mutex_destroy(&r->lock);
    free(r);
    return NULL;
}

const char *zl_registry_base(const struct zl_registry *r)
{
    return r->base;
}

static CURL *take_handle(struct zl_registry *r)
{
    pthread_mutex_lock(&r->lock);
    CURL *e = r->nidle ? r->idle[--r->nidle] : NULL;
    pthread_mutex_unlock(&r->lock);
    if (!e)
        e = curl_easy_init();
    zl_assert(e);
    return e;
}

static void give_handle(struct zl_registry *r, CURL *e)
{
    pthread_mutex_lock(&r->lock);
    if (r->nidle < IDLE_HANDLES) {
        r->idle[r->nidle++] = e;
        e = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    curl_easy_cleanup(e);
}

/* Sleeps in steps, so that a stop is seen. */
static int back_off(struct zl_registry *r, unsigned try, unsigned retry_after_s, struct zl_err *err)
{
    uint64_t ms = (uint64_t)BACK_OFF_MS << ZL_MIN(try, 6u);
    ms += zl_random_u64() % (ms / 2);
    ms = ZL_MAX(ms, (uint64_t)ZL_MIN(retry_after_s, 30u) * 1000);
    for (uint64_t end = zl_clock_mono_ms() + ms; zl_clock_mono_ms() < end;) {
        if (r->o.stop && atomic_load(r->o.stop))
            return zl_fail(err, ZL_E_CANCELLED, "the transfer was stopped");
        usleep(20000);
    }
    return 0;
}

static bool worth_a_retry(long status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/* The first message of the error body, without anything that a terminal would act on. */
static void error_text(const struct zl_fetch_reply *reply, char *ret, size_t size)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    ret[0] = 0;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, zl_buf_view(&reply->error_body), &zl_limits_document, &v, &pe) == 0) {
        const struct zl_value *errors = zl_value_get(v, "errors");
        const struct zl_value *first = errors && errors->kind == ZL_LIST ? errors->first : NULL;
        const char *text = zl_value_cstr(first, "message"), *code = zl_value_cstr(first, "code");
        if (*text || *code)
            snprintf(ret, size, " (%.120s)", *text ? text : code);
    }
    for (char *p = ret; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
    zl_arena_done(&arena);
}

/* A reply that is no success, as an error. */
static int refuse(struct zl_registry *r, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    char text[160];
    error_text(reply, text, sizeof text);
    if (reply->status == 404)
        return zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "the registry does not have it%s", text);
    if (reply->status == 401 || reply->status == 403)
        return zl_hint(err, zl_fail(err, ZL_E_REGISTRY, "the registry refuses access%s", text),
                       "is the name right? A private image needs credentials: `docker login` keeps them where they are "
                       "looked for");
    if (reply->status == 429)
        return zl_hint(err, zl_fail(err, ZL_E_REGISTRY, "the registry takes no more requests for now%s", text),
                       "try again later, or with credentials");
    return zl_fail(err, ZL_E_REGISTRY, "the registry answered %ld%s", reply->status, text);
}

struct text_sink {
    struct zl_buf *body;
    size_t limit;
};

static int add_text(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err)
{
    struct text_sink *s = arg;
    if (n > s->limit - s->body->n)
        return zl_fail(err, ZL_E_LIMIT, "the registry's answer is larger than %zu bytes", s->limit);
    zl_buf_add(s->body, p, n);
    return 0;
}

static char *basic(const struct zl_credentials *c)
{
    zl_auto_buf plain = ZL_BUF_INIT, out = ZL_BUF_INIT;
    zl_buf_printf(&plain, "%s:%s", c->user, c->password);
    zl_buf_puts(&out, "Basic ");
    zl_base64_encode(&out, zl_buf_view(&plain));
    explicit_bzero(plain.p, plain.n);
    return zl_buf_take(&out);
}

static void add_query(struct zl_buf *url, CURL *e, const char *name, const char *value)
{
    char *escaped = curl_easy_escape(e, value, 0);
    zl_buf_printf(url, "%c%s=%s", strchr(url->p, '?') ? '&' : '?', name, escaped ? escaped : "");
    curl_free(escaped);
}

/* Takes the token out of a token server's answer. */
static int read_token(const struct zl_buf *body, char **ret, struct zl_err *err)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    int r = 0;
    zl_arena_init(&arena);
    const char *token = "";
    if (zl_json_parse(&arena, zl_buf_view(body), &zl_limits_document, &v, &pe) == 0)
        token = *zl_value_cstr(v, "token") ? zl_value_cstr(v, "token") : zl_value_cstr(v, "access_token");
    for (const char *p = token; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            token = "";
    if (*token)
        *ret = zl_xasprintf("Bearer %s", token);
    else
        r = zl_fail(err, ZL_E_REGISTRY, "the token server's answer holds no token");
    zl_arena_done(&arena);
    return r;
}

static int fetch_token(struct zl_registry *r, CURL *e, const struct zl_oci_challenge *c, char **ret, struct zl_err *err)
{
    zl_auto_buf url = ZL_BUF_INIT, body = ZL_BUF_INIT;
    struct text_sink sink = { &body, TOKEN_MAX };
    struct zl_fetch_reply reply = { 0 };
    zl_auto_free char *scope = zl_xasprintf("repository:%s:pull", r->repository);
    zl_buf_puts(&url, c->realm);
    if (c->service[0])
        add_query(&url, e, "service", c->service);
    add_query(&url, e, "scope", c->scope[0] ? c->scope : scope);
    char *authorization = r->o.credentials.user[0] ? basic(&r->o.credentials) : NULL;
    struct zl_fetch f = { .url = url.p,
                          .authorization = authorization,
                          .stall_s = r->o.stall_s,
                          .total_s = DOCUMENT_S,
                          .stop = r->o.stop,
                          .sink = add_text,
                          .arg = &sink };
    int x = zl_fetch(e, &f, &reply, err);
    wipe(authorization);
    if (x == 0 && reply.status != 200)
        x = refuse(r, &reply, err);
    if (x == 0)
        x = read_token(&body, ret, err);
    zl_fetch_reply_done(&reply);
    return x < 0 ? zl_wrap(err, x, "get a token from %.200s", c->realm) : 0;
}

/* Answers a 401. `seen` is the number of the authorization that the refused request had; when another thread has made a
 * newer one meanwhile, that is the answer. 1: try again; 0: there is nothing more to offer. */
static int authorize(struct zl_registry *r, CURL *e, const struct zl_oci_challenge *c, unsigned seen,
                     struct zl_err *err)
{
    int x = 0;
    pthread_mutex_lock(&r->lock);
    if (r->authorized != seen) {
        x = 1;
    } else if (c->scheme == ZL_OCI_AUTH_BEARER || (c->scheme == ZL_OCI_AUTH_BASIC && r->o.credentials.user[0])) {
        char *value = NULL;
        if (c->scheme == ZL_OCI_AUTH_BASIC)
            value = basic(&r->o.credentials);
        else
            x = fetch_token(r, e, c, &value, err);
        if (x == 0) {
            wipe(r->authorization);
            r->authorization = value;
            r->authorized++;
            x = 1;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return x;
}

/* One request below /v2/<repository>/ with what the registry wants as credentials, once more after a 401. */
static int request(struct zl_registry *r, struct zl_fetch *f, struct zl_fetch_reply *reply, struct zl_err *err)
{
    CURL *e = take_handle(r);
    int x = 0;
    for (int round = 0; round < 3; round++) {
        pthread_mutex_lock(&r->lock);
        char *authorization = r->authorization ? zl_xstrdup(r->authorization) : NULL;
        unsigned seen = r->authorized;
        pthread_mutex_unlock(&r->lock);
        f->authorization = authorization;
        x = zl_fetch(e, f, reply, err);
        wipe(authorization);
        f->authorization = NULL;
        if (x < 0 || reply->status != 401)
            break;
        x = authorize(r, e, &reply->challenge, seen, err);
        if (x <= 0)
            break;
        x = 0;
    }
    give_handle(r, e);
    return x;
}

static int manifest_once(struct zl_registry *r, const char *name, bool head, struct zl_registry_manifest *m,
                         struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/manifests/%s", r->base, r->repository, name);
    zl_buf_clear(&m->body);
    struct text_sink sink = { &m->body, ZL_OCI_DOCUMENT_MAX };
    struct zl_fetch f = { .url = url,
                          .accept = zl_oci_manifest_accept,
                          .head = head,
                          .stall_s = r->o.stall_s,
                          .total_s = DOCUMENT_S,
                          .stop = r->o.stop,
                          .sink = add_text,
                          .arg = &sink };
    int x = request(r, &f, reply, err);
    if (x == 0 && reply->status != 200) {
        reply->transient = worth_a_retry(reply->status);
        x = refuse(r, reply, err);
    }
    return x;
}

static int check_manifest(const char *name, bool head, const struct zl_fetch_reply *reply,
                          struct zl_registry_manifest *m, struct zl_err *err)
{
    snprintf(m->content_type, sizeof m->content_type, "%s", reply->content_type);
    if (head) {
        snprintf(m->digest, sizeof m->digest, "%s", zl_oci_digest_valid(zl_str(reply->digest)) ? reply->digest : "");
        return 0;
    }
    zl_digest_of(m->body.p ? m->body.p : "", m->body.n, m->digest);
    if (strchr(name, ':') && !zl_streq(name, m->digest))
        return zl_fail(err, ZL_E_DIGEST, "the manifest's digest is %s, asked for was %s", m->digest, name);
    if (zl_oci_digest_valid(zl_str(reply->digest)) && !zl_streq(reply->digest, m->digest))
        return zl_fail(err, ZL_E_DIGEST, "the manifest's digest is %s, the registry says %s", m->digest, reply->digest);
    return 0;
}

int zl_registry_manifest(struct zl_registry *r, const char *name, bool head, struct zl_registry_manifest *ret,
                         struct zl_err *err)
{
    struct zl_registry_manifest m = { 0 };
    struct zl_fetch_reply reply = { 0 };
    int x;
    for (unsigned try = 0;; try++) {
        x = manifest_once(r, name, head, &m, &reply, err);
        if (x == 0 || !reply.transient || try + 1 == TRIES)
            break;
        x = back_off(r, try, reply.retry_after_s, err);
        if (x < 0)
            break;
        *err = (struct zl_err){ 0 };
    }
    if (x == 0)
        x = check_manifest(name, head, &reply, &m, err);
    zl_fetch_reply_done(&reply);
    if (x < 0)
        zl_buf_done(&m.body);
    else
        *ret = m;
    return x;
}

/* A blob on its way into a file. */
struct blob {
    const char *digest;
    int fd;
    uint64_t size, got;
    struct zl_digest *hash;
    void (*progress)(void *arg, uint64_t got);
    void *arg;
    bool begun; /* this exchange's first bytes are in */
};

static int add_blob(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err)
{
    struct blob *b = arg;
    if (!b->begun && b->got > 0 && reply->status != 206) { /* the server does not do ranges: from the start */
        if (ftruncate(b->fd, 0) < 0 || lseek(b->fd, 0, SEEK_SET) < 0)
            return zl_fail(err, -errno, "start the file again");
        b->got = 0;
        zl_digest_restart(b->hash);
    } else if (!b->begun && reply->status == 206 && (!reply->has_start || reply->start != b->got)) {
        return zl_fail(err, ZL_E_REGISTRY, "the registry sent another range than was asked for");
    }
    b->begun = true;
    if (n > b->size - b->got)
        return zl_fail(err, ZL_E_DIGEST, "the registry sends more than the %llu bytes that the manifest says",
                       (unsigned long long)b->size);
    int r = zl_write_full(b->fd, p, n);
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : r, r, "write the blob");
    zl_digest_add(b->hash, p, n);
    b->got += n;
    if (b->progress)
        b->progress(b->arg, b->got);
    return 0;
}

static int blob_once(struct zl_registry *r, struct blob *b, struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/blobs/%s", r->base, r->repository, b->digest);
    b->begun = false;
    struct zl_fetch f = {
        .url = url, .from = b->got, .stall_s = r->o.stall_s, .stop = r->o.stop, .sink = add_blob, .arg = b
    };
    int x = request(r, &f, reply, err);
    if (x == 0 && reply->status != 200 && reply->status != 206) {
        reply->transient = worth_a_retry(reply->status);
        x = refuse(r, reply, err);
        if (x == ZL_E_IMAGE_NOT_FOUND) /* the manifest names it, so its absence is the registry's fault */
            x = err->code = ZL_E_REGISTRY;
    }
    if (x == 0 && b->got < b->size) {
        x = zl_fail(err, ZL_E_DIGEST, "the registry sent %llu bytes, the manifest says %llu",
                    (unsigned long long)b->got, (unsigned long long)b->size);
    }
    return x;
}

int zl_registry_blob(struct zl_registry *r, const char *digest, uint64_t size, int fd,
                     void (*progress)(void *arg, uint64_t got), void *arg, struct zl_err *err)
{
    struct blob b = {
        .digest = digest, .fd = fd, .size = size, .hash = zl_digest_new(), .progress = progress, .arg = arg
    };
    struct zl_fetch_reply reply = { 0 };
    char text[ZL_DIGEST_SIZE];
    int x;
    for (unsigned try = 0, all = 0;; try++, all++) {
        uint64_t before = b.got;
        x = blob_once(r, &b, &reply, err);
        if (x == 0 || !reply.transient)
            break;
        if (b.got > 0 && b.got == size) { /* the connection broke behind the last byte */
            *err = (struct zl_err){ 0 };
            x = 0;
            break;
        }
        if (b.got > before)
            try = 0;
        if (try + 1 >= TRIES || all + 1 >= TRIES_ALTOGETHER)
            break;
        x = back_off(r, try, reply.retry_after_s, err);
        if (x < 0)
            break;
        *err = (struct zl_err){ 0 };
    }
    zl_digest_finish(b.hash, text);
    zl_digest_free(b.hash);
    zl_fetch_reply_done(&reply);
    if (x == 0 && !zl_streq(text, digest))
        x = zl_fail(err, ZL_E_DIGEST, "what the registry sent has the digest %s", text);
    return x;
}
