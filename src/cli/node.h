/*
 * What commands need of the agent: the client of the chosen data dir, names for completion. Thread: one.
 * Owns: the cli owns its client. Fails: as client/client.h.
 */
#pragma once

#include "cli/cmd.h"
#include "client/client.h"

enum zl_start { ZL_MAY_START, ZL_NEVER_START };

/* The client, made once. Commands that only read never start an agent. */
int zl_cli_client(struct zl_cli *cli, enum zl_start start, struct zl_client **ret, struct zl_err *err) ZL_MUST;
/* A call without more than its reply, for commands that do one; the reply lives in the cli's arena. */
int zl_cli_call(struct zl_cli *cli, enum zl_start start, const char *method, const char *path,
                const struct zl_value *body, struct zl_value **ret, struct zl_err *err) ZL_MUST;
/* What completes a value; nothing without an agent. */
void zl_node_names(struct zl_cli *cli, enum zl_complete what, struct zl_strings *ret);
/* Frees the client. */
void zl_node_done(struct zl_cli *cli);
/* The list behind a reply: the reply itself, or its member `key`; NULL for none. */
const struct zl_value *zl_reply_list(const struct zl_value *reply, const char *key);
/* /api/v1/deployments/<name><rest>, in the arena. */
const char *zl_deployment_path(struct zl_cli *cli, const char *name, const char *rest);
/* The deployment that is meant when none is named: the only one with that service, or the only one there is. */
int zl_resolve_deployment(struct zl_cli *cli, const char *service, const char **ret, struct zl_err *err) ZL_MUST;
