/* A chunked body, whole and byte by byte: the same data, the same end, the same error. */
#include "base/assert.h"
#include "http/chunked.h"

struct result {
    int code;
    size_t used, bytes;
    uint64_t sum;
};

static struct result run(const uint8_t *data, size_t size, size_t step)
{
    struct zl_chunked c;
    struct result r = { 0 };
    zl_chunked_init(&c);
    while (r.used < size && r.code == ZL_CHUNKED_MORE) {
        size_t n = size - r.used < step ? size - r.used : step;
        struct zl_str in = zl_str_n((const char *)data + r.used, n), piece;
        while ((r.code = zl_chunked_next(&c, &in, &piece)) == ZL_CHUNKED_DATA) {
            zl_assert(piece.n > 0);
            for (size_t i = 0; i < piece.n; i++)
                r.sum = r.sum * 31 + (uint8_t)piece.p[i];
            r.bytes += piece.n;
        }
        r.used += n - in.n;
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct result whole = run(data, size, size), bytes = run(data, size, 1);
    zl_assert(whole.code == bytes.code && whole.bytes == bytes.bytes && whole.sum == bytes.sum);
    zl_assert(whole.code != ZL_CHUNKED_END || whole.used == bytes.used);
    return 0;
}
