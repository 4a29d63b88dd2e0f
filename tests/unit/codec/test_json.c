/* JSON into value trees and back (RFC 8259). */
#include "../testing.h"

#include "codec/value.h"

#include <errno.h>
#include <stdio.h>

static int parse(struct zl_arena *arena, const char *text, size_t n, struct zl_value **ret, struct zl_parse_error *pe)
{
    static const struct zl_parse_limits limits = { 4096, 8, 50 };
    return zl_json_parse(arena, zl_str_n(text, n), &limits, ret, pe);
}

static void every_kind_is_read_and_printed(void **state)
{
    static const char text[] = "{\"n\":null,\"t\":true,\"i\":-9223372036854775808,\"d\":0.25,\"s\":\"\\u20ac\\n\","
                               "\"l\":[1,[],{}]}";
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_auto_buf out = ZL_BUF_INIT;
    (void)state;
    zl_arena_init(&arena);
    assert_int_equal(parse(&arena, text, sizeof text - 1, &v, &pe), 0);
    assert_int_equal(zl_value_get(v, "n")->kind, ZL_NULL);
    assert_true(zl_value_true(v, "t"));
    assert_true(zl_value_get(v, "i")->integer == INT64_MIN);
    assert_true(zl_str_is(zl_value_str(v, "s"), "\xe2\x82\xac\n"));
    assert_int_equal(zl_value_get(v, "l")->count, 3);
    zl_json_print(&out, v, 0);
    assert_string_equal(out.p, "{\"n\":null,\"t\":true,\"i\":-9223372036854775808,\"d\":0.25,\"s\":\"\xe2\x82\xac\\n\","
                               "\"l\":[1,[],{}]}");
    zl_arena_done(&arena);
}

static void what_is_no_json_is_refused(void **state)
{
    static const char *const texts[] = { "",
                                         "{",
                                         "{\"a\":1,}",
                                         "{a:1}",
                                         "[1 2]",
                                         "01",
                                         "nul",
                                         "\"\\x\"",
                                         "\"\xff\"",
                                         "{\"a\":1,\"a\":2}",
                                         "1 2",
                                         "\"\\u0000\"",
                                         "99999999999999999999999",
                                         "1e9999",
                                         "'a'",
                                         "// a\n1",
                                         "\"line\nbreak\"" };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(texts); i++) {
        struct zl_arena arena;
        struct zl_value *v;
        struct zl_parse_error pe;
        zl_arena_init(&arena);
        if (parse(&arena, texts[i], strlen(texts[i]), &v, &pe) != -EINVAL || !pe.text[0])
            fail_msg("taken: %s", texts[i]);
        zl_arena_done(&arena);
    }
}

static void limits_hold(void **state)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    static char large[5000];
    (void)state;
    zl_arena_init(&arena);
    assert_int_equal(parse(&arena, "[[[[[[[1]]]]]]]", 15, &v, &pe), 0);
    assert_int_equal(parse(&arena, "[[[[[[[[1]]]]]]]]", 17, &v, &pe), -E2BIG);
    memset(large, '[', sizeof large);
    assert_int_equal(parse(&arena, large, 4000, &v, &pe), -EINVAL);
    assert_int_equal(parse(&arena, large, sizeof large, &v, &pe), -E2BIG);
    zl_auto_buf many = ZL_BUF_INIT;
    zl_buf_putc(&many, '[');
    for (int i = 0; i < 60; i++)
        zl_buf_printf(&many, "%s1", i ? "," : "");
    zl_buf_putc(&many, ']');
    assert_int_equal(parse(&arena, many.p, many.n, &v, &pe), -E2BIG);
    zl_arena_done(&arena);
}

static void strings_are_escaped_and_always_utf8(void **state)
{
    static const struct {
        const char *bytes, *json;
    } cases[] = {
        { "a\"b\\c", "\"a\\\"b\\\\c\"" },
        { "\t\n\r\b\f", NULL },
        { "\x01\x1f", "\"\\u0001\\u001f\"" },
        { "\xc3\xa9", "\"\xc3\xa9\"" },
        { "a\xff"
          "b",
          "\"a\xef\xbf\xbd"
          "b\"" },
        { "\xc2\x80\xc2\x9f\xc2\xa0", "\"\\u0080\\u009f\xc2\xa0\"" }, /* C1 controls, and what is none */
        { "\xe2\x80\xa9\xe2\x80\xaa\xe2\x80\xae\xe2\x80\xaf", "\"\\u2029\\u202a\\u202e\xe2\x80\xaf\"" },
        { "\xe2\x81\xa5\xe2\x81\xa6\xe2\x81\xa9\xe2\x81\xaa", "\"\xe2\x81\xa5\\u2066\\u2069\xe2\x81\xaa\"" },
        { "\xed\xa0\x80", NULL }, /* a lone surrogate */
        { "\xf4\x90\x80\x80", NULL },
        { "\xe2\x82", NULL },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        zl_auto_buf out = ZL_BUF_INIT;
        struct zl_arena arena;
        struct zl_value *v;
        struct zl_parse_error pe;
        zl_json_string(&out, zl_str(cases[i].bytes));
        if (cases[i].json)
            assert_string_equal(out.p, cases[i].json);
        zl_arena_init(&arena);
        assert_int_equal(parse(&arena, out.p, out.n, &v, &pe), 0); /* whatever went in, JSON came out */
        zl_arena_done(&arena);
    }
}

static void reading_takes_what_is_not_there(void **state)
{
    struct zl_value list = { .kind = ZL_LIST };
    (void)state;
    assert_null(zl_value_get(NULL, "a"));
    assert_null(zl_value_get(&list, "a"));
    assert_string_equal(zl_value_cstr(NULL, "a"), "");
    assert_int_equal(zl_value_u64(&list, "a", 7), 7);
    assert_false(zl_value_true(NULL, "a"));
    assert_null(zl_value_str(NULL, "a").p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read_and_printed),
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(strings_are_escaped_and_always_utf8),
        cmocka_unit_test(reading_takes_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
