#include "../testing.h"

#include "oci/challenge.h"

#include <errno.h>
#include <stdlib.h>

static struct zl_oci_challenge parse(const char *text, int wanted)
{
    struct zl_oci_challenge c = { 0 };
    assert_int_equal(zl_oci_challenge_parse(zl_str(text), &c), wanted);
    return c;
}

static void test_bearer(void **state)
{
    struct zl_oci_challenge c =
        parse("Bearer realm=\"https://auth.example/token\",service=\"reg\",scope=\"repository:a/b:pull,push\"", 0);
    assert_int_equal(c.scheme, ZL_OCI_AUTH_BEARER);
    assert_string_equal(c.realm, "https://auth.example/token");
    assert_string_equal(c.service, "reg");
    assert_string_equal(c.scope, "repository:a/b:pull,push"); /* the comma is inside quotes */
}

static void test_several(void **state)
{
    struct zl_oci_challenge c =
        parse("Basic realm=\"x\", Negotiate, bEaReR realm = \"say \\\"hi\\\"\" , error=invalid_token", 0);
    assert_int_equal(c.scheme, ZL_OCI_AUTH_BEARER);
    assert_string_equal(c.realm, "say \"hi\"");
    assert_string_equal(c.service, "");
    assert_int_equal(parse("Digest realm=\"d\", Basic realm=b", 0).scheme, ZL_OCI_AUTH_BASIC);
    assert_int_equal(parse("Negotiate", 0).scheme, ZL_OCI_AUTH_NONE);
    assert_int_equal(parse("", 0).scheme, ZL_OCI_AUTH_NONE);
}

static void test_keeps_the_better_header(void **state)
{
    struct zl_oci_challenge c = { 0 };
    assert_int_equal(zl_oci_challenge_parse(ZL_STR("Bearer realm=\"one\""), &c), 0);
    assert_int_equal(zl_oci_challenge_parse(ZL_STR("Basic realm=\"two\""), &c), 0);
    assert_string_equal(c.realm, "one");
}

static void test_malformed(void **state)
{
    parse("Bearer realm=\"open", -EINVAL);
    parse("Bearer realm=\"open\\", -EINVAL);
    parse("Bearer realm=", -EINVAL);
    parse("Bearer realm=\"a\"junk", -EINVAL);
    parse("Bearer realm=\"line\nbreak\"", -EINVAL);
    parse("=x", -EINVAL);
    char long_one[3000];
    memset(long_one, 'a', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = 0;
    memcpy(long_one, "Bearer realm=\"", 14);
    long_one[sizeof long_one - 2] = '"';
    parse(long_one, -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bearer),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_keeps_the_better_header),
        cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
