/* The tables are whole: what a person or a program would miss is missed here first. */
#include "../testing.h"

#include "cli/cmd.h"

#include <stdio.h>
#include <string.h>

static void check_option(const struct zl_cmd *cmd, const struct zl_opt *o)
{
    assert_non_null(o->help);
    assert_true(o->help[0] >= 'a' && o->help[0] <= 'z');
    assert_true(o->help[strlen(o->help) - 1] != '.');
    bool takes = o->kind != ZL_OPT_FLAG && o->kind != ZL_OPT_COUNT;
    assert_true(takes == (o->value != NULL));
    assert_true((o->kind == ZL_OPT_ENUM) == (o->choices != NULL));
    if (o->kind == ZL_OPT_UINT)
        assert_true(o->max > o->min);
    if (o->excludes)
        assert_non_null(zl_option_find(cmd, zl_str(o->excludes)));
}

static void check(const struct zl_cmd *cmd)
{
    assert_true(cmd->summary && cmd->summary[0] >= 'A' && cmd->summary[0] <= 'Z');
    assert_true(cmd->summary[strlen(cmd->summary) - 1] != '.');
    assert_true(strlen(cmd->summary) < 90);
    assert_true(cmd->n_examples > 0);
    assert_true((cmd->run != NULL) != (cmd->commands != NULL));
    assert_true(cmd->size || (!cmd->n_options && !cmd->n_args));
    for (unsigned i = 0; i < cmd->n_examples; i++) {
        assert_non_null(strstr(cmd->examples[i].command, "zlayer"));
        assert_non_null(cmd->examples[i].does);
    }
    for (unsigned i = 0; i < cmd->n_options; i++) {
        const struct zl_opt *o = &cmd->options[i];
        check_option(cmd, o);
        assert_ptr_equal(zl_option_find(cmd, zl_str(o->name)), o); /* unique */
        if (o->letter)
            assert_ptr_equal(zl_option_find_letter(cmd, o->letter), o);
        for (unsigned g = 0; g < zl_global_options_n;
             g++) /* a global option means the same wherever it means anything */
            assert_false(zl_option_applies(cmd, &zl_global_options[g]) &&
                         (zl_streq(zl_global_options[g].name, o->name) ||
                          (o->letter && zl_global_options[g].letter == o->letter)));
    }
    for (unsigned i = 0; i < cmd->n_args; i++) {
        assert_non_null(cmd->args[i].help);
        if (i) /* nothing that is required may follow what is not */
            assert_true(!(cmd->args[i - 1].flags & ZL_ARG_OPTIONAL) || (cmd->args[i].flags & ZL_ARG_OPTIONAL));
        assert_true(!(cmd->args[i].flags & (ZL_ARG_REST | ZL_ARG_MANY)) || i + 1 == cmd->n_args);
    }
    for (const struct zl_cmd *const *c = cmd->commands; c && *c; c++) {
        assert_ptr_equal(zl_cmd_find(cmd, zl_str((*c)->name)), *c);
        check(*c);
    }
}

static void every_command_is_whole(void **state)
{
    check(&zl_cmd_root);
}

static void the_commands_of_the_reference_are_there(void **state)
{
    static const char *const names[] = { "up",    "deploy", "down",    "stop",       "exec",     "status",
                                         "ps",    "logs",   "pull",    "image",      "validate", "spec",
                                         "serve", "doctor", "version", "completion", "help" };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(names); i++)
        assert_non_null(zl_cmd_find(&zl_cmd_root, zl_str(names[i])));
}

static void global_options_are_whole(void **state)
{
    for (unsigned i = 0; i < zl_global_options_n; i++) {
        check_option(&zl_cmd_root, &zl_global_options[i]);
        assert_ptr_equal(zl_option_find(&zl_cmd_root, zl_str(zl_global_options[i].name)), &zl_global_options[i]);
    }
}

static void help_and_manual_name_every_option(void **state)
{
    for (const struct zl_cmd *const *c = zl_cmd_root.commands; *c; c++) {
        const struct zl_cmd *path[] = { &zl_cmd_root, *c };
        struct zl_buf help = ZL_BUF_INIT, man = ZL_BUF_INIT;
        zl_help_print(&help, path, 2, false);
        zl_man_print(&man, path, 2);
        for (unsigned i = 0; i < (*c)->n_options; i++) {
            char text[64];
            snprintf(text, sizeof text, "--%s", (*c)->options[i].name);
            assert_non_null(strstr(help.p, text));
        }
        assert_null(strchr(help.p, '\033'));
        assert_non_null(strstr(help.p, "Examples:"));
        assert_non_null(strstr(man.p, ".SH NAME\nzlayer\\-"));
        zl_buf_done(&help);
        zl_buf_done(&man);
    }
}

static void the_help_of_stop_reads_so(void **state)
{
    static const char expected[] =
        "Stop services of a deployment, which stays\n"
        "\n"
        "Usage: zlayer stop [options] [DEPLOYMENT]\n"
        "\n"
        "Examples:\n"
        "  zlayer stop shop --service web         # one service; the deployment stays\n"
        "  zlayer stop shop                       # all of its services\n"
        "\n"
        "Arguments:\n"
        "  DEPLOYMENT                its name; without it that of the document of this folder\n"
        "\n"
        "Options:\n"
        "  -s, --service SERVICE     only this one\n"
        "  -t, --timeout TIME        how long a container may take to end before it is killed (30s by default)\n"
        "  -f, --force               kill at once\n"
        "\n"
        "Options of every command:\n";
    const struct zl_cmd *path[] = { &zl_cmd_root, zl_cmd_find(&zl_cmd_root, ZL_STR("stop")) };
    struct zl_buf help = ZL_BUF_INIT;
    zl_help_print(&help, path, 2, false);
    help.p[ZL_MIN(sizeof expected - 1, help.n)] = 0;
    assert_string_equal(help.p, expected);
    zl_buf_done(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_is_whole),    cmocka_unit_test(the_commands_of_the_reference_are_there),
        cmocka_unit_test(global_options_are_whole),  cmocka_unit_test(help_and_manual_name_every_option),
        cmocka_unit_test(the_help_of_stop_reads_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
