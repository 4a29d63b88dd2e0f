#include "imagejob/stream.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fd.h"
#include "imagejob/whole.h"

#include <isa-l/igzip_lib.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { IN_SIZE = 128 << 10 };
/* What a layer may unpack to of its compressed bytes so far. Real layers stay below 100 times; a file of zeros, as
 * databases and disk images have them, reaches what the format can (gzip 1030, zstd over 10,000), and is no bomb yet.
 */
enum { RATIO_MAX = 200 };
static const uint64_t RATIO_FREE = UINT64_C(1) << 30;

enum form { UNKNOWN, PLAIN, GZIP, ZSTD };

struct zl_stream {
    int fd;
    struct zl_feed *feed;
    enum form form;
    bool in_end, done;
    struct zl_digest *raw, *plain; /* raw: NULL with a feed */
    struct zl_decoders *decoders;
    unsigned char *room; /* what all of it unpacked to */
    ZSTD_DStream *zstd;
    size_t zstd_more; /* what the decoder still expects; 0 between frames */
    size_t in_n, in_at;
    uint64_t in_total, out_total;
    struct inflate_state gzip; /* this and the next are large, and not cleared */
    unsigned char in[IN_SIZE];
};

struct zl_stream *zl_stream_new(int fd, struct zl_feed *feed, struct zl_decoders *decoders)
{
    struct zl_stream *s = zl_xmalloc(sizeof *s);
    memset(s, 0, offsetof(struct zl_stream, gzip));
    s->fd = fd;
    s->feed = feed;
    s->decoders = decoders;
    s->raw = feed ? NULL : zl_digest_new();
    s->plain = zl_digest_new();
    return s;
}

struct zl_stream *zl_stream_free(struct zl_stream *s)
{
    if (s) {
        zl_digest_free(s->raw);
        zl_digest_free(s->plain);
        zl_decoders_give(s->decoders, s->zstd);
        zl_decoders_give_room(s->decoders, s->room);
        free(s);
    }
    return NULL;
}

/* Fewer at the end of the file; -errno. */
static ssize_t read_at(int fd, unsigned char *p, size_t wanted, uint64_t at)
{
    size_t n = 0;
    ssize_t r = 1;
    while (n < wanted && r != 0) {
        r = pread(fd, p + n, wanted - n, (off_t)(at + n));
        if (r < 0 && errno != EINTR)
            return -errno;
        n += r > 0 ? (size_t)r : 0;
    }
    return (ssize_t)n;
}

static int fill(struct zl_stream *s, struct zl_err *err)
{
    if (s->in_at < s->in_n || s->in_end)
        return 0;
    int64_t there = s->feed ? zl_feed_wait(s->feed, s->in_total, err) : IN_SIZE;
    if (there < 0)
        return (int)there;
    size_t wanted = (size_t)ZL_MIN(there, (int64_t)IN_SIZE);
    ssize_t got = read_at(s->fd, s->in, wanted, s->in_total);
    if (got < 0)
        return zl_fail(err, (int)got, "read a layer's blob");
    size_t n = (size_t)got;
    if (s->feed && n < wanted) /* the writer began again and cut the file */
        return zl_fail(err, ZL_E_CANCELLED, "the blob began again");
    s->in_at = 0;
    s->in_n = n;
    s->in_total += n;
    s->in_end = s->feed ? wanted == 0 : n < wanted;
    if (s->raw)
        zl_digest_add(s->raw, s->in, n);
    return 0;
}

/* What is in the file, when it is whole and small; 0 otherwise. */
static size_t small_size(const struct zl_stream *s)
{
    struct stat st;
    if (s->feed)
        return zl_feed_whole(s->feed, ZL_WHOLE_IN_MAX);
    return fstat(s->fd, &st) == 0 && st.st_size <= ZL_WHOLE_IN_MAX ? (size_t)st.st_size : 0;
}

int zl_stream_whole(struct zl_stream *s, const void **ret, size_t *n, struct zl_err *err)
{
    size_t size = small_size(s);
    const unsigned char *in = s->feed ? s->feed->bytes : NULL;
    zl_auto_free unsigned char *mine = in ? NULL : zl_try_malloc(size + 1);
    if (!in && !mine)
        return 0;
    ssize_t got = in ? (ssize_t)size : read_at(s->fd, mine, size, 0);
    if (got < 0)
        return zl_fail(err, (int)got, "read a layer's blob");
    in = in ? in : mine;
    s->room = zl_decoders_take_room(s->decoders);
    if (!s->room || (size_t)got != size || !zl_whole_unpack(in, size, s->decoders, s->room, n)) {
        s->room = zl_decoders_give_room(s->decoders, s->room);
        return 0;
    }
    *ret = s->room;
    s->form = PLAIN; /* at its end */
    s->in_end = s->done = true;
    s->in_total = size;
    s->out_total = *n;
    if (s->raw)
        zl_digest_add(s->raw, in, size);
    zl_digest_add(s->plain, s->room, *n);
    return 1;
}

bool zl_stream_is_zstd(const unsigned char head[4])
{
    return memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0 ||
           ((head[0] & 0xf0) == 0x50 && memcmp(head + 1, "\x2a\x4d\x18", 3) == 0);
}

static int choose(struct zl_stream *s, struct zl_err *err)
{
    int r = fill(s, err);
    if (r < 0)
        return r;
    s->form = PLAIN;
    if (s->in_n >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b) {
        s->form = GZIP;
        isal_inflate_init(&s->gzip);
        s->gzip.crc_flag = ISAL_GZIP;
    } else if (s->in_n >= 4 && zl_stream_is_zstd(s->in)) {
        s->form = ZSTD;
        s->zstd = zl_decoders_take(s->decoders);
    }
    return 0;
}

static ssize_t read_gzip(struct zl_stream *s, void *p, uint32_t size, struct zl_err *err)
{
    s->gzip.next_out = p;
    s->gzip.avail_out = size;
    while (s->gzip.avail_out == size) {
        int r = fill(s, err);
        if (r < 0)
            return r;
        if (s->gzip.block_state == ISAL_BLOCK_FINISH) {
            if (s->in_at == s->in_n)
                return 0;
            /* Another gzip member follows (RFC 1952, 2.2), or zero padding. */
            if (s->in[s->in_at] == 0) {
                s->in_at++;
                continue;
            }
            isal_inflate_reset(&s->gzip);
            s->gzip.crc_flag = ISAL_GZIP;
        } else if (s->in_at == s->in_n) {
            return zl_fail(err, ZL_E_BAD_IMAGE, "a layer's gzip data ends too early");
        }
        s->gzip.next_in = s->in + s->in_at;
        s->gzip.avail_in = (uint32_t)(s->in_n - s->in_at);
        r = isal_inflate(&s->gzip);
        s->in_at = s->in_n - s->gzip.avail_in;
        if (r != ISAL_DECOMP_OK)
            return zl_fail(err, ZL_E_BAD_IMAGE, "a layer's gzip data is damaged (isa-l %d)", r);
    }
    return (ssize_t)(size - s->gzip.avail_out);
}

static ssize_t read_zstd(struct zl_stream *s, void *p, size_t size, struct zl_err *err)
{
    ZSTD_outBuffer out = { p, size, 0 };
    while (out.pos == 0) {
        int r = fill(s, err);
        if (r < 0)
            return r;
        if (s->in_at == s->in_n)
            return s->zstd_more ? zl_fail(err, ZL_E_BAD_IMAGE, "a layer's zstd data ends too early") : 0;
        ZSTD_inBuffer in = { s->in, s->in_n, s->in_at };
        size_t more = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(more) && ZSTD_getErrorCode(more) == ZSTD_error_frameParameter_windowTooLarge)
            return zl_fail(err, ZL_E_LIMIT, "a layer's zstd data needs a window of more than %d MiB of memory",
                           1 << (ZL_DECODER_WINDOW_LOG_MAX - 20));
        if (ZSTD_isError(more))
            return zl_fail(err, ZL_E_BAD_IMAGE, "a layer's zstd data is damaged: %s", ZSTD_getErrorName(more));
        s->in_at = in.pos;
        s->zstd_more = more;
    }
    return (ssize_t)out.pos;
}

ssize_t zl_stream_read(struct zl_stream *s, void *p, size_t size, struct zl_err *err)
{
    ssize_t n = s->form == UNKNOWN ? choose(s, err) : 0;
    if (n < 0 || s->done)
        return n;
    if (s->form == GZIP) {
        n = read_gzip(s, p, (uint32_t)ZL_MIN(size, (size_t)UINT32_MAX), err);
    } else if (s->form == ZSTD) {
        n = read_zstd(s, p, size, err);
    } else {
        int r = fill(s, err);
        if (r < 0)
            return r;
        n = (ssize_t)ZL_MIN(size, s->in_n - s->in_at);
        memcpy(p, s->in + s->in_at, (size_t)n);
        s->in_at += (size_t)n;
    }
    if (n <= 0) {
        s->done = n == 0;
        return n;
    }
    zl_digest_add(s->plain, p, (size_t)n);
    s->out_total += (size_t)n;
    if (s->out_total > RATIO_FREE && (s->out_total - RATIO_FREE) / RATIO_MAX > s->in_total)
        return zl_fail(err, ZL_E_LIMIT, "a layer unpacks to more than 1 GiB and %d times its size", RATIO_MAX);
    return n;
}

int zl_stream_finish(struct zl_stream *s, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE], struct zl_err *err)
{
    while (!s->in_end || s->in_at < s->in_n) { /* bytes behind the compressed stream still belong to the blob */
        s->in_at = s->in_n;
        int r = fill(s, err);
        if (r < 0)
            return r;
    }
    blob[0] = 0;
    if (s->raw)
        zl_digest_finish(s->raw, blob);
    zl_digest_finish(s->plain, diff_id);
    return 0;
}
