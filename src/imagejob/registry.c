#include "imagejob/registry_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "imagejob/digest.h"
#include "oci/manifest.h"
#include "oci/reply.h"

#include <stdio.h>
#include <strings.h>
#include <unistd.h>

enum { BACK_OFF_MS = 250, WAIT_MAX_S = 60, ROUNDS = 3 };

static void set_up_endpoint(struct zl_registry *r, unsigned i, const struct zl_reference *ref)
{
    struct zl_endpoint *at = &r->endpoints[i];
    at->registry = r;
    at->place = &r->o.hosts->places[i];
    at->last = i + 1 == r->n;
    const struct zl_host *host = at->place->host;
    snprintf(at->base, sizeof at->base, "%s://%.255s", host->tls == ZL_TLS_NONE ? "http" : "https",
             zl_streq(host->name, "docker.io") ? "registry-1.docker.io" : host->name);
    const char *prefix = at->place->prefix;
    snprintf(at->repository, sizeof at->repository, "%s%s%s", prefix, *prefix ? "/" : "", ref->repository);
    zl_assert(pthread_mutex_init(&at->lock, NULL) == 0);
}

struct zl_registry *zl_registry_new(const struct zl_reference *ref, const struct zl_registry_options *o)
{
    struct zl_registry *r = zl_xcalloc(1, sizeof *r);
    r->o = *o;
    r->n = o->hosts->nplaces;
    snprintf(r->repository, sizeof r->repository, "%s", ref->repository);
    r->endpoints = zl_xcalloc(r->n, sizeof *r->endpoints);
    for (unsigned i = 0; i < r->n; i++)
        set_up_endpoint(r, i, ref);
    r->share = zl_fetch_share_new();
    zl_assert(pthread_mutex_init(&r->lock, NULL) == 0);
    return r;
}

struct zl_registry *zl_registry_free(struct zl_registry *r)
{
    if (!r)
        return NULL;
    for (unsigned i = 0; i < r->nidle; i++)
        curl_easy_cleanup(r->idle[i]);
    for (unsigned i = 0; i < r->n; i++) {
        if (r->endpoints[i].authorization)
            explicit_bzero(r->endpoints[i].authorization, strlen(r->endpoints[i].authorization));
        free(r->endpoints[i].authorization);
        pthread_mutex_destroy(&r->endpoints[i].lock);
    }
    free(r->endpoints);
    zl_fetch_share_free(r->share);
    pthread_mutex_destroy(&r->lock);
    free(r);
    return NULL;
}

CURL *zl_registry_take_handle(struct zl_registry *r)
{
    pthread_mutex_lock(&r->lock);
    CURL *e = r->nidle ? r->idle[--r->nidle] : NULL;
    pthread_mutex_unlock(&r->lock);
    if (!e)
        e = curl_easy_init();
    zl_assert(e);
    return e;
}

void zl_registry_give_handle(struct zl_registry *r, CURL *e)
{
    pthread_mutex_lock(&r->lock);
    if (r->nidle < ZL_REGISTRY_IDLE_HANDLES) {
        r->idle[r->nidle++] = e;
        e = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    curl_easy_cleanup(e);
}

/* ---- when and how often ---- */

/* In steps, so that a stop is seen. */
static int sleep_until(const struct zl_registry *r, uint64_t end, struct zl_err *err)
{
    while (zl_clock_mono_ms() < end) {
        if (r->o.stop && atomic_load(r->o.stop))
            return zl_fail(err, ZL_E_CANCELLED, "the transfer was stopped");
        usleep(20000);
    }
    return 0;
}

/* When the next try may be; 0: that is too long to wait. */
static uint64_t next_try(unsigned tried, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    if (reply->retry_after_s > WAIT_MAX_S) {
        zl_wrap(err, err->code, "it asks to wait %llu s, which is too long", (unsigned long long)reply->retry_after_s);
        return 0;
    }
    uint64_t ms = (uint64_t)BACK_OFF_MS << ZL_MIN(tried, 6u);
    ms += zl_random_u64() % (ms / 2);
    return zl_clock_mono_ms() + ZL_MAX(ms, reply->retry_after_s * 1000);
}

static int wait_for_it(struct zl_registry *r, uint64_t end, struct zl_err *err)
{
    struct zl_err stopped = { 0 };
    if (end == 0)
        return err->code;
    int x = sleep_until(r, end, &stopped);
    *err = stopped; /* of the try before nothing is left */
    return x;
}

int zl_registry_back_off(struct zl_registry *r, unsigned tried, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    return wait_for_it(r, next_try(tried, reply, err), err);
}

int zl_endpoint_back_off(struct zl_endpoint *at, unsigned tried, const struct zl_fetch_reply *reply, struct zl_err *err)
{
    uint64_t end = next_try(tried, reply, err);
    if (reply->status == 429 || reply->status == 503) {
        pthread_mutex_lock(&at->lock);
        at->pause_until = ZL_MAX(at->pause_until, end);
        pthread_mutex_unlock(&at->lock);
    }
    return wait_for_it(at->registry, end, err);
}

bool zl_registry_goes_on(int error)
{
    return error != ZL_E_CANCELLED && error != ZL_E_DISK_FULL && error < -4095; /* errno: our own disk */
}

bool zl_endpoint_down(struct zl_endpoint *at)
{
    pthread_mutex_lock(&at->lock);
    bool down = at->down && !at->last;
    pthread_mutex_unlock(&at->lock);
    return down;
}

void zl_endpoint_mark_down(struct zl_endpoint *at)
{
    pthread_mutex_lock(&at->lock);
    at->down = true;
    pthread_mutex_unlock(&at->lock);
}

/* Not reached, or not able to answer; TLS that fails is neither: who is there may be somebody else. */
void zl_endpoint_note(struct zl_endpoint *at, int error, const struct zl_fetch_reply *reply)
{
    bool unable = reply->status >= 500 || reply->status == 408 || reply->status == 429;
    atomic_store(&at->away, error < 0 ? reply->transient : unable);
}

bool zl_registry_away(const struct zl_registry *r)
{
    return atomic_load(&r->endpoints[r->n - 1].away);
}

int zl_registry_add_mirrors(const struct zl_err *mirrors, struct zl_err *err)
{
    size_t n = strlen(err->text);
    if (mirrors->code)
        snprintf(err->text + n, sizeof err->text - n, " (before that, %.180s)", mirrors->text);
    return err->code;
}

static bool worth_a_retry(long status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

int zl_endpoint_refuse(struct zl_endpoint *at, struct zl_fetch_reply *reply, struct zl_err *err)
{
    char text[130], said[140] = "";
    if (*zl_oci_error_text(zl_buf_view(&reply->error_body), text, sizeof text))
        snprintf(said, sizeof said, " (%s)", text);
    reply->transient = worth_a_retry(reply->status);
    if (reply->status == 404)
        return zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "the registry does not have it%s", said);
    if (reply->elsewhere[0] && (reply->status == 401 || reply->status == 403))
        return zl_fail(err, ZL_E_UNAUTHORIZED, "%.100s, where the registry leads to, refuses access%s",
                       reply->elsewhere, said);
    if (reply->status == 401 || reply->status == 403) {
        const struct zl_credentials *c = &at->place->credentials;
        zl_fail(err, ZL_E_UNAUTHORIZED, "the registry refuses access%s", said);
        if (c->problem[0])
            return zl_hint(err, err->code, "credentials could not be read: %s", c->problem);
        if (zl_credentials_any(c))
            return zl_hint(err, err->code, "is the name right, and may '%.60s' do this? `zlayer login` keeps others",
                           c->user[0] ? c->user : "this token");
        return zl_hint(err, err->code, "is the name right? A private image needs credentials: `zlayer login %.80s`",
                       at->place->host->name);
    }
    if (reply->status == 429)
        return zl_hint(err, zl_fail(err, ZL_E_RATE_LIMITED, "the registry takes no more requests for now%s", said),
                       "try again later, or with credentials");
    zl_fail(err, ZL_E_REGISTRY, "the registry answered %ld%s", reply->status, said);
    if (reply->status == 400 && zl_oci_wants_https(zl_buf_view(&reply->error_body)))
        return zl_hint(err, err->code,
                       "it speaks HTTPS: give it `ca` or `tls: verify` in registries.yml; on loopback plain HTTP is "
                       "spoken without");
    return err->code;
}

/* ---- requests ---- */

/* What to authorize with now; a token that is about to expire is renewed first. */
static char *current(struct zl_endpoint *at, CURL *e, unsigned *seen)
{
    pthread_mutex_lock(&at->lock);
    *seen = at->authorized;
    bool old = at->expires_ms && zl_clock_mono_ms() >= at->expires_ms;
    struct zl_oci_challenge c = at->challenge;
    if (old) /* one tries, once: when that fails, the old one goes on until a 401 says more */
        at->expires_ms = 0;
    pthread_mutex_unlock(&at->lock);
    struct zl_err none = { 0 };
    if (old)
        ZL_IGNORE(zl_endpoint_authorize(at, e, &c, *seen, &none));
    pthread_mutex_lock(&at->lock);
    *seen = at->authorized;
    char *copy = at->authorization ? zl_xstrdup(at->authorization) : NULL;
    pthread_mutex_unlock(&at->lock);
    return copy;
}

static uint64_t paused_until(struct zl_endpoint *at)
{
    pthread_mutex_lock(&at->lock);
    uint64_t end = at->pause_until;
    pthread_mutex_unlock(&at->lock);
    return end;
}

int zl_endpoint_request(struct zl_endpoint *at, struct zl_fetch *f, struct zl_fetch_reply *reply, struct zl_err *err)
{
    struct zl_registry *r = at->registry;
    CURL *e = zl_registry_take_handle(r);
    int x = sleep_until(r, paused_until(at), err);
    f->home = at->base;
    f->hosts = r->o.hosts;
    f->headers = &r->o.hosts->headers;
    f->stop = r->o.stop;
    f->stall_s = f->stall_s ? f->stall_s : r->o.stall_s;
    for (int round = 0; x == 0 && round < ROUNDS; round++) {
        unsigned seen;
        char *authorization = current(at, e, &seen);
        f->authorization = authorization;
        x = zl_fetch(e, r->share, f, reply, err);
        zl_endpoint_note(at, x, reply);
        if (authorization)
            explicit_bzero(authorization, strlen(authorization));
        free(authorization);
        f->authorization = NULL;
        /* Who else it leads to may ask for nothing: neither for what the registry gets nor to be believed instead. */
        if (x < 0 || reply->status != 401 || reply->elsewhere[0])
            break;
        x = zl_endpoint_authorize(at, e, &reply->challenge, seen, err);
        if (x < 0) /* of a mirror: the next blob would wait for its token server again */
            zl_endpoint_mark_down(at);
        if (x <= 0)
            break;
        x = 0;
    }
    zl_registry_give_handle(r, e);
    return x;
}

int zl_registry_outside(struct zl_registry *r, struct zl_fetch *f, struct zl_fetch_reply *reply, struct zl_err *err)
{
    CURL *e = zl_registry_take_handle(r);
    f->home = zl_registry_itself(r)->base; /* a client's certificate is for nobody else */
    f->led_by = strncasecmp(f->url, "https://", 8) == 0 ? f->url : f->home;
    f->hosts = r->o.hosts;
    f->stop = r->o.stop;
    f->stall_s = r->o.stall_s;
    int x = zl_fetch(e, r->share, f, reply, err);
    if (x == 0)
        reply->transient = worth_a_retry(reply->status);
    zl_registry_give_handle(r, e);
    return x;
}

int zl_text_sink_add(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err)
{
    struct zl_text_sink *s = arg;
    if (n > s->limit - s->body->n)
        return zl_fail(err, ZL_E_LIMIT, "the registry's answer is larger than %zu bytes", s->limit);
    zl_buf_add(s->body, p, n);
    return 0;
}

int zl_registry_check(struct zl_registry *r, struct zl_err *err)
{
    struct zl_endpoint *at = zl_registry_itself(r);
    zl_auto_free char *url = zl_xasprintf("%s/v2/", at->base);
    struct zl_fetch_reply reply = { 0 };
    int x;
    for (unsigned tried = 0;; tried++) {
        struct zl_fetch f = { .url = url, .total_s = ZL_REGISTRY_DOCUMENT_S };
        x = zl_endpoint_request(at, &f, &reply, err);
        if (x == 0 && reply.status != 200)
            x = zl_endpoint_refuse(at, &reply, err);
        if (x == 0 || !reply.transient || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    if (x == ZL_E_IMAGE_NOT_FOUND)
        x = zl_fail(err, ZL_E_REGISTRY, "%s is no registry: it has no /v2/", at->base);
    zl_fetch_reply_done(&reply);
    return x;
}

/* ---- manifests ---- */

static int manifest_once(struct zl_endpoint *at, const char *name, bool head, struct zl_registry_manifest *m,
                         struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_free char *url = zl_xasprintf("%s/v2/%s/manifests/%s", at->base, at->repository, name);
    zl_buf_clear(&m->body);
    struct zl_text_sink sink = { &m->body, ZL_OCI_DOCUMENT_MAX };
    struct zl_fetch f = { .method = head ? "HEAD" : NULL,
                          .url = url,
                          .accept = zl_oci_manifest_accept,
                          .total_s = ZL_REGISTRY_DOCUMENT_S,
                          .sink = zl_text_sink_add,
                          .arg = &sink };
    int x = zl_endpoint_request(at, &f, reply, err);
    return x == 0 && reply->status != 200 ? zl_endpoint_refuse(at, reply, err) : x;
}

static int check_manifest(const char *name, bool head, const struct zl_fetch_reply *reply,
                          struct zl_registry_manifest *m, struct zl_err *err)
{
    snprintf(m->content_type, sizeof m->content_type, "%s", reply->content_type);
    snprintf(m->warning, sizeof m->warning, "%s", reply->warning);
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

static int manifest_at(struct zl_endpoint *at, const char *name, bool head, struct zl_registry_manifest *m,
                       struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    int x;
    for (unsigned tried = 0;; tried++) {
        x = manifest_once(at, name, head, m, &reply, err);
        if (x == 0 || !reply.transient || !at->last || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    if (x == 0)
        x = check_manifest(name, head, &reply, m, err);
    if (x < 0 && reply.status == 0)
        zl_endpoint_mark_down(at);
    zl_fetch_reply_done(&reply);
    return x;
}

int zl_registry_manifest(struct zl_registry *r, const char *name, bool head, struct zl_registry_manifest *ret,
                         struct zl_err *err)
{
    struct zl_registry_manifest m = { 0 };
    struct zl_err mirrors = { 0 };
    int x = ZL_E_REGISTRY;
    for (unsigned i = 0; i < r->n; i++) {
        struct zl_endpoint *at = &r->endpoints[i];
        if (zl_endpoint_down(at))
            continue;
        *err = (struct zl_err){ 0 };
        x = manifest_at(at, name, head, &m, err);
        if (x == 0 || !zl_registry_goes_on(x))
            break;
        if (!at->last) {
            mirrors = *err;
            zl_wrap(&mirrors, x, "the mirror %.100s", at->place->host->name);
        }
    }
    if (x < 0) {
        zl_buf_done(&m.body);
        return zl_registry_add_mirrors(&mirrors, err);
    }
    *ret = m;
    return 0;
}
