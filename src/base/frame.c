#include "base/frame.h"

#include "base/assert.h"

#include <endian.h>
#include <errno.h>

struct header {
    uint32_t magic;
    uint16_t version, type;
    uint32_t length, zero;
};
_Static_assert(sizeof(struct header) == ZL_FRAME_HEADER_SIZE, "the wire layout");

struct record_header {
    uint16_t type, zero;
    uint32_t length;
};

size_t zl_frame_begin(struct zl_buf *b, uint32_t magic, uint16_t version, uint16_t type)
{
    size_t start = b->n;
    struct header h = { htole32(magic), htole16(version), htole16(type), 0, 0 };
    zl_buf_add(b, &h, sizeof h);
    return start;
}

void zl_frame_end(struct zl_buf *b, size_t start)
{
    size_t n = b->n - start - sizeof(struct header);
    zl_assert(n <= UINT32_MAX);
    uint32_t length = htole32((uint32_t)n);
    memcpy(b->p + start + offsetof(struct header, length), &length, sizeof length);
}

void zl_record_add(struct zl_buf *b, uint16_t type, const void *p, size_t n)
{
    static const char zero[8];
    zl_assert(n <= UINT32_MAX - 8);
    struct record_header h = { htole16(type), 0, htole32((uint32_t)n) };
    zl_buf_add(b, &h, sizeof h);
    zl_buf_add(b, p, n);
    zl_buf_add(b, zero, -n & 7);
}

void zl_record_add_str(struct zl_buf *b, uint16_t type, struct zl_str s)
{
    zl_record_add(b, type, s.p, s.n);
}

void zl_record_add_u64(struct zl_buf *b, uint16_t type, uint64_t v)
{
    uint64_t le = htole64(v);
    zl_record_add(b, type, &le, sizeof le);
}

ssize_t zl_frame_parse(struct zl_str in, uint32_t magic, size_t limit, struct zl_frame *ret)
{
    struct header h;
    if (in.n < sizeof h)
        return 0;
    memcpy(&h, in.p, sizeof h);
    if (le32toh(h.magic) != magic || h.zero != 0)
        return -EPROTO;
    size_t length = le32toh(h.length);
    if (length > limit)
        return -EMSGSIZE;
    if (in.n - sizeof h < length)
        return 0;
    ret->version = le16toh(h.version);
    ret->type = le16toh(h.type);
    ret->body = zl_str_n(in.p + sizeof h, length);
    return (ssize_t)(sizeof h + length);
}

int zl_record_next(struct zl_str *body, struct zl_record *ret)
{
    if (body->n == 0)
        return 0;
    struct record_header h;
    if (body->n < sizeof h)
        return -EPROTO;
    memcpy(&h, body->p, sizeof h);
    size_t length = le32toh(h.length);
    size_t padded = length + (-length & 7);
    if (padded > body->n - sizeof h)
        return -EPROTO;
    ret->type = le16toh(h.type);
    ret->bytes = zl_str_n(body->p + sizeof h, length);
    body->p += sizeof h + padded;
    body->n -= sizeof h + padded;
    return 1;
}

int zl_record_u64(const struct zl_record *r, uint64_t *ret)
{
    uint64_t le;
    if (r->bytes.n != sizeof le)
        return -EPROTO;
    memcpy(&le, r->bytes.p, sizeof le);
    *ret = le64toh(le);
    return 0;
}
