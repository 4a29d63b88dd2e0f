#include "../testing.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

static void every_row_has_a_unique_name_and_sane_codes(void **state)
{
    static const int codes[] = {
#define X(name, text, http, retry, exit) ZL_E_##name,
        ZL_ERRORS(X)
#undef X
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(codes); i++) {
        assert_int_equal(zl_error_by_name(zl_error_name(codes[i])), codes[i]);
        assert_in_range(zl_error_http(codes[i]), 400, 599);
        assert_in_range(zl_error_exit(codes[i]), 1, 130);
    }
    assert_int_equal(zl_error_by_name("no such name"), 0);
}

static void errno_codes_have_names(void **state)
{
    assert_string_equal(zl_error_name(-ENOENT), "ENOENT");
    assert_string_equal(zl_error_name(-4000), "unknown");
    assert_int_equal(zl_error_exit(-ENOENT), 1);
}

static void messages_are_built_and_prefixed(void **state)
{
    struct zl_err e;
    assert_int_equal(zl_fail(&e, -ENOENT, "open layer '%s'", "x"), -ENOENT);
    assert_string_equal(e.text, "open layer 'x': No such file or directory");
    assert_int_equal(zl_wrap(&e, ZL_E_PULL_FAILED, "pull %s", "img"), ZL_E_PULL_FAILED);
    assert_string_equal(e.text, "pull img: open layer 'x': No such file or directory");
    assert_int_equal(e.code, -ENOENT);
    assert_non_null(strstr(e.origin, "test_error.c:"));
    zl_hint(&e, 0, "first");
    zl_hint(&e, 0, "second");
    assert_string_equal(e.hint, "first");
    assert_int_equal(zl_fail_errno(&e, ZL_E_PORT_TAKEN, -EADDRINUSE, "bind %d", 80), ZL_E_PORT_TAKEN);
    assert_string_equal(e.text, "bind 80: Address already in use");
    assert_int_equal(e.cause, -EADDRINUSE);
    assert_int_equal(zl_fail(NULL, -EIO, "x"), -EIO);
}

static void a_long_message_is_cut_not_overrun(void **state)
{
    struct zl_err e;
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    zl_fail(&e, -EIO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    zl_wrap(&e, -EIO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_a_unique_name_and_sane_codes),
        cmocka_unit_test(errno_codes_have_names),
        cmocka_unit_test(messages_are_built_and_prefixed),
        cmocka_unit_test(a_long_message_is_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
