/* A snapshot as the proxy gets it: what the check takes is read whole, so that a wrong yes is a bad read. */
#include "base/alloc.h"
#include "base/assert.h"
#include "net/proxy/snapshot.h"

static uint64_t read_text(const struct zl_px_view *v, struct zl_px_text t)
{
    struct zl_str s = zl_px_str(v, t);
    volatile uint64_t sum = 0;
    for (size_t i = 0; i < s.n; i++)
        sum += (uint8_t)s.p[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = zl_xmalloc(size + 1); /* aligned, exact but for the byte that malloc wants */
    memcpy(copy, data, size);
    struct zl_px_view v;
    volatile uint64_t sum = 0;
    if (zl_px_check(zl_str_n(copy, size), &v) == 0) {
        for (uint32_t i = 0; i < v.header->nlisteners; i++) {
            const struct zl_px_listener *l = &v.listeners[i];
            for (uint32_t k = 0; k < l->nroutes; k++) {
                const struct zl_px_route *r = &v.routes[l->first_route + k];
                sum += read_text(&v, r->host) + read_text(&v, r->path) + v.services[r->service].id;
            }
            for (uint32_t k = 0; k < l->nallows; k++)
                sum += v.allows[l->first_allow + k].address[v.allows[l->first_allow + k].prefix % 16];
        }
        for (uint32_t i = 0; i < v.header->nservices; i++) {
            const struct zl_px_service *s = &v.services[i];
            sum += read_text(&v, s->name) + read_text(&v, s->probe_path);
            for (uint32_t k = 0; k < s->nbackends; k++) {
                zl_assert(v.backends[s->first_backend + k].slot < ZL_PX_SLOTS);
                sum += v.backends[s->first_backend + k].port;
            }
        }
    }
    (void)sum; /* read only so that every view is followed */
    free(copy);
    return 0;
}
