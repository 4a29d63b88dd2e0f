#include "imagejob/hosts.h"

#include "base/fd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>

enum { PEM_MAX = 1 << 20 };

static int read_pem(const char *file, const char *what, struct zl_buf *ret, struct zl_err *err)
{
    int r = file ? zl_read_file(AT_FDCWD, file, PEM_MAX, ret) : 0;
    if (r < 0)
        return zl_fail(err, r, "read the %s %.200s", what, file);
    if (file && !strstr(ret->p ? ret->p : "", "-----BEGIN "))
        return zl_fail(err, ZL_E_INVALID, "the %s %.200s holds nothing in PEM form", what, file);
    return 0;
}

/* One after the other; each may hold several. */
static int read_authorities(const struct zl_strings *files, struct zl_buf *ret, struct zl_err *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < files->n; i++) {
        zl_auto_buf pem = ZL_BUF_INIT;
        r = read_pem(files->v[i], "authority's certificate", &pem, err);
        if (r == 0) {
            zl_buf_add(ret, pem.p, pem.n);
            zl_buf_putc(ret, '\n');
        }
    }
    return r;
}

/* host[:port] without the port. */
static struct zl_str bare_host(const char *name)
{
    struct zl_str host = zl_str(name);
    for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
        if (host.p[i] == ':')
            return zl_str_n(host.p, i);
    return host;
}

static int add_host(struct zl_hosts *h, const struct zl_registries *all, const char *name, struct zl_host **ret,
                    struct zl_err *err)
{
    for (unsigned i = 0; i < h->n; i++)
        if (zl_streq(h->v[i].name, name)) {
            *ret = &h->v[i];
            return 0;
        }
    const struct zl_registry_settings *s = zl_registries_of(&h->arena, all, name);
    struct zl_host *host = *ret = &h->v[h->n++];
    *host = (struct zl_host){ .name = s->host, .tls = (enum zl_registry_tls)s->tls };
    if (host->tls == ZL_TLS_NOT_SAID) /* a registry on this machine speaks plain HTTP, unless an authority is named */
        host->tls = !s->authorities.n && zl_host_is_loopback(bare_host(s->host)) ? ZL_TLS_NONE : ZL_TLS_VERIFY;
    int r = read_authorities(&s->authorities, &host->ca, err);
    r = r < 0 ? r : read_pem(s->client_certificate, "client certificate", &host->certificate, err);
    r = r < 0 ? r : read_pem(s->client_key, "client certificate's key", &host->key, err);
    return r < 0 ? zl_wrap(err, r, "the settings of %.100s", name) : 0;
}

static int add_places(struct zl_hosts *h, const struct zl_registries *all, const struct zl_reference *ref, bool direct,
                      struct zl_err *err)
{
    const struct zl_registry_settings *own = zl_registries_of(&h->arena, all, ref->registry);
    struct zl_host *host;
    unsigned mirrors = direct ? 0 : own->mirrors.n;
    h->places = zl_arena_alloc(&h->arena, (mirrors + 1) * sizeof *h->places);
    for (unsigned i = 0; i < mirrors; i++) {
        char name[256], prefix[256], repository[600];
        zl_registry_mirror_split(own->mirrors.v[i], name, prefix);
        int r = add_host(h, all, name, &host, err);
        if (r < 0)
            return r;
        struct zl_place_at *p = &h->places[h->nplaces++];
        p->host = host;
        p->prefix = zl_arena_strdup(&h->arena, prefix);
        snprintf(repository, sizeof repository, "%s%s%s", prefix, *prefix ? "/" : "", ref->repository);
        zl_credentials_find(name, repository, &p->credentials);
    }
    int r = add_host(h, all, ref->registry, &host, err);
    struct zl_place_at *p = &h->places[h->nplaces++];
    p->host = host;
    p->prefix = "";
    return r;
}

int zl_hosts_load(struct zl_hosts *ret, const struct zl_reference *ref, const struct zl_credentials *given, bool direct,
                  struct zl_err *err)
{
    struct zl_registries *all;
    *ret = (struct zl_hosts){ 0 };
    zl_arena_init(&ret->arena);
    int r = zl_registries_load(&ret->arena, &all, err);
    if (r < 0) {
        zl_hosts_done(ret);
        return r;
    }
    /* One for each that the file knows, as a redirect may lead to any; one for each mirror; the registry itself. */
    const struct zl_registry_settings *own = zl_registries_of(&ret->arena, all, ref->registry);
    ret->v = zl_arena_alloc(&ret->arena, (all->list.n + own->mirrors.n + 1) * sizeof *ret->v);
    r = add_places(ret, all, ref, direct, err);
    for (unsigned i = 0; r == 0 && i < all->list.n; i++) {
        struct zl_host *host;
        r = add_host(ret, all, ((const struct zl_registry_settings *)all->list.v[i])->host, &host, err);
    }
    if (r < 0) {
        zl_hosts_done(ret);
        return r;
    }
    zl_credentials_headers(&ret->arena, &ret->headers);
    struct zl_place_at *last = &ret->places[ret->nplaces - 1];
    if (given && zl_credentials_any(given))
        last->credentials = *given;
    else
        zl_credentials_find(ref->registry, ref->repository, &last->credentials);
    return 0;
}

void zl_hosts_done(struct zl_hosts *h)
{
    for (unsigned i = 0; i < h->n; i++) {
        zl_buf_done(&h->v[i].ca);
        zl_buf_done(&h->v[i].certificate);
        if (h->v[i].key.n)
            explicit_bzero(h->v[i].key.p, h->v[i].key.n);
        zl_buf_done(&h->v[i].key);
    }
    for (unsigned i = 0; i < h->nplaces; i++)
        zl_credentials_done(&h->places[i].credentials);
    for (unsigned i = 0; i < h->headers.n; i++)
        explicit_bzero((char *)(uintptr_t)h->headers.v[i], strlen(h->headers.v[i]));
    zl_arena_done(&h->arena);
    *h = (struct zl_hosts){ 0 };
}

const struct zl_host *zl_hosts_find(const struct zl_hosts *h, const char *host, const char *port)
{
    const char *api = zl_streq(host, "registry-1.docker.io") ? "docker.io" : host;
    char with_port[300];
    snprintf(with_port, sizeof with_port, "%s:%s", host, port);
    bool usual = zl_streq(port, "443") || zl_streq(port, "80");
    for (unsigned i = 0; i < h->n; i++)
        if (zl_str_eq_nocase(zl_str(h->v[i].name), zl_str(with_port)) ||
            (usual && zl_str_eq_nocase(zl_str(h->v[i].name), zl_str(api))))
            return &h->v[i];
    return NULL;
}

bool zl_hosts_plain(const struct zl_hosts *h, const char *from, const char *host, const char *port)
{
    const struct zl_host *known = zl_hosts_find(h, host, port);
    return (known && known->tls == ZL_TLS_NONE) ||
           (zl_host_is_loopback(zl_str(host)) && zl_host_is_loopback(zl_str(from)));
}

bool zl_host_is_loopback(struct zl_str host)
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
