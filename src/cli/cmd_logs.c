#include "cli/commands.h"
#include "cli/logview.h"
#include "cli/node.h"
#include "cli/output.h"
#include "spec/spec.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

struct options {
    const char *deployment, *service, *positional, *instance, *lines;
    bool follow, times;
};

int zl_resolve_deployment(struct zl_cli *cli, const char *service, const char **ret, struct zl_err *err)
{
    struct zl_value *reply;
    int e = zl_cli_call(cli, ZL_NEVER_START, "GET", "/api/v1/deployments", NULL, &reply, err);
    if (e < 0)
        return e;
    const struct zl_value *list = zl_reply_list(reply, "deployments");
    const char *found = NULL;
    unsigned n = 0, others = 0;
    zl_auto_buf candidates = ZL_BUF_INIT;
    zl_auto_buf known = ZL_BUF_INIT;
    for (const struct zl_value *d = list ? list->first : NULL; d; d = d->next) {
        const struct zl_value *services = zl_value_get(d, "services");
        bool has = !service;
        for (const struct zl_value *s = services ? services->first : NULL; s; s = s->next) {
            has |= service && zl_streq(zl_value_cstr(s, "name"), service);
            if (others++ < 10)
                zl_buf_printf(&known, "%s%s/%s", known.n ? ", " : "", zl_value_cstr(d, "name"),
                              zl_value_cstr(s, "name"));
        }
        if (!has)
            continue;
        found = zl_value_cstr(d, "name");
        zl_buf_printf(&candidates, "%s%s", n++ ? ", " : "", found);
    }
    if (n == 1) {
        *ret = found;
        return 0;
    }
    if (n > 1)
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "which deployment? There are: %s", candidates.p),
                       "name it with -d");
    if (!others)
        return zl_fail(err, ZL_E_NOT_FOUND, "nothing is deployed");
    (void)zl_fail(err, ZL_E_NOT_FOUND, "no deployment has a service '%s'", service);
    if (others > 10)
        return zl_hint(err, ZL_E_NOT_FOUND, "there are: %s ... and %u more", known.p, others - 10);
    return zl_hint(err, ZL_E_NOT_FOUND, "there are: %s", known.p);
}

static void query(struct zl_buf *path, const char *key, const char *value)
{
    zl_buf_printf(path, "&%s=", key);
    zl_path_segment(path, value);
}

/* "web-2", "web-rep-2", "2", or the beginning of an instance's id. */
static void query_instance(struct zl_buf *path, const char *service, const char *instance)
{
    uint64_t slot;
    const char *digits = strrchr(instance, '-');
    size_t n = digits ? (size_t)(digits - instance) : 0;
    digits = digits ? digits + 1 : instance;
    bool is_slot = strlen(digits) < 7 && zl_parse_u64(zl_str(digits), 1, 999999, &slot) == 0;
    if (!is_slot) {
        query(path, "instance", instance);
        return;
    }
    query(path, "slot", digits);
    if (n > 4 && strncmp(instance + n - 4, "-rep", 4) == 0)
        n -= 4;
    if (n && !service) {
        zl_auto_buf name = ZL_BUF_INIT;
        zl_buf_add(&name, instance, n);
        query(path, "service", name.p);
    }
}

static int show(struct zl_cli *cli, const char *base, struct zl_logview *view, bool follow, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, follow ? ZL_MAY_START : ZL_NEVER_START, &c, err);
    for (bool again = false; e >= 0; again = true) {
        zl_auto_buf path = ZL_BUF_INIT;
        zl_buf_puts(&path, base);
        if (again)
            zl_logview_query(view, &path);
        ZL_AUTO(zl_stream) s = NULL;
        e = zl_stream_open(c, "GET", path.p, NULL, &s, err);
        if (e == ZL_E_NOT_FOUND && again)
            return 0; /* it is gone: that is the end of its logs */
        while (e >= 0) {
            struct zl_str line;
            int r = zl_stream_line(s, 0, &line, err);
            if (r == -EAGAIN) {
                zl_logview_flush(view);
                r = zl_stream_line(s, -1, &line, err);
            }
            if (r == 1)
                zl_logview_add(view, line);
            else if (r == -EINTR || r == -EAGAIN)
                continue;
            else if (r == 0 || (r == ZL_E_CLOSED && follow))
                e = r == 0 ? 1 : 0;
            else
                e = r;
            if (r != 1)
                break;
        }
        zl_logview_flush(view);
        if (e == 1 || !follow)
            return ZL_MIN(e, 0);
        if (e == 0)
            (void)poll(NULL, 0, 50); /* the agent went away; its successor needs a moment */
    }
    return e;
}

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    struct options *o = options;
    if (o->service && o->positional)
        return zl_fail(err, ZL_E_USAGE, "the service is named twice: '%s' and '%s'", o->service, o->positional);
    const char *service = o->service ? o->service : o->positional;
    uint64_t n;
    if (!zl_streq(o->lines, "all") && zl_parse_u64(zl_str(o->lines), 0, UINT32_MAX, &n) < 0)
        return zl_fail(err, ZL_E_USAGE, "--lines takes a number or 'all', not '%.40s'", o->lines);
    const char *deployment = o->deployment;
    int e = deployment ? 0 : zl_resolve_deployment(cli, service, &deployment, err);
    if (e < 0)
        return e;
    zl_auto_buf rest = ZL_BUF_INIT;
    zl_buf_printf(&rest, "/logs?lines=%s&follow=%s", o->lines, o->follow ? "true" : "false");
    if (service)
        query(&rest, "service", service);
    if (o->instance)
        query_instance(&rest, service, o->instance);
    struct zl_logview view;
    zl_logview_init(&view, cli);
    view.times = o->times;
    view.split = true;
    e = show(cli, zl_deployment_path(cli, deployment, rest.p), &view, o->follow, err);
    zl_logview_done(&view);
    return e;
}

#define AT(field) offsetof(struct options, field)
static const struct zl_opt log_options[] = {
    { "deployment", 'd', ZL_OPT_STRING, AT(deployment), "DEPLOYMENT",
      "whose; not needed while only one has the service", .complete = ZL_COMPLETE_DEPLOYMENTS },
    { "service", 's', ZL_OPT_STRING, AT(service), "SERVICE", "only of this service", .complete = ZL_COMPLETE_SERVICES },
    { "instance", 'i', ZL_OPT_STRING, AT(instance), "REPLICA",
      "only of one replica: web-2, 2, or the beginning of an id" },
    { "follow", 'f', ZL_OPT_FLAG, AT(follow), NULL, "go on with what comes" },
    { "lines", 'n', ZL_OPT_STRING, AT(lines), "N", "the last N lines of each replica, or all", .fallback = "100" },
    { "timestamps", 't', ZL_OPT_FLAG, AT(times), NULL, "with the time of each line" },
};
static const struct zl_arg log_args[] = {
    { "SERVICE", AT(positional), ZL_ARG_OPTIONAL, "only of this service", .complete = ZL_COMPLETE_SERVICES },
};
static const struct zl_example examples[] = {
    { "zlayer logs -d shop -s web -f", "follow all replicas of a service" },
    { "zlayer logs web -n 20 -i 2", "the last lines of the second replica" },
};
const struct zl_cmd zl_cmd_logs = {
    .name = "logs",
    .summary = "Show what containers write",
    .details =
        "What a container writes to stderr goes to stderr. With -f the command ends when the deployment is gone.",
    .group = ZL_GROUP_LOOK,
    ZL_CMD_EXAMPLES(examples),
    ZL_CMD_OPTIONS(log_options),
    ZL_CMD_ARGS(log_args),
    .size = sizeof(struct options),
    .run = run,
};
