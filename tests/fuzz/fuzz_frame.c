/* Frames of the local protocols, whole and in two pieces, and the records in them. */
#include "base/assert.h"
#include "base/frame.h"
#include "runtime/native/protocol.h"

static uint64_t records(struct zl_str body)
{
    struct zl_record r;
    uint64_t sum = 0, v;
    int more;
    while ((more = zl_record_next(&body, &r)) > 0) {
        for (size_t i = 0; i < r.bytes.n; i++)
            sum = sum * 31 + (uint8_t)r.bytes.p[i];
        if (zl_record_u64(&r, &v) == 0)
            sum += v;
    }
    return more < 0 ? 0 : sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str in = zl_str_n((const char *)data, size);
    while (in.n) {
        struct zl_frame f, g;
        ssize_t n = zl_frame_parse(in, ZL_SH_MAGIC, 65536, &f);
        if (n <= 0)
            break;
        zl_assert((size_t)n <= in.n && f.body.p >= in.p && f.body.p + f.body.n <= in.p + n);
        zl_assert(zl_frame_parse(zl_str_n(in.p, (size_t)n - 1), ZL_SH_MAGIC, 65536, &g) == 0);
        volatile uint64_t sum = records(f.body);
        (void)sum;
        in.p += n;
        in.n -= (size_t)n;
    }
    return 0;
}
