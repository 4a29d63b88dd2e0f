#include "../testing.h"

#include "client/client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void an_option_beats_the_variable_which_beats_the_default(void **state)
{
    struct zl_place p;
    struct zl_err err = { 0 };
    setenv("ZLAYER_DATA_DIR", "/srv/b", 1);
    assert_int_equal(zl_place_find(&p, "/srv/a/", &err), 0);
    assert_string_equal(p.data, "/srv/a");
    assert_string_equal(p.run, "/srv/a/run");
    assert_string_equal(p.socket, "/srv/a/run/zlayer.sock");
    assert_string_equal(p.from, "--data-dir");
    zl_place_done(&p);
    assert_int_equal(zl_place_find(&p, NULL, &err), 0);
    assert_string_equal(p.data, "/srv/b");
    assert_string_equal(p.from, "ZLAYER_DATA_DIR");
    zl_place_done(&p);
    setenv("ZLAYER_DATA_DIR", "", 1);
    assert_int_equal(zl_place_find(&p, "", &err), 0);
    assert_string_equal(p.from, "default");
    if (geteuid() == 0) {
        assert_string_equal(p.data, "/var/lib/zlayer");
        assert_string_equal(p.socket, "/var/run/zlayer/zlayer.sock");
    }
    zl_place_done(&p);
    unsetenv("ZLAYER_DATA_DIR");
}

static void a_relative_folder_is_made_absolute(void **state)
{
    struct zl_place p;
    assert_int_equal(chdir("/tmp"), 0);
    assert_int_equal(zl_place_find(&p, "x/y", NULL), 0);
    assert_string_equal(p.data, "/tmp/x/y");
    zl_place_done(&p);
}

static void a_segment_is_encoded(void **state)
{
    struct zl_buf b = ZL_BUF_INIT;
    zl_path_segment(&b, "a-Z_0.~/ \xc3\xa4?");
    assert_string_equal(b.p, "a-Z_0.~%2F%20%C3%A4%3F");
    zl_buf_done(&b);
}

static void a_missing_program_is_named(void **state)
{
    char *path = NULL;
    struct zl_err err = { 0 };
    assert_true(zl_program_find("zl-nothing", &path, &err) < 0);
    assert_null(path);
    assert_non_null(strstr(err.text, "zl-nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_option_beats_the_variable_which_beats_the_default),
        cmocka_unit_test(a_relative_folder_is_made_absolute),
        cmocka_unit_test(a_segment_is_encoded),
        cmocka_unit_test(a_missing_program_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
