/* An image reference, a duration, a size: the printed form must be read as the same. */
#include "base/assert.h"
#include "codec/fields.h"
#include "spec/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str text = zl_str_n((const char *)data, size);
    struct zl_reference ref, back;
    char printed[ZL_REFERENCE_TEXT_SIZE];
    const char *why = NULL;
    struct zl_arena arena;
    uint64_t n, m;
    zl_arena_init(&arena);
    if (zl_reference_parse(text, &ref, &why) == 0) {
        zl_assert(ref.registry[0] && ref.repository[0] && (ref.tag[0] || ref.digest[0]));
        zl_assert(zl_reference_parse(zl_str(zl_reference_print(&ref, printed)), &back, &why) == 0);
        zl_assert(zl_streq(ref.registry, back.registry) && zl_streq(ref.repository, back.repository));
        zl_assert(zl_streq(ref.tag, back.tag) && zl_streq(ref.digest, back.digest));
    } else {
        zl_assert(why && why[0]);
    }
    if (zl_parse_duration_ms(text, &n) == 0)
        zl_assert(zl_parse_duration_ms(zl_str(zl_print_duration(&arena, n)), &m) == 0 && m == n);
    if (zl_parse_size(text, &n) == 0)
        zl_assert(zl_parse_size(zl_str(zl_print_size(&arena, n)), &m) == 0 && m == n);
    zl_arena_done(&arena);
    return 0;
}
