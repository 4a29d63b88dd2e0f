/* A deployment document: problems are printed, a good one is planned and printed, and its canonical form means the
 * same. */
#include "base/assert.h"
#include "spec/spec.h"

static struct zl_spec *parse(struct zl_arena *arena, struct zl_str text, struct zl_buf *problems)
{
    struct zl_decoder d;
    struct zl_spec *spec = NULL;
    struct zl_err err = { 0 };
    zl_decoder_init(&d, arena);
    if (zl_spec_parse(&d, text, &spec, &err) < 0) {
        zl_assert(d.count > 0 && d.first->message[0]);
        zl_spec_problems_print(problems, &d, text, "fuzz.yml", text.n % 2);
        spec = NULL;
    }
    zl_decoder_done(&d);
    return spec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    zl_auto_buf problems = ZL_BUF_INIT, plan = ZL_BUF_INIT, canonical = ZL_BUF_INIT;
    if (size > 1 << 16)
        return 0;
    zl_arena_init(&arena);
    struct zl_spec *spec = parse(&arena, zl_str_n((const char *)data, size), &problems);
    if (spec) {
        zl_spec_plan_print(&plan, spec);
        zl_yaml_print(&canonical, zl_spec_print(&arena, spec));
        struct zl_spec *back = parse(&arena, zl_buf_view(&canonical), &problems);
        zl_assert(back && back->services.n == spec->services.n);
        for (unsigned i = 0; i < spec->services.n; i++)
            zl_assert(zl_service_fingerprint(spec->services.v[i]) == zl_service_fingerprint(back->services.v[i]));
    } else {
        zl_assert(problems.n > 0);
    }
    zl_arena_done(&arena);
    return 0;
}
