#include "cli/commands.h"
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fd.h"

static const char environment_topic[] =
    "Environment variables\n\n"
    "  ZLAYER_CONFIG_DIR where registries.yml and auth.json are: /etc/zlayer, or ~/.config/zlayer\n"
    "  ZLAYER_AUTH_FILE  the credentials of registries, instead of auth.json there\n"
    "  ZLAYER_DATA_DIR   where the node keeps its state; --data-dir overrides it\n"
    "                    (/var/lib/zlayer for root, ~/.local/share/zlayer for others)\n"
    "  ZLAYER_LOG        what programs of zlayer log: error, warn, info or debug\n"
    "  NO_COLOR          not empty: no colour\n"
    "  CLICOLOR_FORCE, FORCE_COLOR   not empty and not 0: colour, even into a pipe\n"
    "  TERM              dumb: no colour, no redrawing\n"
    "  LC_ALL, LC_CTYPE, LANG        without UTF-8: plain ASCII\n";

static const char exit_codes_topic[] = "Exit codes\n\n"
                                       "  0     success\n"
                                       "  1     failure\n"
                                       "  2     wrong usage\n"
                                       "  3     not found\n"
                                       "  4     the agent can't be reached\n"
                                       "  5     no permission\n"
                                       "  124   a time limit passed\n"
                                       "  126   exec: the program can't be executed\n"
                                       "  127   exec: there is no such program\n"
                                       "  130   interrupted\n"
                                       "  other exec: the code of the command; 128+N when signal N ended it\n";

struct options {
    struct zl_strings topic;
};

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct options *o = options;
    const struct zl_cmd *path[ZL_ARRAY_LEN(cli->path)] = { cli->root };
    unsigned depth = 1;
    zl_auto_buf out = ZL_BUF_INIT;
    if (o->topic.n == 1 && zl_streq(o->topic.v[0], "environment")) {
        zl_buf_puts(&out, environment_topic);
    } else if (o->topic.n == 1 && zl_streq(o->topic.v[0], "exit-codes")) {
        zl_buf_puts(&out, exit_codes_topic);
    } else {
        for (unsigned i = 0; i < o->topic.n; i++) {
            const struct zl_cmd *next = zl_cmd_find(path[depth - 1], zl_str(o->topic.v[i]));
            if (!next || depth == ZL_ARRAY_LEN(path))
                return zl_hint(err, zl_fail(err, ZL_E_USAGE, "there is no help on '%.60s'", o->topic.v[i]),
                               "'zlayer help' lists the commands; topics are environment and exit-codes");
            path[depth++] = next;
        }
        zl_help_print(&out, path, depth, cli->out.colour);
    }
    zl_term_write(&cli->out, zl_buf_view(&out));
    return 0;
}

static const struct zl_arg args[] = {
    { "COMMAND", offsetof(struct options, topic), ZL_ARG_OPTIONAL | ZL_ARG_REST,
      "a command, or one of environment, exit-codes", .complete = ZL_COMPLETE_COMMANDS },
};
static const struct zl_example examples[] = {
    { "zlayer help up", "what 'up' does and takes" },
    { "zlayer help exit-codes", "what the exit codes say" },
};
const struct zl_cmd zl_cmd_help = {
    .name = "help",
    .summary = "Explain a command or a topic",
    .group = ZL_GROUP_NODE,
    ZL_CMD_EXAMPLES(examples),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct options),
    .run = run,
};

struct man_options {
    const char *folder;
    struct zl_strings command;
};

static int write_page(int dir, const struct zl_cmd *const *path, unsigned depth, struct zl_err *err)
{
    zl_auto_buf name = ZL_BUF_INIT;
    zl_auto_buf page = ZL_BUF_INIT;
    for (unsigned i = 0; i < depth; i++)
        zl_buf_printf(&name, "%s%s", i ? "-" : "", path[i]->name);
    zl_buf_puts(&name, ".1");
    zl_man_print(&page, path, depth);
    int e = zl_write_file_atomic(dir, name.p, page.p, page.n, 0644, ZL_KILL_PROOF);
    if (e < 0)
        return zl_fail(err, e, "write %s", name.p);
    const struct zl_cmd *cmd = path[depth - 1];
    const struct zl_cmd *next[ZL_ARRAY_LEN(((struct zl_cli *)0)->path)];
    memcpy(next, path, depth * sizeof *next);
    for (const struct zl_cmd *const *c = cmd->commands; c && *c && depth < ZL_ARRAY_LEN(next); c++) {
        next[depth] = *c;
        if ((*c)->group != ZL_GROUP_HIDDEN && (e = write_page(dir, next, depth + 1, err)) < 0)
            return e;
    }
    return 0;
}

static int run_man(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct man_options *o = options;
    const struct zl_cmd *path[ZL_ARRAY_LEN(cli->path)] = { cli->root };
    unsigned depth = 1;
    if (o->folder) {
        zl_auto_close int dir = zl_openat(AT_FDCWD, o->folder, O_DIRECTORY | O_RDONLY, 0);
        return dir < 0 ? zl_fail(err, dir, "open %s", o->folder) : write_page(dir, path, 1, err);
    }
    for (unsigned i = 0; i < o->command.n && depth < ZL_ARRAY_LEN(path); i++) {
        const struct zl_cmd *next = zl_cmd_find(path[depth - 1], zl_str(o->command.v[i]));
        if (!next)
            return zl_fail(err, ZL_E_USAGE, "there is no command '%.60s'", o->command.v[i]);
        path[depth++] = next;
    }
    zl_auto_buf page = ZL_BUF_INIT;
    zl_man_print(&page, path, depth);
    zl_term_write(&cli->out, zl_buf_view(&page));
    return 0;
}

static const struct zl_opt man_options[] = {
    { "all", 0, ZL_OPT_STRING, offsetof(struct man_options, folder), "DIR", "write every page into this folder",
      .complete = ZL_COMPLETE_FOLDERS },
};
static const struct zl_arg man_args[] = {
    { "COMMAND", offsetof(struct man_options, command), ZL_ARG_OPTIONAL | ZL_ARG_REST, "whose page",
      .complete = ZL_COMPLETE_COMMANDS },
};
static const struct zl_example man_examples[] = { { "zlayer __man up | man -l -", "the manual page of 'up'" } };
const struct zl_cmd zl_cmd_man = {
    .name = "__man",
    .summary = "Print manual pages",
    .group = ZL_GROUP_HIDDEN,
    ZL_CMD_EXAMPLES(man_examples),
    ZL_CMD_OPTIONS(man_options),
    ZL_CMD_ARGS(man_args),
    .size = sizeof(struct man_options),
    .run = run_man,
};
