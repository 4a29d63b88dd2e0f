/*
 * A container as a scope of systemd: its name and its properties, as zl-systemd takes them: a list of
 * [name, D-Bus signature, value]. Thread: any. Owns: all is in the arena. Fails: zl_err, nothing is done.
 */
#pragma once

#include "oci/runtime_config.h"

struct ocirun;

struct ocirun_scope {
    const char *slice, *unit;
};

/* linux.cgroupsPath, "slice:prefix:name"; each may be empty but the name. Without one: system.slice, or user.slice of
 * `user`, and zl-oci-<id>.scope. */
int ocirun_scope_name(struct ocirun *r, const char *path, const char *id, bool user, struct ocirun_scope *ret) ZL_MUST;
/* All that a new one has, but its process. */
int ocirun_scope_properties(struct ocirun *r, const struct zl_oci_runtime *c, const struct ocirun_scope *scope,
                            const char *id, bool v2, struct zl_value **ret) ZL_MUST;
/* What of linux.resources systemd writes itself, added to a list. */
void ocirun_scope_resources(struct zl_arena *a, const struct zl_oci_resources *from, bool v2, struct zl_value *list);
/* The user's own, "org.systemd.property.NAME": in the place of ours. */
int ocirun_scope_annotations(struct ocirun *r, const struct zl_items *annotations, struct zl_value *list) ZL_MUST;

/* limits.c: v1's 10 to 1000 on v2's 1 to 10000. */
uint64_t ocirun_io_weight_v2(int64_t weight);
