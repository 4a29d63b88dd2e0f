#include "cli/cmd.h"

#include <stdio.h>
#include <string.h>

static const char *const color_names[] = { "auto", "always", "never", NULL };
static const char *const runtime_names[] = { "auto", "native", "youki", "!docker", NULL };
static const char *const format_names[] = { "table", "wide", "json", "yaml", "name", NULL };
static const char *const progress_names[] = { "auto", "tty", "plain", "quiet", NULL };

#define AT(field) offsetof(struct zl_globals, field)
const struct zl_opt zl_global_options[] = {
    { "background", 'b', ZL_OPT_FLAG, AT(background), NULL, "deploy, wait until it is ready, and return" },
    { "output", 'o', ZL_OPT_ENUM, AT(format), "FORMAT", "how results are written", format_names, .fallback = "table" },
    { "quiet", 'q', ZL_OPT_FLAG, AT(quiet), NULL, "names only; for commands without a listing: no progress" },
    { "no-headers", 0, ZL_OPT_FLAG, AT(no_headers), NULL, "tables without the line of titles" },
    { "no-trunc", 0, ZL_OPT_FLAG, AT(no_trunc), NULL, "tables with whole ids and digests, however wide" },
    { "data-dir", 0, ZL_OPT_STRING, AT(data_dir), "DIR", "where the node keeps its state", .env = "ZLAYER_DATA_DIR",
      .complete = ZL_COMPLETE_FOLDERS },
    { "runtime", 0, ZL_OPT_ENUM, AT(runtime), "NAME", "what runs containers; youki is another name of native",
      runtime_names, .fallback = "auto" },
    { "color", 0, ZL_OPT_ENUM, AT(color), "WHEN", "colour in output", color_names, .fallback = "auto" },
    { "progress", 0, ZL_OPT_ENUM, AT(progress), "HOW", "how progress is shown on stderr", progress_names,
      .fallback = "auto" },
    { "verbose", 'v', ZL_OPT_COUNT, AT(verbose), NULL, "more of what is done, on stderr; twice for more" },
    { "help", 'h', ZL_OPT_FLAG, AT(help), NULL, "this help" },
    { "version", 'V', ZL_OPT_FLAG, AT(version), NULL, "the version" },
};
#undef AT
const unsigned zl_global_options_n = ZL_ARRAY_LEN(zl_global_options);

bool zl_option_applies(const struct zl_cmd *cmd, const struct zl_opt *global)
{
    if (cmd->commands) /* it may be typed before the command that it is for */
        return true;
    switch (global->offset) {
    case offsetof(struct zl_globals, background):
        return cmd->flags & ZL_CMD_BACKGROUND;
    case offsetof(struct zl_globals, format):
    case offsetof(struct zl_globals, no_headers):
    case offsetof(struct zl_globals, no_trunc):
        return cmd->flags & ZL_CMD_OUTPUT;
    default:
        return true;
    }
}

static bool is_global(const struct zl_opt *o)
{
    return o >= zl_global_options && o < zl_global_options + zl_global_options_n;
}

const struct zl_opt *zl_option_find(const struct zl_cmd *cmd, struct zl_str name)
{
    for (unsigned i = 0; i < cmd->n_options; i++)
        if (zl_str_is(name, cmd->options[i].name))
            return &cmd->options[i];
    for (unsigned i = 0; i < zl_global_options_n; i++)
        if (zl_str_is(name, zl_global_options[i].name))
            return &zl_global_options[i];
    return NULL;
}

const struct zl_opt *zl_option_find_letter(const struct zl_cmd *cmd, char letter)
{
    for (unsigned i = 0; i < cmd->n_options; i++)
        if (cmd->options[i].letter == letter)
            return &cmd->options[i];
    for (unsigned i = 0; i < zl_global_options_n; i++)
        if (zl_global_options[i].letter == letter)
            return &zl_global_options[i];
    return NULL;
}

const struct zl_cmd *zl_cmd_find(const struct zl_cmd *parent, struct zl_str name)
{
    for (const struct zl_cmd *const *c = parent->commands; c && *c; c++)
        if (zl_str_is(name, (*c)->name))
            return *c;
    return NULL;
}

/* One reading of the words. */
struct reading {
    struct zl_cli *cli;
    int argc, at;
    char *const *argv;
    const struct zl_opt *given[64]; /* for options that exclude each other */
    unsigned n_given, n_args;
};

static void *place(struct reading *r, const struct zl_opt *o)
{
    char *base = is_global(o) ? (char *)&r->cli->globals : r->cli->options;
    return base + o->offset;
}

static int choice(const struct zl_opt *o, struct zl_str text, int *ret, struct zl_err *err)
{
    zl_auto_buf all = ZL_BUF_INIT;
    for (int i = 0; o->choices[i]; i++) {
        bool later = o->choices[i][0] == '!';
        const char *name = o->choices[i] + later;
        if (zl_str_is(text, name)) {
            if (later)
                return zl_fail(err, ZL_E_UNSUPPORTED, "--%s %s is not supported yet", o->name, name);
            *ret = i;
            return 0;
        }
        if (!later)
            zl_buf_printf(&all, "%s%s", all.n ? ", " : "", name);
    }
    (void)zl_fail(err, ZL_E_USAGE, "'%.*s' is no value of --%s", (int)ZL_MIN(text.n, 60u), text.p, o->name);
    const char *near = zl_nearest(text, o->choices);
    if (near)
        return zl_hint(err, ZL_E_USAGE, "did you mean '%s'? There are: %s", near, all.p);
    return zl_hint(err, ZL_E_USAGE, "there are: %s", all.p);
}

static void append(struct reading *r, struct zl_strings *l, const char *text)
{
    const char **v = zl_arena_alloc(&r->cli->arena, (l->n + 1u) * sizeof *v);
    if (l->n)
        memcpy(v, l->v, l->n * sizeof *v);
    v[l->n++] = text;
    l->v = v;
}

static int set_value(struct reading *r, const struct zl_opt *o, const char *text, struct zl_err *err)
{
    void *p = place(r, o);
    struct zl_str s = zl_str(text);
    uint64_t u;
    switch (o->kind) {
    case ZL_OPT_FLAG:
        *(bool *)p = true;
        return 0;
    case ZL_OPT_COUNT:
        ++*(unsigned *)p;
        return 0;
    case ZL_OPT_STRING:
        *(const char **)p = text;
        return 0;
    case ZL_OPT_LIST:
        append(r, p, text);
        return 0;
    case ZL_OPT_UINT:
        if (zl_parse_u64(s, o->min, o->max, &u) < 0)
            return zl_fail(err, ZL_E_USAGE, "--%s takes a number from %llu to %llu, not '%.60s'", o->name,
                           (unsigned long long)o->min, (unsigned long long)o->max, text);
        *(uint64_t *)p = u;
        return 0;
    case ZL_OPT_DURATION:
        if (zl_parse_u64(s, 0, 1u << 30, &u) == 0)
            u *= 1000;
        else if (zl_parse_duration_ms(s, &u) < 0)
            return zl_hint(err, zl_fail(err, ZL_E_USAGE, "--%s takes a duration, not '%.60s'", o->name, text),
                           "write seconds, or a form such as 30s, 2m, 1h 30m");
        *(uint64_t *)p = u;
        return 0;
    case ZL_OPT_ENUM:
        return choice(o, s, p, err);
    }
    return 0;
}

static int give(struct reading *r, const struct zl_opt *o, const char *text, struct zl_err *err)
{
    for (unsigned i = 0; i < r->n_given; i++) {
        const struct zl_opt *g = r->given[i];
        if ((o->excludes && zl_streq(o->excludes, g->name)) || (g->excludes && zl_streq(g->excludes, o->name)))
            return zl_fail(err, ZL_E_USAGE, "--%s and --%s exclude each other", g->name, o->name);
    }
    if (r->n_given < ZL_ARRAY_LEN(r->given))
        r->given[r->n_given++] = o;
    return set_value(r, o, text, err);
}

static bool was_given(const struct reading *r, const struct zl_opt *o)
{
    for (unsigned i = 0; i < r->n_given; i++)
        if (r->given[i] == o)
            return true;
    return false;
}

/* Defaults are written first, so that what is typed overrides them. */
static int defaults(struct reading *r, const struct zl_opt *rows, unsigned n, struct zl_err *err)
{
    for (unsigned i = 0; i < n; i++) {
        if (!rows[i].fallback)
            continue;
        int e = set_value(r, &rows[i], rows[i].fallback, err);
        if (e < 0)
            return e;
    }
    return 0;
}

static int environment(struct reading *r, const struct zl_opt *rows, unsigned n, struct zl_err *err)
{
    for (unsigned i = 0; i < n; i++) {
        const char *v = rows[i].env && !was_given(r, &rows[i]) ? getenv(rows[i].env) : NULL;
        if (!v || !v[0])
            continue;
        int e = set_value(r, &rows[i], v, err);
        if (e < 0)
            return zl_wrap(err, e, "the variable %s", rows[i].env);
    }
    return 0;
}

static bool takes_value(const struct zl_opt *o)
{
    return o->kind != ZL_OPT_FLAG && o->kind != ZL_OPT_COUNT;
}

static int unknown_option(const struct reading *r, struct zl_str name, struct zl_err *err)
{
    const struct zl_cmd *cmd = zl_cli_cmd(r->cli);
    const char *names[ZL_ARRAY_LEN(r->given) + 1];
    unsigned n = 0;
    for (unsigned i = 0; i < cmd->n_options && n < ZL_ARRAY_LEN(r->given); i++)
        names[n++] = cmd->options[i].name;
    for (unsigned i = 0; i < zl_global_options_n && n < ZL_ARRAY_LEN(r->given); i++)
        if (zl_option_applies(cmd, &zl_global_options[i]))
            names[n++] = zl_global_options[i].name;
    names[n] = NULL;
    (void)zl_fail(err, ZL_E_USAGE, "there is no option '--%.*s'", (int)ZL_MIN(name.n, 60u), name.p);
    const char *near = zl_nearest(name, names);
    if (near)
        return zl_hint(err, ZL_E_USAGE, "did you mean '--%s'?", near);
    return ZL_E_USAGE;
}

static int long_option(struct reading *r, const char *word, struct zl_err *err)
{
    struct zl_str value, name = zl_str_cut(zl_str(word + 2), '=', &value);
    const struct zl_opt *o = zl_option_find(zl_cli_cmd(r->cli), name);
    if (!o)
        return unknown_option(r, name, err);
    if (!takes_value(o) && value.p)
        return zl_fail(err, ZL_E_USAGE, "--%s takes no value", o->name);
    const char *text = value.p; /* the rest of an argv word, so NUL-terminated */
    if (takes_value(o) && !text) {
        if (r->at >= r->argc)
            return zl_fail(err, ZL_E_USAGE, "--%s needs a value (%s)", o->name, o->value);
        text = r->argv[r->at++];
    }
    return give(r, o, text, err);
}

static int short_options(struct reading *r, const char *word, struct zl_err *err)
{
    for (const char *c = word + 1; *c; c++) {
        const struct zl_opt *o = zl_option_find_letter(zl_cli_cmd(r->cli), *c);
        if (!o)
            return zl_fail(err, ZL_E_USAGE, "there is no option '-%c'", *c);
        const char *text = NULL;
        if (takes_value(o)) {
            if (c[1])
                text = c[1] == '=' ? c + 2 : c + 1;
            else if (r->at < r->argc)
                text = r->argv[r->at++];
            else
                return zl_fail(err, ZL_E_USAGE, "-%c needs a value (%s)", *c, o->value);
        }
        int e = give(r, o, text, err);
        if (e < 0 || text)
            return e;
    }
    return 0;
}

static int unknown_command(const struct zl_cmd *parent, const char *word, struct zl_err *err)
{
    const char *names[64];
    unsigned n = 0;
    for (const struct zl_cmd *const *c = parent->commands; *c && n + 1 < ZL_ARRAY_LEN(names); c++)
        if ((*c)->group != ZL_GROUP_HIDDEN)
            names[n++] = (*c)->name;
    names[n] = NULL;
    (void)zl_fail(err, ZL_E_USAGE, "there is no command '%.60s'", word);
    const char *near = zl_nearest(zl_str(word), names);
    if (near)
        return zl_hint(err, ZL_E_USAGE, "did you mean '%s'?", near);
    return zl_hint(err, ZL_E_USAGE, "'zlayer help' lists them");
}

static int positional(struct reading *r, const char *word, struct zl_err *err)
{
    const struct zl_cmd *cmd = zl_cli_cmd(r->cli);
    if (cmd->commands) {
        const struct zl_cmd *next = zl_cmd_find(cmd, zl_str(word));
        if (!next || r->cli->depth == ZL_ARRAY_LEN(r->cli->path))
            return unknown_command(cmd, word, err);
        r->cli->path[r->cli->depth++] = next;
        r->cli->options = zl_arena_alloc(&r->cli->arena, ZL_MAX(next->size, (size_t)1));
        return defaults(r, next->options, next->n_options, err);
    }
    const struct zl_arg *last = cmd->n_args ? &cmd->args[cmd->n_args - 1] : NULL;
    if (r->n_args == cmd->n_args && last && last->flags & ZL_ARG_MANY) {
        append(r, (void *)((char *)r->cli->options + last->offset), word);
        return 0;
    }
    if (r->n_args >= cmd->n_args)
        return zl_fail(err, ZL_E_USAGE, "'%.60s' is one argument too many", word);
    const struct zl_arg *a = &cmd->args[r->n_args];
    void *p = (char *)r->cli->options + a->offset;
    if (a->flags & ZL_ARG_REST) {
        struct zl_strings *rest = p;
        rest->n = (unsigned)(r->argc - r->at + 1);
        rest->v = zl_arena_alloc(&r->cli->arena, rest->n * sizeof *rest->v);
        for (unsigned i = 0; i < rest->n; i++)
            rest->v[i] = r->argv[(unsigned)r->at - 1 + i];
        r->at = r->argc;
    } else if (a->flags & ZL_ARG_MANY) {
        append(r, p, word);
    } else {
        *(const char **)p = word;
    }
    r->n_args++;
    return 0;
}

static int complain(struct reading *r, struct zl_err *err)
{
    const struct zl_cmd *cmd = zl_cli_cmd(r->cli);
    if (cmd->commands)
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "a command is missing"), "'zlayer help' lists them");
    if (r->n_args < cmd->n_args && !(cmd->args[r->n_args].flags & ZL_ARG_OPTIONAL))
        return zl_fail(err, ZL_E_USAGE, "%s is missing", cmd->args[r->n_args].name);
    for (unsigned i = 0; i < r->n_given; i++)
        if (is_global(r->given[i]) && !zl_option_applies(cmd, r->given[i]))
            return zl_fail(err, ZL_E_USAGE, "'zlayer %s%s%s' has no option '--%s'",
                           r->cli->depth > 2 ? r->cli->path[1]->name : "", r->cli->depth > 2 ? " " : "", cmd->name,
                           r->given[i]->name);
    return 0;
}

int zl_options_parse(struct zl_cli *cli, int argc, char *const *argv, struct zl_err *err)
{
    struct reading r = { .cli = cli, .argc = argc, .argv = argv, .at = 1 };
    cli->path[0] = cli->root;
    cli->depth = 1;
    int e = defaults(&r, zl_global_options, zl_global_options_n, err);
    bool only_words = false;
    while (e >= 0 && r.at < argc) {
        const char *word = argv[r.at++];
        if (zl_cli_cmd(cli)->flags & ZL_CMD_RAW)
            only_words = true;
        if (only_words || word[0] != '-' || !word[1])
            e = positional(&r, word, err);
        else if (zl_streq(word, "--"))
            only_words = true;
        else
            e = word[1] == '-' ? long_option(&r, word, err) : short_options(&r, word, err);
    }
    if (e < 0)
        return e;
    if (cli->globals.help || cli->globals.version)
        return 0;
    e = environment(&r, zl_global_options, zl_global_options_n, err);
    if (e >= 0)
        e = environment(&r, zl_cli_cmd(cli)->options, zl_cli_cmd(cli)->n_options, err);
    return e < 0 ? e : complain(&r, err);
}
