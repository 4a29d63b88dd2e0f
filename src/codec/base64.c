#include "codec/base64.h"

#include <errno.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void zl_base64_encode(struct zl_buf *out, struct zl_str bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);
        char quad[4] = { digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                         left > 2 ? digits[v & 63] : '=' };
        zl_buf_add(out, quad, 4);
    }
}

int zl_base64_decode(struct zl_buf *out, struct zl_str text)
{
    if (text.n % 4)
        return -EINVAL;
    for (size_t i = 0; i < text.n; i += 4) {
        unsigned v = 0, pad = 0;
        for (size_t j = 0; j < 4; j++) {
            char c = text.p[i + j];
            const char *at = c ? strchr(digits, c) : NULL;
            if (c == '=' && i + 4 == text.n && j >= 2)
                pad++;
            else if (!at || pad)
                return -EINVAL;
            v = v << 6 | (at ? (unsigned)(at - digits) : 0);
        }
        char triple[3] = { (char)(v >> 16), (char)(v >> 8), (char)v };
        zl_buf_add(out, triple, 3 - pad);
    }
    return 0;
}
