#include "imagejob/fetch_priv.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { REDIRECTS_MAX = 10, ERROR_BODY_MAX = 16 << 10, CONNECT_S = 15 };

/* One leg of an exchange: what the callbacks work on. */
struct leg {
    const struct zl_fetch *f;
    struct zl_fetch_reply *reply;
    CURL *easy;
    struct zl_err *err;
    int failed;  /* what the sink failed with */
    bool enough; /* the error body is cut on purpose */
};

struct origin {
    char scheme[8], host[256], port[8];
};

bool zl_fetch_is_loopback(struct zl_str host)
{
    char text[64];
    struct in_addr v4;
    if (zl_str_is(host, "localhost") || zl_str_is(host, "[::1]") || zl_str_is(host, "::1"))
        return true;
    if (host.n >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", ZL_STR_FMT(host));
    return inet_pton(AF_INET, text, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

static int origin_of(const char *url, struct origin *ret)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    int r = -1;
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && strlen(host) < sizeof ret->host &&
        (zl_streq(scheme, "https") || zl_streq(scheme, "http"))) {
        snprintf(ret->scheme, sizeof ret->scheme, "%s", scheme);
        snprintf(ret->host, sizeof ret->host, "%s", host);
        snprintf(ret->port, sizeof ret->port, "%.7s", port);
        r = 0;
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return r;
}

static bool same_origin(const struct origin *a, const struct origin *b)
{
    return zl_streq(a->scheme, b->scheme) && zl_str_eq_nocase(zl_str(a->host), zl_str(b->host)) &&
           zl_streq(a->port, b->port);
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    struct leg *l = arg;
    n *= one;
    (void)curl_easy_getinfo(l->easy, CURLINFO_RESPONSE_CODE, &l->reply->status);
    if (l->reply->status >= 200 && l->reply->status < 300) {
        l->failed = l->f->sink ? l->f->sink(l->f->arg, l->reply, p, n, l->err) : 0;
        return l->failed < 0 ? 0 : n;
    }
    struct zl_buf *body = &l->reply->error_body;
    zl_buf_add(body, p, ZL_MIN(n, ERROR_BODY_MAX - body->n));
    l->enough = body->n == ERROR_BODY_MAX;
    return l->enough ? 0 : n;
}

static void copy(char *ret, size_t size, struct zl_str s)
{
    if (s.n < size)
        snprintf(ret, size, "%.*s", ZL_STR_FMT(s));
}

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
    struct leg *l = arg;
    struct zl_fetch_reply *reply = l->reply;
    struct zl_str value, line = zl_str_n(p, n * one);
    while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    struct zl_str name = zl_str_cut(line, ':', &value);
    if (!value.p)
        return n * one;
    value = zl_str_trim(value);
    if (zl_str_eq_nocase(name, ZL_STR("content-type"))) {
        copy(reply->content_type, sizeof reply->content_type, value);
    } else if (zl_str_eq_nocase(name, ZL_STR("docker-content-digest"))) {
        copy(reply->digest, sizeof reply->digest, value);
    } else if (zl_str_eq_nocase(name, ZL_STR("www-authenticate"))) {
        ZL_IGNORE(zl_oci_challenge_parse(value, &reply->challenge)); /* a malformed one asks for nothing we can give */
    } else if (zl_str_eq_nocase(name, ZL_STR("retry-after"))) {
        uint64_t s;
        if (zl_parse_u64(value, 0, 3600, &s) == 0)
            reply->retry_after_s = (unsigned)s;
    } else if (zl_str_eq_nocase(name, ZL_STR("content-range")) && zl_str_starts(value, ZL_STR("bytes "))) {
        struct zl_str rest;
        reply->has_start =
            zl_parse_u64(zl_str_cut(zl_str_n(value.p + 6, value.n - 6), '-', &rest), 0, UINT64_MAX, &reply->start) == 0;
    }
    return n * one;
}

static int on_progress(void *arg, curl_off_t dt, curl_off_t dn, curl_off_t ut, curl_off_t un)
{
    const struct leg *l = arg;
    return l->f->stop && atomic_load(l->f->stop);
}

static bool transient(CURLcode c)
{
    switch ((int)c) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    }
    return false;
}

static int failure(struct leg *l, CURLcode c, const char *text, const struct origin *to)
{
    if (l->failed < 0)
        return l->failed;
    if (c == CURLE_ABORTED_BY_CALLBACK)
        return zl_fail(l->err, ZL_E_CANCELLED, "the transfer was stopped");
    l->reply->transient = transient(c);
    zl_fail(l->err, ZL_E_PULL_FAILED, "%s:%s: %.200s", to->host, to->port, *text ? text : curl_easy_strerror(c));
    if (c == CURLE_COULDNT_RESOLVE_HOST)
        return zl_hint(l->err, ZL_E_PULL_FAILED, "is the registry's name right, and does this machine have a network?");
    if (c == CURLE_COULDNT_CONNECT)
        return zl_hint(l->err, ZL_E_PULL_FAILED, "is a registry running at %s:%s?", to->host, to->port);
    if (c == CURLE_PEER_FAILED_VERIFICATION || c == CURLE_SSL_CONNECT_ERROR)
        return zl_hint(l->err, ZL_E_PULL_FAILED,
                       "its certificate must be signed by an authority that this machine trusts; plain HTTP is for "
                       "registries on loopback only");
    return ZL_E_PULL_FAILED;
}

static void set_up(struct leg *l, const char *url, bool loopback, struct curl_slist *headers, char *text)
{
    CURL *e = l->easy;
    const struct zl_fetch *f = l->f;
    curl_easy_reset(e); /* keeps the connections */
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_NOBODY, f->head ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "zlayer");
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 64L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)f->stall_s);
    curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)f->total_s);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, l);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, l);
    curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(e, CURLOPT_XFERINFODATA, l);
    if (loopback)
        curl_easy_setopt(e, CURLOPT_PROXY, "");
}

/* One leg; `next` is where the reply redirects to, the caller's to curl_free, or NULL. */
static int leg(CURL *easy, const struct zl_fetch *f, const char *url, const struct origin *to, bool with_credentials,
               struct zl_fetch_reply *reply, char **next, struct zl_err *err)
{
    struct leg l = { .f = f, .reply = reply, .easy = easy, .err = err };
    struct curl_slist *headers = NULL;
    char text[CURL_ERROR_SIZE] = "", range[64];
    zl_auto_buf line = ZL_BUF_INIT;
    if (f->accept) {
        zl_buf_printf(&line, "Accept: %s", f->accept);
        headers = curl_slist_append(headers, line.p);
    }
    if (f->authorization && with_credentials) {
        zl_buf_clear(&line);
        zl_buf_printf(&line, "Authorization: %s", f->authorization);
        headers = curl_slist_append(headers, line.p);
    }
    if (f->from) {
        snprintf(range, sizeof range, "Range: bytes=%llu-", (unsigned long long)f->from);
        headers = curl_slist_append(headers, range);
    }
    set_up(&l, url, zl_fetch_is_loopback(zl_str(to->host)), headers, text);
    CURLcode c = curl_easy_perform(easy);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &reply->status);
    char *where = NULL;
    (void)curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &where);
    *next = where ? zl_xstrdup(where) : NULL;
    int r = c == CURLE_OK || (l.enough && c == CURLE_WRITE_ERROR) ? 0 : failure(&l, c, text, to);
    curl_slist_free_all(headers);
    return r;
}

static void reset(struct zl_fetch_reply *reply)
{
    zl_buf_done(&reply->error_body);
    *reply = (struct zl_fetch_reply){ 0 };
}

int zl_fetch(CURL *easy, const struct zl_fetch *f, struct zl_fetch_reply *reply, struct zl_err *err)
{
    struct origin first, here;
    zl_auto_free char *url = zl_xstrdup(f->url);
    for (int i = 0; i <= REDIRECTS_MAX; i++) {
        zl_auto_free char *next = NULL;
        reset(reply);
        if (origin_of(url, &here) < 0)
            return zl_fail(err, ZL_E_REGISTRY, "'%.200s' is no http or https address", url);
        if (i == 0)
            first = here;
        if (zl_streq(here.scheme, "http") &&
            (zl_streq(first.scheme, "https") || !zl_fetch_is_loopback(zl_str(here.host))))
            return zl_fail(err, ZL_E_REGISTRY, "it leads to %s over plain HTTP, which is for loopback only", here.host);
        int r = leg(easy, f, url, &here, same_origin(&first, &here), reply, &next, err);
        if (r < 0 || reply->status < 300 || reply->status >= 400 || !next)
            return r;
        free(url);
        url = ZL_TAKE(next);
    }
    return zl_fail(err, ZL_E_REGISTRY, "more than %d redirects", REDIRECTS_MAX);
}

void zl_fetch_reply_done(struct zl_fetch_reply *reply)
{
    reset(reply);
}
