#include "cli/cmd.h"

#include <ctype.h>

/* Text as roff takes it: backslashes and leading dots are not commands, dashes are what is typed. */
static void add(struct zl_buf *out, const char *text)
{
    bool start = out->n == 0 || out->p[out->n - 1] == '\n';
    for (const char *c = text; *c; c++) {
        if (start && (*c == '.' || *c == '\''))
            zl_buf_puts(out, "\\&");
        if (*c == '\\')
            zl_buf_puts(out, "\\e");
        else if (*c == '-')
            zl_buf_puts(out, "\\-");
        else
            zl_buf_putc(out, *c);
        start = *c == '\n';
    }
}

static void add_path(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth, const char *between)
{
    for (unsigned i = 0; i < depth; i++) {
        if (i)
            add(out, between);
        add(out, path[i]->name);
    }
}

static void add_option(struct zl_buf *out, const struct zl_opt *o)
{
    zl_buf_puts(out, ".TP\n\\fB");
    if (o->letter)
        zl_buf_printf(out, "\\-%c\\fR, \\fB", o->letter);
    zl_buf_puts(out, "\\-\\-");
    add(out, o->name);
    zl_buf_puts(out, "\\fR");
    if (o->value)
        zl_buf_printf(out, " \\fI%s\\fR", o->value);
    zl_buf_putc(out, '\n');
    add(out, o->help);
    if (o->choices) {
        zl_buf_puts(out, ":");
        for (unsigned i = 0, n = 0; o->choices[i]; i++)
            if (o->choices[i][0] != '!')
                zl_buf_printf(out, "%s \\fB%s\\fR", n++ ? "," : "", o->choices[i]);
    }
    zl_buf_puts(out, ".");
    if (o->fallback)
        zl_buf_printf(out, " Default: \\fB%s\\fR.", o->fallback);
    if (o->env)
        zl_buf_printf(out, " Else the variable \\fB%s\\fR.", o->env);
    zl_buf_putc(out, '\n');
}

void zl_man_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth)
{
    const struct zl_cmd *cmd = path[depth - 1];
    zl_buf_puts(out, ".TH ");
    for (unsigned i = 0; i < depth; i++) {
        if (i)
            zl_buf_putc(out, '-');
        for (const char *c = path[i]->name; *c; c++)
            zl_buf_putc(out, (char)toupper((unsigned char)*c));
    }
    zl_buf_puts(out, " 1 \"\" \"zlayer " ZL_VERSION "\" \"zlayer\"\n.SH NAME\n");
    add_path(out, path, depth, "-");
    zl_buf_puts(out, " \\- ");
    add(out, cmd->summary);
    zl_buf_puts(out, "\n.SH SYNOPSIS\n.B ");
    add_path(out, path, depth, " ");
    zl_buf_puts(out, "\n[options]");
    if (cmd->commands)
        zl_buf_puts(out, " \\fIcommand\\fR");
    for (unsigned i = 0; i < cmd->n_args; i++) {
        const struct zl_arg *a = &cmd->args[i];
        zl_buf_printf(out, a->flags & ZL_ARG_OPTIONAL ? " [\\fI%s\\fR]" : " \\fI%s\\fR", a->name);
        if (a->flags & (ZL_ARG_REST | ZL_ARG_MANY))
            zl_buf_puts(out, " ...");
    }
    zl_buf_putc(out, '\n');
    if (cmd->details) {
        zl_buf_puts(out, ".SH DESCRIPTION\n");
        add(out, cmd->details);
        zl_buf_putc(out, '\n');
    }
    if (cmd->commands) {
        zl_buf_puts(out, ".SH COMMANDS\n");
        for (const struct zl_cmd *const *c = cmd->commands; *c; c++) {
            if ((*c)->group == ZL_GROUP_HIDDEN)
                continue;
            zl_buf_printf(out, ".TP\n\\fB%s\\fR\n", (*c)->name);
            add(out, (*c)->summary);
            zl_buf_puts(out, ".\n");
        }
    }
    if (cmd->n_args)
        zl_buf_puts(out, ".SH ARGUMENTS\n");
    for (unsigned i = 0; i < cmd->n_args; i++) {
        zl_buf_printf(out, ".TP\n\\fI%s\\fR\n", cmd->args[i].name);
        add(out, cmd->args[i].help);
        zl_buf_puts(out, ".\n");
    }
    zl_buf_puts(out, ".SH OPTIONS\n");
    for (unsigned i = 0; i < cmd->n_options; i++)
        add_option(out, &cmd->options[i]);
    for (unsigned i = 0; i < zl_global_options_n; i++)
        if (zl_option_applies(cmd, &zl_global_options[i]))
            add_option(out, &zl_global_options[i]);
    if (cmd->n_examples)
        zl_buf_puts(out, ".SH EXAMPLES\n");
    for (unsigned i = 0; i < cmd->n_examples; i++) {
        zl_buf_puts(out, ".TP\n\\fB");
        add(out, cmd->examples[i].command);
        zl_buf_puts(out, "\\fR\n");
        add(out, cmd->examples[i].does);
        zl_buf_puts(out, ".\n");
    }
    zl_buf_puts(out,
                ".SH EXIT STATUS\n0 success, 1 failure, 2 usage, 3 not found, 4 agent unreachable, 5 no permission, "
                "124 time\\-out, 130 interrupted.\n");
    if (depth > 1)
        zl_buf_puts(out, ".SH SEE ALSO\n.BR zlayer (1)\n");
}
