/*
 * Commands as tables: parser, help, completion and man pages read the same rows, so that they cannot drift. A command
 * decodes into a struct of its own by offsets. Thread: one. Owns: values point into argv, the environment, the tables
 * or the cli's arena. Fails: run returns an exit code, or a negative code with err filled in.
 */
#pragma once

#include "base/alloc.h"
#include "base/error.h"
#include "cli/term.h"
#include "codec/fields.h"

#include <stdbool.h>
#include <stdint.h>

struct zl_cli;
struct zl_client;

enum zl_opt_kind {
    ZL_OPT_FLAG,     /* bool */
    ZL_OPT_COUNT,    /* unsigned: how often it was given */
    ZL_OPT_STRING,   /* const char *, NULL when not given */
    ZL_OPT_LIST,     /* struct zl_strings: given any number of times */
    ZL_OPT_UINT,     /* uint64_t, min..max */
    ZL_OPT_DURATION, /* uint64_t milliseconds: "30s", "1m 30s", or plain seconds */
    ZL_OPT_ENUM,     /* int: the index into choices */
};

/* What completes a value, asked of the running agent where there is one. */
enum zl_complete {
    ZL_COMPLETE_NONE,
    ZL_COMPLETE_FILES,
    ZL_COMPLETE_FOLDERS,
    ZL_COMPLETE_DEPLOYMENTS,
    ZL_COMPLETE_SERVICES,
    ZL_COMPLETE_IMAGES,
    ZL_COMPLETE_COMMANDS,
};

struct zl_opt {
    const char *name; /* long, without dashes */
    char letter;      /* 0: none */
    enum zl_opt_kind kind;
    size_t offset;
    const char *value; /* of the value, for people: "SPEC" */
    const char *help;
    const char *const *choices; /* of ENUM, NULL at the end; a leading '!' marks one that is not built yet */
    uint64_t min, max;          /* of UINT */
    const char *fallback;       /* the default, as it would be typed */
    const char *env;            /* the variable that gives it when it is not typed */
    const char *excludes;       /* the option that can't be given beside it */
    enum zl_complete complete;
};

enum {
    ZL_ARG_OPTIONAL = 1u << 0,
    ZL_ARG_REST = 1u << 1, /* all words that follow, as they are: a command for somebody else */
    ZL_ARG_MANY = 1u << 2, /* one or more; options may stand between and behind them */
};

struct zl_arg {
    const char *name;
    size_t offset; /* const char *; with ZL_ARG_REST and ZL_ARG_MANY, which only the last may be, struct zl_strings */
    unsigned flags;
    const char *help;
    const char *const *choices;
    enum zl_complete complete;
};

struct zl_example {
    const char *command, *does;
};

enum zl_group { ZL_GROUP_RUN, ZL_GROUP_LOOK, ZL_GROUP_IMAGES, ZL_GROUP_DOCUMENT, ZL_GROUP_NODE, ZL_GROUP_HIDDEN };

enum {
    ZL_CMD_OUTPUT = 1u << 0,     /* takes -o, -q, --no-headers, --no-trunc */
    ZL_CMD_BACKGROUND = 1u << 1, /* takes -b */
    ZL_CMD_RAW = 1u << 2,        /* every word that follows is an argument, options too */
};

struct zl_cmd {
    const char *name;
    const char *summary; /* one line, no full stop */
    const char *details; /* more sentences, or NULL */
    enum zl_group group;
    unsigned flags;
    const struct zl_example *examples;
    unsigned n_examples;
    const struct zl_opt *options;
    unsigned n_options;
    const struct zl_arg *args;
    unsigned n_args;
    size_t size;                          /* of the struct that options and args decode into */
    const struct zl_cmd *const *commands; /* NULL at the end; of a command that only groups others */
    int (*run)(struct zl_cli *cli, void *options, struct zl_err *err);
};

#define ZL_CMD_EXAMPLES(rows) .examples = (rows), .n_examples = ZL_ARRAY_LEN(rows)
#define ZL_CMD_OPTIONS(rows)  .options = (rows), .n_options = ZL_ARRAY_LEN(rows)
#define ZL_CMD_ARGS(rows)     .args = (rows), .n_args = ZL_ARRAY_LEN(rows)

enum zl_format { ZL_FORMAT_TABLE, ZL_FORMAT_WIDE, ZL_FORMAT_JSON, ZL_FORMAT_YAML, ZL_FORMAT_NAME };
enum zl_color { ZL_COLOR_AUTO, ZL_COLOR_ALWAYS, ZL_COLOR_NEVER };
enum zl_progress_mode { ZL_PROGRESS_AUTO, ZL_PROGRESS_TTY, ZL_PROGRESS_PLAIN, ZL_PROGRESS_QUIET };

struct zl_globals {
    unsigned verbose;
    bool background, quiet, no_headers, no_trunc, help, version;
    const char *data_dir;
    int color, runtime, format, progress;
};
extern const struct zl_opt zl_global_options[];
extern const unsigned zl_global_options_n;

struct zl_cli {
    struct zl_globals globals;
    const struct zl_cmd *root;
    const struct zl_cmd *path[4]; /* root, then the command and subcommand that were named */
    unsigned depth;               /* how many of path */
    void *options;                /* of the last of path */
    struct zl_term out, err;
    struct zl_arena arena;
    struct zl_client *client; /* made by the first zl_cli_client */
};

/* The command that was named last. */
static inline const struct zl_cmd *zl_cli_cmd(const struct zl_cli *cli)
{
    return cli->path[cli->depth - 1];
}

/*
 * Reads the words after argv[0]. ZL_E_USAGE with a hint (did you mean …) for what is wrong with them; cli->path says
 * how far it came. --help and --version end the reading without complaint about what else is missing.
 */
int zl_options_parse(struct zl_cli *cli, int argc, char *const *argv, struct zl_err *err) ZL_MUST;
/* The option of this name or letter that `cmd` takes, its own or a global one; NULL when there is none. */
const struct zl_opt *zl_option_find(const struct zl_cmd *cmd, struct zl_str name);
const struct zl_opt *zl_option_find_letter(const struct zl_cmd *cmd, char letter);
/* Whether a global option means anything to this command. */
bool zl_option_applies(const struct zl_cmd *cmd, const struct zl_opt *global);
const struct zl_cmd *zl_cmd_find(const struct zl_cmd *parent, struct zl_str name);

/* Help of the command at the end of the path. */
void zl_help_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth, bool colour);
/* "Usage: zlayer up [options] [SPEC]" and where help is. */
void zl_usage_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth);
/* What can stand at the end of these words: value, TAB, description, LF; or ":files", ":folders". */
void zl_complete_words(struct zl_cli *cli, struct zl_buf *out, const char *const *words, unsigned n);
/* The page of a command, or of the whole program (depth 1). */
void zl_man_print(struct zl_buf *out, const struct zl_cmd *const *path, unsigned depth);

/* The root of all commands. */
extern const struct zl_cmd zl_cmd_root;
/* The whole program: returns the exit code. */
int zl_cli_main(int argc, char *const *argv);
