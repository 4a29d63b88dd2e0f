#include "../testing.h"

#include "net/overlay/ranges.h"

#include <arpa/inet.h>
#include <errno.h>

static struct zl_net_block block(const char *addr, unsigned prefix)
{
    struct zl_net_block b = { .prefix = prefix };
    assert_int_equal(inet_pton(AF_INET, addr, &b.addr), 1);
    return b;
}

static void assert_addr(struct in_addr a, const char *expected)
{
    char text[INET_ADDRSTRLEN];
    assert_string_equal(inet_ntop(AF_INET, &a, text, sizeof text), expected);
}

static void overlaps_by_the_shorter_prefix(void **state)
{
    assert_true(zl_net_overlap(block("10.200.3.4", 32), block("10.200.0.0", 16)));
    assert_true(zl_net_overlap(block("0.0.0.0", 0), block("10.200.0.0", 16)));
    assert_false(zl_net_overlap(block("10.201.0.0", 16), block("10.200.0.0", 16)));
    assert_false(zl_net_overlap(block("10.0.0.4", 30), block("10.0.0.0", 30)));
    assert_true(zl_net_in_16(block("10.200.0.0", 16).addr, block("10.200.255.255", 32).addr));
    assert_false(zl_net_in_16(block("10.200.0.0", 16).addr, block("10.201.0.0", 32).addr));
}

static void takes_the_default_ranges_when_they_are_free(void **state)
{
    struct zl_net_ranges r;
    struct zl_net_block used[] = { block("0.0.0.0", 0), block("192.168.1.0", 24), block("172.17.0.0", 16) };
    assert_int_equal(zl_net_pick_ranges(used, ZL_ARRAY_LEN(used), &r), 0);
    assert_addr(r.replicas, "10.200.0.0");
    assert_addr(r.services, "10.201.0.0");
    assert_addr(r.uplinks, "10.202.0.0");
}

static void steps_aside_for_routes(void **state)
{
    struct zl_net_ranges r;
    struct zl_net_block one[] = { block("10.201.7.0", 24) };
    assert_int_equal(zl_net_pick_ranges(one, 1, &r), 0);
    assert_addr(r.replicas, "10.210.0.0");
    struct zl_net_block vpn[] = { block("10.0.0.0", 8) };
    assert_int_equal(zl_net_pick_ranges(vpn, 1, &r), 0);
    assert_addr(r.replicas, "172.28.0.0");
    assert_addr(r.uplinks, "172.30.0.0");
    struct zl_net_block all[] = { block("10.0.0.0", 8), block("172.16.0.0", 12), block("100.64.0.0", 10) };
    assert_int_equal(zl_net_pick_ranges(all, ZL_ARRAY_LEN(all), &r), -ENOSPC);
}

static void takes_the_first_free_uplink(void **state)
{
    struct in_addr a, range = block("10.202.0.0", 16).addr;
    assert_int_equal(zl_net_pick_uplink(range, NULL, 0, &a), 0);
    assert_addr(a, "10.202.0.0");
    struct zl_net_block used[] = { block("10.202.0.0", 30), block("10.202.0.5", 32), block("10.202.0.10", 31) };
    assert_int_equal(zl_net_pick_uplink(range, used, ZL_ARRAY_LEN(used), &a), 0);
    assert_addr(a, "10.202.0.12");
    struct zl_net_block whole[] = { block("10.202.0.0", 16) };
    assert_int_equal(zl_net_pick_uplink(range, whole, 1, &a), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlaps_by_the_shorter_prefix),
        cmocka_unit_test(takes_the_default_ranges_when_they_are_free),
        cmocka_unit_test(steps_aside_for_routes),
        cmocka_unit_test(takes_the_first_free_uplink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
