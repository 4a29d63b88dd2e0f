#include "../testing.h"

#include "oci/config.h"

#include <stdlib.h>

#define D1     "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define ROOTFS "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" D1 "\"]}"

static struct zl_arena arena;

static void test_whole(void **state)
{
    struct zl_oci_config c;
    struct zl_err err;
    const char *text =
        "{\"os\":\"linux\",\"architecture\":\"amd64\"," ROOTFS
        ",\"config\":{\"Entrypoint\":[\"/a\"],\"Cmd\":[\"b\",\"c\"],"
        "\"Env\":[\"A=1\",\"broken\",\"=x\",\"B=\"],\"ExposedPorts\":{\"80/tcp\":{},\"53/"
        "udp\":{}},\"Labels\":{\"k\":\"v\"},"
        "\"WorkingDir\":\"/"
        "w\",\"User\":\"1:2\",\"StopSignal\":\"SIGINT\",\"Healthcheck\":{\"Test\":[\"NONE\"]}},\"history\":[]}";
    assert_int_equal(zl_oci_config_parse(&arena, zl_str(text), &c, &err), 0);
    assert_string_equal(c.platform.architecture, "amd64");
    assert_int_equal(c.diff_ids.n, 1);
    assert_string_equal(c.entrypoint.v[0], "/a");
    assert_int_equal(c.cmd.n, 2);
    assert_int_equal(c.env.n, 2);
    assert_string_equal(c.env.v[1], "B=");
    assert_int_equal(c.ports.n, 2);
    assert_string_equal(c.labels.v[0], "k=v");
    assert_string_equal(c.workdir, "/w");
    assert_string_equal(c.user, "1:2");
    assert_string_equal(c.stop_signal, "SIGINT");
}

static void test_sparse(void **state)
{
    struct zl_oci_config c;
    struct zl_err err;
    const char *text = "{" ROOTFS ",\"config\":{\"Cmd\":null,\"Entrypoint\":null,\"Labels\":null,\"User\":\"\"}}";
    assert_int_equal(zl_oci_config_parse(&arena, zl_str(text), &c, &err), 0);
    assert_int_equal(c.cmd.n + c.entrypoint.n + c.labels.n, 0);
    assert_null(c.user);
    assert_string_equal(c.platform.os, "");
    assert_int_equal(zl_oci_config_parse(&arena, zl_str("{" ROOTFS "}"), &c, &err), 0);
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "{\"rootfs\":{\"type\":\"tarballs\",\"diff_ids\":[]}}",
        "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:zz\"]}}",
        "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[5]}}",
        "{" ROOTFS ",\"config\":[]}",
        "{" ROOTFS ",\"config\":{\"Cmd\":\"sh\"}}",
        "{" ROOTFS ",\"config\":{\"Env\":[{}]}}",
        "{" ROOTFS ",\"config\":{\"Labels\":{\"a\":1}}}",
        "{" ROOTFS ",\"config\":{\"ExposedPorts\":[\"80\"]}}",
        "{" ROOTFS ",\"config\":{\"User\":0}}",
        "{" ROOTFS ",\"config\":{\"User\":\"a\\u0000b\"}}",
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        struct zl_oci_config c;
        struct zl_err err;
        if (zl_oci_config_parse(&arena, zl_str(bad[i]), &c, &err) != ZL_E_BAD_IMAGE)
            fail_msg("row %zu is taken", i);
    }
}

static int set_up(void **state)
{
    zl_arena_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    zl_arena_done(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
