/*
 * One image job: its store, its staging folder, and how it reports. Thread: the main one. Owns: zl_job_* frees what it
 * opened. Fails: zl_err; main prints it as the job's last event.
 */
#pragma once

#include "apidef/bodies.h"
#include "image/store.h"
#include "imagejob/decoders.h"
#include "imagejob/digest.h"

#include <stdatomic.h>

struct zl_image_job {
    struct zl_store store;
    int staging; /* images/staging/<id>/, locked while the job lives */
    int staging_lock;
    char id[40];
    struct zl_buf kept;    /* what the file `keep` says */
    int all_staging;       /* images/staging/ */
    bool disk_full;        /* what came of blobs makes room */
    atomic_bool unflushed; /* blobs were made that may not be on the disk */
    struct zl_arena arena;
    struct zl_decoders decoders;
    const struct zl_image_request *request;
    int events; /* where event lines go */
    bool stale; /* what is done with may not be the newest: said with the done event */
};

/* `data_dir` NULL: a job without a store. */
int zl_image_job_open(struct zl_image_job *job, const char *data_dir, struct zl_err *err) ZL_MUST;
void zl_image_job_close(struct zl_image_job *job);
void zl_image_job_progress(struct zl_image_job *job, const char *layer, uint64_t current, uint64_t total);
/* One event: a JSON object without the line's end, whose first member is its kind. Any thread. */
void zl_image_job_event(struct zl_image_job *job, struct zl_buf *line);
/* `warning`: what the user should know beside it, or NULL. */
void zl_image_job_done(struct zl_image_job *job, const struct zl_image_record *r, const char *warning);
/* `blobs`: a JSON object that counts what became of them. */
void zl_image_job_pushed(struct zl_image_job *job, const char *reference, const char *digest, const char *blobs,
                         const char *warning);
/* Those of the request; none when it has none. */
struct zl_credentials;
void zl_image_job_credentials(const struct zl_image_job *job, struct zl_credentials *ret);

/* Puts bytes into the store as a blob; gives its digest. */
int zl_image_job_put_blob(struct zl_image_job *job, const void *p, size_t n, char digest[ZL_DIGEST_SIZE],
                          struct zl_err *err) ZL_MUST;
/* Protects these digests too from the collector while the job lives; what is there afterwards stays. */
int zl_image_job_keep(struct zl_image_job *job, const char *const *digests, unsigned n, struct zl_err *err) ZL_MUST;
/* Opens a blob of the store, when it is there whole: after a power cut what no record names may be anything. -ENOENT.
 */
int zl_image_job_stored_blob(struct zl_image_job *job, const char *digest, int64_t size) ZL_MUST;
/* Opens a file of the staging folder for a blob that is to be fetched (zl_partial_name). In it is what an earlier job
 * had of it. */
int zl_image_job_stage_blob(struct zl_image_job *job, const char *digest, struct zl_err *err) ZL_MUST;
/* Moves a file of the staging folder to its place among the blobs, or drops it when the blob is there whole. */
int zl_image_job_keep_blob(struct zl_image_job *job, const char *file, const char *digest, struct zl_err *err) ZL_MUST;

/* What was written so far reaches the disk; before layers are committed. */
int zl_image_job_flush(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
/* Blobs, and the renames of layers and blobs, reach the disk; before a record that needs them is put. */
int zl_image_job_sync(struct zl_image_job *job, struct zl_err *err) ZL_MUST;

int zl_pull(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_push(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_login(struct zl_image_job *job, struct zl_err *err) ZL_MUST; /* this and the next: without a store */
int zl_referrers(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_import(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_load(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_save(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_fsck(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_diff(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
/* What only the store is asked for. */
int zl_remove(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_tag(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_history(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_prune(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
int zl_df(struct zl_image_job *job, struct zl_err *err) ZL_MUST;
