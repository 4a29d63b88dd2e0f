/* The process of an exec, as engines hand it over in a file. What is taken has what the set-up relies on. */
#include "base/assert.h"
#include "oci/runtime_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err = { 0 };
    struct zl_oci_process *p;
    zl_arena_init(&arena);
    zl_decoder_init(&d, &arena);
    if (zl_oci_process_parse(&d, zl_str_n((const char *)data, size), &p, &err) == 0) {
        zl_assert(p->args.n > 0 && p->cwd[0] == '/');
        zl_assert(p->uid >= 0 && p->uid < UINT32_MAX && p->gid >= 0 && p->gid < UINT32_MAX);
        zl_assert(p->umask >= -1 && p->umask <= 0777);
        for (unsigned i = 0; i < p->groups.n; i++)
            zl_assert(p->groups.v[i] >= 0 && p->groups.v[i] < UINT32_MAX);
        for (unsigned i = 0; i < p->env.n; i++)
            zl_assert(p->env.v[i]);
        for (unsigned i = 0; i < p->rlimits.n; i++)
            zl_assert(((const struct zl_oci_rlimit *)p->rlimits.v[i])->type);
    } else {
        zl_assert(err.code && err.text[0]);
    }
    zl_decoder_done(&d);
    zl_arena_done(&arena);
    return 0;
}
