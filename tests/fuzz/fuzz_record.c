/* An image record of the store: what is taken is printed and taken again. */
#include "base/assert.h"
#include "image/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    struct zl_decoder d;
    zl_arena_init(&arena);
    zl_decoder_init(&d, &arena);
    if (zl_json_parse(&arena, zl_str_n((const char *)data, size), &zl_limits_document, &v, &pe) == 0) {
        const struct zl_image_record *r = zl_decode(&d, &zl_type_image_record, v);
        if (d.count == 0) {
            zl_auto_buf text = ZL_BUF_INIT;
            zl_json_print(&text, zl_print(&arena, &zl_type_image_record, r), 0);
            zl_assert(zl_json_parse(&arena, zl_buf_view(&text), &zl_limits_document, &v, &pe) == 0);
            (void)zl_decode(&d, &zl_type_image_record, v);
            zl_assert(d.count == 0);
        }
    }
    zl_decoder_done(&d);
    zl_arena_done(&arena);
    return 0;
}
