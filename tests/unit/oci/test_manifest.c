#include "../testing.h"

#include "oci/manifest.h"

#include <stdlib.h>

#define D1     "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define OCI    "application/vnd.oci.image."
#define CONFIG "\"config\":{\"mediaType\":\"" OCI "config.v1+json\",\"digest\":\"" D1 "\",\"size\":7}"
#define LAYER  "{\"mediaType\":\"" OCI "layer.v1.tar+gzip\",\"digest\":\"" D1 "\",\"size\":9}"

static struct zl_arena arena;

static int parse(const char *text, const char *type, struct zl_oci_manifest *m, struct zl_err *err)
{
    *err = (struct zl_err){ 0 };
    return zl_oci_manifest_parse(&arena, zl_str(text), type, m, err);
}

static void test_foreign_layers(void **state)
{
    struct zl_oci_manifest m;
    struct zl_err err;
#define FOREIGN(urls)                                                   \
    "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI \
    "layer.nondistributable.v1.tar+zstd\",\"digest\":\"" D1 "\",\"size\":9" urls "}," LAYER "]}"
    assert_int_equal(parse(FOREIGN(",\"urls\":[\"https://a/b\",\"\"]"), "", &m, &err), 0);
    assert_true(m.items[0].foreign && !m.items[1].foreign);
    assert_int_equal(m.items[0].urls.n, 2);
    assert_string_equal(m.items[0].urls.v[0], "https://a/b");
    assert_int_equal(m.items[1].urls.n, 0);
    assert_int_equal(parse(FOREIGN(",\"urls\":null"), "", &m, &err), 0);
    assert_int_equal(m.items[0].urls.n, 0);
    assert_int_equal(parse(FOREIGN(",\"urls\":\"https://a/b\""), "", &m, &err), ZL_E_BAD_IMAGE);
    assert_int_equal(parse(FOREIGN(",\"urls\":[7]"), "", &m, &err), ZL_E_BAD_IMAGE);
    assert_non_null(strstr(err.text, "layer 1: 'urls'"));
}

static void test_manifest(void **state)
{
    struct zl_oci_manifest m;
    struct zl_err err;
    const char *text =
        "{\"schemaVersion\":2,\"mediaType\":\"" OCI "manifest.v1+json\"," CONFIG ",\"layers\":[" LAYER "]}";
    assert_int_equal(parse(text, OCI "manifest.v1+json; charset=utf-8", &m, &err), 0);
    assert_int_equal(m.kind, ZL_OCI_MANIFEST);
    assert_int_equal(m.n, 1);
    assert_string_equal(m.config.digest, D1);
    assert_int_equal(m.config.size, 7);
    assert_int_equal(m.items[0].size, 9);
    assert_int_equal(parse(text, "application/json", &m, &err), 0); /* a server that knows nothing */
    assert_int_equal(parse(text, NULL, &m, &err), 0);
}

static void test_index(void **state)
{
    struct zl_oci_manifest m;
    struct zl_err err;
    const char *text =
        "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI "manifest.v1+json\",\"digest\":\"" D1
        "\",\"size\":3,\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}},"
        "{\"digest\":\"" D1
        "\",\"size\":3,\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\",\"os.features\":[\"x\"]}}]}";
    assert_int_equal(parse(text, OCI "index.v1+json", &m, &err), 0);
    assert_int_equal(m.kind, ZL_OCI_INDEX);
    assert_int_equal(m.n, 2);
    assert_string_equal(m.items[0].platform.variant, "v7");
    assert_string_equal(m.items[0].platform.os_version, "");
    assert_true(*m.items[1].platform.os_version || m.items[1].platform.features.n);
}

/* Every row is refused, and its message holds the word. */
static const struct {
    const char *text, *type, *word;
} refused[] = {
    { "", NULL, "no JSON" },
    { "[]", NULL, "a list" },
    { "{\"schemaVersion\":1,\"fsLayers\":[]}", NULL, "schema 1" },
    { "{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[],\"manifests\":[]}", NULL, "at once" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[]}", OCI "index.v1+json", "fields of its type" },
    { "{\"schemaVersion\":3," CONFIG ",\"layers\":[]}", NULL, "fields of its type" },
    { "{\"schemaVersion\":2,\"mediaType\":\"" OCI "index.v1+json\",\"manifests\":[]}", OCI "manifest.v1+json",
      "calls" },
    { "{\"schemaVersion\":2,\"mediaType\":\"x/y\"," CONFIG ",\"layers\":[]}", NULL, "can be read" },
    { "<html>", "text/html", "no JSON" },
    { "{\"schemaVersion\":2,\"layers\":[]}", NULL, "no 'config'" },
    { "{\"schemaVersion\":2," CONFIG "}", NULL, "no 'layers'" },
    { "{\"schemaVersion\":\"2\"," CONFIG ",\"layers\":[]}", NULL, "schemaVersion" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[1]}", NULL, "descriptor" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":{}}", NULL, "'layers' is a map" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI
      "layer.v1.tar\",\"digest\":\"sha256:12\",\"size\":1}]}",
      NULL, "no sha256 digest" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI "layer.v1.tar\",\"digest\":\"" D1 "\"}]}",
      NULL, "size" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI "layer.v1.tar\",\"digest\":\"" D1
      "\",\"size\":-1}]}",
      NULL, "size" },
    { "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"a/b\",\"digest\":\"" D1 "\",\"size\":1}]}", NULL,
      "unknown type" },
    { "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" OCI "config.v1+json\",\"digest\":\"" D1
      "\",\"size\":9999999},\"layers\":[]}",
      NULL, "4 MiB" },
    { "{\"schemaVersion\":2,\"schemaVersion\":2," CONFIG ",\"layers\":[]}", NULL, "no JSON" },
};

static void test_artifact(void **state)
{
    struct zl_oci_manifest m;
    struct zl_err err;
    static const char text[] =
        "{\"schemaVersion\":2,\"artifactType\":\"x/sbom\",\"config\":{\"mediaType\":\"application/"
        "vnd.oci.empty.v1+json\","
        "\"digest\":\"" D1 "\",\"size\":2},\"layers\":[{\"mediaType\":\"a/b\",\"digest\":\"" D1
        "\",\"size\":1}],\"subject\":{\"mediaType\":\"" OCI "manifest.v1+json\",\"digest\":\"" D1 "\",\"size\":5}}";
    assert_int_equal(parse(text, NULL, &m, &err), 0);
    assert_true(m.artifact);
    assert_string_equal(m.artifact_type, "x/sbom");
    assert_string_equal(m.subject, D1);
    assert_string_equal(m.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert_string_equal(m.items[0].media_type, "a/b");
}

static void test_refused(void **state)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(refused); i++) {
        struct zl_oci_manifest m;
        struct zl_err err;
        int r = parse(refused[i].text, refused[i].type, &m, &err);
        if (r != ZL_E_BAD_IMAGE || !strstr(err.text, refused[i].word))
            fail_msg("row %zu: %d '%s', wanted '%s'", i, r, err.text, refused[i].word);
    }
}

static void test_too_many(void **state)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_oci_manifest m;
    struct zl_err err;
    zl_buf_puts(&text, "{\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER);
    for (unsigned i = 0; i < ZL_OCI_LAYERS_MAX; i++)
        zl_buf_puts(&text, "," LAYER);
    zl_buf_puts(&text, "]}");
    assert_int_equal(parse(text.p, NULL, &m, &err), ZL_E_BAD_IMAGE);
    assert_non_null(strstr(err.text, "more than"));
    zl_buf_reserve(&text, ZL_OCI_DOCUMENT_MAX);
    memset(text.p, ' ', ZL_OCI_DOCUMENT_MAX + 1);
    text.p[ZL_OCI_DOCUMENT_MAX + 1] = 0;
    assert_int_equal(parse(text.p, NULL, &m, &err), ZL_E_BAD_IMAGE);
    assert_non_null(strstr(err.text, "larger than"));
}

static void test_digest(void **state)
{
    assert_true(zl_oci_digest_valid(ZL_STR(D1)));
    assert_false(zl_oci_digest_valid(ZL_STR(D1 "1")));
    assert_false(
        zl_oci_digest_valid(ZL_STR("sha512:1111111111111111111111111111111111111111111111111111111111111111")));
    assert_false(
        zl_oci_digest_valid(ZL_STR("sha256:111111111111111111111111111111111111111111111111111111111111111A")));
    assert_false(
        zl_oci_digest_valid(ZL_STR("sha256:../../../../../../../../../../../../../../../../../../etc/passwd")));
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
        cmocka_unit_test(test_manifest), cmocka_unit_test(test_foreign_layers), cmocka_unit_test(test_index),
        cmocka_unit_test(test_artifact), cmocka_unit_test(test_refused),        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
