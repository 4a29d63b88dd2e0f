/*
 * Submitting a document: what up, up -b and deploy share. Thread: one. Owns: the cli's arena. Fails: as the API.
 */
#pragma once

#include "cli/document.h"

struct zl_deploy {
    const char *file;
    bool pull, no_pull, dry_run, yes, detailed;
    uint64_t timeout_ms;
    const char *owner; /* of a foreground up; NULL: none */
};

/* POSTs the document; the reply has deployment and plan. */
int zl_deploy_submit(struct zl_cli *cli, const struct zl_deploy *d, const struct zl_document *doc, bool dry_run,
                     struct zl_value **ret, struct zl_err *err) ZL_MUST;
/* The plan of a reply, one line a service, on stderr; how many services it changes. */
unsigned zl_deploy_print_changes(struct zl_cli *cli, const struct zl_value *reply, bool shown);
/* Submits, waits until it is ready, prints where it is: the exit code. */
int zl_deploy_background(struct zl_cli *cli, const struct zl_deploy *d, const struct zl_document *doc,
                         struct zl_err *err) ZL_MUST;
/* Submits and stays attached: logs, Ctrl+C stops. The exit code. */
int zl_deploy_attached(struct zl_cli *cli, const struct zl_deploy *d, const struct zl_document *doc,
                       struct zl_err *err) ZL_MUST;
/* "Deployment 'shop' ready" and its services, on stdout. */
void zl_deploy_summary(struct zl_cli *cli, const char *name, const struct zl_value *deployment);
/* The addresses of a service's endpoints: "http://localhost:8080". */
void zl_endpoints_text(struct zl_buf *out, const struct zl_value *service);
