/*
 * Image work with progress: by the agent when one holds the data dir, else by a zl-image of our own; both speak the
 * same events. Thread: one. Owns: the cli's arena. Fails: the error that the job reports.
 */
#pragma once

#include "apidef/bodies.h"
#include "cli/cmd.h"

/* *ret: the last event, or the reply to a removal. */
int zl_image_work(struct zl_cli *cli, const struct zl_image_request *request, const struct zl_value **ret,
                  struct zl_err *err) ZL_MUST;
/* Work on a registry alone (login, referrers); never by the agent, whose business it is not. `rows` as below. */
int zl_image_remote(struct zl_cli *cli, const struct zl_image_request *request, struct zl_value *rows,
                    struct zl_err *err) ZL_MUST;
/* The same with more: events that tell neither progress nor the end become rows of `rows`, whatever the outcome; with
 * `descriptor` (else -EBADF) the work is our own job's, which has it as its descriptor 3. */
struct zl_image_work_options {
    struct zl_value *rows; /* a list, or NULL */
    int descriptor;
};
int zl_image_work_with(struct zl_cli *cli, const struct zl_image_request *request,
                       const struct zl_image_work_options *o, const struct zl_value **ret, struct zl_err *err) ZL_MUST;
/* Whether an agent answers on the data dir. */
bool zl_agent_runs(struct zl_cli *cli);
