#include "cli/cmd.h"

#include <string.h>

static const char *const group_titles[] = { "Deploy and run", "See what runs", "Images", "Documents", "This node" };

static void add_path(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        zl_buf_printf(out, "%s%s", i ? " " : "", path[i]->name);
}

static void add_usage(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth)
{
    const struct zl_cmd *cmd = path[depth - 1];
    add_path(out, path, depth);
    zl_buf_puts(out, " [options]");
    if (cmd->commands)
        zl_buf_puts(out, " <command>");
    for (unsigned i = 0; i < cmd->n_args; i++) {
        const struct zl_arg *a = &cmd->args[i];
        bool optional = a->flags & ZL_ARG_OPTIONAL;
        zl_buf_printf(out, " %s%s%s%s", optional ? "[" : "", a->name,
                      a->flags & (ZL_ARG_REST | ZL_ARG_MANY) ? "..." : "", optional ? "]" : "");
    }
}

void zl_usage_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth)
{
    zl_buf_puts(out, "Usage: ");
    add_usage(out, path, depth);
    zl_buf_puts(out, "\nMore: '");
    add_path(out, path, depth);
    zl_buf_puts(out, " --help'\n");
}

static void add_row(struct zl_buf *out, const char *left, size_t width, const char *right)
{
    size_t n = strlen(left);
    if (n > width)
        zl_buf_printf(out, "  %s\n  %*s  %s\n", left, (int)width, "", right);
    else
        zl_buf_printf(out, "  %-*s  %s\n", (int)width, left, right);
}

static void add_option(struct zl_buf *out, const struct zl_opt *o)
{
    zl_auto_buf left = ZL_BUF_INIT;
    zl_auto_buf right = ZL_BUF_INIT;
    if (o->letter)
        zl_buf_printf(&left, "-%c, --%s", o->letter, o->name);
    else
        zl_buf_printf(&left, "    --%s", o->name);
    if (o->value)
        zl_buf_printf(&left, " %s", o->value);
    zl_buf_puts(&right, o->help);
    if (o->choices) {
        zl_buf_puts(&right, " (");
        bool first = true;
        for (unsigned i = 0; o->choices[i]; i++) {
            if (o->choices[i][0] == '!')
                continue;
            bool is_default = o->fallback && zl_streq(o->fallback, o->choices[i]);
            zl_buf_printf(&right, "%s%s%s", first ? "" : ", ", o->choices[i], is_default ? " by default" : "");
            first = false;
        }
        zl_buf_putc(&right, ')');
    } else if (o->fallback) {
        zl_buf_printf(&right, " (%s by default)", o->fallback);
    }
    if (o->kind == ZL_OPT_LIST)
        zl_buf_puts(&right, "; may be given several times");
    if (o->env)
        zl_buf_printf(&right, " [%s]", o->env);
    add_row(out, left.p, 24, right.p);
}

static void add_commands(struct zl_buf *out, const struct zl_cmd *cmd, const char *bold, const char *off)
{
    size_t width = 8;
    for (const struct zl_cmd *const *c = cmd->commands; *c; c++)
        width = (*c)->group == ZL_GROUP_HIDDEN ? width : ZL_MAX(width, strlen((*c)->name));
    for (unsigned group = 0; group < ZL_ARRAY_LEN(group_titles); group++) {
        bool titled = false;
        for (const struct zl_cmd *const *c = cmd->commands; *c; c++) {
            if ((*c)->group != (enum zl_group)group)
                continue;
            if (!titled)
                zl_buf_printf(out, "\n%s%s:%s\n", bold, group_titles[group], off);
            titled = true;
            add_row(out, (*c)->name, width, (*c)->summary);
        }
    }
}

void zl_help_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth, bool colour)
{
    const char *bold = colour ? "\033[1m" : "", *dim = colour ? "\033[2m" : "", *off = colour ? "\033[0m" : "";
    const struct zl_cmd *cmd = path[depth - 1];
    zl_buf_printf(out, "%s\n\n%sUsage:%s ", cmd->summary, bold, off);
    add_usage(out, path, depth);
    zl_buf_putc(out, '\n');
    if (cmd->n_examples)
        zl_buf_printf(out, "\n%sExamples:%s\n", bold, off);
    for (unsigned i = 0; i < cmd->n_examples; i++) {
        const struct zl_example *e = &cmd->examples[i];
        zl_buf_printf(out, "  %-38s %s# %s%s\n", e->command, dim, e->does, off);
    }
    if (cmd->details)
        zl_buf_printf(out, "\n%s\n", cmd->details);
    if (cmd->commands)
        add_commands(out, cmd, bold, off);
    if (cmd->n_args)
        zl_buf_printf(out, "\n%sArguments:%s\n", bold, off);
    for (unsigned i = 0; i < cmd->n_args; i++)
        add_row(out, cmd->args[i].name, 24, cmd->args[i].help);
    if (cmd->n_options)
        zl_buf_printf(out, "\n%sOptions:%s\n", bold, off);
    for (unsigned i = 0; i < cmd->n_options; i++)
        add_option(out, &cmd->options[i]);
    zl_buf_printf(out, "\n%sOptions of every command:%s\n", bold, off);
    for (unsigned i = 0; i < zl_global_options_n; i++)
        if (zl_option_applies(cmd, &zl_global_options[i]))
            add_option(out, &zl_global_options[i]);
    if (cmd->commands) {
        zl_buf_puts(out, "\n'");
        add_path(out, path, depth);
        zl_buf_puts(out, depth == 1 ? " help COMMAND' tells more of one; 'zlayer help environment' and 'zlayer help "
                                      "exit-codes' are there too.\n"
                                    : " COMMAND --help' tells more of one.\n");
    }
}
