#include "../testing.h"

#include "base/alloc.h"
#include "base/str.h"

#include <errno.h>

static void numbers_parse_whole_and_in_range(void **state)
{
    uint64_t u = 42;
    int64_t i;
    assert_int_equal(zl_parse_u64(ZL_STR("18446744073709551615"), 0, UINT64_MAX, &u), 0);
    assert_true(u == UINT64_MAX);
    u = 42;
    assert_int_equal(zl_parse_u64(ZL_STR("18446744073709551616"), 0, UINT64_MAX, &u), -ERANGE);
    assert_int_equal(zl_parse_u64(ZL_STR("99999999999999999999999"), 0, UINT64_MAX, &u), -ERANGE);
    assert_int_equal(zl_parse_u64(ZL_STR("65536"), 1, 65535, &u), -ERANGE);
    assert_int_equal(zl_parse_u64(ZL_STR("0"), 1, 65535, &u), -ERANGE);
    assert_int_equal(zl_parse_u64(ZL_STR(""), 0, 9, &u), -EINVAL);
    assert_int_equal(zl_parse_u64(ZL_STR("+1"), 0, 9, &u), -EINVAL);
    assert_int_equal(zl_parse_u64(ZL_STR("1 "), 0, 9, &u), -EINVAL);
    assert_true(u == 42);
    assert_int_equal(zl_parse_i64(ZL_STR("-9223372036854775808"), INT64_MIN, INT64_MAX, &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(zl_parse_i64(ZL_STR("9223372036854775808"), INT64_MIN, INT64_MAX, &i), -ERANGE);
    assert_int_equal(zl_parse_i64(ZL_STR("-"), -9, 9, &i), -EINVAL);
}

static void views_cut_trim_and_compare(void **state)
{
    struct zl_str rest, head = zl_str_cut(ZL_STR("a=b=c"), '=', &rest);
    assert_true(zl_str_is(head, "a"));
    assert_true(zl_str_is(rest, "b=c"));
    head = zl_str_cut(ZL_STR("abc"), '=', &rest);
    assert_true(zl_str_is(head, "abc"));
    assert_null(rest.p);
    assert_true(zl_str_is(zl_str_trim(ZL_STR(" \t x y\t")), "x y"));
    assert_true(zl_str_is(zl_str_trim(ZL_STR("  ")), ""));
    assert_true(zl_str_starts(ZL_STR("abc"), ZL_STR("ab")));
    assert_false(zl_str_starts(ZL_STR("a"), ZL_STR("ab")));
    assert_true(zl_str_ends(ZL_STR("abc"), ZL_STR("bc")));
    assert_true(zl_str_eq_nocase(ZL_STR("Content-Length"), ZL_STR("content-length")));
}

static void distance_counts_edits_and_swaps_up_to_a_bound(void **state)
{
    assert_int_equal(zl_str_distance(ZL_STR("kitten"), ZL_STR("sitting"), 9), 3);
    assert_int_equal(zl_str_distance(ZL_STR("kitten"), ZL_STR("sitting"), 2), 2);
    assert_int_equal(zl_str_distance(ZL_STR(""), ZL_STR("abc"), 9), 3);
    assert_int_equal(zl_str_distance(ZL_STR("htpt"), ZL_STR("http"), 9), 1);
    assert_int_equal(zl_str_distance(ZL_STR("same"), ZL_STR("same"), 9), 0);
}

static void a_buffer_is_always_a_string(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "%d-%s", 12, "x");
    zl_buf_putc(&b, '!');
    assert_string_equal(b.p, "12-x!");
    zl_buf_drop(&b, 3);
    assert_string_equal(b.p, "x!");
    for (int i = 0; i < 10000; i++)
        zl_buf_puts(&b, "0123456789");
    assert_int_equal(strlen(b.p), b.n);
    assert_int_equal(zl_buf_try_reserve(&b, SIZE_MAX - 5), -ENOMEM);
    zl_auto_free char *taken = zl_buf_take(&b);
    assert_int_equal(strlen(taken), 100002);
    zl_auto_free char *empty = zl_buf_take(&b);
    assert_string_equal(empty, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_parse_whole_and_in_range),
        cmocka_unit_test(views_cut_trim_and_compare),
        cmocka_unit_test(distance_counts_edits_and_swaps_up_to_a_bound),
        cmocka_unit_test(a_buffer_is_always_a_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
