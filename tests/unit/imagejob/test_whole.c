/* Small blobs in one go: the same bytes as the stream's, and whatever is not for this way is left to it. */
#include "../testing.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "imagejob/stream.h"
#include "imagejob/whole.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TEXT = 3 << 20, ROOM = 2 << 20 };

static unsigned char *text, packed[ROOM], room[ZL_DECODER_ROOM];

static int set_up(void **state)
{
    text = zl_xmalloc(ZL_DECODER_ROOM + 1);
    for (size_t i = 0; i <= ZL_DECODER_ROOM; i++) /* it packs well, but not to nothing */
        text[i] = (unsigned char)("a layer's words"[i % 15] ^ (i % 1031 == 0 ? i / 1031 : 0));
    return 0;
}

static int tear_down(void **state)
{
    free(text);
    return 0;
}

static size_t gzip(const void *p, size_t n, unsigned char *ret, size_t most)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    size_t size = libdeflate_gzip_compress(c, p, n, ret, most);
    libdeflate_free_compressor(c);
    assert_int_not_equal(size, 0);
    return size;
}

static size_t zstd(const void *p, size_t n, bool said)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, said);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    size_t size = ZSTD_compress2(c, packed, sizeof packed, p, n);
    ZSTD_freeCCtx(c);
    assert_false(ZSTD_isError(size));
    return size;
}

static void unpacks(size_t n, size_t wanted)
{
    size_t size = 0;
    assert_true(zl_whole_unpack(packed, n, NULL, room, &size));
    assert_int_equal(size, wanted);
    assert_memory_equal(room, text, wanted);
}

static void is_left(const unsigned char *p, size_t n)
{
    size_t size = 1;
    assert_false(zl_whole_unpack(p, n, NULL, room, &size));
    assert_int_equal(size, 0);
}

static void unpacks_both_forms(void **state)
{
    unpacks(gzip(text, TEXT, packed, sizeof packed), TEXT);
    unpacks(gzip(text, ZL_DECODER_ROOM, packed, sizeof packed), ZL_DECODER_ROOM);
    unpacks(gzip(text, 0, packed, sizeof packed), 0);
    unpacks(zstd(text, TEXT, true), TEXT);
    unpacks(zstd(text, ZL_DECODER_ROOM, true), ZL_DECODER_ROOM);
}

static void leaves_what_is_too_large(void **state)
{
    is_left(packed, gzip(text, ZL_DECODER_ROOM + 1, packed, sizeof packed));
    is_left(packed, zstd(text, ZL_DECODER_ROOM + 1, true));
    is_left(packed, zstd(text, TEXT, false)); /* no size said */
    is_left(packed, ZL_WHOLE_IN_MAX + 1);
}

static void leaves_what_goes_on(void **state)
{
    size_t n = gzip(text, TEXT, packed, sizeof packed), more = gzip(text, 100, packed + n, sizeof packed - n);
    is_left(packed, n + more);
    packed[n] = 0;
    is_left(packed, n + 1); /* padding */
    n = zstd(text, TEXT, true);
    packed[n] = 0;
    is_left(packed, n + 1);
    memcpy(packed + n,
           "\x50\x2a\x4d\x18\x04\x00\x00\x00"
           "skip",
           12); /* RFC 8878, 3.1.2 */
    is_left(packed, n + 12);
}

static void leaves_what_is_damaged(void **state)
{
    size_t n = gzip(text, TEXT, packed, sizeof packed);
    for (size_t cut = 0; cut < n; cut += n / 50)
        is_left(packed, cut);
    for (size_t at = n - 8; at < n; at++) { /* checksum and size */
        packed[at] ^= 1;
        is_left(packed, n);
        packed[at] ^= 1;
    }
    packed[n / 2] ^= 0x10;
    is_left(packed, n);
    n = zstd(text, TEXT, true);
    for (size_t cut = 0; cut < n; cut += n / 50)
        is_left(packed, cut);
    packed[n / 2] ^= 0x10;
    is_left(packed, n);
    is_left(text, 1000);
}

/* The digests of blob and content, as read whole (1: it was) or piece by piece. */
static int digests(size_t n, bool whole, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE])
{
    struct zl_err err = { 0 };
    zl_auto_close int fd = memfd_create("blob", MFD_CLOEXEC);
    assert_int_equal(zl_write_full(fd, packed, n), 0);
    struct zl_stream *s = zl_stream_new(fd, NULL, NULL);
    unsigned char piece[5000];
    const void *all = NULL;
    size_t size = 0;
    int r = whole ? zl_stream_whole(s, &all, &size, &err) : 0;
    if (r == 1)
        assert_memory_equal(all, text, size);
    ssize_t got;
    while ((got = zl_stream_read(s, piece, sizeof piece, &err)) > 0)
        size += (size_t)got;
    assert_int_equal(got, 0);
    assert_int_equal(size, TEXT);
    assert_int_equal(zl_stream_finish(s, blob, diff_id, &err), 0);
    zl_stream_free(s);
    return r;
}

static void same(size_t n, int wanted)
{
    char a[2][ZL_DIGEST_SIZE], b[2][ZL_DIGEST_SIZE];
    assert_int_equal(digests(n, false, a[0], a[1]), 0);
    assert_int_equal(digests(n, true, b[0], b[1]), wanted);
    assert_string_equal(a[0], b[0]);
    assert_string_equal(a[1], b[1]);
}

static void gives_the_digests_of_the_stream(void **state)
{
    same(gzip(text, TEXT, packed, sizeof packed), 1);
    same(zstd(text, TEXT, true), 1);
    same(zstd(text, TEXT, false), 0);
    size_t n = gzip(text, TEXT / 3, packed, sizeof packed);
    same(n + gzip(text + TEXT / 3, TEXT - TEXT / 3, packed + n, sizeof packed - n), 0);
}

/* A feed with the bytes at hand: the file is not looked at. One that failed or goes on is not whole. */
static void takes_the_bytes_of_a_feed(void **state)
{
    struct zl_err err = { 0 };
    size_t n = gzip(text, TEXT, packed, sizeof packed), size = 0;
    for (int how = 0; how < 3; how++) {
        struct zl_feed f;
        const void *all = NULL;
        zl_feed_init(&f);
        zl_feed_set(&f, n);
        f.bytes = zl_xmalloc(n);
        memcpy(f.bytes, packed, n);
        if (how > 0)
            zl_feed_end(&f, how == 1);
        struct zl_stream *s = zl_stream_new(-EBADF, &f, NULL);
        if (how == 2) {
            assert_int_equal(zl_stream_whole(s, &all, &size, &err), 1);
            assert_int_equal(size, TEXT);
        } else {
            assert_int_equal(zl_feed_whole(&f, ZL_WHOLE_IN_MAX), 0);
        }
        zl_stream_free(s);
        zl_feed_done(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacks_both_forms),
        cmocka_unit_test(leaves_what_is_too_large),
        cmocka_unit_test(leaves_what_goes_on),
        cmocka_unit_test(leaves_what_is_damaged),
        cmocka_unit_test(gives_the_digests_of_the_stream),
        cmocka_unit_test(takes_the_bytes_of_a_feed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
