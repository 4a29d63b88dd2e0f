/* Reading members of outside JSON: absent and null are the same, a wrong type is an error. What is read is copied into
 * the arena, so that the document's tree can go: of 4 MiB it may take 20. Thread: any. Owns: nothing. Fails:
 * ZL_E_BAD_IMAGE. */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

/* Parses a document of at most ZL_OCI_DOCUMENT_MAX bytes whose root is a map; `what` names it in messages. */
int zl_oci_json(struct zl_arena *arena, struct zl_str text, const char *what, struct zl_value **ret,
                struct zl_err *err) ZL_MUST;
/* NULL when absent. */
int zl_oci_member(const struct zl_value *map, const char *key, enum zl_value_kind kind, const char *what,
                  const struct zl_value **ret, struct zl_err *err) ZL_MUST;
/* "" when absent; text with a NUL is refused by the JSON parser already. */
int zl_oci_text(struct zl_arena *arena, const struct zl_value *map, const char *key, const char *what, const char **ret,
                struct zl_err *err) ZL_MUST;
int zl_oci_strings(struct zl_arena *arena, const struct zl_value *map, const char *key, const char *what,
                   struct zl_strings *ret, struct zl_err *err) ZL_MUST;
