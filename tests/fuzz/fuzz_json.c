/* JSON: what was written is read, and written the same. */
#include "base/assert.h"
#include "codec/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct zl_parse_limits limits = { 1 << 16, 32, 2000 };
    struct zl_arena arena;
    struct zl_value *v, *back;
    struct zl_parse_error pe;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, zl_str_n((const char *)data, size), &limits, &v, &pe) == 0) {
        zl_auto_buf text = ZL_BUF_INIT, again = ZL_BUF_INIT;
        zl_json_print(&text, v, (unsigned)(size % 3));
        zl_assert(zl_json_parse(&arena, zl_buf_view(&text), &zl_limits_document, &back, &pe) == 0);
        zl_json_print(&again, back, (unsigned)(size % 3));
        zl_assert(zl_str_eq(zl_buf_view(&text), zl_buf_view(&again)));
    } else {
        zl_assert(pe.text[0]);
    }
    zl_arena_done(&arena);
    return 0;
}
