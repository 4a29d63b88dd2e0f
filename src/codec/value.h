/*
 * Value trees: what a YAML or JSON text says, before any struct. Maps keep document order; nodes parsed from text carry
 * their position. Thread: one at a time. Owns: the arena that made a node owns it and all below it.
 * Fails: parsers fill a zl_parse_error and return -EINVAL (bad text), -E2BIG (over a limit) or -ENOMEM.
 */
#pragma once

#include "base/alloc.h"
#include "base/str.h"

enum zl_value_kind { ZL_NULL, ZL_BOOL, ZL_INT, ZL_DOUBLE, ZL_STRING, ZL_LIST, ZL_MAP };

struct zl_value {
    enum zl_value_kind kind;
    unsigned line, column; /* from 1; 0: not parsed from text */
    struct zl_str text;    /* a scalar's source text (strings: their value); NUL-terminated */
    union {
        bool boolean;
        int64_t integer;
        double real;
    };
    struct zl_value *first, *last; /* of a list or map */
    struct zl_value *next;         /* the next item of the same list or map */
    struct zl_value *key;          /* in a map: the item's key, a string */
    unsigned count;
};

struct zl_parse_error {
    unsigned line, column; /* 0 when unknown */
    char text[200];
};

struct zl_parse_limits {
    size_t bytes;
    unsigned depth, nodes; /* nodes counts what aliases expand to */
};
extern const struct zl_parse_limits zl_limits_document; /* 1 MiB, 64 deep, 100,000 nodes */

/* One YAML document (JSON is a subset); deployment-spec dialect: YAML 1.2 core scalars, no merge keys, no second
 * document, no duplicate keys. */
int zl_yaml_parse(struct zl_arena *arena, struct zl_str text, const struct zl_parse_limits *limits,
                  struct zl_value **ret, struct zl_parse_error *err) ZL_MUST;
/* Strict JSON (RFC 8259); positions are of errors only. */
int zl_json_parse(struct zl_arena *arena, struct zl_str text, const struct zl_parse_limits *limits,
                  struct zl_value **ret, struct zl_parse_error *err) ZL_MUST;

/* Making trees. */
struct zl_value *zl_value_new(struct zl_arena *arena, enum zl_value_kind kind);
struct zl_value *zl_value_string(struct zl_arena *arena, struct zl_str s);
/* What YAML makes of an unquoted scalar: null, a boolean, a number or a string. */
struct zl_value *zl_value_plain(struct zl_arena *arena, struct zl_str s);
struct zl_value *zl_value_int(struct zl_arena *arena, int64_t v);
struct zl_value *zl_value_bool(struct zl_arena *arena, bool v);
void zl_value_append(struct zl_value *list, struct zl_value *item);
void zl_value_set(struct zl_arena *arena, struct zl_value *map, const char *key, struct zl_value *item);

/* Reading; all of these take NULL and wrong kinds and answer NULL, the fallback, or false. */
struct zl_value *zl_value_get(const struct zl_value *map, const char *key);
struct zl_str zl_value_str(const struct zl_value *map, const char *key); /* p = NULL when absent */
const char *zl_value_cstr(const struct zl_value *map, const char *key);  /* "" when absent */
uint64_t zl_value_u64(const struct zl_value *map, const char *key, uint64_t fallback);
bool zl_value_true(const struct zl_value *map, const char *key);
bool zl_value_equal(const struct zl_value *a, const struct zl_value *b);
const char *zl_value_kind_name(enum zl_value_kind kind); /* "a string", "a map" … */

/* Writing. indent 0: one line. Invalid UTF-8 becomes U+FFFD; what steers or reorders text is written by number. */
void zl_json_print(struct zl_buf *out, const struct zl_value *v, unsigned indent);
void zl_json_string(struct zl_buf *out, struct zl_str s);
void zl_yaml_print(struct zl_buf *out, const struct zl_value *v);
