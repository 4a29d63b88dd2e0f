#include "cli/commands.h"
#include "cli/document.h"
#include "cli/output.h"

struct options {
    const char *file;
};

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct options *o = options;
    struct zl_document doc;
    int e = zl_document_load(cli, o->file, &doc, err);
    if (e == ZL_E_SPEC)
        zl_say(cli, "Spec validation: %sFAILED%s", zl_style(&cli->out, ZL_RED), zl_style(&cli->out, ZL_PLAIN));
    if (e < 0)
        return e;
    zl_auto_buf plan = ZL_BUF_INIT;
    zl_buf_printf(&plan, "Spec validation: %sPASSED%s\n", zl_style(&cli->out, ZL_GREEN), zl_style(&cli->out, ZL_PLAIN));
    if (!cli->globals.quiet)
        zl_spec_plan_print(&plan, doc.spec);
    zl_term_write(&cli->out, zl_buf_view(&plan));
    return 0;
}

static const struct zl_arg args[] = {
    { "SPEC", offsetof(struct options, file), ZL_ARG_OPTIONAL,
      "the document; without it the one of this folder; - is stdin", .complete = ZL_COMPLETE_FILES },
};
static const struct zl_example examples[] = {
    { "zlayer validate", "the .zlayer.yml of this folder" },
    { "zlayer validate shop.yml", "a named document" },
};
const struct zl_cmd zl_cmd_validate = {
    .name = "validate",
    .summary = "Check a deployment document and print its plan",
    .details = "All problems of the document are reported at once, each with its line, and exit code 1.",
    .group = ZL_GROUP_DOCUMENT,
    ZL_CMD_EXAMPLES(examples),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct options),
    .run = run,
};

static const struct zl_example spec_examples[] = {
    { "zlayer spec validate shop.yml", "as 'zlayer validate'" },
};
static const struct zl_cmd validate = {
    .name = "validate",
    .summary = "Check a deployment document and print its plan",
    .group = ZL_GROUP_DOCUMENT,
    ZL_CMD_EXAMPLES(spec_examples),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct options),
    .run = run,
};

struct dump_options {
    const char *file;
    int format;
};

static int run_dump(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct dump_options *o = options;
    struct zl_document doc;
    int e = zl_document_load(cli, o->file, &doc, err);
    if (e < 0)
        return e;
    const struct zl_value *tree = zl_spec_print(&cli->arena, doc.spec);
    if (o->format == 1)
        zl_output_json(cli, tree);
    else
        zl_output_yaml(cli, tree);
    return 0;
}

static const char *const dump_formats[] = { "yaml", "json", NULL };
static const struct zl_opt dump_options[] = {
    { "format", 'f', ZL_OPT_ENUM, offsetof(struct dump_options, format), "FORMAT", "how it is written", dump_formats,
      .fallback = "yaml" },
};
static const struct zl_arg dump_args[] = {
    { "SPEC", offsetof(struct dump_options, file), ZL_ARG_OPTIONAL,
      "the document; without it the one of this folder; - is stdin", .complete = ZL_COMPLETE_FILES },
};
static const struct zl_example dump_examples[] = {
    { "zlayer spec dump", "with every default filled in" },
    { "zlayer spec dump shop.yml -f json", "for programs" },
};
static const struct zl_cmd dump = {
    .name = "dump",
    .summary = "Print a document in canonical form, with its defaults",
    .group = ZL_GROUP_DOCUMENT,
    ZL_CMD_EXAMPLES(dump_examples),
    ZL_CMD_OPTIONS(dump_options),
    ZL_CMD_ARGS(dump_args),
    .size = sizeof(struct dump_options),
    .run = run_dump,
};

static const struct zl_cmd *const commands[] = { &dump, &validate, NULL };
const struct zl_cmd zl_cmd_spec = {
    .name = "spec",
    .summary = "Work on deployment documents",
    .group = ZL_GROUP_DOCUMENT,
    ZL_CMD_EXAMPLES(dump_examples),
    .commands = commands,
};
