/*
 * Blobs that came in part: what a job that failed or died had fetched lies in staging/.partial/<hex>, and the next job
 * that wants the blob goes on behind it. A job takes one by a rename, so that two never write to the same. Nothing here
 * is trusted: the digest is computed from the first byte. Thread: any. Fails: never worth a word, but a blob that is
 * small, older than a day or in the way of others (a full disk) is not kept.
 */
#pragma once

#include <stdbool.h>

/* The name in a job's folder of a blob that is being fetched. */
enum { ZL_PARTIAL_NAME_SIZE = 80 };
char *zl_partial_name(const char *digest, char ret[ZL_PARTIAL_NAME_SIZE]);
/* `staging`: the folder of all jobs; `job`: the name of one below it, whose blobs are kept. */
void zl_partial_keep(int staging, const char *job);
/* Into the folder of the job, under zl_partial_name. */
void zl_partial_take(int staging, int job, const char *digest);
/* Those that are too old, or all. */
void zl_partial_drop(int staging, bool all);
