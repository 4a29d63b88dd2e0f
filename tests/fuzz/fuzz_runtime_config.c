/* A bundle's config.json. What is taken has what the set-up relies on. */
#include "base/assert.h"
#include "oci/runtime_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err = { 0 };
    struct zl_oci_runtime *c;
    zl_arena_init(&arena);
    zl_decoder_init(&d, &arena);
    if (zl_oci_runtime_parse(&d, zl_str_n((const char *)data, size), &c, &err) == 0) {
        zl_assert(c->root[0]);
        zl_assert(!c->has_process || (c->process.args.n > 0 && c->process.cwd[0] == '/'));
        for (unsigned i = 0; i < c->mounts.n; i++)
            zl_assert(((const struct zl_oci_mount *)c->mounts.v[i])->destination[0]);
        for (unsigned i = 0; i < c->process.groups.n; i++)
            zl_assert(c->process.groups.v[i] >= 0 && c->process.groups.v[i] < UINT32_MAX);
    } else {
        zl_assert(err.code && err.text[0]);
    }
    zl_decoder_done(&d);
    zl_arena_done(&arena);
    return 0;
}
