#include "../testing.h"

#include "cli/cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    bool flag, other;
    unsigned count;
    const char *text;
    struct zl_strings list;
    uint64_t number, time;
    int choice;
    const char *first;
    struct zl_strings rest, many;
};
#define AT(field) offsetof(struct options, field)
static const char *const choices[] = { "red", "green", "!blue", NULL };
static const struct zl_opt rows[] = {
    { "flag", 'f', ZL_OPT_FLAG, AT(flag), NULL, "h", .excludes = "other" },
    { "other", 0, ZL_OPT_FLAG, AT(other), NULL, "h" },
    { "count", 'c', ZL_OPT_COUNT, AT(count), NULL, "h" },
    { "text", 't', ZL_OPT_STRING, AT(text), "TEXT", "h", .fallback = "none", .env = "ZL_TEST_TEXT" },
    { "list", 'l', ZL_OPT_LIST, AT(list), "ITEM", "h" },
    { "number", 'n', ZL_OPT_UINT, AT(number), "N", "h", .min = 1, .max = 10, .fallback = "3" },
    { "time", 0, ZL_OPT_DURATION, AT(time), "TIME", "h", .fallback = "30s" },
    { "colour", 0, ZL_OPT_ENUM, AT(choice), "COLOUR", "h", choices, .fallback = "green" },
};
static const struct zl_arg args[] = {
    { "FIRST", AT(first), 0, "h" },
    { "REST", AT(rest), ZL_ARG_OPTIONAL | ZL_ARG_REST, "h" },
};

static const struct zl_arg many_args[] = {
    { "FIRST", AT(first), 0, "h" },
    { "EACH", AT(many), ZL_ARG_MANY, "h", choices },
};

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)cli;
    (void)options;
    (void)err;
    return 0;
}

static const struct zl_cmd go = {
    .name = "go", .summary = "Go", ZL_CMD_OPTIONS(rows), ZL_CMD_ARGS(args), .size = sizeof(struct options), .run = run
};
static const struct zl_cmd several = { .name = "several",
                                       .summary = "Several",
                                       ZL_CMD_OPTIONS(rows),
                                       ZL_CMD_ARGS(many_args),
                                       .size = sizeof(struct options),
                                       .run = run };
static const struct zl_cmd list = { .name = "list", .summary = "List", .flags = ZL_CMD_OUTPUT, .run = run };
static const struct zl_cmd *const inner[] = { &list, NULL };
static const struct zl_cmd group = { .name = "group", .summary = "Group", .commands = inner };
static const struct zl_cmd *const outer[] = { &go, &several, &group, NULL };
static const struct zl_cmd root = { .name = "prog", .summary = "Prog", .commands = outer };

static struct zl_cli cli;
static struct zl_err err;

static int parse(const char *words)
{
    static char copy[512];
    static char *argv[32];
    int argc = 0;
    zl_arena_done(&cli.arena);
    memset(&cli, 0, sizeof cli);
    memset(&err, 0, sizeof err);
    cli.root = &root;
    zl_arena_init(&cli.arena);
    snprintf(copy, sizeof copy, "prog %s", words);
    for (char *w = copy, *end; *w; w = end) {
        end = w + strcspn(w, " ");
        if (*end)
            *end++ = 0;
        argv[argc++] = w;
    }
    return zl_options_parse(&cli, argc, argv, &err);
}

static struct options *options(void)
{
    return cli.options;
}

static void every_spelling_of_an_option_is_read(void **state)
{
    assert_int_equal(parse("go -fcc -t x --list=a -lb -l c --number 7 --time=2m --colour red one two -f"), 0);
    assert_true(options()->flag);
    assert_int_equal(options()->count, 2);
    assert_string_equal(options()->text, "x");
    assert_int_equal(options()->list.n, 3);
    assert_string_equal(options()->list.v[2], "c");
    assert_int_equal(options()->number, 7);
    assert_int_equal(options()->time, 120000);
    assert_int_equal(options()->choice, 0);
    assert_string_equal(options()->first, "one");
    assert_int_equal(options()->rest.n, 2); /* what follows the first word of the rest is the rest's */
    assert_string_equal(options()->rest.v[1], "-f");
}

static void options_stand_between_and_behind_many_words(void **state)
{
    static const char *const orders[] = { "several -f -t x one a b", "several one a b -t x -f",
                                          "several one a -t x b -f" };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(orders); i++) {
        assert_int_equal(parse(orders[i]), 0);
        assert_true(options()->flag);
        assert_string_equal(options()->text, "x");
        assert_string_equal(options()->first, "one");
        assert_int_equal(options()->many.n, 2);
        assert_string_equal(options()->many.v[0], "a");
        assert_string_equal(options()->many.v[1], "b");
    }
    assert_int_equal(parse("several one a -- -f"), 0);
    assert_false(options()->flag);
    assert_string_equal(options()->many.v[1], "-f");
    assert_int_equal(parse("several one"), ZL_E_USAGE);
    assert_non_null(strstr(err.text, "EACH is missing"));
    assert_int_equal(parse("several one a --nothing"), ZL_E_USAGE);
}

static void defaults_and_variables_fill_what_is_not_typed(void **state)
{
    assert_int_equal(parse("go x"), 0);
    assert_string_equal(options()->text, "none");
    assert_int_equal(options()->number, 3);
    assert_int_equal(options()->time, 30000);
    assert_int_equal(options()->choice, 1);
    setenv("ZL_TEST_TEXT", "env", 1);
    assert_int_equal(parse("go x"), 0);
    assert_string_equal(options()->text, "env");
    assert_int_equal(parse("go x -t typed"), 0);
    assert_string_equal(options()->text, "typed");
    unsetenv("ZL_TEST_TEXT");
}

static void global_options_stand_anywhere(void **state)
{
    assert_int_equal(parse("-v group --verbose list -o json -q"), 0);
    assert_int_equal(cli.globals.verbose, 2);
    assert_int_equal(cli.globals.format, ZL_FORMAT_JSON);
    assert_true(cli.globals.quiet);
    assert_int_equal(cli.depth, 3);
    assert_int_equal(parse("-o yaml group list"), 0);
    assert_int_equal(cli.globals.format, ZL_FORMAT_YAML);
    assert_int_equal(parse("--data-dir /x group list"), 0);
    assert_string_equal(cli.globals.data_dir, "/x");
}

static void two_dashes_end_the_options(void **state)
{
    assert_int_equal(parse("go -- -f --text"), 0);
    assert_false(options()->flag);
    assert_string_equal(options()->first, "-f");
    assert_string_equal(options()->rest.v[0], "--text");
    assert_int_equal(parse("go -"), 0);
    assert_string_equal(options()->first, "-");
}

static void help_needs_nothing_else(void **state)
{
    assert_int_equal(parse("--help"), 0);
    assert_true(cli.globals.help);
    assert_int_equal(parse("go --help"), 0);
    assert_int_equal(cli.depth, 2);
    assert_int_equal(parse("group -h"), 0);
    assert_int_equal(parse("-V"), 0);
    assert_true(cli.globals.version);
}

static void wrong_words_are_usage_errors_with_hints(void **state)
{
    static const struct {
        const char *words, *text, *hint;
    } wrong[] = {
        { "", "a command is missing", "" },
        { "group", "a command is missing", "" },
        { "grup", "no command 'grup'", "'group'" },
        { "group lst", "no command 'lst'", "'list'" },
        { "go", "FIRST is missing", "" },
        { "go x --tex y", "no option '--tex'", "'--text'" },
        { "go --tex y", "no option '--tex'", "'--text'" },
        { "go -z", "no option '-z'", "" },
        { "go --text", "needs a value", "" },
        { "go -t", "needs a value", "" },
        { "go --flag=1 x", "takes no value", "" },
        { "go --number 0 x", "from 1 to 10", "" },
        { "go --number 11 x", "from 1 to 10", "" },
        { "go --number x x", "from 1 to 10", "" },
        { "go --time soon x", "a duration", "30s" },
        { "go --colour gren x", "no value of --colour", "'green'" },
        { "go --flag --other x", "exclude each other", "" },
        { "go --other --flag x", "exclude each other", "" },
        { "go -o json x", "has no option '--output'", "" },
        { "-b group list", "has no option '--background'", "" },
        { "group list more", "one argument too many", "" },
        { "--color sometimes group list", "no value of --color", "auto" },
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(wrong); i++) {
        assert_int_equal(parse(wrong[i].words), ZL_E_USAGE);
        assert_non_null(strstr(err.text, wrong[i].text));
        assert_non_null(strstr(err.hint, wrong[i].hint));
    }
    assert_int_equal(parse("go --colour blue x"), ZL_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "not supported yet"));
}

static const char *complete(const char *words)
{
    static struct zl_buf out;
    static char copy[256];
    const char *v[16];
    unsigned n = 0;
    zl_buf_clear(&out);
    snprintf(copy, sizeof copy, "%s", words);
    for (char *w = copy;; w++) {
        v[n++] = w;
        w += strcspn(w, " ");
        if (!*w)
            break;
        *w = 0;
    }
    zl_complete_words(&cli, &out, v, n);
    return out.p ? out.p : "";
}

static void completion_follows_the_tables(void **state)
{
    assert_int_equal(parse("go x"), 0);
    assert_string_equal(complete("gr"), "group\tGroup\n");
    assert_string_equal(complete(""), "go\tGo\nseveral\tSeveral\ngroup\tGroup\n");
    assert_string_equal(complete("group l"), "list\tList\n");
    assert_string_equal(complete("go --te"), "--text\th\n");
    assert_string_equal(complete("go --colour "), "red\t\ngreen\t\n");
    assert_string_equal(complete("go --colour=g"), "--colour=green\t\n");
    assert_string_equal(complete("several one r"), "red\t\n");
    assert_string_equal(complete("several one red blue -f g"), "green\t\n");
    assert_string_equal(complete("-o js"), "json\t\n");
    assert_string_equal(complete("--data-dir "), ":folders\n");
    assert_string_equal(complete("nothing x"), "");
    assert_string_equal(complete("go --background"), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_between_and_behind_many_words),
        cmocka_unit_test(every_spelling_of_an_option_is_read),
        cmocka_unit_test(defaults_and_variables_fill_what_is_not_typed),
        cmocka_unit_test(global_options_stand_anywhere),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(wrong_words_are_usage_errors_with_hints),
        cmocka_unit_test(completion_follows_the_tables),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    zl_arena_done(&cli.arena);
    return failed;
}
