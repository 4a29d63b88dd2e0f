/*
 * What refers to a manifest (OCI distribution-spec, Listing Referrers): signatures, SBOMs and the like, by the
 * registry's own list, or by the index at the tag that stands for it where the registry keeps none. Thread: one a
 * repository. Owns: what is read belongs to the arena. Fails: as registry.h.
 */
#pragma once

#include "imagejob/registry.h"
#include "oci/manifest.h"

/* A list of descriptors as the registry gives them, checked; empty when nothing refers to it. */
int zl_registry_referrers(struct zl_registry *r, const char *digest, struct zl_arena *arena, struct zl_value **ret,
                          struct zl_err *err) ZL_MUST;
/* For a registry that does not: adds the manifest to the index at the tag that stands for its subject's referrers. */
int zl_registry_add_referrer(struct zl_registry *r, const struct zl_oci_manifest *m, const char *digest,
                             struct zl_str body, struct zl_err *err) ZL_MUST;
