#include "../testing.h"

#include "oci/reply.h"

#include <errno.h>

static int token(const char *body, struct zl_oci_token *ret)
{
    static struct zl_arena arena; /* leaks into the next call's answer otherwise */
    zl_arena_done(&arena);
    zl_arena_init(&arena);
    return zl_oci_token_parse(&arena, zl_str(body), ret);
}

static void test_token(void **state)
{
    struct zl_oci_token t;
    assert_int_equal(token("{\"token\":\"a.b-c\",\"expires_in\":300}", &t), 0);
    assert_string_equal(t.token, "a.b-c");
    assert_int_equal(t.expires_s, 300);
    assert_string_equal(t.refresh, "");
    assert_int_equal(token("{\"access_token\":\"x\",\"refresh_token\":\"r\"}", &t), 0);
    assert_string_equal(t.token, "x");
    assert_int_equal(t.expires_s, 60);
    assert_string_equal(t.refresh, "r");
    assert_int_equal(token("{\"token\":\"x\",\"expires_in\":0}", &t), 0);
    assert_int_equal(t.expires_s, 60);
    assert_int_equal(token("{\"token\":\"x\",\"expires_in\":99999999}", &t), 0);
    assert_int_equal(t.expires_s, 86400);
    static const char *const bad[] = {
        "", "[]", "{}", "{\"token\":5}", "{\"token\":\"\"}", "{\"token\":\"a b\"}", "{\"token\":\"a\\r\\nX: y\"}"
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++)
        assert_int_equal(token(bad[i], &t), -EINVAL);
    struct zl_oci_token kept;
    assert_int_equal(token("{\"token\":\"x\",\"refresh_token\":\"a\\nb\"}", &kept), 0);
    assert_string_equal(kept.refresh, "");
    assert_int_equal(token("{\"token\":\"x\"}", &t), 0); /* frees the rest */
}

static void test_error_text(void **state)
{
    char text[40];
    zl_oci_error_text(ZL_STR("{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no \\u001b[31mway\"}]}"), text,
                      sizeof text);
    assert_string_equal(text, "no ?[31mway");
    assert_string_equal(zl_oci_error_text(ZL_STR("{\"errors\":[{\"code\":\"DENIED\"}]}"), text, sizeof text), "DENIED");
    assert_string_equal(zl_oci_error_text(ZL_STR("{\"details\":\"bad password\"}"), text, sizeof text), "bad password");
    assert_string_equal(zl_oci_error_text(ZL_STR("<html>"), text, sizeof text), "");
    assert_string_equal(zl_oci_error_text(ZL_STR("{\"errors\":{}}"), text, sizeof text), "");
    assert_string_equal(
        zl_oci_error_text(ZL_STR("{\"errors\":[{\"message\":\"0123456789012345678901234567890123456789\"}]}"), text, 8),
        "0123456");
}

static void test_wants_https(void **state)
{
    assert_true(zl_oci_wants_https(ZL_STR("Client sent an HTTP request to an HTTPS server.\n")));
    assert_true(zl_oci_wants_https(ZL_STR("<center>The plain HTTP request was sent to HTTPS port</center>")));
    assert_true(zl_oci_wants_https(ZL_STR("Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />")));
    assert_false(zl_oci_wants_https(ZL_STR("")));
    assert_false(zl_oci_wants_https((struct zl_str){ 0 }));
    assert_false(zl_oci_wants_https(ZL_STR("{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}")));
}

static void test_ranges(void **state)
{
    uint64_t n = 7;
    assert_int_equal(zl_oci_upload_range(ZL_STR("0-1023"), &n), 0);
    assert_int_equal(n, 1024);
    assert_int_equal(zl_oci_upload_range(ZL_STR(" bytes=0-9 "), &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(zl_oci_upload_range(ZL_STR("0-0"), &n), 0);
    assert_int_equal(n, 0);
    static const char *const bad[] = {
        "", "-", "0", "5-9", "0-", "0-x", "0--1", "0-99999999999999999999", "0-9223372036854775808"
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++)
        assert_true(zl_oci_upload_range(zl_str(bad[i]), &n) < 0);
    assert_int_equal(zl_oci_content_range(ZL_STR("bytes 5-9/10"), &n), 0);
    assert_int_equal(n, 5);
    assert_true(zl_oci_content_range(ZL_STR("bytes */10"), &n) < 0);
    assert_true(zl_oci_content_range(ZL_STR("items 5-9/10"), &n) < 0);
}

static void next(const char *header, const char *wanted)
{
    struct zl_str s;
    int r = zl_oci_link_next(zl_str(header), &s);
    assert_int_equal(r, wanted ? 0 : -EINVAL);
    if (wanted)
        assert_true(zl_str_is(s, wanted));
}

static void test_link(void **state)
{
    next("</v2/x/tags/list?last=b>; rel=\"next\"", "/v2/x/tags/list?last=b");
    next("<a>; rel=prev, <b,c>;title=x ; REL=next", "b,c");
    next("<a>; rel=\"prev\"", NULL);
    next("<>; rel=\"next\"", NULL);
    next("<a; rel=\"next\"", NULL);
    next("", NULL);
    next(",,,", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token),  cmocka_unit_test(test_error_text), cmocka_unit_test(test_wants_https),
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
