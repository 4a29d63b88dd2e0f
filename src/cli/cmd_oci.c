#include "cli/commands.h"
#include "cli/node.h"
#include "client/place.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

struct options {
    struct zl_strings words;
};

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct options *o = options;
    zl_auto_free char *program = NULL;
    int e = zl_program_find("zl-oci", &program, err);
    if (e < 0)
        return e;
    const char **argv = zl_arena_alloc(&cli->arena, (o->words.n + 2) * sizeof *argv);
    argv[0] = "zl-oci";
    for (unsigned i = 0; i < o->words.n; i++)
        argv[i + 1] = o->words.v[i];
    if (o->words.n == 1 && (zl_streq(o->words.v[0], "--help") || zl_streq(o->words.v[0], "-h"))) {
        zl_auto_buf help = ZL_BUF_INIT; /* ours; then its own, which has the verbs */
        zl_help_print(&help, cli->path, cli->depth, cli->out.colour);
        zl_buf_putc(&help, '\n');
        zl_term_write(&cli->out, zl_buf_view(&help));
    }
    (void)signal(SIGPIPE, SIG_DFL);
    execv(program, (char *const *)(uintptr_t)argv);
    return zl_fail(err, -errno, "execute %s", program);
}

static const struct zl_arg args[] = {
    { "WORD", offsetof(struct options, words), ZL_ARG_OPTIONAL | ZL_ARG_REST,
      "a verb of zl-oci, its options and arguments" },
};
static const struct zl_example examples[] = {
    { "zlayer oci spec", "write a config.json to start from" },
    { "zlayer oci run -b bundle web", "run the container that a bundle describes" },
    { "zlayer oci --help", "all verbs and options" },
};
const struct zl_cmd zl_cmd_oci = {
    .name = "oci",
    .summary = "Run an OCI bundle, as crun and runc do",
    .details =
        "Everything that follows goes to zl-oci, the runtime for engines: podman --runtime, docker --add-runtime.",
    .group = ZL_GROUP_NODE,
    .flags = ZL_CMD_RAW,
    ZL_CMD_EXAMPLES(examples),
    ZL_CMD_ARGS(args),
    .size = sizeof(struct options),
    .run = run,
};
