#include "../testing.h"

#include "oci/platform.h"

static struct zl_oci_platform make(const char *architecture, const char *variant)
{
    return (struct zl_oci_platform){ .os = "linux", .architecture = architecture, .variant = variant };
}

static unsigned fit(const char *a, const char *va, const char *b, const char *vb)
{
    struct zl_oci_platform host = make(a, va), offer = make(b, vb);
    return zl_oci_platform_fit(&host, &offer);
}

static void test_fit(void **state)
{
    assert_true(fit("amd64", "", "amd64", "") > 0);
    assert_true(fit("amd64", "", "amd64", "v1") > 0);
    assert_int_equal(fit("amd64", "", "amd64", "v3"), 0);
    assert_int_equal(fit("amd64", "", "arm64", ""), 0);
    assert_true(fit("arm64", "v8", "arm64", "") > 0);
    assert_true(fit("arm64", "v8", "arm64", "v8") > 0);
    assert_true(fit("arm", "v7", "arm", "v7") > fit("arm", "v7", "arm", "v6"));
    assert_true(fit("arm", "v7", "arm", "v6") > fit("arm", "v7", "arm", "v5"));
    assert_int_equal(fit("arm", "v6", "arm", "v7"), 0);
    assert_int_equal(fit("arm", "v7", "arm", "weird"), 0);
    struct zl_oci_platform host = make("amd64", ""), windows = make("amd64", ""), special = make("amd64", "");
    windows.os = "windows";
    special.special = true;
    assert_int_equal(zl_oci_platform_fit(&host, &windows), 0);
    assert_int_equal(zl_oci_platform_fit(&host, &special), 0);
}

static void test_choose(void **state)
{
    struct zl_oci_descriptor items[] = { { .platform = make("unknown", "") },
                                         { .platform = make("arm", "v5") },
                                         { .platform = make("arm", "v6") },
                                         { .platform = make("arm", "v6") },
                                         { .platform = make("amd64", "") } };
    struct zl_oci_manifest index = { .kind = ZL_OCI_INDEX, .items = items, .n = 5 };
    struct zl_oci_platform v7 = make("arm", "v7"), v6 = make("arm", "v6"), s390x = make("s390x", "");
    assert_ptr_equal(zl_oci_platform_choose(&index, &v7), &items[2]); /* the first among equals */
    assert_ptr_equal(zl_oci_platform_choose(&index, &v6), &items[2]);
    assert_null(zl_oci_platform_choose(&index, &s390x));
}

static void test_host(void **state)
{
    struct zl_oci_platform host = zl_oci_platform_host();
    assert_string_equal(host.os, "linux");
    assert_true(zl_oci_platform_fit(&host, &host) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
