/*
 * Field tables: a struct that is stored, sent or configured has one table, and one engine decodes a value tree into it
 * (reporting every problem, not the first), prints it back with defaults filled in, and names its keys in hints.
 * Thread: one at a time. Owns: what is decoded belongs to the arena. Fails: the number of problems.
 */
#pragma once

#include "codec/value.h"

enum zl_kind {
    ZL_K_BOOL,     /* bool */
    ZL_K_INT,      /* int64_t, min..max */
    ZL_K_DOUBLE,   /* double, > min when ZL_F_POSITIVE */
    ZL_K_STRING,   /* const char *; NULL when absent; at least 1 byte when ZL_F_NONEMPTY */
    ZL_K_DURATION, /* uint64_t milliseconds, from "1m 30s" */
    ZL_K_SIZE,     /* uint64_t bytes, from "256Mi" */
    ZL_K_PERCENT,  /* int64_t 1..100, from 70 or "70%" */
    ZL_K_ENUM,     /* int: the index into names */
    ZL_K_STRINGS,  /* struct zl_strings; at least one when ZL_F_NONEMPTY */
    ZL_K_STRUCT,   /* the nested struct itself */
    ZL_K_LIST,     /* struct zl_items of pointers to the nested struct */
    ZL_K_MAP,      /* the same, and the key goes into the nested struct's key_offset */
    ZL_K_CUSTOM,   /* by the row's functions */
    ZL_K_NOT_YET,  /* a key that exists in the format and is not built yet */
};

enum {
    ZL_F_REQUIRED = 1u << 0,
    ZL_F_POSITIVE = 1u << 1,
    ZL_F_NONEMPTY = 1u << 2,
    ZL_F_OMIT = 1u << 3, /* not printed while it is zero, NULL, empty or what no document can say */
};

struct zl_strings {
    const char **v;
    unsigned n;
};
struct zl_items {
    void **v;
    unsigned n;
};

struct zl_type;
struct zl_decoder;

struct zl_field {
    const char *name;
    enum zl_kind kind;
    size_t offset;
    unsigned flags;
    int64_t min, max;           /* of INT; 0, 0: any */
    const char *const *names;   /* of ENUM, NULL at the end; a leading '!' marks a value not built yet,
                                    '-' one that no document can say */
    const struct zl_type *type; /* of STRUCT, LIST, MAP */
    const char *fallback;       /* the default as document text; NULL: zero, NULL or empty */
    const char *code;           /* of this row's range and form problems; NULL: yaml_error */
    void (*decode)(struct zl_decoder *d, const struct zl_value *v, void *field);
    struct zl_value *(*print)(struct zl_arena *arena, const void *field);
    const char *doc;
};

struct zl_type {
    const char *name;
    size_t size;
    const struct zl_field *fields;
    unsigned count;
    bool open;         /* keys that have no row are passed over */
    size_t key_offset; /* of a MAP's struct: where its key (const char *) goes */
    /* Checks a decoded struct as a whole; may report problems. May be NULL. */
    void (*check)(struct zl_decoder *d, const struct zl_value *v, void *object);
    /* Another spelling of the whole struct (a list for a map, …): returns a tree in the usual form. May be NULL. */
    const struct zl_value *(*normalise)(struct zl_decoder *d, const struct zl_value *v);
};

#define ZL_TYPE(name_, struct_, fields_, ...)                                                                    \
    {                                                                                                            \
        .name = name_, .size = sizeof(struct_), .fields = fields_, .count = ZL_ARRAY_LEN(fields_), ##__VA_ARGS__ \
    }

struct zl_problem {
    struct zl_problem *next;
    const char *code;
    const char *path; /* services.web.endpoints[0].port */
    unsigned line, column;
    unsigned width; /* of the offending text, for the caret; at least 1 */
    const char *message;
    const char *hint; /* "" when there is none */
};

enum { ZL_PROBLEMS_MAX = 100 };

struct zl_decoder {
    struct zl_arena *arena;
    struct zl_problem *first, *last;
    unsigned count;
    struct zl_buf path;
    bool strict;  /* a text is a string, and nothing that looks like another thing: of JSON */
    bool filling; /* in a default, which may be outside what a document can say */
};

void zl_decoder_init(struct zl_decoder *d, struct zl_arena *arena);
void zl_decoder_done(struct zl_decoder *d);
/* Reports a problem at v (or at d's path alone when v is NULL); beyond ZL_PROBLEMS_MAX they are only counted. */
void zl_problem_add(struct zl_decoder *d, const struct zl_value *v, const char *code, const char *hint, const char *fmt,
                    ...) ZL_PRINTF(5, 6);
size_t zl_path_push(struct zl_decoder *d, const char *fmt, ...) ZL_PRINTF(2, 3);
void zl_path_pop(struct zl_decoder *d, size_t mark);

/* Decodes into a new object of the arena; never NULL. Whether it is good: d->count unchanged. */
void *zl_decode(struct zl_decoder *d, const struct zl_type *type, const struct zl_value *v);
struct zl_value *zl_print(struct zl_arena *arena, const struct zl_type *type, const void *object);

/* Scalar grammars of documents. -EINVAL, -ERANGE. */
int zl_parse_duration_ms(struct zl_str s, uint64_t *ret) ZL_MUST;
char *zl_print_duration(struct zl_arena *arena, uint64_t ms);
int zl_parse_size(struct zl_str s, uint64_t *ret) ZL_MUST;
char *zl_print_size(struct zl_arena *arena, uint64_t bytes);
/* The nearest of `names` (NULL at the end; a leading '!' is skipped), or NULL when none is near. */
const char *zl_nearest(struct zl_str s, const char *const *names);
