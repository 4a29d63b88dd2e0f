/*
 * The image record that a job makes of a manifest and a config that it has verified. Thread: the job's main one. Owns:
 * nothing. Fails: as the store.
 */
#pragma once

#include "imagejob/job.h"
#include "oci/config.h"
#include "oci/manifest.h"

struct zl_new_image {
    const char *reference; /* canonical */
    const char *digest;    /* of what the reference names */
    const char *manifest_digest;
    const struct zl_oci_manifest *manifest;
    const struct zl_oci_config *config; /* of an artifact: all zero */
    uint64_t documents;                 /* bytes of manifest, index and config */
};

/* The config has a layer for each of the manifest's, and is for the platform that is wanted (`named`: by the user);
 * what it leaves open is filled in. */
int zl_image_check_config(const struct zl_oci_manifest *m, const struct zl_oci_platform *wanted, bool named,
                          struct zl_oci_config *config, struct zl_err *err) ZL_MUST;
/* ChainIDs of the config's layers, lowest first; they belong to the job's arena. */
struct zl_strings zl_image_chain_ids(struct zl_image_job *job, const struct zl_oci_config *config);
/* Protects the layers' blobs and the layers from the collector while the job lives. */
int zl_image_keep(struct zl_image_job *job, const struct zl_oci_manifest *m, const struct zl_strings *chains,
                  struct zl_err *err) ZL_MUST;
/* Makes the image visible, when all it needs is there: what was renamed reaches the disk, then the record. */
int zl_image_commit(struct zl_image_job *job, const struct zl_new_image *image, const struct zl_strings *chains,
                    struct zl_image_record *ret, struct zl_err *err) ZL_MUST;
