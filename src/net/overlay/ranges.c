#include "net/overlay/ranges.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>

bool zl_net_overlap(struct zl_net_block a, struct zl_net_block b)
{
    unsigned shorter = ZL_MIN(a.prefix, b.prefix);
    uint32_t mask = shorter == 0 ? 0 : UINT32_MAX << (32 - shorter);
    return ((ntohl(a.addr.s_addr) ^ ntohl(b.addr.s_addr)) & mask) == 0;
}

bool zl_net_in_16(struct in_addr range, struct in_addr addr)
{
    return zl_net_overlap((struct zl_net_block){ range, 16 }, (struct zl_net_block){ addr, 32 });
}

static bool is_free(struct zl_net_block block, const struct zl_net_block *used, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (used[i].prefix > 0 && zl_net_overlap(block, used[i]))
            return false;
    return true;
}

static struct in_addr second_octet(uint32_t first, uint32_t second)
{
    return (struct in_addr){ htonl(first << 24 | second << 16) };
}

int zl_net_pick_ranges(const struct zl_net_block *used, size_t n, struct zl_net_ranges *ret)
{
    /* Three neighbouring /16s from the seeds' default on; then the ends of the other private blocks, which VPNs and
     * cloud networks that take all of 10/8 leave alone. */
    static const struct {
        unsigned char first, second;
    } starts[] = { { 10, 200 }, { 10, 210 }, { 10, 220 }, { 10, 230 }, { 10, 240 }, { 10, 180 },
                   { 10, 160 }, { 10, 140 }, { 172, 28 }, { 172, 20 }, { 100, 120 } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(starts); i++) {
        struct in_addr a[3];
        bool ok = true;
        for (unsigned k = 0; k < 3; k++) {
            a[k] = second_octet(starts[i].first, starts[i].second + k);
            ok = ok && is_free((struct zl_net_block){ a[k], 16 }, used, n);
        }
        if (ok) {
            *ret = (struct zl_net_ranges){ a[0], a[1], a[2] };
            return 0;
        }
    }
    return -ENOSPC;
}

int zl_net_pick_uplink(struct in_addr range, const struct zl_net_block *used, size_t n, struct in_addr *ret)
{
    for (uint32_t offset = 0; offset < 1u << 16; offset += 4) {
        struct in_addr a = { htonl((ntohl(range.s_addr) & 0xffff0000u) | offset) };
        if (is_free((struct zl_net_block){ a, 30 }, used, n)) {
            *ret = a;
            return 0;
        }
    }
    return -ENOSPC;
}
