/*
 * Results on stdout, in the form that -o asks for: a table, JSON, YAML or names. A listing is a list of maps and a
 * table of columns. Thread: one. Owns: nothing. Fails: never; what can't be written ends the program (term.h).
 */
#pragma once

#include "cli/cmd.h"

enum {
    ZL_COLUMN_WIDE = 1u << 0,  /* only with -o wide */
    ZL_COLUMN_STATE = 1u << 1, /* coloured by what it says */
    ZL_COLUMN_CUT = 1u << 2,   /* may be cut when the terminal is too narrow */
    ZL_COLUMN_RIGHT = 1u << 3,
};

struct zl_column {
    const char *title;
    const char *key; /* of the row, printed as it is … */
    unsigned flags;
    void (*print)(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row); /* … unless this is set */
};

struct zl_listing {
    const struct zl_column *columns;
    unsigned n;
    const char *name; /* the key that -o name and -q print */
    const char *none; /* what is said on stderr when a table would be empty */
};

/* A list of maps (NULL: an empty one). */
void zl_output_list(const struct zl_cli *cli, const struct zl_listing *listing, const struct zl_value *list);
/* One object with -o json or yaml: true. With another format: false, the caller writes it for people. */
bool zl_output_object(const struct zl_cli *cli, const struct zl_value *object);
void zl_output_json(const struct zl_cli *cli, const struct zl_value *v);
void zl_output_yaml(const struct zl_cli *cli, const struct zl_value *v);
/* Lines on stdout for people. */
void zl_say(const struct zl_cli *cli, const char *fmt, ...) ZL_PRINTF(2, 3);
/* A line on stderr, unless -q. */
void zl_note(const struct zl_cli *cli, const char *fmt, ...) ZL_PRINTF(2, 3);
void zl_warn(const struct zl_cli *cli, const char *fmt, ...) ZL_PRINTF(2, 3);
/* The "warnings" of a deployment. */
void zl_warn_each(const struct zl_cli *cli, const struct zl_value *deployment);
/* "error: …" and "hint: …" on stderr. */
void zl_report(const struct zl_term *t, const struct zl_err *err);

/* A scalar as text for people; "" for what is absent. */
void zl_cell(struct zl_buf *out, const struct zl_value *v);
/* "5s", "3m", "2h", "4d". */
void zl_age_text(struct zl_buf *out, uint64_t seconds);
/* "812 B", "1.5 MiB". */
void zl_size_text(struct zl_buf *out, uint64_t bytes);
/* A style for a state's name. */
enum zl_style zl_state_style(struct zl_str state);
