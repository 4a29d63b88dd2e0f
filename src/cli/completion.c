#include "cli/cmd.h"

#include "cli/node.h"

#include <stdlib.h>

static void add(struct zl_buf *out, struct zl_str prefix, const char *lead, const char *value, const char *help)
{
    zl_auto_buf word = ZL_BUF_INIT;
    zl_buf_printf(&word, "%s%s", lead, value);
    if (zl_str_starts(zl_buf_view(&word), prefix))
        zl_buf_printf(out, "%s\t%s\n", word.p, help ? help : "");
}

static void add_values(struct zl_cli *cli, struct zl_buf *out, struct zl_str prefix, const char *lead,
                       const char *const *choices, enum zl_complete what)
{
    for (unsigned i = 0; choices && choices[i]; i++)
        if (choices[i][0] != '!')
            add(out, prefix, lead, choices[i], NULL);
    switch (what) {
    case ZL_COMPLETE_NONE:
        return;
    case ZL_COMPLETE_FILES:
        zl_buf_puts(out, ":files\n");
        return;
    case ZL_COMPLETE_FOLDERS:
        zl_buf_puts(out, ":folders\n");
        return;
    case ZL_COMPLETE_COMMANDS:
        for (const struct zl_cmd *const *c = cli->root->commands; *c; c++)
            if ((*c)->group != ZL_GROUP_HIDDEN)
                add(out, prefix, lead, (*c)->name, (*c)->summary);
        return;
    case ZL_COMPLETE_DEPLOYMENTS:
    case ZL_COMPLETE_SERVICES:
    case ZL_COMPLETE_IMAGES: {
        struct zl_strings names = { 0 };
        zl_node_names(cli, what, &names);
        for (unsigned i = 0; i < names.n; i++)
            add(out, prefix, lead, names.v[i], NULL);
        return;
    }
    }
}

static void add_option_names(struct zl_buf *out, struct zl_str prefix, const struct zl_cmd *cmd)
{
    for (unsigned i = 0; i < cmd->n_options; i++)
        add(out, prefix, "--", cmd->options[i].name, cmd->options[i].help);
    for (unsigned i = 0; i < zl_global_options_n; i++)
        if (zl_option_applies(cmd, &zl_global_options[i]))
            add(out, prefix, "--", zl_global_options[i].name, zl_global_options[i].help);
}

static bool takes_value(const struct zl_opt *o)
{
    return o && o->kind != ZL_OPT_FLAG && o->kind != ZL_OPT_COUNT;
}

/* The option of `-abc` or `--name` whose value is the word after it, or NULL. */
static const struct zl_opt *open_option(const struct zl_cmd *cmd, const char *word)
{
    if (word[0] != '-' || !word[1])
        return NULL;
    if (word[1] == '-') {
        const struct zl_opt *o = strchr(word, '=') ? NULL : zl_option_find(cmd, zl_str(word + 2));
        return takes_value(o) ? o : NULL;
    }
    for (const char *c = word + 1; *c; c++) {
        const struct zl_opt *o = zl_option_find_letter(cmd, *c);
        if (takes_value(o))
            return c[1] ? NULL : o;
    }
    return NULL;
}

void zl_complete_words(struct zl_cli *cli, struct zl_buf *out, const char *const *words, unsigned n)
{
    const struct zl_cmd *cmd = cli->root;
    const struct zl_opt *open = NULL;
    unsigned args = 0;
    bool only_words = false;
    for (unsigned i = 0; i + 1 < n; i++) {
        const char *w = words[i];
        if (open) {
            if (zl_streq(open->name, "data-dir"))
                cli->globals.data_dir = w;
            open = NULL;
        } else if (!only_words && zl_streq(w, "--")) {
            only_words = true;
        } else if (!only_words && w[0] == '-' && w[1]) {
            open = open_option(cmd, w);
            if (strncmp(w, "--data-dir=", 11) == 0)
                cli->globals.data_dir = w + 11;
        } else if (cmd->commands) {
            const struct zl_cmd *next = zl_cmd_find(cmd, zl_str(w));
            if (!next)
                return;
            cmd = next;
        } else {
            args++;
        }
    }
    struct zl_str last = zl_str(n ? words[n - 1] : "");
    if (open) {
        add_values(cli, out, last, "", open->choices, open->complete);
        return;
    }
    if (!only_words && zl_str_starts(last, ZL_STR("-"))) {
        struct zl_str value, head = zl_str_cut(last, '=', &value);
        const struct zl_opt *o = value.p && head.n > 2 ? zl_option_find(cmd, zl_str_n(head.p + 2, head.n - 2)) : NULL;
        if (!value.p) {
            add_option_names(out, last, cmd);
        } else if (takes_value(o)) {
            char *lead = zl_arena_printf(&cli->arena, "--%s=", o->name);
            add_values(cli, out, last, lead, o->choices, o->complete);
        }
        return;
    }
    for (const struct zl_cmd *const *c = cmd->commands; c && *c; c++)
        if ((*c)->group != ZL_GROUP_HIDDEN)
            add(out, last, "", (*c)->name, (*c)->summary);
    if (args >= cmd->n_args && cmd->n_args && cmd->args[cmd->n_args - 1].flags & ZL_ARG_MANY)
        args = cmd->n_args - 1;
    if (args < cmd->n_args)
        add_values(cli, out, last, "", cmd->args[args].choices, cmd->args[args].complete);
}
