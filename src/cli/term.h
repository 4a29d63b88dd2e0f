/*
 * What a stream can show: whether it is a terminal, its width, colour, UTF-8. Decided once, from the descriptor and the
 * environment. Thread: one. Owns: nothing. Fails: never; what can't be known is the plain answer.
 */
#pragma once

#include "base/str.h"

#include <stdbool.h>

struct zl_term {
    int fd;
    bool tty, colour, utf8;
    unsigned width; /* columns; 0: not a terminal, no limit */
    int *failed;    /* where the first failed write is kept, as a negative errno; NULL: nowhere */
};

enum zl_term_color { ZL_TERM_COLOR_AUTO, ZL_TERM_COLOR_ALWAYS, ZL_TERM_COLOR_NEVER };

/*
 * Colour: what --color says; else NO_COLOR (not empty) switches it off, CLICOLOR_FORCE or FORCE_COLOR (not empty, not
 * "0") on, TERM=dumb or an empty TERM off; else it is on for a terminal.
 */
void zl_term_init(struct zl_term *t, int fd, int color);
void zl_term_resize(struct zl_term *t);

enum zl_style { ZL_PLAIN, ZL_BOLD, ZL_DIM, ZL_RED, ZL_GREEN, ZL_YELLOW, ZL_CYAN };
/* The control sequence, "" without colour. ZL_PLAIN resets. */
const char *zl_style(const struct zl_term *t, enum zl_style style);
/* One stable colour for a name, for log prefixes. */
const char *zl_style_of_name(const struct zl_term *t, const char *name);
/* Appends text of outside with controls (but TAB) and what reorders text shown as '?', so that it can't steer the
 * terminal or look like another. */
void zl_term_clean(struct zl_buf *out, struct zl_str text);
/* How many columns a UTF-8 text takes, roughly: code points that are not combining. */
size_t zl_term_columns(struct zl_str text);
/*
 * Writes all of it; a reader that went away (EPIPE) ends the program quietly, as SIGPIPE would. After another failure
 * nothing more is written where `failed` keeps it, so that what is there has no gap.
 */
void zl_term_write(const struct zl_term *t, struct zl_str text);
