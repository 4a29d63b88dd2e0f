#include "../testing.h"

#include "image/registries.h"

static struct zl_arena arena;
static struct zl_err err;

static struct zl_registries *parse(const char *text, const char *wanted)
{
    struct zl_registries *r = NULL;
    err = (struct zl_err){ 0 };
    int x = zl_registries_parse(&arena, zl_str(text), "file", &r, &err);
    if (!wanted) {
        if (x < 0)
            fail_msg("%s", err.text);
        return r;
    }
    assert_true(x < 0);
    if (!strstr(err.text, wanted))
        fail_msg("'%s' is not in '%s'", wanted, err.text);
    return NULL;
}

static void test_settings(void **state)
{
    struct zl_registries *r =
        parse("version: v1\n"
              "registries:\n"
              "  docker.io:\n"
              "    mirrors: [mirror.example:5000/hub, '[::1]:5000']\n"
              "  Mirror.Example:5000: {tls: unverified, ca: /ca.pem, client_certificate: /c, client_key: /k}\n"
              "  10.0.0.1:5000: {tls: none}\n",
              NULL);
    const struct zl_registry_settings *s = zl_registries_of(&arena, r, "docker.io");
    assert_int_equal(s->mirrors.n, 2);
    assert_int_equal(s->tls, ZL_TLS_NOT_SAID);
    char host[256], prefix[256];
    zl_registry_mirror_split(s->mirrors.v[0], host, prefix);
    assert_string_equal(host, "mirror.example:5000");
    assert_string_equal(prefix, "hub");
    zl_registry_mirror_split(s->mirrors.v[1], host, prefix);
    assert_string_equal(host, "[::1]:5000");
    assert_string_equal(prefix, "");
    s = zl_registries_of(&arena, r, "mirror.example:5000");
    assert_int_equal(s->tls, ZL_TLS_UNVERIFIED);
    assert_string_equal(s->client_key, "/k");
    assert_int_equal(zl_registries_of(&arena, r, "10.0.0.1:5000")->tls, ZL_TLS_NONE);
    s = zl_registries_of(&arena, r, "other");
    assert_string_equal(s->host, "other");
    assert_int_equal(s->mirrors.n, 0);
}

static void test_problems(void **state)
{
    parse("registries: {}\n", "version");
    parse("version: v2\n", "file:1:10");
    parse("version: v1\nregistries:\n  a.b: {mirors: []}\n", "file:3:");
    assert_non_null(strstr(err.hint, "mirrors"));
    parse("version: v1\nregistries:\n  https://a.b: {}\n", "file:3:3");
    parse("version: v1\nregistries:\n  a.b: {mirrors: ['https://c.d']}\n", "host[:port][/prefix]");
    parse("version: v1\nregistries:\n  a.b: {mirrors: [c.d/UP]}\n", "host[:port][/prefix]");
    parse("version: v1\nregistries:\n  a.b: {mirrors: [c.d/../x]}\n", "host[:port][/prefix]");
    parse("version: v1\nregistries:\n  a.b: {ca: relative}\n", "absolute");
    parse("version: v1\nregistries:\n  a.b: {tls: none, ca: /x}\n", "means nothing");
    parse("version: v1\nregistries:\n  a.b: {client_key: /x}\n", "belong together");
    parse("version: v1\nregistries:\n  a.b: {tls: off}\n", "tls");
    parse("version: v1\nregistries:\n  a.b: {}\n  A.b: {}\n", "twice");
    parse("version: [", "file:2:1");
    parse("", "");
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
        cmocka_unit_test_setup_teardown(test_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_problems, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
