#include "proxyd/table_priv.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int map_snapshot(int fd, struct table *t)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &st) < 0)
        return -errno;
    const int want = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    if ((seals & want) != want || st.st_size <= 0 || st.st_size > ZL_PX_SNAPSHOT_MAX)
        return -EBADMSG;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    t->map = p;
    t->map_size = (size_t)st.st_size;
    return zl_px_check(zl_str_n(p, t->map_size), &t->view);
}

static void fill_backends(struct table *t, struct zl_px_board *board, struct slot_state *states)
{
    for (unsigned i = 0; i < t->nbackends; i++) {
        const struct zl_px_backend *def = &t->view.backends[i];
        struct backend *b = &t->backends[i];
        struct sockaddr_storage ss;
        b->id = def->id;
        b->slot = def->slot;
        b->draining = def->flags & ZL_PX_BACKEND_DRAINING;
        b->counters = &board->slot[def->slot];
        b->state = &states[def->slot];
        b->address_len = zl_px_sockaddr(def->address, (uint16_t)def->port, &ss);
        memcpy(&b->address, &ss, b->address_len);
        t->nslots = ZL_MAX(t->nslots, def->slot + 1);
    }
    t->by_slot = zl_xcalloc(t->nslots + 1, sizeof(struct backend *));
    for (unsigned i = 0; i < t->nbackends; i++)
        t->by_slot[t->backends[i].slot] = &t->backends[i];
}

int table_new(int fd, struct zl_px_board *board, struct slot_state *states, struct table **ret)
{
    struct table *t = zl_xcalloc(1, sizeof *t);
    int r = map_snapshot(fd, t);
    if (r < 0) {
        table_free(t);
        return r;
    }
    const struct zl_px_header *h = t->view.header;
    t->number = h->number;
    t->nlisteners = h->nlisteners;
    t->nservices = h->nservices;
    t->nbackends = h->nbackends;
    t->listeners = zl_xcalloc(h->nlisteners + 1, sizeof *t->listeners);
    t->services = zl_xcalloc(h->nservices + 1, sizeof *t->services);
    t->backends = zl_xcalloc(h->nbackends + 1, sizeof *t->backends);
    t->routes = zl_xcalloc(h->nroutes + 1, sizeof *t->routes);
    fill_backends(t, board, states);
    for (unsigned i = 0; i < h->nservices; i++) {
        const struct zl_px_service *def = &t->view.services[i];
        t->services[i] = (struct service){
            .id = def->id,
            .name = zl_px_str(&t->view, def->name),
            .def = def,
            .backends = t->backends + def->first_backend,
            .nbackends = def->nbackends,
        };
    }
    for (unsigned i = 0; i < h->nroutes; i++) {
        const struct zl_px_route *def = &t->view.routes[i];
        t->routes[i] = (struct route){
            .host = zl_px_str(&t->view, def->host),
            .path = zl_px_str(&t->view, def->path),
            .service = &t->services[def->service],
        };
    }
    for (unsigned i = 0; i < h->nlisteners; i++) {
        const struct zl_px_listener *def = &t->view.listeners[i];
        t->listeners[i] = (struct listener){
            .id = def->id,
            .fd = -EBADF,
            .protocol = (enum zl_px_protocol)def->protocol,
            .routes = t->routes + def->first_route,
            .nroutes = def->nroutes,
            .allows = t->view.allows + def->first_allow,
            .nallows = def->nallows,
        };
    }
    *ret = t;
    return 0;
}

struct table *table_free(struct table *t)
{
    if (!t)
        return NULL;
    if (t->map)
        munmap(t->map, t->map_size);
    free(t->listeners);
    free(t->services);
    free(t->backends);
    free(t->routes);
    free(t->by_slot);
    free(t);
    return NULL;
}

void table_listen(struct table *t, uint32_t id, int fd)
{
    for (unsigned i = 0; i < t->nlisteners; i++)
        if (t->listeners[i].id == id)
            t->listeners[i].fd = fd;
}

const struct listener *table_listener(const struct table *t, uint32_t id)
{
    for (unsigned i = 0; t && i < t->nlisteners; i++)
        if (t->listeners[i].id == id && t->listeners[i].fd >= 0)
            return &t->listeners[i];
    return NULL;
}

const struct service *table_service(const struct table *t, uint64_t id)
{
    for (unsigned i = 0; t && i < t->nservices; i++)
        if (t->services[i].id == id)
            return &t->services[i];
    return NULL;
}

const struct backend *table_backend(const struct table *t, uint32_t slot, uint64_t id)
{
    if (!t || slot >= t->nslots || !t->by_slot[slot] || t->by_slot[slot]->id != id)
        return NULL;
    return t->by_slot[slot];
}

/* ---- sources ---- */

static bool prefix_matches(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    unsigned rest = bits % 8;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

bool listener_allows(const struct listener *l, const struct sockaddr_storage *peer)
{
    if (l->nallows == 0)
        return true;
    uint8_t address[16] = { [10] = 0xff, [11] = 0xff };
    if (peer->ss_family == AF_INET)
        memcpy(address + 12, &((const struct sockaddr_in *)peer)->sin_addr, 4);
    else if (peer->ss_family == AF_INET6)
        memcpy(address, &((const struct sockaddr_in6 *)peer)->sin6_addr, 16);
    else
        return false;
    for (unsigned i = 0; i < l->nallows; i++)
        if (prefix_matches(address, l->allows[i].address, l->allows[i].prefix))
            return true;
    return false;
}

/* ---- routes ---- */

/* Without the port, and without the dot that a full name may end with. */
static struct zl_str host_name(struct zl_str host)
{
    if (host.n && host.p[0] == '[') {
        const char *end = memchr(host.p, ']', host.n);
        return end ? zl_str_n(host.p, (size_t)(end - host.p) + 1) : host;
    }
    struct zl_str port;
    host = zl_str_cut(host, ':', &port);
    if (host.n && host.p[host.n - 1] == '.')
        host.n--;
    return host;
}

/* How well a route's host fits: -1 not, 0 any, then by length; an exact one beats every wildcard. */
static int host_rank(struct zl_str want, struct zl_str host)
{
    if (want.n == 0)
        return 0;
    if (want.n > 1 && want.p[0] == '*' && want.p[1] == '.') {
        struct zl_str suffix = zl_str_n(want.p + 1, want.n - 1);
        bool fits = host.n > suffix.n && zl_str_eq_nocase(zl_str_n(host.p + host.n - suffix.n, suffix.n), suffix);
        return fits ? (int)suffix.n : -1;
    }
    return zl_str_eq_nocase(want, host) ? 1 << 20 : -1;
}

/* A path prefix ends at a '/', so that "/api" takes "/api/x" and not "/apix". */
static int path_rank(struct zl_str want, struct zl_str path)
{
    struct zl_str query;
    path = zl_str_cut(path, '?', &query);
    while (want.n && want.p[want.n - 1] == '/')
        want.n--;
    if (want.n == 0)
        return 0;
    bool fits = zl_str_starts(path, want) && (path.n == want.n || path.p[want.n] == '/');
    return fits ? (int)want.n : -1;
}

const struct route *listener_route(const struct listener *l, struct zl_str host, struct zl_str path)
{
    const struct route *best = NULL;
    int best_host = -1, best_path = -1;
    host = host_name(host);
    for (unsigned i = 0; i < l->nroutes; i++) {
        int h = host_rank(l->routes[i].host, host);
        int p = h < 0 ? -1 : path_rank(l->routes[i].path, path);
        if (p >= 0 && (h > best_host || (h == best_host && p > best_path))) {
            best = &l->routes[i];
            best_host = h;
            best_path = p;
        }
    }
    return best;
}

/* ---- the choice of a backend ---- */

static bool is_tried(const struct backend *b, const uint32_t *tried, unsigned ntried)
{
    for (unsigned i = 0; i < ntried; i++)
        if (tried[i] == b->slot)
            return true;
    return false;
}

const struct backend *service_choose(const struct service *s, const uint32_t *tried, unsigned ntried, uint32_t turn,
                                     uint64_t now_ms, bool *ret_more)
{
    const struct backend *best = NULL, *avoided = NULL;
    uint32_t best_n = 0;
    unsigned usable = 0;
    *ret_more = false;
    if (s->nbackends == 0)
        return NULL;
    unsigned at = turn % s->nbackends;
    for (unsigned i = 0; i < s->nbackends; i++, at = at + 1 == s->nbackends ? 0 : at + 1) {
        const struct backend *b = &s->backends[at];
        if (b->draining || is_tried(b, tried, ntried) ||
            atomic_load_explicit(&b->counters->health, memory_order_relaxed) != ZL_PX_HEALTH_OK)
            continue;
        usable++;
        if (atomic_load_explicit(&b->state->avoid_until_ms, memory_order_relaxed) > now_ms) {
            avoided = avoided ? avoided : b;
            continue;
        }
        uint32_t n = atomic_load_explicit(&b->counters->in_flight, memory_order_relaxed);
        if (!best || n < best_n) {
            best = b;
            best_n = n;
        }
    }
    *ret_more = usable > 1;
    return best ? best : avoided;
}
