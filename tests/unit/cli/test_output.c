#include "../testing.h"

#include "base/fd.h"
#include "cli/output.h"
#include "cli/times.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct zl_column columns[] = { { "NAME", "name", ZL_COLUMN_CUT, NULL },
                                            { "N", "n", ZL_COLUMN_RIGHT, NULL },
                                            { "STATE", "state", ZL_COLUMN_STATE, NULL },
                                            { "MORE", "more", ZL_COLUMN_WIDE, NULL } };
static const struct zl_listing listing = { columns, ZL_ARRAY_LEN(columns), "name", "nothing" };
static const char rows_text[] = "[{\"name\":\"web\",\"n\":1,\"state\":\"ready\",\"more\":true},"
                                "{\"name\":\"a-much-longer-name\",\"n\":200,\"state\":\"failed\"}]";

static struct zl_cli cli;

/* What the listing writes to stdout, NUL-terminated. */
static const char *printed(const char *json)
{
    static char text[4096];
    struct zl_value *list;
    struct zl_parse_error pe;
    zl_arena_init(&cli.arena);
    assert_int_equal(zl_json_parse(&cli.arena, zl_str(json), &zl_limits_document, &list, &pe), 0);
    cli.out.fd = memfd_create("out", MFD_CLOEXEC);
    cli.err.fd = memfd_create("err", MFD_CLOEXEC);
    zl_output_list(&cli, &listing, list);
    ssize_t n = pread(cli.out.fd, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    text[n] = 0;
    (void)zl_close(cli.out.fd);
    (void)zl_close(cli.err.fd);
    zl_arena_done(&cli.arena);
    return text;
}

static void a_table_is_aligned(void **state)
{
    memset(&cli, 0, sizeof cli);
    assert_string_equal(printed(rows_text), "NAME                  N  STATE\n"
                                            "web                   1  ready\n"
                                            "a-much-longer-name  200  failed\n");
    cli.globals.no_headers = true;
    cli.globals.format = ZL_FORMAT_WIDE;
    assert_string_equal(printed(rows_text), "web                   1  ready   yes\n"
                                            "a-much-longer-name  200  failed  -\n");
}

static void a_narrow_terminal_cuts_what_may_be_cut(void **state)
{
    memset(&cli, 0, sizeof cli);
    cli.out.width = 24;
    assert_string_equal(printed(rows_text), "NAME           N  STATE\n"
                                            "web            1  ready\n"
                                            "a-much-lon~  200  failed\n");
    cli.out.utf8 = true;
    assert_non_null(strstr(printed(rows_text), "a-much-lon\xe2\x80\xa6  200"));
    cli.globals.no_trunc = true;
    assert_non_null(strstr(printed(rows_text), "a-much-longer-name"));
}

static void every_format_has_its_empty_form(void **state)
{
    memset(&cli, 0, sizeof cli);
    assert_string_equal(printed("[]"), "");
    cli.globals.format = ZL_FORMAT_JSON;
    assert_string_equal(printed("[]"), "[]\n");
    cli.globals.format = ZL_FORMAT_YAML;
    assert_string_equal(printed("[]"), "[]\n");
    cli.globals.format = ZL_FORMAT_NAME;
    assert_string_equal(printed("[]"), "");
    assert_string_equal(printed(rows_text), "web\na-much-longer-name\n");
}

static void colour_never_carries_meaning_alone(void **state)
{
    memset(&cli, 0, sizeof cli);
    cli.out.colour = true;
    assert_non_null(strstr(printed(rows_text), "\033[32mready\033[0m"));
    assert_non_null(strstr(printed(rows_text), "\033[31mfailed\033[0m"));
}

static void text_of_outside_cannot_steer_the_terminal(void **state)
{
    memset(&cli, 0, sizeof cli);
    const char *text = printed("[{\"name\":\"a\\u001b[2Jb\\u0007\\u009bc\"}]");
    assert_non_null(strstr(text, "a?[2Jb??c"));
    text = printed("[{\"name\":\"a\\u202a\\u202eb\\u2066\\u2069c\\u2029\\u202f\\u2065\\u206a\"}]");
    assert_non_null(strstr(text, "a??b??c\xe2\x80\xa9\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa")); /* their neighbours */
}

static void colour_is_decided_in_the_documented_order(void **state)
{
    static const struct {
        const char *no_color, *force, *term;
        int option;
        bool colour;
    } rows[] = {
        { NULL, NULL, "xterm", ZL_TERM_COLOR_AUTO, false }, /* no terminal */
        { NULL, "1", "xterm", ZL_TERM_COLOR_AUTO, true },   { NULL, "0", "xterm", ZL_TERM_COLOR_AUTO, false },
        { "1", "1", "xterm", ZL_TERM_COLOR_AUTO, false },   { "", "1", "dumb", ZL_TERM_COLOR_AUTO, true },
        { "1", NULL, "dumb", ZL_TERM_COLOR_ALWAYS, true },  { NULL, "1", "xterm", ZL_TERM_COLOR_NEVER, false },
    };
    unsetenv("FORCE_COLOR");
    int fd = memfd_create("t", MFD_CLOEXEC);
    for (unsigned i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        struct zl_term t;
        rows[i].no_color ? setenv("NO_COLOR", rows[i].no_color, 1) : unsetenv("NO_COLOR");
        rows[i].force ? setenv("CLICOLOR_FORCE", rows[i].force, 1) : unsetenv("CLICOLOR_FORCE");
        setenv("TERM", rows[i].term, 1);
        zl_term_init(&t, fd, rows[i].option);
        assert_int_equal(t.colour, rows[i].colour);
        assert_string_equal(zl_style(&t, ZL_RED), rows[i].colour ? "\033[31m" : "");
    }
    (void)zl_close(fd);
}

static void utf8_is_read_from_the_locale(void **state)
{
    static const struct {
        const char *all, *lang;
        bool utf8;
    } rows[] = { { NULL, "en_GB.UTF-8", true },
                 { "C", "en_GB.UTF-8", false },
                 { NULL, "de_DE.utf8@euro", true },
                 { NULL, "C", false },
                 { "C.UTF-8", "C", true } };
    unsetenv("LC_CTYPE");
    for (unsigned i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        struct zl_term t;
        rows[i].all ? setenv("LC_ALL", rows[i].all, 1) : unsetenv("LC_ALL");
        setenv("LANG", rows[i].lang, 1);
        zl_term_init(&t, 1, ZL_TERM_COLOR_AUTO);
        assert_int_equal(t.utf8, rows[i].utf8);
    }
}

static void ages_and_sizes_are_short(void **state)
{
    struct zl_buf b = ZL_BUF_INIT;
    zl_age_text(&b, 119);
    zl_buf_putc(&b, ' ');
    zl_age_text(&b, 120);
    zl_buf_putc(&b, ' ');
    zl_age_text(&b, 7200);
    zl_buf_putc(&b, ' ');
    zl_age_text(&b, 86400 * 4);
    assert_string_equal(b.p, "119s 2m 2h 4d");
    zl_buf_clear(&b);
    zl_size_text(&b, 1023);
    zl_buf_putc(&b, ' ');
    zl_size_text(&b, 1536);
    zl_buf_putc(&b, ' ');
    zl_size_text(&b, 50 << 20);
    assert_string_equal(b.p, "1023 B 1.5 KiB 50 MiB");
    zl_buf_done(&b);
    int64_t t;
    assert_int_equal(zl_time_parse("1970-01-02T00:00:01.5Z", &t), 0);
    assert_int_equal(t, 86401);
    assert_true(zl_time_parse("", &t) < 0);
    assert_true(zl_time_parse("1970-01-02 00:00:01", &t) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_aligned),
        cmocka_unit_test(a_narrow_terminal_cuts_what_may_be_cut),
        cmocka_unit_test(every_format_has_its_empty_form),
        cmocka_unit_test(colour_never_carries_meaning_alone),
        cmocka_unit_test(text_of_outside_cannot_steer_the_terminal),
        cmocka_unit_test(colour_is_decided_in_the_documented_order),
        cmocka_unit_test(utf8_is_read_from_the_locale),
        cmocka_unit_test(ages_and_sizes_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
