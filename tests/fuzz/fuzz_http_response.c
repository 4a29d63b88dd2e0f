/* A reply's head, whole and one byte more at a time: both must say the same. */
#include "base/assert.h"
#include "http/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct zl_http_head whole, part;
    size_t scanned = 0;
    ssize_t r = zl_http_parse_response(zl_str_n((const char *)data, size), &scanned, size % 2, &whole);
    scanned = 0;
    ssize_t p = 0;
    for (size_t n = 0; n <= size && p == 0; n++)
        p = zl_http_parse_response(zl_str_n((const char *)data, n), &scanned, size % 2, &part);
    zl_assert(p == r);
    if (r > 0)
        zl_assert((size_t)r <= size && whole.status >= 100 && whole.status <= 599 && whole.body == part.body);
    return 0;
}
