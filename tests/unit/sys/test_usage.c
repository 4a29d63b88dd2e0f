#include "../testing.h"

#include "sys/usage.h"

static void network_counters_leave_out_lo(void **state)
{
    (void)state;
    struct zl_usage u = { 0 };
    zl_usage_take_net(
        ZL_STR(
            "Inter-|   Receive                                                |  Transmit\n"
            " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "
            "carrier compressed\n"
            "    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0 "
            "      0          0\n"
            "  eth0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0 "
            "      0          0\n"
            "  eth1:7 1 0 0 0 0 0 0 18446744073709551615 1 0 0 0 0 0 0\n"
            "  eth2:"),
        &u);
    assert_int_equal(u.net_rx_bytes, 1007);
    assert_int_equal(u.net_tx_bytes, 2000 + UINT64_MAX);
}

static void block_counters_of_both_versions_are_summed_over_devices(void **state)
{
    (void)state;
    struct zl_usage u = { 0 };
    zl_usage_take_io_stat(ZL_STR("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"
                                 "254:16 \n253:0 rbytes=1 wbytes=x\n"),
                          &u);
    assert_int_equal(u.block_read_bytes, 4097);
    assert_int_equal(u.block_write_bytes, 8192);
    u = (struct zl_usage){ 0 };
    zl_usage_take_service_bytes(
        ZL_STR("8:0 Read 4096\n8:0 Write 512\n8:0 Sync 0\n8:0 Total 4608\n8:16 Read 1\nTotal 4609\n"
               "\n8:0\n8:0 Read"),
        &u);
    assert_int_equal(u.block_read_bytes, 4097);
    assert_int_equal(u.block_write_bytes, 512);
}

static void what_is_not_there_is_nothing(void **state)
{
    (void)state;
    struct zl_usage u;
    struct zl_cgroup g = { .layout = ZL_CGROUP_V2 };
    zl_usage_read(&g, 0, &u);
    assert_int_equal(u.cpu_total_ns + u.cpu_system_ns + u.block_read_bytes + u.net_rx_bytes, 0);
    assert_true(u.pids_limit == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network_counters_leave_out_lo),
        cmocka_unit_test(block_counters_of_both_versions_are_summed_over_devices),
        cmocka_unit_test(what_is_not_there_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
