#include "apidef/bodies.h"
#include "cli/commands.h"
#include "cli/node.h"
#include "cli/output.h"
#include "codec/base64.h"

struct options {
    const char *deployment, *service;
    uint64_t replica;
    struct zl_strings command;
};

static int write_part(const struct zl_term *t, const struct zl_value *reply, const char *key, struct zl_err *err)
{
    zl_auto_buf bytes = ZL_BUF_INIT;
    struct zl_str text = zl_value_str(reply, key);
    if (text.n && zl_base64_decode(&bytes, text) < 0)
        return zl_fail(err, ZL_E_PROTOCOL, "the agent's reply has a malformed '%s'", key);
    zl_term_write(t, zl_buf_view(&bytes));
    return 0;
}

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct options *o = options;
    const char *deployment = o->deployment;
    int e = deployment ? 0 : zl_resolve_deployment(cli, o->service, &deployment, err);
    if (e < 0)
        return e;
    struct zl_exec_request request = { o->service, (int64_t)o->replica, o->command };
    struct zl_value *body = zl_print(&cli->arena, zl_body_types[ZL_BODY_EXEC], &request), *reply;
    e = zl_cli_call(cli, ZL_NEVER_START, "POST", zl_deployment_path(cli, deployment, "/exec"), body, &reply, err);
    if (e >= 0)
        e = write_part(&cli->out, reply, "stdout", err);
    if (e >= 0)
        e = write_part(&cli->err, reply, "stderr", err);
    return e < 0 ? e : (int)(zl_value_u64(reply, "exit_code", 0) & 0xff);
}

#define AT(field) offsetof(struct options, field)
static const struct zl_opt exec_options[] = {
    { "deployment", 'd', ZL_OPT_STRING, AT(deployment), "DEPLOYMENT",
      "whose; not needed while only one has the service", .complete = ZL_COMPLETE_DEPLOYMENTS },
    { "replica", 'r', ZL_OPT_UINT, AT(replica), "N", "in which replica; else in the first that runs", .min = 1,
      .max = 999999 },
};
static const struct zl_arg exec_args[] = {
    { "SERVICE", AT(service), 0, "in which service", .complete = ZL_COMPLETE_SERVICES },
    { "COMMAND", AT(command), ZL_ARG_REST, "the program and its arguments, as they are" },
};
static const struct zl_example examples[] = {
    { "zlayer exec web -- cat /etc/hosts", "in the first replica" },
    { "zlayer exec -d shop -r 2 web -- env", "in the second" },
};
const struct zl_cmd zl_cmd_exec = {
    .name = "exec",
    .summary = "Run a command in a running container",
    .details =
        "The exit code is the command's: 126 when it can't be executed, 127 when it is not there, 128+N when a signal\n"
        "ended it. Its output is shown when it has ended.",
    .group = ZL_GROUP_RUN,
    ZL_CMD_EXAMPLES(examples),
    ZL_CMD_OPTIONS(exec_options),
    ZL_CMD_ARGS(exec_args),
    .size = sizeof(struct options),
    .run = run,
};
