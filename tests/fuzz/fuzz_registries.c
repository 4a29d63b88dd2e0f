/* registries.yml: what is accepted names hosts and mirrors that a URL can be made of, and absolute files. */
#include "base/assert.h"
#include "image/registries.h"
#include "spec/reference.h"

#include <stdio.h>

static void check(const struct zl_registry_settings *s)
{
    zl_assert(zl_reference_host_valid(zl_str(s->host)));
    zl_assert(!s->ca || s->ca[0] == '/');
    zl_assert(!s->client_certificate == !s->client_key);
    for (unsigned i = 0; i < s->mirrors.n; i++) {
        char host[256], prefix[256], text[600];
        struct zl_reference ref;
        const char *why;
        zl_registry_mirror_split(s->mirrors.v[i], host, prefix);
        zl_assert(zl_reference_host_valid(zl_str(host)));
        snprintf(text, sizeof text, "h.x/%s%sname", prefix, *prefix ? "/" : "");
        zl_assert(zl_reference_parse(zl_str(text), &ref, &why) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_registries *r;
    struct zl_err err = { 0 };
    zl_arena_init(&arena);
    if (zl_registries_parse(&arena, zl_str_n((const char *)data, size), "file", &r, &err) == 0)
        for (unsigned i = 0; i < r->list.n; i++)
            check(r->list.v[i]);
    else
        zl_assert(err.code < 0 && err.text[0]);
    zl_arena_done(&arena);
    return 0;
}
