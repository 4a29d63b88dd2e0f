#include "cli/commands.h"
#include "cli/deploy.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/times.h"

#include <stdio.h>

/* ---- columns ---- */

static void print_replicas(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_buf_printf(out, "%llu/%llu", (unsigned long long)zl_value_u64(row, "ready", 0),
                  (unsigned long long)zl_value_u64(row, "replicas", 0));
}

static void print_ports(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    const struct zl_value *endpoints = zl_value_get(row, "endpoints");
    for (const struct zl_value *e = endpoints ? endpoints->first : NULL; e; e = e->next)
        zl_buf_printf(out, "%s%llu/%s", e == endpoints->first ? "" : ", ",
                      (unsigned long long)zl_value_u64(e, "port", 0), zl_value_cstr(e, "protocol"));
}

static void print_endpoints(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_endpoints_text(out, row);
}

static void print_age(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_since_text(out, zl_value_cstr(row, "created_at"));
}

static void print_id(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    const char *id = zl_value_cstr(row, "id");
    zl_buf_printf(out, cli->globals.no_trunc ? "%s" : "%.12s", id);
}

static void print_exit(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    const struct zl_value *e = zl_value_get(row, "exit");
    if (!e || e->kind != ZL_MAP)
        return;
    const char *reason = zl_value_cstr(e, "reason");
    if (zl_streq(reason, "signal"))
        zl_buf_printf(out, "signal %llu", (unsigned long long)zl_value_u64(e, "signal", 0));
    else if (zl_streq(reason, "exited") || !reason[0])
        zl_buf_printf(out, "code %llu", (unsigned long long)zl_value_u64(e, "code", 0));
    else
        zl_buf_puts(out, reason);
}

static const struct zl_column service_columns[] = {
    { "SERVICE", "name", 0, NULL },
    { "READY", NULL, ZL_COLUMN_RIGHT, print_replicas },
    { "STATUS", "status", ZL_COLUMN_STATE, NULL },
    { "ENDPOINTS", NULL, ZL_COLUMN_CUT, print_endpoints },
    { "IMAGE", "image", ZL_COLUMN_CUT | ZL_COLUMN_WIDE, NULL },
    { "MESSAGE", "message", ZL_COLUMN_CUT, NULL },
};
static const struct zl_listing services = { service_columns, ZL_ARRAY_LEN(service_columns), "name", "no services" };

static const struct zl_column ps_columns[] = {
    { "DEPLOYMENT", "deployment", 0, NULL },
    { "SERVICE", "name", 0, NULL },
    { "REPLICAS", NULL, ZL_COLUMN_RIGHT, print_replicas },
    { "STATUS", "status", ZL_COLUMN_STATE, NULL },
    { "PORTS", NULL, ZL_COLUMN_CUT, print_ports },
    { "AGE", NULL, ZL_COLUMN_RIGHT, print_age },
    { "IMAGE", "image", ZL_COLUMN_CUT | ZL_COLUMN_WIDE, NULL },
};
static const struct zl_listing ps_services = { ps_columns, ZL_ARRAY_LEN(ps_columns), "name", "nothing is deployed" };

static const struct zl_column container_columns[] = {
    { "CONTAINER", NULL, 0, print_id },
    { "NAME", "name", 0, NULL },
    { "IMAGE", "image", ZL_COLUMN_CUT, NULL },
    { "STATE", "state", ZL_COLUMN_STATE, NULL },
    { "HEALTH", "health", ZL_COLUMN_STATE, NULL },
    { "EXIT", NULL, 0, print_exit },
    { "AGE", NULL, ZL_COLUMN_RIGHT, print_age },
    { "ADDRESS", "address", ZL_COLUMN_WIDE, NULL },
    { "PID", "pid", ZL_COLUMN_WIDE | ZL_COLUMN_RIGHT, NULL },
    { "RESTARTS", "restarts", ZL_COLUMN_WIDE | ZL_COLUMN_RIGHT, NULL },
};
static const struct zl_listing containers = { container_columns, ZL_ARRAY_LEN(container_columns), "id",
                                              "no containers" };

/* ---- status ---- */

struct status_options {
    const char *name;
};

static int status_of_one(struct zl_cli *cli, const char *name, struct zl_err *err)
{
    struct zl_value *d;
    int e = zl_cli_call(cli, ZL_NEVER_START, "GET", zl_deployment_path(cli, name, ""), NULL, &d, err);
    if (e < 0)
        return e == ZL_E_NOT_FOUND ? zl_hint(err, e, "'zlayer status' lists what is deployed") : e;
    if (zl_output_object(cli, d))
        return 0;
    if (cli->globals.format == ZL_FORMAT_NAME || cli->globals.quiet) {
        zl_output_list(cli, &services, zl_value_get(d, "services"));
        return 0;
    }
    struct zl_str status = zl_value_str(d, "status");
    const char *message = zl_value_cstr(d, "message");
    zl_say(cli, "%s: %s%.*s%s%s%s", name, zl_style(&cli->out, zl_state_style(status)), ZL_STR_FMT(status),
           zl_style(&cli->out, ZL_PLAIN), message[0] ? ", " : "", message);
    zl_output_list(cli, &services, zl_value_get(d, "services"));
    zl_warn_each(cli, d);
    return 0;
}

/* The agent is not there: that is an answer, not a failure. */
static int say_down(struct zl_cli *cli, enum zl_agent_state state, const struct zl_err *why)
{
    static const char *const states[] = { "running", "stopped", "stale", "denied", "unreachable" };
    struct zl_arena *a = &cli->arena;
    struct zl_value *tree = zl_value_new(a, ZL_MAP), *agent = zl_value_new(a, ZL_MAP);
    zl_value_set(a, agent, "status", zl_value_string(a, zl_str(states[state])));
    zl_value_set(a, agent, "message", zl_value_string(a, zl_str(why->text)));
    zl_value_set(a, tree, "agent", agent);
    zl_value_set(a, tree, "deployments", zl_value_new(a, ZL_LIST));
    if (zl_output_object(cli, tree))
        return 0;
    zl_say(cli, "Status: %s not running%s (%s)", zl_style(&cli->out, ZL_YELLOW), zl_style(&cli->out, ZL_PLAIN),
           why->text);
    if (why->hint[0])
        zl_note(cli, "%shint:%s %s", zl_style(&cli->err, ZL_CYAN), zl_style(&cli->err, ZL_PLAIN), why->hint);
    return 0;
}

static void say_deployments(struct zl_cli *cli, const struct zl_value *list)
{
    zl_say(cli, "Deployments: %u active", list ? list->count : 0);
    for (const struct zl_value *d = list ? list->first : NULL; d; d = d->next) {
        const struct zl_value *all = zl_value_get(d, "services");
        uint64_t ready = 0, wanted = 0;
        for (const struct zl_value *s = all ? all->first : NULL; s; s = s->next) {
            ready += zl_value_u64(s, "ready", 0);
            wanted += zl_value_u64(s, "replicas", 0);
        }
        struct zl_str status = zl_value_str(d, "status");
        zl_say(cli, "  %s: %u service%s, %llu/%llu replicas ready (%s%.*s%s)", zl_value_cstr(d, "name"),
               all ? all->count : 0, all && all->count == 1 ? "" : "s", (unsigned long long)ready,
               (unsigned long long)wanted, zl_style(&cli->out, zl_state_style(status)), ZL_STR_FMT(status),
               zl_style(&cli->out, ZL_PLAIN));
    }
}

static int run_status(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct status_options *o = options;
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    struct zl_err why = { 0 };
    enum zl_agent_state state = zl_client_probe(&c->place, &why);
    if (state != ZL_AGENT_REACHABLE)
        return say_down(cli, state, &why);
    if (o->name)
        return status_of_one(cli, o->name, err);
    struct zl_value *reply;
    e = zl_cli_call(cli, ZL_NEVER_START, "GET", "/api/v1/status", NULL, &reply, err);
    if (e < 0 || zl_output_object(cli, reply))
        return e;
    const struct zl_value *agent = zl_value_get(reply, "agent"), *store = zl_value_get(reply, "store");
    const struct zl_value *list = zl_value_get(reply, "deployments");
    if (cli->globals.format == ZL_FORMAT_NAME || cli->globals.quiet) {
        for (const struct zl_value *d = list ? list->first : NULL; d; d = d->next)
            zl_say(cli, "%s", zl_value_cstr(d, "name"));
        return 0;
    }
    zl_say(cli, "Status: %srunning%s (PID %llu)", zl_style(&cli->out, ZL_GREEN), zl_style(&cli->out, ZL_PLAIN),
           (unsigned long long)zl_value_u64(agent, "pid", 0));
    zl_say(cli, "Data: %s\nSocket: %s", c->place.data, c->place.socket);
    const char *message = zl_value_cstr(store, "message");
    if (!zl_streq(zl_value_cstr(store, "state"), "ok") && store)
        zl_warn(cli, "the store is %s%s%s", zl_value_cstr(store, "state"), message[0] ? ": " : "", message);
    say_deployments(cli, list);
    return 0;
}

static const struct zl_arg status_args[] = {
    { "DEPLOYMENT", offsetof(struct status_options, name), ZL_ARG_OPTIONAL, "only this one, with its services",
      .complete = ZL_COMPLETE_DEPLOYMENTS },
};
static const struct zl_example status_examples[] = {
    { "zlayer status", "the agent and all deployments" },
    { "zlayer status shop", "its services: replicas, health, endpoints" },
};
const struct zl_cmd zl_cmd_status = {
    .name = "status",
    .summary = "Show the agent and what is deployed",
    .details = "Exits with 0 also when no agent runs, and says why it can't be reached.",
    .group = ZL_GROUP_LOOK,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(status_examples),
    ZL_CMD_ARGS(status_args),
    .size = sizeof(struct status_options),
    .run = run_status,
};

/* ---- ps ---- */

struct ps_options {
    const char *deployment;
    bool containers;
};

/* A reply of a node without an agent: nothing is there to list. */
static int get_list(struct zl_cli *cli, const char *path, const char *key, const struct zl_value **ret,
                    struct zl_err *err)
{
    static const struct zl_value empty = { .kind = ZL_LIST };
    struct zl_value *reply;
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    *ret = &empty;
    if (zl_client_probe(&c->place, NULL) == ZL_AGENT_NO_SOCKET)
        return 0;
    e = zl_cli_call(cli, ZL_NEVER_START, "GET", path, NULL, &reply, err);
    if (e >= 0 && zl_reply_list(reply, key))
        *ret = zl_reply_list(reply, key);
    return e;
}

/* The services of all deployments as rows of their own, each with its deployment's name and age. */
static struct zl_value *flatten(struct zl_cli *cli, const struct zl_value *deployments, const char *only)
{
    struct zl_arena *a = &cli->arena;
    struct zl_value *rows = zl_value_new(a, ZL_LIST);
    for (const struct zl_value *d = deployments->first; d; d = d->next) {
        const char *name = zl_value_cstr(d, "name");
        const struct zl_value *all = zl_value_get(d, "services");
        for (const struct zl_value *s = all && (!only || zl_streq(only, name)) ? all->first : NULL; s; s = s->next) {
            struct zl_value *row = zl_value_new(a, ZL_MAP);
            zl_value_set(a, row, "deployment", zl_value_string(a, zl_str(name)));
            zl_value_set(a, row, "created_at", zl_value_string(a, zl_str(zl_value_cstr(d, "created_at"))));
            for (const struct zl_value *v = s->first; v; v = v->next) {
                struct zl_value *copy = zl_value_new(a, v->kind);
                *copy = *v;
                copy->next = NULL;
                zl_value_set(a, row, v->key->text.p, copy);
            }
            zl_value_append(rows, row);
        }
    }
    return rows;
}

static struct zl_value *of_deployment(struct zl_cli *cli, const struct zl_value *list, const char *only)
{
    struct zl_value *rows = zl_value_new(&cli->arena, ZL_LIST);
    for (const struct zl_value *i = list->first; i; i = i->next) {
        if (only && !zl_streq(zl_value_cstr(i, "deployment"), only))
            continue;
        struct zl_value *copy = zl_value_new(&cli->arena, i->kind);
        *copy = *i;
        copy->next = NULL;
        zl_value_append(rows, copy);
    }
    return rows;
}

static int run_ps(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct ps_options *o = options;
    const struct zl_value *deployments, *instances;
    int e = get_list(cli, "/api/v1/deployments", "deployments", &deployments, err);
    if (e < 0 || (e = get_list(cli, "/api/v1/containers", "containers", &instances, err)) < 0)
        return e;
    struct zl_value *rows = flatten(cli, deployments, o->deployment),
                    *all = of_deployment(cli, instances, o->deployment);
    struct zl_value *tree = zl_value_new(&cli->arena, ZL_MAP);
    zl_value_set(&cli->arena, tree, "services", rows);
    zl_value_set(&cli->arena, tree, "containers", all);
    if (!zl_output_object(cli, tree))
        zl_output_list(cli, o->containers ? &containers : &ps_services, o->containers ? all : rows);
    return 0;
}

static const struct zl_opt ps_options[] = {
    { "deployment", 'd', ZL_OPT_STRING, offsetof(struct ps_options, deployment), "DEPLOYMENT", "only of this one",
      .complete = ZL_COMPLETE_DEPLOYMENTS },
    { "containers", 'c', ZL_OPT_FLAG, offsetof(struct ps_options, containers), NULL,
      "every container, not every service" },
};
static const struct zl_example ps_examples[] = {
    { "zlayer ps", "the services of all deployments" },
    { "zlayer ps -c -d shop", "the containers of one" },
    { "zlayer ps -o json", "both, for programs" },
};
const struct zl_cmd zl_cmd_ps = {
    .name = "ps",
    .summary = "List services, or containers",
    .group = ZL_GROUP_LOOK,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(ps_examples),
    ZL_CMD_OPTIONS(ps_options),
    .size = sizeof(struct ps_options),
    .run = run_ps,
};
