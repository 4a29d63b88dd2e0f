/* What a registry's 401 is answered with: basic credentials, or a token from where its challenge points. */
#include "imagejob/registry_priv.h"

#include "base/clock.h"
#include "codec/base64.h"
#include "oci/reply.h"

#include <stdio.h>

enum { REPLY_MAX = 1 << 20 };

static void wipe(struct zl_buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    zl_buf_done(b);
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

static void add_parameter(struct zl_buf *out, CURL *e, char before, const char *name, const char *value)
{
    char *escaped = curl_easy_escape(e, value, 0);
    zl_buf_printf(out, "%c%s=%s", before, name, escaped ? escaped : "");
    curl_free(escaped);
}

/* What is to be allowed: our repository, those to mount from, and what else the challenge names. */
static void scopes(const struct zl_endpoint *at, const struct zl_oci_challenge *c, struct zl_strings *ret,
                   struct zl_arena *arena)
{
    const struct zl_registry_options *o = &at->registry->o;
    struct zl_str rest = zl_str(c->scope);
    ret->v = zl_arena_alloc(arena, (o->mount_from.n + 2 + rest.n) * sizeof *ret->v);
    ret->n = 0;
    if (at->repository[0])
        ret->v[ret->n++] = zl_arena_printf(arena, "repository:%s:%s", at->repository, o->push ? "pull,push" : "pull");
    for (unsigned i = 0; i < o->mount_from.n; i++)
        ret->v[ret->n++] = zl_arena_printf(arena, "repository:%s:pull", o->mount_from.v[i]);
    while (rest.p && rest.n) {
        struct zl_str one = zl_str_cut(rest, ' ', &rest);
        zl_auto_free char *ours = zl_xasprintf("repository:%s:", at->repository);
        if (one.n && (!at->repository[0] || !zl_str_starts(one, zl_str(ours))))
            ret->v[ret->n++] = zl_arena_strndup(arena, one.p, one.n);
    }
}

/* The request: GET with the credentials as basic, or an OAuth2 form with the identity token. */
static char *prepare(const struct zl_endpoint *at, CURL *e, const struct zl_oci_challenge *c, struct zl_buf *url,
                     struct zl_buf *form)
{
    struct zl_strings s;
    struct zl_arena arena;
    const struct zl_credentials *credentials = &at->place->credentials;
    char *authorization = NULL;
    zl_arena_init(&arena);
    scopes(at, c, &s, &arena);
    zl_buf_puts(url, c->realm);
    if (credentials->identity_token[0]) {
        zl_auto_buf all = ZL_BUF_INIT;
        for (unsigned i = 0; i < s.n; i++)
            zl_buf_printf(&all, "%s%s", i ? " " : "", s.v[i]);
        zl_buf_puts(form, "grant_type=refresh_token&client_id=zlayer");
        add_parameter(form, e, '&', "service", c->service);
        add_parameter(form, e, '&', "scope", all.p ? all.p : "");
        add_parameter(form, e, '&', "refresh_token", credentials->identity_token);
    } else {
        char before = strchr(c->realm, '?') ? '&' : '?';
        if (c->service[0]) {
            add_parameter(url, e, before, "service", c->service);
            before = '&';
        }
        for (unsigned i = 0; i < s.n; i++, before = '&')
            add_parameter(url, e, before, "scope", s.v[i]);
        authorization = credentials->user[0] ? basic(credentials) : NULL;
    }
    zl_arena_done(&arena);
    return authorization;
}

static int token_once(struct zl_endpoint *at, CURL *e, const struct zl_oci_challenge *c, struct zl_buf *body,
                      struct zl_fetch_reply *reply, struct zl_err *err)
{
    zl_auto_buf url = ZL_BUF_INIT;
    struct zl_buf form = ZL_BUF_INIT;
    struct zl_text_sink sink = { body, REPLY_MAX };
    zl_buf_clear(body);
    char *authorization = prepare(at, e, c, &url, &form);
    struct zl_fetch f = { .method = form.n ? "POST" : NULL,
                          .url = url.p,
                          .led_by = at->base,
                          .authorization = authorization,
                          .content_type = "application/x-www-form-urlencoded",
                          .memory = form.p,
                          .body = form.n,
                          .sends = form.n > 0,
                          .secret = form.n > 0,
                          .stall_s = at->registry->o.stall_s,
                          .total_s = ZL_REGISTRY_DOCUMENT_S,
                          .stop = at->registry->o.stop,
                          .hosts = at->registry->o.hosts,
                          .sink = zl_text_sink_add,
                          .arg = &sink };
    int x = zl_fetch(e, at->registry->share, &f, reply, err);
    zl_endpoint_note(at, x, reply);
    if (x == 0 && reply->status != 200)
        x = zl_endpoint_refuse(at, reply, err);
    if (authorization)
        explicit_bzero(authorization, strlen(authorization));
    free(authorization);
    wipe(&form);
    return x;
}

/* Sets *ret to the header's value and *expires_ms. */
static int fetch_token(struct zl_endpoint *at, CURL *e, const struct zl_oci_challenge *c, char **ret,
                       uint64_t *expires_ms, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    struct zl_buf body = ZL_BUF_INIT;
    struct zl_arena arena;
    struct zl_oci_token token;
    uint64_t asked = zl_clock_mono_ms();
    int x;
    for (unsigned tried = 0;; tried++) {
        x = token_once(at, e, c, &body, &reply, err);
        if (x == 0 || !reply.transient || !at->last || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_registry_back_off(at->registry, tried, &reply, err) < 0)
            break;
    }
    zl_arena_init(&arena);
    if (x == 0 && zl_oci_token_parse(&arena, zl_buf_view(&body), &token) < 0)
        x = zl_fail(err, ZL_E_REGISTRY, "the token server's answer holds no token");
    if (x == 0) {
        *ret = zl_xasprintf("Bearer %s", token.token);
        /* Renewed when a tenth of its life is left: counted from before it was asked for, by a clock that nobody sets.
         */
        *expires_ms = asked + token.expires_s * 900;
    }
    zl_arena_done(&arena);
    wipe(&body);
    zl_fetch_reply_done(&reply);
    return x < 0 ? zl_wrap(err, x, "get a token from %.200s", c->realm) : 0;
}

int zl_endpoint_authorize(struct zl_endpoint *at, CURL *e, const struct zl_oci_challenge *c, unsigned seen,
                          struct zl_err *err)
{
    const struct zl_credentials *credentials = &at->place->credentials;
    char *value = NULL;
    uint64_t expires = 0;
    int x = 0;
    pthread_mutex_lock(&at->lock);
    if (at->authorized != seen) { /* another thread has made a newer one meanwhile */
        pthread_mutex_unlock(&at->lock);
        return 1;
    }
    if (credentials->registry_token[0] && !at->authorization)
        value = zl_xasprintf("Bearer %s", credentials->registry_token);
    else if (c->scheme == ZL_OCI_AUTH_BASIC && credentials->user[0] && !at->authorization)
        value = basic(credentials);
    else if (c->scheme == ZL_OCI_AUTH_BEARER && !credentials->registry_token[0])
        x = fetch_token(at, e, c, &value, &expires, err);
    if (value) {
        if (at->authorization)
            explicit_bzero(at->authorization, strlen(at->authorization));
        free(at->authorization);
        at->authorization = value;
        at->expires_ms = expires;
        at->challenge = *c;
        at->authorized++;
        x = 1;
    }
    pthread_mutex_unlock(&at->lock);
    return x;
}
