/*
 * Progress on stderr: on a terminal a few lines that are redrawn in place, elsewhere a plain line when something
 * begins, ends or changes. Thread: one. Owns: the rows. Fails: never.
 */
#pragma once

#include "cli/cmd.h"

struct zl_progress_row {
    char key[80];
    char text[160];
    uint64_t current, total; /* bytes; total 0: no bar */
    bool done;
    struct {
        uint64_t ms, bytes;
    } marks[2]; /* the older one is what the rate counts from, so that it tells of the last seconds */
};

struct zl_progress {
    const struct zl_cli *cli;
    enum zl_progress_mode mode; /* never AUTO */
    struct zl_progress_row *rows;
    unsigned n, cap, drawn;
    uint64_t drawn_ms;
};

void zl_progress_init(struct zl_progress *p, const struct zl_cli *cli);
/* The row of this key says this. On a plain stream a text that is new is a line. */
void zl_progress_text(struct zl_progress *p, const char *key, const char *fmt, ...) ZL_PRINTF(3, 4);
/* The row of this key has come so far; its line on a plain stream is written once it is whole. */
void zl_progress_bytes(struct zl_progress *p, const char *key, uint64_t current, uint64_t total);
/* A line that stays, above the rows. */
void zl_progress_note(struct zl_progress *p, const char *fmt, ...) ZL_PRINTF(2, 3);
/* Takes the rows off the terminal; they may come back with the next call. */
void zl_progress_clear(struct zl_progress *p);
void zl_progress_done(struct zl_progress *p);
