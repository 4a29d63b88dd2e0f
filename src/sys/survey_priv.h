/* What the files of the survey share. Thread: one. Owns: plain values. Fails: never. */
#pragma once

#include "sys/survey.h"

#include "base/macros.h"

struct survey {
    struct zl_survey_row *rows;
    size_t n;
    const char *data_dir;
};

struct zl_survey_row *survey_row(struct survey *s, const char *name, enum zl_survey_level level, const char *found, ...)
    ZL_PRINTF(4, 5);
void survey_fix(struct zl_survey_row *r, const char *text);
/* Runs fn in a child, so that what it changes is gone with it: 0, or its negative errno. */
int survey_in_child(int (*fn)(const struct survey *s), const struct survey *s) ZL_MUST;
int survey_try_veth(const struct survey *s) ZL_MUST;
int survey_try_nft(const struct survey *s) ZL_MUST;
/* In the place of what root's rights are: what an ordinary user has of namespaces, ids, layers, a way out, groups. */
void survey_user(struct survey *s);
