#include "cli/commands.h"
#include "cli/node.h"
#include "cli/output.h"

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)options;
    (void)err; /* without an agent there is just less to say */
    struct zl_arena *a = &cli->arena;
    struct zl_value *tree = zl_value_new(a, ZL_MAP), *reply;
    zl_value_set(a, tree, "client", zl_value_string(a, zl_str(ZL_VERSION)));
    const char *agent = "";
    if (zl_cli_call(cli, ZL_NEVER_START, "GET", "/api/v1/status", NULL, &reply, NULL) >= 0) {
        agent = zl_value_cstr(zl_value_get(reply, "agent"), "version");
        if (agent[0])
            zl_value_set(a, tree, "agent", zl_value_string(a, zl_str(agent)));
    }
    if (zl_output_object(cli, tree))
        return 0;
    zl_say(cli, "zlayer %s", ZL_VERSION);
    if (agent[0])
        zl_say(cli, "agent  %s", agent);
    if (agent[0] && !zl_streq(agent, ZL_VERSION))
        zl_warn(cli, "the running agent is of another version; containers go on while it is restarted");
    return 0;
}

static const struct zl_example examples[] = {
    { "zlayer version", "of this program, and of the agent when one runs" },
    { "zlayer version -o json", "for programs" },
};
const struct zl_cmd zl_cmd_version = {
    .name = "version",
    .summary = "Show the versions of client and agent",
    .group = ZL_GROUP_NODE,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(examples),
    .run = run,
};
