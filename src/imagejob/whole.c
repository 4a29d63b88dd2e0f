#include "imagejob/whole.h"

#include <libdeflate.h>
#include <string.h>

enum { GZIP_LEAST = 18 }; /* header and trailer */

/* The last four bytes say how much it is; when they lie, the decoder finds out. */
static bool unpack_gzip(const unsigned char *in, size_t n, unsigned char *room, size_t *size)
{
    const unsigned char *end = in + n - 4;
    size_t said = end[0] | (size_t)end[1] << 8 | (size_t)end[2] << 16 | (size_t)end[3] << 24, used = 0;
    if (said > ZL_DECODER_ROOM)
        return false;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    bool good = d && libdeflate_gzip_decompress_ex(d, in, n, room, said, &used, size) == LIBDEFLATE_SUCCESS;
    libdeflate_free_decompressor(d);
    return good && used == n;
}

static bool unpack_zstd(const unsigned char *in, size_t n, struct zl_decoders *decoders, unsigned char *room,
                        size_t *size)
{
    unsigned long long said = ZSTD_getFrameContentSize(in, n);
    if (said > ZL_DECODER_ROOM || ZSTD_findFrameCompressedSize(in, n) != n) /* unknown and wrong are large numbers */
        return false;
    ZSTD_DStream *z = zl_decoders_take(decoders);
    *size = ZSTD_decompressDCtx(z, room, (size_t)said, in, n);
    zl_decoders_give(decoders, z);
    return !ZSTD_isError(*size);
}

bool zl_whole_unpack(const unsigned char *in, size_t n, struct zl_decoders *decoders, unsigned char *room, size_t *size)
{
    size_t got = 0;
    bool good = false;
    *size = 0;
    if (n < GZIP_LEAST || n > ZL_WHOLE_IN_MAX)
        return false;
    if (in[0] == 0x1f && in[1] == 0x8b)
        good = unpack_gzip(in, n, room, &got);
    else if (memcmp(in, "\x28\xb5\x2f\xfd", 4) == 0)
        good = unpack_zstd(in, n, decoders, room, &got);
    *size = good ? got : 0; /* decoders say how much also of what they refuse */
    return good;
}
