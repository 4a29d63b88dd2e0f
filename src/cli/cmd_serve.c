#include "cli/commands.h"
#include "cli/node.h"
#include "cli/output.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)options;
    struct zl_client *c;
    zl_auto_free char *program = NULL;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0 || (e = zl_program_find("zlayerd", &program, err)) < 0)
        return e;
    (void)signal(SIGPIPE, SIG_DFL);
    char *argv[] = { (char[]){ "zlayerd" }, (char[]){ "--data-dir" }, c->place.data, NULL };
    execv(program, argv);
    return zl_fail(err, -errno, "start %s", program);
}

static const struct zl_example examples[] = {
    { "zlayer serve", "an agent in the foreground; Ctrl+C ends it, containers go on" },
    { "zlayer --data-dir /srv/zlayer serve", "on another data dir" },
};
const struct zl_cmd zl_cmd_serve = {
    .name = "serve",
    .summary = "Run the agent in the foreground",
    .details =
        "It serves the API on its unix socket and logs to stderr. Containers and the proxy do not depend on it: they\n"
        "go on when it ends, and the next agent takes them over.",
    .group = ZL_GROUP_NODE,
    ZL_CMD_EXAMPLES(examples),
    .run = run,
};
