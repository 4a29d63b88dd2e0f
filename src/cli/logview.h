/*
 * Log lines of many replicas on stdout: prefixed by the replica, in a colour of its service; and the cursors behind
 * them, so that a stream goes on where another broke off. Thread: one. Owns: the view owns its cursors and buffers.
 * Fails: never; a line that can't be read is shown as it is.
 */
#pragma once

#include "cli/cmd.h"

struct zl_logview_cursor {
    char instance[40];
    char cursor[104];
};

struct zl_logview {
    const struct zl_cli *cli;
    bool prefix, times, split; /* split: what was stderr goes to stderr */
    unsigned width;            /* of the prefixes so far */
    struct zl_logview_cursor *cursors;
    unsigned n, cap, last;
    struct zl_buf out, err;
};

void zl_logview_init(struct zl_logview *v, const struct zl_cli *cli);
void zl_logview_done(struct zl_logview *v);
/* One NDJSON line of the API. What is shown stays in a buffer until it is large, or flushed. */
void zl_logview_add(struct zl_logview *v, struct zl_str line);
/* Only notes where it ends. */
void zl_logview_skip(struct zl_logview *v, struct zl_str line);
void zl_logview_flush(struct zl_logview *v);
/* "&cursor=a,b" behind what was added, or nothing. */
void zl_logview_query(const struct zl_logview *v, struct zl_buf *path);
