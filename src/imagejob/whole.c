#include "imagejob/whole.h"

#include "base/alloc.h"

#include <libdeflate.h>
#include <stdbool.h>
#include <string.h>

enum { GZIP_LEAST = 18 }; /* header and trailer */

static unsigned char *result(unsigned char *out, bool good, size_t got, size_t *size)
{
    if (good) {
        *size = got;
        return out;
    }
    free(out);
    return NULL;
}

/* The last four bytes say how much it is; when they lie, the decoder finds out. */
static unsigned char *unpack_gzip(const unsigned char *in, size_t n, size_t *size)
{
    const unsigned char *end = in + n - 4;
    size_t said = end[0] | (size_t)end[1] << 8 | (size_t)end[2] << 16 | (size_t)end[3] << 24, used = 0, got = 0;
    if (said > ZL_WHOLE_OUT_MAX)
        return NULL;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    unsigned char *out = d ? zl_try_malloc(said + 1) : NULL;
    bool good = out && libdeflate_gzip_decompress_ex(d, in, n, out, said, &used, &got) == LIBDEFLATE_SUCCESS;
    libdeflate_free_decompressor(d);
    return result(out, good && used == n, got, size);
}

static unsigned char *unpack_zstd(const unsigned char *in, size_t n, struct zl_decoders *decoders, size_t *size)
{
    unsigned long long said = ZSTD_getFrameContentSize(in, n);
    if (said > ZL_WHOLE_OUT_MAX || ZSTD_findFrameCompressedSize(in, n) != n) /* unknown and wrong are large numbers */
        return NULL;
    ZSTD_DStream *z = zl_decoders_take(decoders);
    unsigned char *out = zl_try_malloc((size_t)said + 1);
    size_t got = out ? ZSTD_decompressDCtx(z, out, (size_t)said, in, n) : 0;
    zl_decoders_give(decoders, z);
    return result(out, out && !ZSTD_isError(got), got, size);
}

unsigned char *zl_whole_unpack(const unsigned char *in, size_t n, struct zl_decoders *decoders, size_t *size)
{
    if (n < GZIP_LEAST || n > ZL_WHOLE_IN_MAX)
        return NULL;
    if (in[0] == 0x1f && in[1] == 0x8b)
        return unpack_gzip(in, n, size);
    return memcmp(in, "\x28\xb5\x2f\xfd", 4) == 0 ? unpack_zstd(in, n, decoders, size) : NULL;
}
