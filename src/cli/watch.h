/*
 * Waiting for a deployment: its events as progress on stderr, until it is ready, failed or gone. Thread: one.
 * Owns: nothing. Fails: ZL_E_TIMEOUT; what a stream fails with once it can't be opened again.
 */
#pragma once

#include "cli/cmd.h"
#include "cli/progress.h"
#include "client/client.h"

enum zl_outcome { ZL_OUTCOME_NONE, ZL_OUTCOME_READY, ZL_OUTCOME_FAILED, ZL_OUTCOME_GONE };

/* Shows one event; the outcome that it says, or NONE. A failure is reported with the last log lines it carries. */
enum zl_outcome zl_event_show(struct zl_progress *p, const char *deployment, struct zl_str name, struct zl_str data);
/*
 * Follows the events until an outcome; with `until_gone` only GONE counts. An agent that dies meanwhile is started
 * again. timeout_ms 0: no limit.
 */
int zl_watch(struct zl_cli *cli, const char *deployment, bool until_gone, uint64_t timeout_ms, enum zl_outcome *ret,
             struct zl_err *err) ZL_MUST;
