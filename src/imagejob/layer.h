/*
 * One layer on its way into the store: placed in the job's staging folder from a blob (which another thread may still
 * be fetching), settled above the layers below, committed under its ChainID by a rename. Thread: one at a time, not
 * always the same. Owns: its folder in staging and descriptors, until _close. Fails: as unpack.h and stream.h.
 */
#pragma once

#include "imagejob/feed.h"
#include "imagejob/job.h"
#include "imagejob/lowers.h"
#include "imagejob/unpack.h"

#include "base/id.h"

struct zl_layer {
    struct zl_image_job *job;
    char name[ZL_ID_HEX_SIZE]; /* of its folder in staging */
    int root;
    struct zl_unpack unpack;
    char blob[ZL_DIGEST_SIZE], diff_id[ZL_DIGEST_SIZE]; /* once placed; blob is "" of one with a feed */
};

/* The media type of a layer's blob, by its first bytes. */
const char *zl_layer_media(int fd);

int zl_layer_open(struct zl_image_job *job, struct zl_layer *ret, struct zl_err *err) ZL_MUST;
/* What is not committed is dropped. Also of one that is all zero. */
void zl_layer_close(struct zl_layer *l);
/* From the blob's first byte to its last; feed as in stream.h. */
int zl_layer_place(struct zl_layer *l, int blob, struct zl_feed *feed, struct zl_err *err) ZL_MUST;
/* Afterwards the layer is whole, and l->root (no other descriptor) stays open for the layers above. */
int zl_layer_settle(struct zl_layer *l, const struct zl_lowers *lowers, struct zl_err *err) ZL_MUST;
/* Makes it a layer of the store. What is to survive a power cut is on the disk before (zl_image_job_flush). */
int zl_layer_commit(struct zl_layer *l, const char *chain_id, struct zl_err *err) ZL_MUST;
