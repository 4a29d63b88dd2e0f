/* A request's head, whole and one byte more at a time: both must say the same. */
#include "base/assert.h"
#include "http/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct zl_http_head whole, part;
    size_t scanned = 0;
    ssize_t r = zl_http_parse_request(zl_str_n((const char *)data, size), &scanned, &whole);
    scanned = 0;
    ssize_t p = 0;
    for (size_t n = 0; n <= size && p == 0; n++)
        p = zl_http_parse_request(zl_str_n((const char *)data, n), &scanned, &part);
    zl_assert(p == r);
    if (r > 0) {
        zl_assert((size_t)r <= size && whole.nheaders <= ZL_HTTP_HEADERS_MAX && whole.nheaders == part.nheaders);
        zl_assert(whole.body != ZL_HTTP_BODY_CLOSE && whole.body == part.body);
        zl_assert(!(whole.body == ZL_HTTP_BODY_CHUNKED && whole.has_length));
        for (unsigned i = 0; i < whole.nheaders; i++)
            zl_assert(zl_http_is_token(whole.headers[i].name) && zl_http_is_value(whole.headers[i].value));
    }
    return 0;
}
