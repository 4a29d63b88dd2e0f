/* YAML into value trees: kinds, positions, limits, and everything that is refused. */
#include "../testing.h"

#include "codec/value.h"

#include <errno.h>
#include <stdio.h>

static struct zl_arena arena;

static int set_up(void **state)
{
    (void)state;
    zl_arena_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    zl_arena_done(&arena);
    return 0;
}

static struct zl_value *good_n(const char *text, size_t n)
{
    struct zl_value *v = NULL;
    struct zl_parse_error pe;
    int r = zl_yaml_parse(&arena, zl_str_n(text, n), &zl_limits_document, &v, &pe);
    if (r != 0)
        fail_msg("%.200s: %u:%u %s", text, pe.line, pe.column, pe.text);
    return v;
}

static struct zl_value *good(const char *text)
{
    return good_n(text, strlen(text));
}

static void bad_n(const char *text, size_t n, int code, unsigned line, unsigned column, const char *part)
{
    struct zl_value *v = NULL;
    struct zl_parse_error pe;
    int r = zl_yaml_parse(&arena, zl_str_n(text, n), &zl_limits_document, &v, &pe);
    if (r != code || (line && pe.line != line) || (column && pe.column != column) || !strstr(pe.text, part))
        fail_msg("%.200s: got %d at %u:%u '%s', expected %d at %u:%u '%s'", text, r, pe.line, pe.column, pe.text, code,
                 line, column, part);
}

static void bad(const char *text, unsigned line, unsigned column, const char *part)
{
    bad_n(text, strlen(text), -EINVAL, line, column, part);
}

static void plain_scalars_have_the_core_schemas_kinds(void **state)
{
    static const struct {
        const char *text;
        enum zl_value_kind kind;
        int64_t integer;
        double real;
    } cases[] = {
        { "~", ZL_NULL, 0, 0 },
        { "null", ZL_NULL, 0, 0 },
        { "", ZL_NULL, 0, 0 },
        { "nULL", ZL_STRING, 0, 0 },
        { "true", ZL_BOOL, 1, 0 },
        { "FALSE", ZL_BOOL, 0, 0 },
        { "yes", ZL_STRING, 0, 0 },
        { "on", ZL_STRING, 0, 0 },
        { "0", ZL_INT, 0, 0 },
        { "-17", ZL_INT, -17, 0 },
        { "+17", ZL_INT, 17, 0 },
        { "0x1F", ZL_INT, 31, 0 },
        { "0o17", ZL_INT, 15, 0 },
        { "0b101", ZL_INT, 5, 0 },
        { "0755", ZL_STRING, 0, 0 },
        { "0x", ZL_STRING, 0, 0 },
        { "0b2", ZL_STRING, 0, 0 },
        { "9223372036854775807", ZL_INT, INT64_MAX, 0 },
        { "-9223372036854775808", ZL_INT, INT64_MIN, 0 },
        { "9223372036854775808", ZL_DOUBLE, 0, 9223372036854775808.0 },
        { "0x8000000000000000", ZL_STRING, 0, 0 },
        { "1.5", ZL_DOUBLE, 0, 1.5 },
        { "-2e3", ZL_DOUBLE, 0, -2000 },
        { "1e999", ZL_STRING, 0, 0 },
        { ".inf", ZL_STRING, 0, 0 },
        { ".nan", ZL_STRING, 0, 0 },
        { "1_000", ZL_STRING, 0, 0 },
        { "'12'", ZL_STRING, 0, 0 },
        { "\"true\"", ZL_STRING, 0, 0 },
        { "12:30", ZL_STRING, 0, 0 },
        { "2026-11-23", ZL_STRING, 0, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        char text[80];
        snprintf(text, sizeof text, "v: %s\n", cases[i].text);
        const struct zl_value *v = zl_value_get(good(text), "v");
        if (v->kind != cases[i].kind)
            fail_msg("%s: %s", cases[i].text, zl_value_kind_name(v->kind));
        if (v->kind == ZL_INT)
            assert_true(v->integer == cases[i].integer);
        if (v->kind == ZL_BOOL)
            assert_int_equal(v->boolean, cases[i].integer);
        if (v->kind == ZL_DOUBLE)
            assert_true(v->real >= cases[i].real && v->real <= cases[i].real);
    }
}

static void nodes_know_where_they_stand(void **state)
{
    const struct zl_value *v = good("# first\na:\n  - b: 1\n    \"c\": [x, {y: z}]\n");
    (void)state;
    const struct zl_value *list = zl_value_get(v, "a"), *item = list->first, *c = zl_value_get(item, "c");
    assert_int_equal(list->key->line, 2);
    assert_int_equal(list->key->column, 1);
    assert_int_equal(item->first->line, 3);
    assert_int_equal(item->first->column, 8);
    assert_int_equal(c->line, 4);
    assert_int_equal(c->column, 10);
    assert_int_equal(c->count, 2);
    assert_int_equal(zl_value_get(c->last, "y")->column, 18);
}

static void other_ends_of_lines_and_a_mark_in_front_are_taken(void **state)
{
    (void)state;
    assert_int_equal(zl_value_u64(good("a: 1\r\nb: 2\r\n"), "b", 0), 2);
    assert_int_equal(zl_value_u64(good("\xef\xbb\xbf"
                                       "a: 1\n"),
                                  "a", 0),
                     1);
    assert_int_equal(zl_value_u64(good("a: 1"), "a", 0), 1);
    assert_int_equal(good("")->kind, ZL_NULL);
    assert_int_equal(good("# nothing\n")->kind, ZL_NULL);
    assert_true(zl_str_is(zl_value_str(good("a: |\n  two\n  lines\n"), "a"), "two\nlines\n"));
    assert_int_equal(good(">\n")->text.n, 0);
    assert_int_equal(zl_value_str(good("a: |\nb: 1\n"), "a").n, 0);
    assert_true(zl_str_is(zl_value_str(good("a: >-\n  one\n  line\n"), "a"), "one line"));
    assert_true(zl_str_is(zl_value_str(good("a: \"\\u00e9\\n\"\n"), "a"), "\xc3\xa9\n"));
    assert_true(zl_str_is(zl_value_str(good("{\"a\": \"json\"}"), "a"), "json"));
    assert_true(zl_str_is(zl_value_str(good("{\"a\": \"\\ud83d\\ude00\"}"), "a"), "\xf0\x9f\x98\x80"));
    assert_true(zl_str_is(zl_value_str(good("a: !!str 5\n"), "a"), "5"));
    assert_int_equal(zl_value_u64(good("a: !!int 5\n"), "a", 0), 5);
}

static void aliases_are_copies(void **state)
{
    const struct zl_value *v = good("a: &x {k: 1}\nb: *x\nc: [*x, *x]\n");
    (void)state;
    assert_int_equal(zl_value_u64(zl_value_get(v, "b"), "k", 0), 1);
    assert_int_equal(zl_value_get(v, "c")->count, 2);
    assert_true(zl_value_equal(zl_value_get(v, "a"), zl_value_get(v, "c")->last));
    bad("a: *nobody\n", 1, 4, "not defined");
    bad("a: &x [*x]\n", 1, 8, "contains it");
}

static void what_is_not_of_the_dialect_is_refused_where_it_stands(void **state)
{
    (void)state;
    bad("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key 'a' (first on line 1)");
    bad("a: {k: 1, k: 2}\n", 1, 11, "duplicate key 'k'");
    bad("base: &b {k: 1}\nv:\n  <<: *b\n", 3, 3, "merge keys");
    bad("a: 1\n---\nb: 2\n", 2, 0, "second document");
    bad("? [a, b]\n: c\n", 1, 0, "key must be a string");
    bad("a:\n\tb: 1\n", 2, 1, "tab");
    bad("a: [1, 2\n", 0, 0, "");
    bad("a: 'open\n", 0, 0, "");
    bad("a: b: c\n", 1, 0, "");
    bad("a: @b\n", 1, 0, "");
    bad("a: \"\\q\"\n", 1, 0, "");
    bad("a: !vault 5\n", 1, 4, "tag '!vault' is not known");
    bad("a: \"\\ud83d\\ude00\"\n", 1, 0, "Unicode character escape");
    bad("a: [1,\n  2\nb: 3\n", 3, 2, "that begins on line 1");
    bad("\xc3\xa9: \xff\xfe\n", 1, 4, "no UTF-8");
    bad("a: \xc0\xaf\n", 1, 4, "no UTF-8");
    bad_n("a: b\0c\n", 7, -EINVAL, 1, 5, "control character (byte 0x00)");
    bad("a: 1\nb: \x1b[31m\n", 2, 4, "control character (byte 0x1b)");
}

static void sizes_depths_and_numbers_are_bounded(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    (void)state;
    for (unsigned i = 0; i < 64; i++)
        zl_buf_putc(&b, '[');
    for (unsigned i = 0; i < 64; i++)
        zl_buf_putc(&b, ']');
    (void)good_n(b.p, b.n);
    zl_buf_clear(&b);
    for (unsigned i = 0; i < 66; i++)
        zl_buf_putc(&b, '[');
    for (unsigned i = 0; i < 66; i++)
        zl_buf_putc(&b, ']');
    bad_n(b.p, b.n, -E2BIG, 1, 0, "nested too deep");
    zl_buf_clear(&b);
    for (unsigned i = 0; i < 200000; i++)
        zl_buf_putc(&b, '[');
    bad_n(b.p, b.n, -E2BIG, 1, 0, "nested too deep");
    zl_buf_clear(&b);
    zl_buf_puts(&b, "[");
    for (unsigned i = 0; i < 100001; i++)
        zl_buf_puts(&b, "1,");
    zl_buf_puts(&b, "]");
    bad_n(b.p, b.n, -E2BIG, 1, 0, "too many values");
    zl_buf_clear(&b);
    for (unsigned i = 0; i < 5001; i++)
        zl_buf_printf(&b, "k%u: 1\n", i);
    bad_n(b.p, b.n, -EINVAL, 5001, 1, "more than 5000 keys");
    zl_buf_clear(&b);
    for (unsigned i = 0; i < 1001; i++)
        zl_buf_putc(&b, 'k');
    zl_buf_puts(&b, ": 1\n");
    bad_n(b.p, b.n, -EINVAL, 1, 1, "more than 1000 characters");
    zl_buf_clear(&b);
    zl_buf_puts(&b, "a: ");
    for (unsigned i = 0; i < (1u << 20); i++)
        zl_buf_putc(&b, 'x');
    bad_n(b.p, b.n, -E2BIG, 0, 0, "larger than");
}

/* Nine levels of ten aliases each would be a thousand million values. */
static void a_document_of_aliases_does_not_explode(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    (void)state;
    zl_buf_puts(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (unsigned i = 1; i < 10; i++) {
        zl_buf_printf(&b, "a%u: &a%u [", i, i);
        for (unsigned k = 0; k < 10; k++)
            zl_buf_printf(&b, "%s*a%u", k ? ", " : "", i - 1);
        zl_buf_puts(&b, "]\n");
    }
    bad_n(b.p, b.n, -E2BIG, 5, 0, "aliases expand to too many values");
}

static void what_is_printed_is_read_back_the_same(void **state)
{
    static const char *const texts[] = {
        "a: 1\nb: [x, \"1\", \"true\", null, 1.5]\nc: {d: {}, e: []}\n",
        "- 'it''s'\n- \"tab\\there\"\n- \"\"\n- - nested\n  - list\n",
        "\"odd key: #\": \"#not a comment\"\n\"1\": -0.25\n",
        "text: |\n  two\n  lines\n",
        "~: 'null as a key'\n",
        "plain\n",
        "'...'\n",
        "\"a\\u2028b\\u2029 \\u0085 \\ufeff\"\n",
        "\"\\u009b31m \\u202e \\u2069 \\u00a0 \\u2065 \\u206a\": [\"\\u0080\\u202a\"]\n",
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(texts); i++) {
        const struct zl_value *v = good(texts[i]);
        zl_auto_buf yaml = ZL_BUF_INIT, json = ZL_BUF_INIT;
        zl_yaml_print(&yaml, v);
        if (!zl_value_equal(v, good_n(yaml.p, yaml.n)))
            fail_msg("as YAML: %s", yaml.p);
        zl_json_print(&json, v, 2);
        if (!zl_value_equal(v, good_n(json.p, json.n)))
            fail_msg("as JSON: %s", json.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plain_scalars_have_the_core_schemas_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nodes_know_where_they_stand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_ends_of_lines_and_a_mark_in_front_are_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(aliases_are_copies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_of_the_dialect_is_refused_where_it_stands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sizes_depths_and_numbers_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_document_of_aliases_does_not_explode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_printed_is_read_back_the_same, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
