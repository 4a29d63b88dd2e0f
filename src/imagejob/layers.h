/*
 * The layers of one image come into the store: those that are missing are fetched by a few threads, unpacked behind the
 * arriving bytes and side by side, and settled in order by the caller's thread. Blobs and layers that are whole stay in
 * the store even if a later one fails; the job's `keep` protects them. Another job that fetches the same layer is
 * waited for, and its result used.
 * Thread: the job's main one. Owns: nothing afterwards. Fails: as the registry and the unpacking; no partial layer
 * stays.
 */
#pragma once

#include "imagejob/job.h"
#include "imagejob/registry.h"
#include "oci/manifest.h"

/* chain_ids and diff_ids: one for each of the manifest's layers. `stop` is the one the registry looks at. `registry`
 * NULL: all blobs are in the store. */
int zl_layers_fetch(struct zl_image_job *job, struct zl_registry *registry, const struct zl_oci_manifest *manifest,
                    const struct zl_strings *chain_ids, const struct zl_strings *diff_ids, atomic_bool *stop,
                    struct zl_err *err) ZL_MUST;
