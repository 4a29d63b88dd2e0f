#include "cluster/mark.h"

#include "base/assert.h"
#include "cluster/state.h"

#include <stdio.h>

void zl_mark_encode(char ret[ZL_MARK_SIZE + 1], const struct zl_mark *m)
{
    int n = snprintf(ret, ZL_MARK_SIZE + 1, "%d %020llu %020llu %016llx ", ZL_STORE_VERSION,
                     (unsigned long long)m->applied, (unsigned long long)m->term, (unsigned long long)m->chain);
    uint64_t sum = zl_state_chain(0, zl_str_n(ret, (size_t)n));
    n += snprintf(ret + n, (size_t)(ZL_MARK_SIZE + 1 - n), "%016llx\n", (unsigned long long)sum);
    zl_assert(n == ZL_MARK_SIZE);
}

static bool number(const char *p, unsigned digits, unsigned base, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < digits; i++) {
        unsigned d = p[i] >= '0' && p[i] <= '9'   ? (unsigned)(p[i] - '0')
                     : p[i] >= 'a' && p[i] <= 'f' ? (unsigned)(p[i] - 'a') + 10
                                                  : 99;
        if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *ret = v;
    return true;
}

int zl_mark_decode(struct zl_str bytes, struct zl_mark *ret, struct zl_err *err)
{
    uint64_t sum;
    if (bytes.n >= 2 && bytes.p[0] > '0' + ZL_STORE_VERSION && bytes.p[0] <= '9' && bytes.p[1] == ' ')
        return zl_fail(err, ZL_E_STORE_NEWER, "the mark has version %c, this release knows %d", bytes.p[0],
                       ZL_STORE_VERSION);
    if (bytes.n != ZL_MARK_SIZE || bytes.p[0] != '0' + ZL_STORE_VERSION ||
        !number(bytes.p + 2, 20, 10, &ret->applied) || !number(bytes.p + 23, 20, 10, &ret->term) ||
        !number(bytes.p + 44, 16, 16, &ret->chain) || !number(bytes.p + 61, 16, 16, &sum))
        return zl_fail(err, ZL_E_PARSE, "the mark is torn");
    char again[ZL_MARK_SIZE + 1];
    zl_mark_encode(again, ret);
    if (memcmp(again, bytes.p, ZL_MARK_SIZE) != 0)
        return zl_fail(err, ZL_E_PARSE, "the mark does not match its checksum");
    return 0;
}
