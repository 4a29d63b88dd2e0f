#include "../testing.h"

#include "base/clock.h"
#include "base/id.h"

static void times_print_as_rfc_3339(void **state)
{
    char t[ZL_TIME_TEXT_SIZE];
    assert_string_equal(zl_time_text_s(0, t), "1970-01-01T00:00:00Z");
    assert_string_equal(zl_time_text_s(UINT64_C(951827696000), t), "2000-02-29T12:34:56Z");
    assert_string_equal(zl_time_text_s(UINT64_C(4102444799000), t), "2099-12-31T23:59:59Z");
    assert_string_equal(zl_time_text_ns(UINT64_C(1709164800000000005), t), "2024-02-29T00:00:00.000000005Z");
}

static void the_monotonic_clock_does_not_go_back(void **state)
{
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = zl_clock_mono_ns();
        assert_true(now >= last);
        last = now;
    }
}

static void ids_are_valid_and_differ(void **state)
{
    char a[ZL_ID_HEX_SIZE], b[ZL_ID_HEX_SIZE];
    zl_id_make(a);
    zl_id_make(b);
    assert_true(zl_id_valid(a));
    assert_string_not_equal(a, b);
    a[3] = 'G';
    assert_false(zl_id_valid(a));
    b[31] = 0;
    assert_false(zl_id_valid(b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_print_as_rfc_3339),
        cmocka_unit_test(the_monotonic_clock_does_not_go_back),
        cmocka_unit_test(ids_are_valid_and_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
