#include "apidef/bodies.h"
#include "cli/commands.h"
#include "cli/document.h"
#include "cli/imagework.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/watch.h"

#include <stdio.h>
#include <unistd.h>

/*
 * What changes something may start an agent, so that a deployment whose agent was killed can be taken down; but where
 * no agent ever ran there is nothing to take down.
 */
static int known(struct zl_cli *cli, const char *name, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    zl_auto_free char *cluster = zl_xasprintf("%s/cluster", c->place.data);
    if (access(cluster, F_OK) == 0 || zl_agent_runs(cli))
        return 0;
    return zl_hint(err, zl_fail(err, ZL_E_NOT_FOUND, "there is no deployment '%s'", name),
                   "nothing was ever deployed in %s", c->place.data);
}

/* ---- down ---- */

struct down_options {
    const char *name;
    uint64_t timeout_ms;
    bool force;
};

static int run_down(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct down_options *o = options;
    const char *name;
    int e = zl_document_name(cli, o->name, &name, err);
    if (e < 0 || (e = known(cli, name, err)) < 0)
        return e;
    char query[64];
    snprintf(query, sizeof query, "?timeout_s=%llu", (unsigned long long)(o->force ? 0 : o->timeout_ms / 1000));
    e = zl_cli_call(cli, ZL_MAY_START, "DELETE", zl_deployment_path(cli, name, query), NULL, NULL, err);
    if (e < 0)
        return e == ZL_E_NOT_FOUND ? zl_hint(err, e, "'zlayer status' lists what is deployed") : e;
    enum zl_outcome outcome;
    e = zl_watch(cli, name, true, 0, &outcome, err);
    if (e < 0)
        return e;
    zl_note(cli, "'%s' is down", name);
    return 0;
}

static const struct zl_opt down_options[] = {
    { "timeout", 't', ZL_OPT_DURATION, offsetof(struct down_options, timeout_ms), "TIME",
      "how long a container may take to end before it is killed", .fallback = "30s" },
    { "force", 'f', ZL_OPT_FLAG, offsetof(struct down_options, force), NULL, "kill at once" },
};
static const struct zl_arg down_args[] = {
    { "DEPLOYMENT", offsetof(struct down_options, name), ZL_ARG_OPTIONAL,
      "its name; without it that of the document of this folder", .complete = ZL_COMPLETE_DEPLOYMENTS },
};
static const struct zl_example down_examples[] = {
    { "zlayer down shop", "stop its services in reverse order, remove all" },
    { "zlayer down", "the deployment of .zlayer.yml" },
};
const struct zl_cmd zl_cmd_down = {
    .name = "down",
    .summary = "Stop a deployment and remove it",
    .details =
        "Services stop in reverse order of what depends on what. The command returns once nothing of it is left.",
    .group = ZL_GROUP_RUN,
    ZL_CMD_EXAMPLES(down_examples),
    ZL_CMD_OPTIONS(down_options),
    ZL_CMD_ARGS(down_args),
    .size = sizeof(struct down_options),
    .run = run_down,
};

/* ---- stop ---- */

struct stop_options {
    const char *name, *service;
    uint64_t timeout_ms;
    bool force;
};

static int run_stop(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct stop_options *o = options;
    const char *name;
    int e = zl_document_name(cli, o->name, &name, err);
    if (e < 0 || (e = known(cli, name, err)) < 0)
        return e;
    struct zl_stop_request request = { o->service, o->force ? 0 : (int64_t)(o->timeout_ms / 1000) };
    struct zl_value *body = zl_print(&cli->arena, zl_body_types[ZL_BODY_STOP], &request);
    e = zl_cli_call(cli, ZL_MAY_START, "POST", zl_deployment_path(cli, name, "/stop"), body, NULL, err);
    if (e < 0)
        return e == ZL_E_NOT_FOUND ? zl_hint(err, e, "'zlayer status' lists what is deployed") : e;
    zl_note(cli, "%s%s%s stops; 'zlayer up -b' starts it again", name, o->service ? "." : "",
            o->service ? o->service : "");
    return 0;
}

static const struct zl_opt stop_options[] = {
    { "service", 's', ZL_OPT_STRING, offsetof(struct stop_options, service), "SERVICE", "only this one",
      .complete = ZL_COMPLETE_SERVICES },
    { "timeout", 't', ZL_OPT_DURATION, offsetof(struct stop_options, timeout_ms), "TIME",
      "how long a container may take to end before it is killed", .fallback = "30s" },
    { "force", 'f', ZL_OPT_FLAG, offsetof(struct stop_options, force), NULL, "kill at once" },
};
static const struct zl_arg stop_args[] = {
    { "DEPLOYMENT", offsetof(struct stop_options, name), ZL_ARG_OPTIONAL,
      "its name; without it that of the document of this folder", .complete = ZL_COMPLETE_DEPLOYMENTS },
};
static const struct zl_example stop_examples[] = {
    { "zlayer stop shop --service web", "one service; the deployment stays" },
    { "zlayer stop shop", "all of its services" },
};
const struct zl_cmd zl_cmd_stop = {
    .name = "stop",
    .summary = "Stop services of a deployment, which stays",
    .group = ZL_GROUP_RUN,
    ZL_CMD_EXAMPLES(stop_examples),
    ZL_CMD_OPTIONS(stop_options),
    ZL_CMD_ARGS(stop_args),
    .size = sizeof(struct stop_options),
    .run = run_stop,
};
