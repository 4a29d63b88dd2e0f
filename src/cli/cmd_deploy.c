#include "cli/commands.h"
#include "cli/deploy.h"
#include "cli/node.h"
#include "cli/output.h"

#include <stdio.h>
#include <unistd.h>

static bool confirmed(struct zl_cli *cli, const char *question)
{
    zl_note(cli, "%s [y/N] ", question);
    char answer[16];
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* What removes something that runs is asked for on a terminal; elsewhere the document's word is enough. */
static bool destructive(const struct zl_value *reply)
{
    const struct zl_value *plan = zl_value_get(reply, "plan");
    for (const struct zl_value *p = plan ? plan->first : NULL; p; p = p->next)
        if (zl_streq(zl_value_cstr(p, "action"), "remove"))
            return true;
    return false;
}

static int run_deploy(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct zl_deploy *d = options;
    struct zl_document doc;
    int e = zl_document_load(cli, d->file, &doc, err);
    if (e < 0)
        return e;
    if (cli->globals.format == ZL_FORMAT_TABLE && !cli->globals.quiet) {
        zl_auto_buf plan = ZL_BUF_INIT;
        zl_spec_plan_print(&plan, doc.spec);
        zl_term_write(&cli->out, zl_buf_view(&plan));
    }
    struct zl_value *reply = NULL;
    struct zl_err none = { 0 };
    e = zl_deploy_submit(cli, d, &doc, true, &reply, &none);
    if (e < 0 && e != ZL_E_NO_AGENT && (!d->dry_run || e != ZL_E_PERMISSION)) {
        *err = none;
        return e;
    }
    if (e >= 0 && reply)
        zl_note(cli, "Changes:");
    unsigned changes = e >= 0 ? zl_deploy_print_changes(cli, reply, true) : doc.spec->services.n;
    if (d->dry_run) {
        if (reply)
            (void)zl_output_object(cli, reply);
        return d->detailed && changes ? 2 : 0;
    }
    bool terminal = isatty(STDIN_FILENO) && cli->err.tty;
    if (e >= 0 && destructive(reply) && terminal && !d->yes && !confirmed(cli, "Services that run are removed. Go on?"))
        return zl_fail(err, ZL_E_CANCELLED, "nothing was changed");
    return zl_deploy_background(cli, d, &doc, err);
}

static int run_up(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct zl_deploy *d = options;
    struct zl_document doc;
    int e = zl_document_load(cli, d->file, &doc, err);
    if (e < 0)
        return e;
    return cli->globals.background ? zl_deploy_background(cli, d, &doc, err) : zl_deploy_attached(cli, d, &doc, err);
}

#define AT(field) offsetof(struct zl_deploy, field)
#define SHARED_OPTIONS                                                                                            \
    { "pull", 0, ZL_OPT_FLAG, AT(pull), NULL, "pull every image anew", .excludes = "no-pull" },                   \
        { "no-pull", 0, ZL_OPT_FLAG, AT(no_pull), NULL, "never pull; what is missing is an error" },              \
    {                                                                                                             \
        "timeout", 0, ZL_OPT_DURATION, AT(timeout_ms), "TIME", "how long to wait until it is ready; 0: no limit", \
            .fallback = "10m"                                                                                     \
    }

static const struct zl_opt deploy_options[] = {
    { "dry-run", 0, ZL_OPT_FLAG, AT(dry_run), NULL, "print the plan and change nothing; needs no agent" },
    { "detailed-exitcode", 0, ZL_OPT_FLAG, AT(detailed), NULL,
      "with --dry-run: exit code 2 when something would change" },
    { "yes", 'y', ZL_OPT_FLAG, AT(yes), NULL, "don't ask before services are removed" },
    SHARED_OPTIONS,
};
static const struct zl_opt up_options[] = { SHARED_OPTIONS };
static const struct zl_arg args[] = {
    { "SPEC", AT(file), ZL_ARG_OPTIONAL, "the document; without it the one of this folder; - is stdin",
      .complete = ZL_COMPLETE_FILES },
};
static const struct zl_example deploy_examples[] = {
    { "zlayer deploy", "deploy .zlayer.yml and wait until it is ready" },
    { "zlayer deploy shop.yml --dry-run", "only show what would be done" },
};
const struct zl_cmd zl_cmd_deploy = {
    .name = "deploy",
    .summary = "Deploy a document and wait until it is ready",
    .details = "Prints the plan, then what changes against what runs. It exits with 0 once every service is ready, "
               "with 1 and\n"
               "the last log lines when one fails, with 124 when the time is over.",
    .group = ZL_GROUP_RUN,
    .flags = ZL_CMD_OUTPUT | ZL_CMD_BACKGROUND,
    ZL_CMD_EXAMPLES(deploy_examples),
    ZL_CMD_OPTIONS(deploy_options),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct zl_deploy),
    .run = run_deploy,
};

static const struct zl_example up_examples[] = {
    { "zlayer up", "run, with the logs of all replicas; Ctrl+C stops" },
    { "zlayer up -b", "run in the background, return once it is ready" },
    { "zlayer up -b --no-pull shop.yml", "with images that are here only" },
};
const struct zl_cmd zl_cmd_up = {
    .name = "up",
    .summary = "Deploy a document and follow its logs; Ctrl+C stops it",
    .details =
        "In the foreground the first Ctrl+C stops all services in reverse order of what depends on what, a second one\n"
        "kills them. The exit code is 130 after an interrupt, 1 when a service failed. With -b the deployment goes on\n"
        "after the command has returned.",
    .group = ZL_GROUP_RUN,
    .flags = ZL_CMD_OUTPUT | ZL_CMD_BACKGROUND,
    ZL_CMD_EXAMPLES(up_examples),
    ZL_CMD_OPTIONS(up_options),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct zl_deploy),
    .run = run_up,
};
