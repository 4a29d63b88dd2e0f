#include "../testing.h"

#include "oci/platform.h"

#include <errno.h>

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
    special.os_version = "6.1";
    assert_int_equal(zl_oci_platform_fit(&host, &windows), 0);
    assert_int_equal(zl_oci_platform_fit(&host, &special), 0);
}

static void test_choose(void **state)
{
    struct zl_oci_descriptor items[] = { { .media_type = "", .platform = make("unknown", "") },
                                         { .media_type = "", .platform = make("arm", "v5") },
                                         { .media_type = "", .platform = make("arm", "v6") },
                                         { .media_type = "", .platform = make("arm", "v6") },
                                         { .media_type = "", .platform = make("amd64", "") } };
    struct zl_oci_manifest index = { .kind = ZL_OCI_INDEX, .items = items, .n = 5 };
    struct zl_oci_platform v7 = make("arm", "v7"), v6 = make("arm", "v6"), s390x = make("s390x", "");
    assert_ptr_equal(zl_oci_platform_choose(&index, &v7), &items[2]); /* the first among equals */
    assert_ptr_equal(zl_oci_platform_choose(&index, &v6), &items[2]);
    assert_null(zl_oci_platform_choose(&index, &s390x));
    /* Of an index that names no platform the first, whatever is wanted; one that names others has none to offer. */
    struct zl_oci_descriptor bare[] = { { .media_type = "text/plain", .platform = { .os = "", .architecture = "" } },
                                        { .media_type = "application/vnd.oci.image.index.v1+json",
                                          .platform = { .os = "", .architecture = "" } },
                                        { .media_type = "application/vnd.oci.image.manifest.v1+json",
                                          .platform = { .os = "unknown", .architecture = "unknown" } } };
    const struct zl_oci_manifest unsaid = { .kind = ZL_OCI_INDEX, .items = bare, .n = ZL_ARRAY_LEN(bare) };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bare); i++)
        bare[i].platform.variant = "";
    assert_ptr_equal(zl_oci_platform_choose(&unsaid, &s390x), &bare[1]);
    bare[0].platform.os = "linux";
    assert_null(zl_oci_platform_choose(&unsaid, &s390x));
}

static void test_versions_and_features(void **state)
{
    struct zl_arena arena;
    struct zl_oci_platform wanted,
        offer = { .os = "windows", .architecture = "amd64", .variant = "", .os_version = "10.0.17763.1397" };
    const char *features[] = { "win32k" };
    zl_arena_init(&arena);
    assert_int_equal(zl_oci_platform_parse(&arena, ZL_STR("windows(10.0.17763)/amd64"), &wanted), 0);
    assert_true(zl_oci_platform_fit(&wanted, &offer) > 0);
    offer.os_version = "10.0.177631";
    assert_int_equal(zl_oci_platform_fit(&wanted, &offer), 0);
    offer.os_version = "10.0.17763";
    offer.features = (struct zl_strings){ features, 1 };
    assert_int_equal(zl_oci_platform_fit(&wanted, &offer), 0);
    assert_int_equal(zl_oci_platform_parse(&arena, ZL_STR("windows(10.0+other+win32k)/amd64"), &wanted), 0);
    assert_true(zl_oci_platform_fit(&wanted, &offer) > 0);
    static const char *const texts[] = { "windows(10.0+other+win32k)/amd64", "linux/arm/v7", "linux(6)/s390x" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(texts); i++) {
        zl_auto_buf text = ZL_BUF_INIT;
        assert_int_equal(zl_oci_platform_parse(&arena, zl_str(texts[i]), &wanted), 0);
        zl_oci_platform_print(&wanted, &text);
        assert_string_equal(text.p, texts[i]);
    }
    zl_arena_done(&arena);
}

static void test_parse(void **state)
{
    struct zl_arena arena;
    struct zl_oci_platform p;
    zl_arena_init(&arena);
    assert_int_equal(zl_oci_platform_parse(&arena, ZL_STR("linux/arm/v6"), &p), 0);
    assert_string_equal(p.architecture, "arm");
    assert_string_equal(p.variant, "v6");
    assert_int_equal(zl_oci_platform_parse(&arena, ZL_STR("aarch64"), &p), 0);
    assert_string_equal(p.os, "linux");
    assert_string_equal(p.architecture, "arm64");
    static const char *const bad[] = { "",
                                       "/",
                                       "linux/",
                                       "/amd64",
                                       "a/b/c/d",
                                       "linux/amd64/",
                                       "linux()/amd64",
                                       "linux(1/amd64",
                                       "linux(1+)/amd64",
                                       "li nux/amd64",
                                       "linux/am\"d" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++)
        assert_int_equal(zl_oci_platform_parse(&arena, zl_str(bad[i]), &p), -EINVAL);
    zl_arena_done(&arena);
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
        cmocka_unit_test(test_fit),   cmocka_unit_test(test_choose), cmocka_unit_test(test_versions_and_features),
        cmocka_unit_test(test_parse), cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
