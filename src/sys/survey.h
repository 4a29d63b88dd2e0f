/*
 * What this machine can and can't do, for people: one row a need, with what was found and what follows. Each is tried
 * rather than looked up, in short-lived child processes with namespaces of their own; nothing stays.
 * Thread: single-threaded programs only (it forks). Owns: plain values. Fails: never; what can't be found out is a
 * warning. Takes about 20 ms.
 */
#pragma once

#include <stddef.h>

enum zl_survey_level { ZL_SURVEY_OK, ZL_SURVEY_WARN, ZL_SURVEY_FAIL };

struct zl_survey_row {
    const char *name; /* static: "kernel", "cgroups" … */
    enum zl_survey_level level;
    char found[160];
    char fix[240]; /* what follows and what to do about it; "" when it is well */
};

enum { ZL_SURVEY_ROWS = 16 };
/* The number of rows filled. `data_dir` need not exist yet. */
size_t zl_survey(const char *data_dir, struct zl_survey_row rows[ZL_SURVEY_ROWS]);
const char *zl_survey_level_text(enum zl_survey_level level); /* "ok", "warn", "fail" */
