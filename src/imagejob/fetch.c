#include "imagejob/fetch_priv.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "oci/reply.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { REDIRECTS_MAX = 10, ERROR_BODY_MAX = 16 << 10, CONNECT_S = 15 };

struct zl_fetch_share {
    CURLSH *curl;
    pthread_mutex_t locks[CURL_LOCK_DATA_LAST];
};

static void share_lock(CURL *e, curl_lock_data data, curl_lock_access access, void *arg)
{
    pthread_mutex_lock(&((struct zl_fetch_share *)arg)->locks[data]);
}

static void share_unlock(CURL *e, curl_lock_data data, void *arg)
{
    pthread_mutex_unlock(&((struct zl_fetch_share *)arg)->locks[data]);
}

struct zl_fetch_share *zl_fetch_share_new(void)
{
    struct zl_fetch_share *s = zl_xcalloc(1, sizeof *s);
    s->curl = curl_share_init();
    zl_assert(s->curl);
    for (size_t i = 0; i < ZL_ARRAY_LEN(s->locks); i++)
        zl_assert(pthread_mutex_init(&s->locks[i], NULL) == 0);
    curl_share_setopt(s->curl, CURLSHOPT_USERDATA, s);
    curl_share_setopt(s->curl, CURLSHOPT_LOCKFUNC, share_lock);
    curl_share_setopt(s->curl, CURLSHOPT_UNLOCKFUNC, share_unlock);
    /* Not the connections: libcurl does not let several threads share those. Each handle keeps its own. */
    curl_share_setopt(s->curl, CURLSHOPT_SHARE, (long)CURL_LOCK_DATA_DNS);
    curl_share_setopt(s->curl, CURLSHOPT_SHARE, (long)CURL_LOCK_DATA_SSL_SESSION);
    return s;
}

struct zl_fetch_share *zl_fetch_share_free(struct zl_fetch_share *s)
{
    if (s) {
        (void)curl_share_cleanup(s->curl);
        for (size_t i = 0; i < ZL_ARRAY_LEN(s->locks); i++)
            pthread_mutex_destroy(&s->locks[i]);
        free(s);
    }
    return NULL;
}

/* One leg of an exchange: what the callbacks work on. */
struct leg {
    const struct zl_fetch *f;
    struct zl_fetch_reply *reply;
    CURL *easy;
    struct zl_err *err;
    const char *url;
    uint64_t sent;
    int failed;  /* what the sink failed with */
    bool enough; /* the error body is cut on purpose */
};

struct origin {
    char scheme[8], host[256], port[8];
};

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

/* `text`, a reference as RFC 3986 has it, as seen from this leg's URL; "" when it is none for HTTP. */
static void absolute(const struct leg *l, struct zl_str text, char *ret, size_t size)
{
    CURLU *u = curl_url();
    char *whole = NULL;
    zl_auto_free char *copied = zl_xstrndup(text.p, text.n);
    ret[0] = 0;
    if (u && curl_url_set(u, CURLUPART_URL, l->url, 0) == CURLUE_OK &&
        curl_url_set(u, CURLUPART_URL, copied, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_URL, &whole, 0) == CURLUE_OK && strlen(whole) < size &&
        (strncmp(whole, "http://", 7) == 0 || strncmp(whole, "https://", 8) == 0))
        snprintf(ret, size, "%s", whole);
    curl_free(whole);
    curl_url_cleanup(u);
}

/* `Warning: 299 - "text"` (distribution-spec, Warnings). */
static void take_warning(struct zl_fetch_reply *reply, struct zl_str value)
{
    const char *open = memchr(value.p, '"', value.n);
    if (!open || !zl_str_starts(value, ZL_STR("299 ")))
        return;
    struct zl_str rest, text = zl_str_cut(zl_str_n(open + 1, value.n - (size_t)(open - value.p) - 1), '"', &rest);
    copy(reply->warning, sizeof reply->warning, text);
    for (char *c = reply->warning; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
}

static void take_header(struct leg *l, struct zl_str name, struct zl_str value)
{
    struct zl_fetch_reply *reply = l->reply;
    struct zl_str next;
    if (zl_str_eq_nocase(name, ZL_STR("content-type")))
        copy(reply->content_type, sizeof reply->content_type, value);
    else if (zl_str_eq_nocase(name, ZL_STR("docker-content-digest")))
        copy(reply->digest, sizeof reply->digest, value);
    else if (zl_str_eq_nocase(name, ZL_STR("www-authenticate")))
        ZL_IGNORE(zl_oci_challenge_parse(value, &reply->challenge)); /* a malformed one asks for nothing we can give */
    else if (zl_str_eq_nocase(name, ZL_STR("content-range")))
        reply->has_start = zl_oci_content_range(value, &reply->start) == 0;
    else if (zl_str_eq_nocase(name, ZL_STR("range")))
        reply->has_range = zl_oci_upload_range(value, &reply->range) == 0;
    else if (zl_str_eq_nocase(name, ZL_STR("location")))
        absolute(l, value, reply->location, sizeof reply->location);
    else if (zl_str_eq_nocase(name, ZL_STR("oci-chunk-min-length")))
        ZL_IGNORE(zl_parse_u64(value, 0, UINT64_C(1) << 32, &reply->chunk_min)); /* no number: no wish */
    else if (zl_str_eq_nocase(name, ZL_STR("oci-subject")))
        reply->subject = true;
    else if (zl_str_eq_nocase(name, ZL_STR("link")) && zl_oci_link_next(value, &next) == 0)
        absolute(l, next, reply->link, sizeof reply->link);
    else if (zl_str_eq_nocase(name, ZL_STR("warning")))
        take_warning(reply, value);
}

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
    struct zl_str value, line = zl_str_n(p, n * one);
    while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    struct zl_str name = zl_str_cut(line, ':', &value);
    if (value.p)
        take_header(arg, name, zl_str_trim(value));
    return n * one;
}

static size_t on_send(char *p, size_t one, size_t n, void *arg)
{
    struct leg *l = arg;
    const struct zl_fetch *f = l->f;
    uint64_t left = f->body - l->sent;
    size_t want = (size_t)ZL_MIN((uint64_t)(n * one), left);
    if (want == 0)
        return 0;
    ssize_t got = pread(f->fd, p, want, (off_t)(f->at + l->sent));
    if (got <= 0) {
        l->failed =
            zl_fail(l->err, got < 0 ? -errno : ZL_E_DIGEST, "read the stored blob%s", got ? "" : ", it is too short");
        return CURL_READFUNC_ABORT;
    }
    l->sent += (uint64_t)got;
    if (f->sent)
        f->sent(f->arg, l->sent);
    return (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    ((struct leg *)arg)->sent = (uint64_t)offset;
    return origin == SEEK_SET ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_CANTSEEK;
}

static int on_progress(void *arg, curl_off_t dt, curl_off_t dn, curl_off_t ut, curl_off_t un)
{
    const struct leg *l = arg;
    return l->f->stop && atomic_load(l->f->stop);
}

static bool transient(CURLcode c, const char *text)
{
    if (c == CURLE_SSL_CONNECT_ERROR) /* libcurl has no other sign of a connection that broke during the handshake */
        return strstr(text, "reset by peer") || strstr(text, "SSL_ERROR_SYSCALL");
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
    l->reply->transient = transient(c, text);
    zl_fail(l->err, ZL_E_PULL_FAILED, "%s:%s: %.200s", to->host, to->port, *text ? text : curl_easy_strerror(c));
    if (c == CURLE_COULDNT_RESOLVE_HOST)
        return zl_hint(l->err, ZL_E_PULL_FAILED, "is the registry's name right, and does this machine have a network?");
    if (c == CURLE_COULDNT_CONNECT)
        return zl_hint(l->err, ZL_E_PULL_FAILED, "is a registry running at %s:%s?", to->host, to->port);
    if (c == CURLE_PEER_FAILED_VERIFICATION && (strstr(text, "expired") || strstr(text, "not yet valid")))
        return zl_hint(l->err, ZL_E_PULL_FAILED,
                       "is this machine's clock right? Otherwise its certificate is to be renewed");
    if (c == CURLE_PEER_FAILED_VERIFICATION)
        return zl_hint(l->err, ZL_E_PULL_FAILED,
                       "name the authority that signed its certificate as `ca` in registries.yml, if you trust it");
    if (c == CURLE_SSL_CONNECT_ERROR)
        return zl_hint(
            l->err, ZL_E_PULL_FAILED,
            "does it speak HTTPS? Plain HTTP is for loopback, and for hosts with `tls: none` in registries.yml; "
            "one that wants a client's certificate needs client_certificate and client_key");
    return ZL_E_PULL_FAILED;
}

static void set_blob(CURL *e, CURLoption option, const struct zl_buf *pem)
{
    struct curl_blob blob = { .data = pem->p, .len = pem->n, .flags = CURL_BLOB_NOCOPY };
    if (pem->n)
        curl_easy_setopt(e, option, &blob);
}

/* What is said about the host; a client's certificate is shown at home only. */
static void set_tls(CURL *e, const struct zl_host *host, bool at_home)
{
    if (!host)
        return;
    set_blob(e, CURLOPT_CAINFO_BLOB, &host->ca);
    if (at_home) {
        set_blob(e, CURLOPT_SSLCERT_BLOB, &host->certificate);
        set_blob(e, CURLOPT_SSLKEY_BLOB, &host->key);
    }
    if (host->tls == ZL_TLS_UNVERIFIED) {
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

static void set_body(struct leg *l)
{
    CURL *e = l->easy;
    const struct zl_fetch *f = l->f;
    if (f->method && zl_streq(f->method, "HEAD"))
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    else if (f->sends && !f->memory && f->body) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)f->body);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, l);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, l);
        curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
    } else if (f->sends) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->body);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, f->memory ? f->memory : "");
    }
    if (f->method && !zl_streq(f->method, "HEAD"))
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, f->method);
}

static void set_up(struct leg *l, const struct origin *to, bool at_home, struct curl_slist *headers, char *text)
{
    CURL *e = l->easy;
    const struct zl_fetch *f = l->f;
    curl_easy_setopt(e, CURLOPT_URL, l->url);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "zlayer");
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L); /* however slow, as long as something comes */
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)f->stall_s);
    curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)f->total_s);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 64L << 10);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, l);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, l);
    curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(e, CURLOPT_XFERINFODATA, l);
    if (zl_host_is_loopback(zl_str(to->host)))
        curl_easy_setopt(e, CURLOPT_PROXY, "");
    set_tls(e, zl_hosts_find(f->hosts, to->host, to->port), at_home);
    set_body(l);
}

static struct curl_slist *add_header(struct curl_slist *list, const char *name, const char *value)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_printf(&line, "%s: %s", name, value);
    list = curl_slist_append(list, line.p);
    explicit_bzero(line.p, line.n);
    return list;
}

static struct curl_slist *headers_of(const struct zl_fetch *f, bool at_home)
{
    char range[64];
    /* Without "Expect: 100-continue": it costs a round trip, and a wait where a server does not know it. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    for (unsigned i = 0; at_home && f->headers && i < f->headers->n; i++)
        list = curl_slist_append(list, f->headers->v[i]);
    if (f->accept)
        list = add_header(list, "Accept", f->accept);
    if (f->authorization && at_home)
        list = add_header(list, "Authorization", f->authorization);
    if (f->sends)
        list = add_header(list, "Content-Type", f->content_type ? f->content_type : "application/octet-stream");
    if (f->content_range)
        list = add_header(list, "Content-Range", f->content_range);
    if (f->from) {
        snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)f->from);
        list = add_header(list, "Range", range);
    }
    return list;
}

/* One leg; `next` is where the reply redirects to, the caller's to free, or NULL. */
static int leg(CURL *easy, struct zl_fetch_share *share, const struct zl_fetch *f, const char *url,
               const struct origin *to, bool at_home, struct zl_fetch_reply *reply, char **next, struct zl_err *err)
{
    struct leg l = { .f = f, .reply = reply, .easy = easy, .err = err, .url = url };
    char text[CURL_ERROR_SIZE] = "";
    curl_off_t wait = 0;
    struct curl_slist *headers = headers_of(f, at_home);
    curl_easy_reset(easy); /* keeps the connections */
    curl_easy_setopt(easy, CURLOPT_SHARE, share->curl);
    set_up(&l, to, at_home, headers, text);
    CURLcode c = curl_easy_perform(easy);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &reply->status);
    (void)curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &wait);
    reply->retry_after_s = wait > 0 ? (uint64_t)wait : 0;
    char *where = NULL;
    (void)curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &where);
    *next = where ? zl_xstrdup(where) : NULL;
    /* A server that has refused before all was sent may close the connection on the rest: its answer counts. */
    bool refused = reply->status >= 400 && f->sends && (c == CURLE_SEND_ERROR || c == CURLE_RECV_ERROR);
    int r = c == CURLE_OK || refused || (l.enough && c == CURLE_WRITE_ERROR) ? 0 : failure(&l, c, text, to);
    curl_slist_free_all(headers);
    return r;
}

static void reset(struct zl_fetch_reply *reply)
{
    zl_buf_done(&reply->error_body);
    *reply = (struct zl_fetch_reply){ 0 };
}

/* Whether an exchange that `from` led to may go to `here`. */
static int may_go(const struct zl_fetch *f, const struct origin *from, const struct origin *here, struct zl_err *err)
{
    if (zl_streq(here->scheme, "https"))
        return 0;
    if (zl_streq(from->scheme, "https"))
        return zl_fail(err, ZL_E_REGISTRY, "it leads from HTTPS to %s over plain HTTP", here->host);
    if (!zl_hosts_plain(f->hosts, from->host, here->host, here->port))
        return zl_hint(err,
                       zl_fail(err, ZL_E_REGISTRY,
                               "it leads to %s over plain HTTP, which is for loopback, and for hosts that are said to "
                               "speak it",
                               here->host),
                       "`tls: none` in registries.yml says so, for a network that you trust");
    return 0;
}

int zl_fetch(CURL *easy, struct zl_fetch_share *share, const struct zl_fetch *f, struct zl_fetch_reply *reply,
             struct zl_err *err)
{
    struct origin home, here, from;
    const char *led_by = f->led_by ? f->led_by : f->home ? f->home : f->url;
    zl_auto_free char *url = zl_xstrdup(f->url);
    if (origin_of(f->home ? f->home : f->url, &home) < 0)
        return zl_fail(err, ZL_E_REGISTRY, "'%.200s' is no http or https address", f->home ? f->home : f->url);
    if (origin_of(led_by, &from) < 0)
        return zl_fail(err, ZL_E_REGISTRY, "'%.200s' is no http or https address", led_by);
    for (int i = 0; i <= REDIRECTS_MAX; i++) {
        zl_auto_free char *next = NULL;
        reset(reply);
        if (origin_of(url, &here) < 0)
            return zl_fail(err, ZL_E_REGISTRY, "'%.200s' is no http or https address", url);
        int r = may_go(f, &from, &here, err);
        bool at_home = same_origin(&home, &here);
        if (r == 0 && f->secret && !at_home)
            r = zl_fail(err, ZL_E_REGISTRY, "it leads to %s, which is not to get what is meant for %s", here.host,
                        home.host);
        if (r == 0 && !at_home)
            snprintf(reply->elsewhere, sizeof reply->elsewhere, "%s:%s", here.host, here.port);
        r = r < 0 ? r : leg(easy, share, f, url, &here, at_home, reply, &next, err);
        if (r < 0 || reply->status < 300 || reply->status >= 400 || !next)
            return r;
        if (f->sends && reply->status != 307 && reply->status != 308)
            return r; /* the others may turn it into a GET: what is refused is told by the status */
        free(url);
        url = ZL_TAKE(next);
    }
    return zl_fail(err, ZL_E_REGISTRY, "more than %d redirects", REDIRECTS_MAX);
}

void zl_fetch_reply_done(struct zl_fetch_reply *reply)
{
    reset(reply);
}
