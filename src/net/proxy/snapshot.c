#include "net/proxy/snapshot.h"

#include <arpa/inet.h>
#include <errno.h>

enum { MAGIC = 0x5350585a /* "ZXPS" */, TEXT_MAX = 4096 };

_Static_assert(sizeof(struct zl_px_header) == 48 && sizeof(struct zl_px_listener) % 8 == 0 &&
                   sizeof(struct zl_px_route) % 8 == 0 && sizeof(struct zl_px_allow) % 8 == 0 &&
                   sizeof(struct zl_px_service) % 8 == 0 && sizeof(struct zl_px_backend) % 8 == 0,
               "the arrays of a snapshot stay aligned");

int zl_px_address(const char *text, uint8_t ret[16])
{
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        memset(ret, 0, 10);
        ret[10] = ret[11] = 0xff;
        memcpy(ret + 12, &v4, 4);
        return 0;
    }
    struct in6_addr v6;
    if (inet_pton(AF_INET6, text, &v6) != 1)
        return -EINVAL;
    memcpy(ret, &v6, 16);
    return 0;
}

socklen_t zl_px_sockaddr(const uint8_t address[16], uint16_t port, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof *ret);
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    if (memcmp(address, mapped, 12) == 0) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, address + 12, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, address, 16);
    return sizeof *in6;
}

/* ---- writing ---- */

static int add_text(struct zl_buf *strings, const char *s, bool lower, struct zl_px_text *ret)
{
    size_t n = s ? strlen(s) : 0;
    if (n > TEXT_MAX || strings->n + n > ZL_PX_SNAPSHOT_MAX)
        return -E2BIG;
    *ret = (struct zl_px_text){ .off = (uint32_t)strings->n, .len = (uint32_t)n };
    for (size_t i = 0; i < n; i++)
        zl_buf_putc(strings, lower && s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i]);
    return 0;
}

struct parts {
    struct zl_buf listeners, routes, allows, services, backends, strings;
    struct zl_px_header h;
};

static int write_listener(struct parts *w, const struct zl_px_def *def, const struct zl_px_listener_def *l)
{
    struct zl_px_listener out = {
        .id = l->id,
        .protocol = l->protocol,
        .first_route = w->h.nroutes,
        .nroutes = l->nroutes,
        .first_allow = w->h.nallows,
        .nallows = l->nallows,
    };
    zl_buf_add(&w->listeners, &out, sizeof out);
    for (unsigned i = 0; i < l->nroutes; i++, w->h.nroutes++) {
        struct zl_px_route r = { .service = l->routes[i].service };
        int e = add_text(&w->strings, l->routes[i].host, true, &r.host);
        if (e >= 0)
            e = add_text(&w->strings, l->routes[i].path, false, &r.path);
        if (e < 0)
            return e;
        if (r.service >= def->nservices)
            return -EINVAL;
        zl_buf_add(&w->routes, &r, sizeof r);
    }
    for (unsigned i = 0; i < l->nallows; i++, w->h.nallows++) {
        struct zl_px_allow a = { 0 };
        bool v4 = !strchr(l->allows[i].address, ':');
        if (zl_px_address(l->allows[i].address, a.address) < 0 || l->allows[i].prefix > (v4 ? 32 : 128))
            return -EINVAL;
        a.prefix = l->allows[i].prefix + (v4 ? 96u : 0u);
        zl_buf_add(&w->allows, &a, sizeof a);
    }
    return 0;
}

static int write_service(struct parts *w, const struct zl_px_service_def *s, const uint32_t *slots)
{
    struct zl_px_service out = {
        .id = s->id,
        .first_backend = w->h.nbackends,
        .nbackends = s->nbackends,
        .probe_kind = s->probe.kind,
        .interval_ms = s->probe.interval_ms,
        .timeout_ms = s->probe.timeout_ms,
        .retries = s->probe.retries,
        .start_grace_ms = s->probe.start_grace_ms,
        .probe_port = s->probe.port,
    };
    int e = add_text(&w->strings, s->name, false, &out.name);
    if (e >= 0)
        e = add_text(&w->strings, s->probe.path ? s->probe.path : "/", false, &out.probe_path);
    if (e < 0)
        return e;
    zl_buf_add(&w->services, &out, sizeof out);
    for (unsigned i = 0; i < s->nbackends; i++, w->h.nbackends++) {
        const struct zl_px_backend_def *b = &s->backends[i];
        struct zl_px_backend o = {
            .id = b->id,
            .port = b->port,
            .slot = slots[w->h.nbackends],
            .flags = (b->draining ? ZL_PX_BACKEND_DRAINING : 0) | (b->trusted ? ZL_PX_BACKEND_TRUSTED : 0),
        };
        if (zl_px_address(b->address, o.address) < 0)
            return -EINVAL;
        zl_buf_add(&w->backends, &o, sizeof o);
    }
    return 0;
}

static int write_parts(struct parts *w, const struct zl_px_def *def, const uint32_t *slots)
{
    if (def->nlisteners > ZL_PX_LISTENERS_MAX)
        return -E2BIG;
    for (unsigned i = 0; i < def->nlisteners; i++) {
        int r = write_listener(w, def, &def->listeners[i]);
        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < def->nservices; i++) {
        int r = write_service(w, &def->services[i], slots);
        if (r < 0)
            return r;
    }
    w->h.nlisteners = def->nlisteners;
    w->h.nservices = def->nservices;
    w->h.nstrings = (uint32_t)w->strings.n;
    return 0;
}

int zl_px_write(const struct zl_px_def *def, uint64_t number, const uint32_t *slots, struct zl_buf *ret)
{
    struct parts w = { .h = { .magic = MAGIC, .version = ZL_PX_VERSION, .number = number } };
    int r = write_parts(&w, def, slots);
    zl_buf_clear(ret);
    if (r == 0) {
        struct zl_buf *all[] = { &w.listeners, &w.routes, &w.allows, &w.services, &w.backends, &w.strings };
        w.h.size = sizeof w.h;
        for (unsigned i = 0; i < ZL_ARRAY_LEN(all); i++)
            w.h.size += all[i]->n;
        zl_buf_add(ret, &w.h, sizeof w.h);
        for (unsigned i = 0; i < ZL_ARRAY_LEN(all); i++)
            zl_buf_add(ret, all[i]->p, all[i]->n);
        /* The proxy's own check decides what a right snapshot is: one rule, in one place. */
        struct zl_px_view view;
        if (zl_px_check(zl_buf_view(ret), &view) < 0)
            r = ret->n > ZL_PX_SNAPSHOT_MAX ? -E2BIG : -EINVAL;
    }
    zl_buf_done(&w.listeners);
    zl_buf_done(&w.routes);
    zl_buf_done(&w.allows);
    zl_buf_done(&w.services);
    zl_buf_done(&w.backends);
    zl_buf_done(&w.strings);
    return r;
}

/* ---- checking ---- */

static bool range_fits(uint32_t first, uint32_t n, uint32_t all)
{
    return first <= all && n <= all - first;
}

static bool text_fits(const struct zl_px_view *v, struct zl_px_text t)
{
    if (t.len > TEXT_MAX || !range_fits(t.off, t.len, v->header->nstrings))
        return false;
    /* Texts get into heads of requests and into error bodies: nothing that could end a line. */
    for (uint32_t i = 0; i < t.len; i++)
        if ((unsigned char)v->strings[t.off + i] <= ' ' || v->strings[t.off + i] == 0x7f)
            return false;
    return true;
}

static bool listener_is_valid(const struct zl_px_view *v, uint32_t i)
{
    const struct zl_px_listener *l = &v->listeners[i];
    if (!range_fits(l->first_route, l->nroutes, v->header->nroutes) ||
        !range_fits(l->first_allow, l->nallows, v->header->nallows))
        return false;
    for (uint32_t k = 0; k < i; k++)
        if (v->listeners[k].id == l->id)
            return false;
    return l->protocol == ZL_PX_HTTP || (l->protocol == ZL_PX_TCP && l->nroutes == 1);
}

static bool route_is_valid(const struct zl_px_view *v, const struct zl_px_route *r)
{
    return text_fits(v, r->host) && text_fits(v, r->path) && r->service < v->header->nservices &&
           (r->path.len == 0 || v->strings[r->path.off] == '/');
}

static bool service_is_valid(const struct zl_px_view *v, uint32_t i)
{
    const struct zl_px_service *s = &v->services[i];
    if (s->id == 0 || !text_fits(v, s->name) || !text_fits(v, s->probe_path) ||
        !range_fits(s->first_backend, s->nbackends, v->header->nbackends) || s->probe_kind > ZL_PX_PROBE_HTTP ||
        s->probe_port > 65535)
        return false;
    for (uint32_t k = 0; k < i; k++)
        if (v->services[k].id == s->id)
            return false;
    return s->probe_kind == ZL_PX_PROBE_NONE || (s->interval_ms > 0 && s->timeout_ms > 0 && s->retries > 0 &&
                                                 s->probe_path.len > 0 && v->strings[s->probe_path.off] == '/');
}

/* Every backend belongs to exactly one service, in order, and has a slot of its own. */
static bool backends_are_valid(const struct zl_px_view *v)
{
    uint8_t taken[ZL_PX_SLOTS / 8] = { 0 };
    uint32_t next = 0;
    for (uint32_t i = 0; i < v->header->nservices; i++) {
        if (v->services[i].first_backend != next)
            return false;
        next += v->services[i].nbackends;
    }
    if (next != v->header->nbackends)
        return false;
    for (uint32_t i = 0; i < next; i++) {
        const struct zl_px_backend *b = &v->backends[i];
        if (b->id == 0 || b->port == 0 || b->port > 65535 || b->slot >= ZL_PX_SLOTS ||
            (b->flags & ~(uint32_t)(ZL_PX_BACKEND_DRAINING | ZL_PX_BACKEND_TRUSTED)))
            return false;
        uint8_t bit = (uint8_t)(1u << (b->slot % 8));
        if (taken[b->slot / 8] & bit)
            return false;
        taken[b->slot / 8] |= bit;
    }
    return true;
}

static int lay_out(struct zl_str blob, struct zl_px_view *v)
{
    const struct zl_px_header *h = v->header;
    if (h->nlisteners > ZL_PX_LISTENERS_MAX || h->nbackends > ZL_PX_SLOTS || h->nroutes > 65536 || h->nallows > 65536 ||
        h->nservices > ZL_PX_SLOTS)
        return -E2BIG;
    const struct {
        uint64_t n, size;
    } parts[] = {
        { h->nlisteners, sizeof(struct zl_px_listener) }, { h->nroutes, sizeof(struct zl_px_route) },
        { h->nallows, sizeof(struct zl_px_allow) },       { h->nservices, sizeof(struct zl_px_service) },
        { h->nbackends, sizeof(struct zl_px_backend) },   { h->nstrings, 1 },
    };
    const char *at[ZL_ARRAY_LEN(parts)];
    uint64_t off = sizeof *h;
    for (unsigned i = 0; i < ZL_ARRAY_LEN(parts); i++) {
        if (parts[i].n * parts[i].size > blob.n - off)
            return -EBADMSG;
        at[i] = blob.p + off;
        off += parts[i].n * parts[i].size;
    }
    if (off != blob.n)
        return -EBADMSG;
    v->listeners = (const void *)at[0];
    v->routes = (const void *)at[1];
    v->allows = (const void *)at[2];
    v->services = (const void *)at[3];
    v->backends = (const void *)at[4];
    v->strings = at[5];
    return 0;
}

int zl_px_check(struct zl_str blob, struct zl_px_view *ret)
{
    struct zl_px_view v = { .header = (const void *)blob.p };
    if (blob.n < sizeof *v.header || (uintptr_t)blob.p % 8 != 0 || v.header->magic != MAGIC)
        return -EBADMSG;
    if (v.header->version != ZL_PX_VERSION)
        return -EPROTONOSUPPORT;
    if (blob.n > ZL_PX_SNAPSHOT_MAX)
        return -E2BIG;
    if (v.header->size != blob.n || v.header->zero != 0 || v.header->number == 0)
        return -EBADMSG;
    int r = lay_out(blob, &v);
    if (r < 0)
        return r;
    bool good = true;
    for (uint32_t i = 0; good && i < v.header->nlisteners; i++)
        good = listener_is_valid(&v, i);
    for (uint32_t i = 0; good && i < v.header->nroutes; i++)
        good = route_is_valid(&v, &v.routes[i]);
    for (uint32_t i = 0; good && i < v.header->nallows; i++)
        good = v.allows[i].prefix <= 128;
    for (uint32_t i = 0; good && i < v.header->nservices; i++)
        good = service_is_valid(&v, i);
    if (!good || !backends_are_valid(&v))
        return -EBADMSG;
    *ret = v;
    return 0;
}
