/* A document's text: what is read must be the same after it was written as YAML and as JSON. */
#include "base/assert.h"
#include "codec/value.h"

static void again(struct zl_arena *arena, const struct zl_value *v, const struct zl_buf *text)
{
    static const struct zl_parse_limits wide = { 1 << 24, 200, 10000000 };
    struct zl_value *back;
    struct zl_parse_error pe;
    zl_auto_buf before = ZL_BUF_INIT, after = ZL_BUF_INIT;
    zl_assert(zl_yaml_parse(arena, zl_buf_view(text), &wide, &back, &pe) == 0);
    zl_json_print(&before, v, 0);
    zl_json_print(&after, back, 0);
    zl_assert(zl_str_eq(zl_buf_view(&before), zl_buf_view(&after)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct zl_parse_limits limits = { 1 << 16, 32, 2000 };
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_arena_init(&arena);
    if (zl_yaml_parse(&arena, zl_str_n((const char *)data, size), &limits, &v, &pe) == 0) {
        zl_auto_buf yaml = ZL_BUF_INIT, json = ZL_BUF_INIT;
        zl_yaml_print(&yaml, v);
        again(&arena, v, &yaml);
        zl_json_print(&json, v, 2);
        again(&arena, v, &json);
    } else {
        zl_assert(pe.text[0]);
    }
    zl_arena_done(&arena);
    return 0;
}
