/* The scalar grammars of documents, the nearest name, and base64. */
#include "../testing.h"

#include "codec/base64.h"
#include "codec/fields.h"

#include <errno.h>

static void durations(void **state)
{
    static const struct {
        const char *text;
        int code;
        uint64_t ms;
    } cases[] = {
        { "0", 0, 0 },
        { "0s", 0, 0 },
        { "30s", 0, 30000 },
        { "1h 30m", 0, 5400000 },
        { "2h30m", 0, 9000000 },
        { "1 day 2 hours", 0, 93600000 },
        { "1w", 0, 604800000 },
        { "1M", 0, 2630016000 },
        { "1y", 0, 31557600000 },
        { "1500us", 0, 1 },
        { "1\xc2\xb5s", 0, 0 },
        { "999999ns", 0, 0 },
        { "250 ms", 0, 250 },
        { "", -EINVAL, 0 },
        { " ", -EINVAL, 0 },
        { "30", -EINVAL, 0 },
        { "s", -EINVAL, 0 },
        { "-1s", -EINVAL, 0 },
        { "+1s", -EINVAL, 0 },
        { "1.5s", -EINVAL, 0 },
        { "1S", -EINVAL, 0 },
        { "1 fortnight", -EINVAL, 0 },
        { "1s2", -EINVAL, 0 },
        { "1 s s", -EINVAL, 0 },
        { "1verylongunitname", -EINVAL, 0 },
        { "584y", 0, 18429638400000 },
        { "600y", -ERANGE, 0 },
        { "18446744073709551616s", -ERANGE, 0 },
        { "18446744073709551615ns 1ns", -ERANGE, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        uint64_t ms = 0;
        int r = zl_parse_duration_ms(zl_str(cases[i].text), &ms);
        if (r != cases[i].code || ms != cases[i].ms)
            fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)ms);
    }
}

static void printed_durations_and_sizes_are_read_back(void **state)
{
    static const uint64_t values[] = { 1, 999, 1000, 60000, 61001, 86400000, 90061001, 31557600000, 604800000 };
    struct zl_arena arena;
    (void)state;
    zl_arena_init(&arena);
    assert_string_equal(zl_print_duration(&arena, 0), "0s");
    assert_string_equal(zl_print_duration(&arena, 90061001), "1day 1h 1m 1s 1ms");
    for (size_t i = 0; i < ZL_ARRAY_LEN(values); i++) {
        uint64_t back = 0;
        assert_int_equal(zl_parse_duration_ms(zl_str(zl_print_duration(&arena, values[i])), &back), 0);
        assert_true(back == values[i]);
        assert_int_equal(zl_parse_size(zl_str(zl_print_size(&arena, values[i] * 1024)), &back), 0);
        assert_true(back == values[i] * 1024);
    }
    zl_arena_done(&arena);
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        int code;
        uint64_t bytes;
    } cases[] = {
        { "1Ki", 0, 1024 },
        { "256Mi", 0, 268435456 },
        { "2Gi", 0, 2147483648 },
        { "1Ti", 0, 1099511627776 },
        { "8388607Ti", 0, UINT64_C(8388607) << 40 },
        { "8388608Ti", -ERANGE, 0 },
        { "0Mi", -ERANGE, 0 },
        { "99999999999999999999Ti", -ERANGE, 0 },
        { "512", -EINVAL, 0 },
        { "512MB", -EINVAL, 0 },
        { "512m", -EINVAL, 0 },
        { "Mi", -EINVAL, 0 },
        { "", -EINVAL, 0 },
        { "1 Mi", -EINVAL, 0 },
        { "1.5Gi", -EINVAL, 0 },
        { "-1Gi", -EINVAL, 0 },
        { "1Pi", -EINVAL, 0 },
        { "1mi", -EINVAL, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        uint64_t bytes = 0;
        int r = zl_parse_size(zl_str(cases[i].text), &bytes);
        if (r != cases[i].code || bytes != cases[i].bytes)
            fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)bytes);
    }
}

static void the_nearest_name_is_near(void **state)
{
    static const char *const names[] = { "replicas", "resources", "!schedule", "-none", "env", NULL };
    (void)state;
    assert_string_equal(zl_nearest(ZL_STR("replica"), names), "replicas");
    assert_string_equal(zl_nearest(ZL_STR("resorces"), names), "resources");
    assert_string_equal(zl_nearest(ZL_STR("shedule"), names), "schedule");
    assert_string_equal(zl_nearest(ZL_STR("evn"), (const char *const[]){ "en", NULL }), "en");
    assert_null(zl_nearest(ZL_STR("none"), names));
    assert_null(zl_nearest(ZL_STR("volumes"), names));
    assert_null(zl_nearest(ZL_STR(""), names));
}

static void base64_is_rfc_4648s(void **state)
{
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "foobar", "Zm9vYmFy" } };
    static const char *const bad[] = { "Z",    "Zg",        "Zg=",   "Zg===", "Z===",
                                       "====", "Zm9v Zg==", "Zm9\n", "Zm-_",  "Zg==Zg==" };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(pairs); i++) {
        zl_auto_buf out = ZL_BUF_INIT, back = ZL_BUF_INIT;
        zl_base64_encode(&out, zl_str(pairs[i][0]));
        assert_true(zl_str_is(zl_buf_view(&out), pairs[i][1]));
        assert_int_equal(zl_base64_decode(&back, zl_str(pairs[i][1])), 0);
        assert_true(zl_str_is(zl_buf_view(&back), pairs[i][0]));
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        zl_auto_buf out = ZL_BUF_INIT;
        if (zl_base64_decode(&out, zl_str(bad[i])) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(printed_durations_and_sizes_are_read_back),
        cmocka_unit_test(sizes),
        cmocka_unit_test(the_nearest_name_is_near),
        cmocka_unit_test(base64_is_rfc_4648s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
