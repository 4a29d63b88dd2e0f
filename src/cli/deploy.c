#include "cli/deploy.h"

#include "apidef/bodies.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/watch.h"

#include <stdio.h>
#include <unistd.h>

int zl_deploy_submit(struct zl_cli *cli, const struct zl_deploy *d, const struct zl_document *doc, bool dry_run,
                     struct zl_value **ret, struct zl_err *err)
{
    struct zl_arena *a = &cli->arena;
    struct zl_deploy_request request = { .spec = zl_arena_strndup(a, doc->text.p, doc->text.n),
                                         .file = doc->file,
                                         .owner = d->owner,
                                         .pull = d->pull      ? ZL_PULL_ALWAYS + 1
                                                 : d->no_pull ? ZL_PULL_NEVER + 1
                                                              : 0,
                                         .dry_run = dry_run };
    int e = zl_cli_call(cli, dry_run ? ZL_NEVER_START : ZL_MAY_START, "POST", "/api/v1/deployments",
                        zl_print(a, zl_body_types[ZL_BODY_DEPLOY], &request), ret, err);
    const struct zl_value *deployment = e < 0 ? NULL : zl_value_get(*ret, "deployment");
    if (deployment)
        zl_warn_each(cli, deployment);
    return e;
}

static enum zl_style action_style(const char *action)
{
    return zl_streq(action, "create") ? ZL_GREEN : zl_streq(action, "remove") ? ZL_RED : ZL_YELLOW;
}

unsigned zl_deploy_print_changes(struct zl_cli *cli, const struct zl_value *reply, bool shown)
{
    const struct zl_value *plan = zl_value_get(reply, "plan");
    unsigned changes = 0;
    for (const struct zl_value *p = plan ? plan->first : NULL; p; p = p->next) {
        const char *action = zl_value_cstr(p, "action"), *reason = zl_value_cstr(p, "reason");
        bool none = zl_streq(action, "none");
        changes += !none;
        if (shown)
            zl_note(cli, "  %s%-8s%s %s%s%s",
                    none ? zl_style(&cli->err, ZL_DIM) : zl_style(&cli->err, action_style(action)),
                    none ? "keep" : action, zl_style(&cli->err, ZL_PLAIN), zl_value_cstr(p, "service"),
                    reason[0] ? ": " : "", reason);
    }
    return changes;
}

void zl_endpoints_text(struct zl_buf *out, const struct zl_value *service)
{
    const struct zl_value *endpoints = zl_value_get(service, "endpoints");
    size_t before = out->n;
    for (const struct zl_value *e = endpoints ? endpoints->first : NULL; e; e = e->next) {
        const char *protocol = zl_value_cstr(e, "protocol");
        unsigned long long port = zl_value_u64(e, "port", 0);
        bool public = zl_streq(zl_value_cstr(e, "expose"), "public");
        const char *address = zl_value_cstr(service, "address");
        const char *host = public ? "localhost" : address[0] ? address : zl_value_cstr(service, "name");
        zl_buf_printf(out, "%s%s://%s:%llu", out->n > before ? " " : "", protocol, host, port);
    }
}

void zl_deploy_summary(struct zl_cli *cli, const char *name, const struct zl_value *deployment)
{
    const struct zl_value *services = zl_value_get(deployment, "services");
    unsigned healthy = 0, total = 0;
    for (const struct zl_value *s = services ? services->first : NULL; s; s = s->next, total++)
        healthy += zl_value_u64(s, "ready", 0) >= zl_value_u64(s, "replicas", 0);
    if (zl_output_object(cli, deployment))
        return;
    if (cli->globals.quiet || cli->globals.format == ZL_FORMAT_NAME) {
        zl_say(cli, "%s", name);
        return;
    }
    zl_say(cli, "Deployment '%s' ready (%u/%u services healthy):", name, healthy, total);
    for (const struct zl_value *s = services ? services->first : NULL; s; s = s->next) {
        zl_auto_buf where = ZL_BUF_INIT;
        zl_endpoints_text(&where, s);
        zl_say(cli, "  %-16s %llu/%llu%s%s", zl_value_cstr(s, "name"), (unsigned long long)zl_value_u64(s, "ready", 0),
               (unsigned long long)zl_value_u64(s, "replicas", 0), where.n ? "  " : "", where.n ? where.p : "");
    }
}

int zl_deploy_background(struct zl_cli *cli, const struct zl_deploy *d, const struct zl_document *doc,
                         struct zl_err *err)
{
    const char *name = doc->spec->deployment;
    struct zl_value *reply;
    int e = zl_deploy_submit(cli, d, doc, false, &reply, err);
    if (e < 0)
        return e;
    (void)zl_deploy_print_changes(cli, reply, cli->globals.verbose > 0);
    enum zl_outcome outcome;
    e = zl_watch(cli, name, false, d->timeout_ms, &outcome, err);
    if (e < 0)
        return zl_hint(err, e, "it goes on in the background: 'zlayer status %s', 'zlayer logs -d %s'", name, name);
    if (outcome == ZL_OUTCOME_GONE)
        return zl_fail(err, ZL_E_CANCELLED, "the deployment '%s' was taken down meanwhile", name);
    if (outcome == ZL_OUTCOME_FAILED)
        return zl_hint(err, zl_fail(err, ZL_E_START_FAILED, "the deployment '%s' failed", name),
                       "'zlayer logs -d %s' shows more; 'zlayer down %s' removes it", name, name);
    e = zl_cli_call(cli, ZL_MAY_START, "GET", zl_deployment_path(cli, name, ""), NULL, &reply, err);
    if (e < 0)
        return e;
    zl_deploy_summary(cli, name, reply);
    return 0;
}
