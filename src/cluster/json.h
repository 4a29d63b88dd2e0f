/*
 * Strict reading of the store's own JSON: each getter takes the key's value and complains through one error, so that
 * decoders read as a list. 64-bit numbers whose bits all count (ids, hashes) are strings of 16 hex digits.
 * Thread: one at a time. Owns: strings belong to the tree's arena. Fails: the reader's `bad` names the first problem.
 */
#pragma once

#include "base/alloc.h"
#include "codec/value.h"

#include <stdbool.h>
#include <stdint.h>

struct zl_reader {
    const char *bad; /* the first key that was absent or wrong; NULL: none */
};

uint64_t zl_read_u64(struct zl_reader *r, const struct zl_value *map, const char *key, uint64_t max);
uint64_t zl_read_hex(struct zl_reader *r, const struct zl_value *map, const char *key);
bool zl_read_bool(struct zl_reader *r, const struct zl_value *map, const char *key);
/* Without NUL bytes; "" when it was wrong. */
const char *zl_read_str(struct zl_reader *r, const struct zl_value *map, const char *key);
/* A name of a deployment or service. */
const char *zl_read_name(struct zl_reader *r, const struct zl_value *map, const char *key);
/* The list's node, or NULL when it was wrong or is longer than `max`. */
const struct zl_value *zl_read_list(struct zl_reader *r, const struct zl_value *map, const char *key, unsigned max);

struct zl_value *zl_hex_value(struct zl_arena *arena, uint64_t v);
