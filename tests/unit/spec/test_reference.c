#include "../testing.h"

#include "spec/reference.h"

#define HEX "1111111111111111111111111111111111111111111111111111111111111111"
#define D   "@sha256:" HEX

static const char *printed(const char *text)
{
    static char ret[ZL_REFERENCE_TEXT_SIZE];
    struct zl_reference ref;
    const char *why = "";
    if (zl_reference_parse(zl_str(text), &ref, &why) < 0)
        fail_msg("'%s': %s", text, why);
    return zl_reference_print(&ref, ret);
}

/* The left is what a user writes, the right what Docker makes of it. */
static void test_canonical(void **state)
{
    static const char *const rows[][2] = {
        { "nginx", "docker.io/library/nginx:latest" },
        { "nginx:1.27", "docker.io/library/nginx:1.27" },
        { "team/app", "docker.io/team/app:latest" },
        { "docker.io/nginx", "docker.io/library/nginx:latest" },
        { "index.docker.io/team/app:x", "docker.io/team/app:x" },
        { "registry-1.docker.io/app", "docker.io/library/app:latest" },
        { "localhost/app", "localhost/app:latest" },
        { "localhost:5000", "docker.io/library/localhost:5000" },
        { "localhost:5000/app", "localhost:5000/app:latest" },
        { "Registry.Example:5000/a/b/c:T-1.x_y", "registry.example:5000/a/b/c:T-1.x_y" },
        { "[::1]:5000/app", "[::1]:5000/app:latest" },
        { "[fd00::12]/app:1", "[fd00::12]/app:1" },
        { "a.b/c" D, "a.b/c" D },
        { "a.b/c:tag" D, "a.b/c:tag" D },
        { "nginx" D, "docker.io/library/nginx" D },
        { "a.b/" HEX, "a.b/" HEX ":latest" },
        { "a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest" },
        { "a.b-c.d/x", "a.b-c.d/x:latest" },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(rows); i++)
        assert_string_equal(printed(rows[i][0]), rows[i][1]);
}

static void test_refused(void **state)
{
    static const char *const rows[][2] = {
        { "", "empty" },
        { "UPPER", "upper-case" },
        { "a.b/Upper", "upper-case" },
        { "a b", "lower-case" },
        { "a//b", "lower-case" },
        { "/a", "lower-case" },
        { "a/", "lower-case" },
        { "-a", "lower-case" },
        { "a___b", "lower-case" },
        { "a..b", "lower-case" },
        { "a._b", "lower-case" },
        { "../a", "host name" },
        { "https://a.b/c", "without https://" },
        { "docker://a", "without https://" },
        { "a:", "tag" },
        { "a:.x", "tag" },
        { "a:-x", "tag" },
        { "a:b/c", "host name" },
        { "a.b:0/c", "host name" },
        { "a.b:65536/c", "host name" },
        { "a.b:/c", "host name" },
        { "-a.b/c", "host name" },
        { "a.b-/c", "host name" },
        { "a..b/c", "host name" },
        { "a_b.c/d", "host name" },
        { "[::1/c", "host name" },
        { "[]:5/c", "host name" },
        { "[::g]/c", "host name" },
        { "[::1]5/c", "host name" },
        { HEX, "@sha256:" },
        { "a@sha256:1", "digest" },
        { "a@", "digest" },
        { "a@md5:1", "digest" },
        { "a" D D, "digest" },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        struct zl_reference ref;
        const char *why = "accepted";
        int r = zl_reference_parse(zl_str(rows[i][0]), &ref, &why);
        if (r == 0 || !strstr(why, rows[i][1]))
            fail_msg("'%s': '%s' does not say '%s'", rows[i][0], why, rows[i][1]);
    }
}

static void test_lengths(void **state)
{
    char text[700];
    struct zl_reference ref;
    const char *why;
    memset(text, 'a', sizeof text);
    text[248] = 0; /* with library/ 256 */
    assert_true(zl_reference_parse(zl_str(text), &ref, &why) < 0);
    text[247] = 0;
    assert_int_equal(zl_reference_parse(zl_str(text), &ref, &why), 0);
    memset(text, 'a', sizeof text);
    memcpy(text, "x:", 2);
    text[2 + 128] = 0;
    assert_int_equal(zl_reference_parse(zl_str(text), &ref, &why), 0);
    text[2 + 128] = 'a';
    text[2 + 129] = 0;
    assert_true(zl_reference_parse(zl_str(text), &ref, &why) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
