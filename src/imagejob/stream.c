#include "imagejob/stream.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fd.h"

#include <isa-l/igzip_lib.h>
#include <stdio.h>
#include <unistd.h>
#include <zstd.h>

enum { IN_SIZE = 128 << 10, OUT_SIZE = 256 << 10, ZSTD_WINDOW_LOG_MAX = 23 };
/* A layer that grows more than this over its compressed size is refused, once it is past the first 64 MiB. */
enum { RATIO_MAX = 1100 };

enum form { UNKNOWN, PLAIN, GZIP, ZSTD };

struct zl_stream {
    int fd;
    enum form form;
    bool in_end, done;
    struct zl_digest *raw, *plain;
    struct inflate_state gzip;
    ZSTD_DStream *zstd;
    size_t zstd_more; /* what the decoder still expects; 0 between frames */
    size_t in_n, in_at;
    uint64_t in_total, out_total;
    unsigned char in[IN_SIZE], out[OUT_SIZE];
};

struct zl_stream *zl_stream_new(int fd)
{
    struct zl_stream *s = zl_xcalloc(1, sizeof *s);
    s->fd = fd;
    s->raw = zl_digest_new();
    s->plain = zl_digest_new();
    return s;
}

struct zl_stream *zl_stream_free(struct zl_stream *s)
{
    if (s) {
        zl_digest_free(s->raw);
        zl_digest_free(s->plain);
        ZSTD_freeDStream(s->zstd);
        free(s);
    }
    return NULL;
}

static int fill(struct zl_stream *s, struct zl_err *err)
{
    if (s->in_at < s->in_n || s->in_end)
        return 0;
    ssize_t n = zl_read_full(s->fd, s->in, sizeof s->in);
    if (n < 0)
        return zl_fail(err, (int)n, "read a layer's blob");
    s->in_at = 0;
    s->in_n = (size_t)n;
    s->in_total += (size_t)n;
    s->in_end = (size_t)n < sizeof s->in;
    zl_digest_add(s->raw, s->in, (size_t)n);
    return 0;
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
    } else if (s->in_n >= 4 && s->in[0] == 0x28 && s->in[1] == 0xb5 && s->in[2] == 0x2f && s->in[3] == 0xfd) {
        s->form = ZSTD;
        s->zstd = ZSTD_createDStream();
        zl_assert(s->zstd);
        ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    }
    return 0;
}

static ssize_t read_gzip(struct zl_stream *s, struct zl_err *err)
{
    s->gzip.next_out = s->out;
    s->gzip.avail_out = sizeof s->out;
    while (s->gzip.avail_out == sizeof s->out) {
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
    return (ssize_t)(sizeof s->out - s->gzip.avail_out);
}

static ssize_t read_zstd(struct zl_stream *s, struct zl_err *err)
{
    ZSTD_outBuffer out = { s->out, sizeof s->out, 0 };
    while (out.pos == 0) {
        int r = fill(s, err);
        if (r < 0)
            return r;
        if (s->in_at == s->in_n)
            return s->zstd_more ? zl_fail(err, ZL_E_BAD_IMAGE, "a layer's zstd data ends too early") : 0;
        ZSTD_inBuffer in = { s->in, s->in_n, s->in_at };
        size_t more = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(more))
            return zl_fail(err, ZL_E_BAD_IMAGE, "a layer's zstd data is damaged: %s", ZSTD_getErrorName(more));
        s->in_at = in.pos;
        s->zstd_more = more;
    }
    return (ssize_t)out.pos;
}

ssize_t zl_stream_read(struct zl_stream *s, const void **ret, struct zl_err *err)
{
    ssize_t n = s->form == UNKNOWN ? choose(s, err) : 0;
    if (n < 0 || s->done)
        return n;
    *ret = s->out;
    if (s->form == GZIP) {
        n = read_gzip(s, err);
    } else if (s->form == ZSTD) {
        n = read_zstd(s, err);
    } else {
        int r = fill(s, err);
        if (r < 0)
            return r;
        *ret = s->in + s->in_at;
        n = (ssize_t)(s->in_n - s->in_at);
        s->in_at = s->in_n;
    }
    if (n <= 0) {
        s->done = n == 0;
        return n;
    }
    zl_digest_add(s->plain, *ret, (size_t)n);
    s->out_total += (size_t)n;
    if (s->out_total > (64u << 20) && s->out_total / RATIO_MAX > s->in_total)
        return zl_fail(err, ZL_E_LIMIT, "a layer unpacks to more than %d times its size", RATIO_MAX);
    return n;
}

int zl_stream_finish(struct zl_stream *s, char blob[ZL_DIGEST_SIZE], char diff_id[ZL_DIGEST_SIZE], struct zl_err *err)
{
    const void *p;
    ssize_t n;
    while ((n = zl_stream_read(s, &p, err)) > 0) {
    }
    if (n < 0)
        return (int)n;
    while (!s->in_end || s->in_at < s->in_n) { /* bytes behind the compressed stream still belong to the blob */
        s->in_at = s->in_n;
        int r = fill(s, err);
        if (r < 0)
            return r;
    }
    zl_digest_finish(s->raw, blob);
    zl_digest_finish(s->plain, diff_id);
    return 0;
}
