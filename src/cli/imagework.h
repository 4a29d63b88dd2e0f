/*
 * Image work with progress: by the agent when one holds the data dir, else by a zl-image of our own; both speak the
 * same events. Thread: one. Owns: the cli's arena. Fails: the error that the job reports.
 */
#pragma once

#include "cli/cmd.h"

/* `verb` pull, import or remove; `request` its map (reference, …), "verb" is added. *ret: the last event. */
int zl_image_work(struct zl_cli *cli, const char *verb, struct zl_value *request, const struct zl_value **ret,
                  struct zl_err *err) ZL_MUST;
/* Whether an agent answers on the data dir. */
bool zl_agent_runs(struct zl_cli *cli);
