#include "../testing.h"

#include "oci/layer.h"

#include <errno.h>
#include <stdlib.h>

static void test_paths(void **state)
{
    static const char *const good[][2] = {
        { "a/b", "a/b" }, { "/a/b/", "a/b" }, { "./a//./b", "a/b" },    { "./", "" },
        { "/", "" },      { "", "" },         { "..a/b..", "..a/b.." }, { "a/...", "a/..." },
    };
    static const char *const bad[] = { "..", "../a", "a/../b", "a/..", "/..", "./../x" };
    char path[ZL_OCI_PATH_SIZE];
    for (size_t i = 0; i < ZL_ARRAY_LEN(good); i++) {
        assert_int_equal(zl_oci_layer_path(good[i][0], path), 0);
        assert_string_equal(path, good[i][1]);
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++)
        assert_int_equal(zl_oci_layer_path(bad[i], path), -EINVAL);
}

static void test_path_limits(void **state)
{
    char in[3 * ZL_OCI_PATH_SIZE], path[ZL_OCI_PATH_SIZE];
    memset(in, 'a', sizeof in);
    in[255] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), 0);
    in[255] = 'a';
    in[256] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), -EINVAL); /* a part of 256 */
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = i % 200 == 199 ? '/' : 'a';
    in[4000] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), 0);
    in[4000] = 'a';
    in[4199] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), -EINVAL); /* too long as a whole */
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = i % 2 ? '/' : 'a';
    in[2 * ZL_OCI_DEPTH_MAX] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), 0);
    in[2 * ZL_OCI_DEPTH_MAX] = 'a';
    in[2 * ZL_OCI_DEPTH_MAX + 1] = 0;
    assert_int_equal(zl_oci_layer_path(in, path), -EINVAL); /* one part too many */
}

static void test_whiteouts(void **state)
{
    assert_int_equal(zl_oci_whiteout_of("wh.x"), ZL_OCI_PLAIN);
    assert_int_equal(zl_oci_whiteout_of(".wh.x"), ZL_OCI_WHITEOUT);
    assert_int_equal(zl_oci_whiteout_of(".wh..hidden"), ZL_OCI_WHITEOUT);
    assert_int_equal(zl_oci_whiteout_of(".wh..wh..opq"), ZL_OCI_OPAQUE);
    assert_int_equal(zl_oci_whiteout_of(".wh..wh.plnk"), ZL_OCI_AUFS);
    assert_int_equal(zl_oci_whiteout_of(".wh."), ZL_OCI_MALFORMED);
    assert_int_equal(zl_oci_whiteout_of(".wh.."), ZL_OCI_MALFORMED);
    assert_int_equal(zl_oci_whiteout_of(".wh..."), ZL_OCI_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_path_limits),
        cmocka_unit_test(test_whiteouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
