/*
 * What the verbs of zl-inside share. Thread: one. Owns: plain values. Fails: -errno, with the step that failed.
 */
#pragma once

#include "sys/idmap.h"

struct failure {
    int code; /* -errno */
    char step[100];
};

int inside_fail(struct failure *f, int code, const char *step);
/* For people: what failed, and what is to be done. */
void inside_explain(const struct failure *f, char text[300], char hint[240]);
/* The calling process gets a user namespace of its own, whose root it is. */
int inside_map(struct failure *f) ZL_MUST;
/* Keeps the namespaces until it is told to end, with pasta at their side. */
int inside_hold(int argc, char **argv);
