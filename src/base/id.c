#include "base/id.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

void zl_random_bytes(void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = getrandom((char *)p + done, n - done, 0);
        if (r < 0 && errno == EINTR)
            continue;
        zl_assert(r > 0);
        done += (size_t)r;
    }
}

uint64_t zl_random_u64(void)
{
    uint64_t v;
    zl_random_bytes(&v, sizeof v);
    return v;
}

void zl_id_make(char ret[ZL_ID_HEX_SIZE])
{
    unsigned char raw[16];
    zl_random_bytes(raw, sizeof raw);
    for (int i = 0; i < 16; i++) {
        ret[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        ret[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    ret[32] = 0;
}

bool zl_id_valid(const char *s)
{
    return strlen(s) == ZL_ID_HEX_LEN && strspn(s, "0123456789abcdef") == ZL_ID_HEX_LEN;
}
