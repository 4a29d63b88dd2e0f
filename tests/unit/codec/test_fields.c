/* Field tables: a document into a struct and back, and every problem of a document at once, where it stands. */
#include "../testing.h"

#include "codec/fields.h"

#include <stdio.h>

struct part {
    const char *key, *label;
    int64_t weight;
};
struct whole {
    bool on;
    int64_t number, percent;
    double real;
    const char *text;
    uint64_t wait_ms, bytes;
    int colour;
    struct zl_strings words;
    struct part inner;
    struct zl_items list, map;
    char custom[8];
};

static void check_part(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const struct part *p = object;
    if (p->weight == 13)
        zl_problem_add(d, zl_value_get(v, "weight"), "unlucky", "take another", "a weight of %d", 13);
}

static void decode_custom(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    if (v->kind != ZL_STRING || v->text.n >= sizeof((struct whole *)0)->custom)
        zl_problem_add(d, v, "custom_error", NULL, "no custom value");
    else
        snprintf(field, sizeof((struct whole *)0)->custom, "%s", v->text.p);
}

static struct zl_value *print_custom(struct zl_arena *arena, const void *field)
{
    return zl_value_string(arena, zl_str(field));
}

static const char *const colours[] = { "red", "green", "!ultraviolet", "-none", NULL };
static const struct zl_field part_fields[] = {
    { .name = "label",
      .kind = ZL_K_STRING,
      .offset = offsetof(struct part, label),
      .flags = ZL_F_NONEMPTY | ZL_F_OMIT },
    { .name = "weight",
      .kind = ZL_K_INT,
      .offset = offsetof(struct part, weight),
      .flags = ZL_F_REQUIRED,
      .min = 1,
      .max = 99,
      .code = "weight_range" },
};
static const struct zl_type type_part =
    ZL_TYPE("a part", struct part, part_fields, .key_offset = offsetof(struct part, key), .check = check_part);
static const struct zl_type type_inner = ZL_TYPE("'inner'", struct part, part_fields);

#define AT(member) offsetof(struct whole, member)
static const struct zl_field whole_fields[] = {
    { .name = "on", .kind = ZL_K_BOOL, .offset = AT(on), .fallback = "true" },
    { .name = "number", .kind = ZL_K_INT, .offset = AT(number), .min = -5, .max = 5, .fallback = "3" },
    { .name = "percent", .kind = ZL_K_PERCENT, .offset = AT(percent), .flags = ZL_F_OMIT },
    { .name = "real", .kind = ZL_K_DOUBLE, .offset = AT(real), .flags = ZL_F_POSITIVE | ZL_F_OMIT, .max = 10 },
    { .name = "text", .kind = ZL_K_STRING, .offset = AT(text), .flags = ZL_F_REQUIRED },
    { .name = "wait", .kind = ZL_K_DURATION, .offset = AT(wait_ms), .fallback = "1m 30s" },
    { .name = "bytes", .kind = ZL_K_SIZE, .offset = AT(bytes), .flags = ZL_F_OMIT },
    { .name = "colour", .kind = ZL_K_ENUM, .offset = AT(colour), .names = colours, .fallback = "green" },
    { .name = "words", .kind = ZL_K_STRINGS, .offset = AT(words), .flags = ZL_F_OMIT },
    { .name = "inner", .kind = ZL_K_STRUCT, .offset = AT(inner), .type = &type_inner, .flags = ZL_F_OMIT },
    { .name = "list", .kind = ZL_K_LIST, .offset = AT(list), .type = &type_part, .flags = ZL_F_OMIT },
    { .name = "map", .kind = ZL_K_MAP, .offset = AT(map), .type = &type_part, .flags = ZL_F_OMIT },
    { .name = "custom", .kind = ZL_K_CUSTOM, .offset = AT(custom), .decode = decode_custom, .print = print_custom },
    { .name = "tomorrow", .kind = ZL_K_NOT_YET },
};
static const struct zl_type type_whole = ZL_TYPE("the whole", struct whole, whole_fields);

struct fixture {
    struct zl_arena arena;
    struct zl_decoder d;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    zl_arena_init(&f->arena);
    zl_decoder_init(&f->d, &f->arena);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    zl_decoder_done(&f->d);
    zl_arena_done(&f->arena);
    free(f);
    return 0;
}

static struct whole *decode(struct fixture *f, const char *text)
{
    struct zl_value *v;
    struct zl_parse_error pe;
    assert_int_equal(zl_yaml_parse(&f->arena, zl_str(text), &zl_limits_document, &v, &pe), 0);
    return zl_decode(&f->d, &type_whole, v);
}

static void every_kind_is_decoded(void **state)
{
    struct fixture *f = *state;
    const struct whole *w = decode(f, "on: false\n"
                                      "number: -5\npercent: 70%\nreal: 0.5\ntext: 8080\nwait: 2h\nbytes: 1Ki\n"
                                      "colour: red\nwords: [a, 1, true]\ninner: {label: l, weight: 7}\n"
                                      "list: [{weight: 1}, {weight: 2}]\nmap: {x: {weight: 3}}\ncustom: c\n");
    assert_int_equal(f->d.count, 0);
    assert_false(w->on);
    assert_true(w->number == -5 && w->percent == 70 && w->real > 0.49 && w->real < 0.51);
    assert_string_equal(w->text, "8080"); /* a plain scalar in a string's place keeps its text */
    assert_true(w->wait_ms == 7200000 && w->bytes == 1024 && w->colour == 0);
    assert_int_equal(w->words.n, 3);
    assert_string_equal(w->words.v[1], "1");
    assert_string_equal(w->inner.label, "l");
    assert_int_equal(w->list.n, 2);
    assert_true(((const struct part *)w->list.v[1])->weight == 2);
    assert_int_equal(w->map.n, 1);
    assert_string_equal(((const struct part *)w->map.v[0])->key, "x");
    assert_string_equal(w->custom, "c");
}

static void what_is_absent_has_its_default(void **state)
{
    struct fixture *f = *state;
    const struct whole *w = decode(f, "text: ''\n");
    assert_int_equal(f->d.count, 0);
    assert_true(w->on && w->number == 3 && w->wait_ms == 90000 && w->colour == 1);
    assert_true(w->percent == 0 && w->bytes == 0 && w->words.n == 0 && w->list.n == 0 && !w->inner.label);
    assert_string_equal(w->text, "");
}

static void what_is_printed_is_decoded_the_same(void **state)
{
    struct fixture *f = *state;
    const struct whole *w = decode(f, "percent: 5\nreal: 2\ntext: t\nbytes: 3Mi\nwords: [b]\ninner: {weight: 7}\n"
                                      "list: [{weight: 1, label: x}]\nmap: {k: {weight: 3}}\ncustom: c\n");
    zl_auto_buf once = ZL_BUF_INIT, twice = ZL_BUF_INIT;
    zl_yaml_print(&once, zl_print(&f->arena, &type_whole, w));
    zl_yaml_print(&twice, zl_print(&f->arena, &type_whole, decode(f, once.p)));
    assert_int_equal(f->d.count, 0);
    assert_string_equal(once.p, twice.p);
    assert_non_null(strstr(once.p, "1m 30s"));
}

static void every_problem_is_told_at_once_where_it_stands(void **state)
{
    static const char text[] = "on: 1\n"
                               "number: 6\n"
                               "percent: 101%\n"
                               "real: 0\n"
                               "txet: t\n"
                               "wait: 30\n"
                               "bytes: 5MB\n"
                               "colour: grene\n"
                               "words: [a, {b: c}]\n"
                               "inner: [1]\n"
                               "list: [{weight: 0}, {weight: 13}, {label: '', weight: 1}, {}]\n"
                               "map: {x: {weigh: 3}}\n"
                               "custom: much too long\n"
                               "tomorrow: {on: 1}\n";
    static const struct {
        unsigned line, column;
        const char *code, *path, *hint;
    } want[] = {
        { 1, 5, "yaml_error", "on", "" },
        { 2, 9, "yaml_error", "number", "" },
        { 3, 10, "yaml_error", "percent", "" },
        { 4, 7, "yaml_error", "real", "" },
        { 5, 1, "yaml_error", "txet", "did you mean 'text'?" },
        { 6, 7, "yaml_error", "wait", "" },
        { 7, 8, "yaml_error", "bytes", "" },
        { 8, 9, "yaml_error", "colour", "did you mean 'green'?" },
        { 9, 12, "yaml_error", "words[1]", "" },
        { 10, 8, "yaml_error", "inner", "" },
        { 11, 17, "weight_range", "list[0].weight", "" },
        { 11, 30, "unlucky", "list[1]", "take another" },
        { 11, 43, "yaml_error", "list[2].label", "" },
        { 11, 59, "yaml_error", "list[3]", "" },
        { 12, 11, "yaml_error", "map.x.weigh", "did you mean 'weight'?" },
        { 12, 10, "yaml_error", "map.x", "" },
        { 13, 9, "custom_error", "custom", "" },
        { 14, 1, "not_supported_yet", "tomorrow", "" },
        { 1, 1, "yaml_error", "", "" }, /* and the key 'text' is missing */
    };
    struct fixture *f = *state;
    (void)decode(f, text);
    const struct zl_problem *p = f->d.first;
    for (size_t i = 0; i < ZL_ARRAY_LEN(want); i++, p = p->next) {
        if (!p)
            fail_msg("problem %zu (%s) is missing", i, want[i].path);
        if (p->line != want[i].line || p->column != want[i].column || !zl_streq(p->code, want[i].code) ||
            !zl_streq(p->path, want[i].path) || !zl_streq(p->hint, want[i].hint))
            fail_msg("problem %zu: %u:%u %s '%s' '%s': %s", i, p->line, p->column, p->code, p->path, p->hint,
                     p->message);
    }
    assert_null(p);
    assert_int_equal(f->d.count, ZL_ARRAY_LEN(want));
}

static void names_that_no_document_can_say_are_unknown_and_not_hinted_at(void **state)
{
    struct fixture *f = *state;
    (void)decode(f, "text: t\ncolour: none\n");
    assert_int_equal(f->d.count, 1);
    assert_string_equal(f->d.first->message, "'colour' expects one of red, green, got 'none'");
    assert_string_equal(f->d.first->hint, "");
    (void)decode(f, "text: t\ncolour: ultraviolet\n");
    assert_int_equal(f->d.count, 2);
    assert_string_equal(f->d.last->code, "not_supported_yet");
}

static void a_root_of_another_kind_is_one_problem(void **state)
{
    static const char *const texts[] = { "[1]", "text", "~", "3" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(texts); i++) {
        struct fixture *f = *state;
        unsigned before = f->d.count;
        (void)decode(f, texts[i]);
        if (f->d.count != before + 1 || strncmp(f->d.last->message, "the whole must be a map, got ", 29) != 0)
            fail_msg("%s: %u problems, %s", texts[i], f->d.count - before, f->d.last ? f->d.last->message : "");
    }
}

/* All are counted, a hundred are kept, and long values are shown by their beginnings. */
static void a_document_of_nothing_but_problems_is_bounded(void **state)
{
    struct fixture *f = *state;
    zl_auto_buf text = ZL_BUF_INIT;
    zl_buf_puts(&text, "text: t\nlist:\n");
    for (unsigned i = 0; i < 250; i++)
        zl_buf_printf(&text, "- {weight: %0300u}\n", i);
    (void)decode(f, text.p);
    assert_int_equal(f->d.count, 250);
    unsigned kept = 0;
    for (const struct zl_problem *p = f->d.first; p; p = p->next, kept++) {
        assert_in_range(strlen(p->message), 1, 200);
        assert_in_range(p->width, 1, 200);
        assert_int_equal(p->line, kept + 3);
    }
    assert_int_equal(kept, ZL_PROBLEMS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_kind_is_decoded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_absent_has_its_default, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_printed_is_decoded_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_problem_is_told_at_once_where_it_stands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_that_no_document_can_say_are_unknown_and_not_hinted_at, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_root_of_another_kind_is_one_problem, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_document_of_nothing_but_problems_is_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
