/*
 * The files of an image archive in the job's staging folder: each under a number of ours, with its digest, found again
 * by the name that it had. Whatever an archive names its entries, nothing is made outside that folder. Thread: one.
 * Owns: the list, until _done; the names belong to the arena; files go with the staging folder.
 * Fails: ZL_E_BAD_IMAGE, ZL_E_DIGEST for a blob that is not what its name says, ZL_E_LIMIT, ZL_E_DISK_FULL.
 */
#pragma once

#include "base/alloc.h"
#include "base/error.h"
#include "base/str.h"
#include "imagejob/digest.h"

#include <archive.h>
#include <stdint.h>

struct zl_staged_file {
    const char *name; /* in the archive: relative, without "." and empty parts */
    const char *link; /* the name it stands for; NULL: it is a file */
    char file[24];    /* in the staging folder */
    char digest[ZL_DIGEST_SIZE];
    uint64_t size;
};

struct zl_staged {
    int folder;
    struct zl_arena *arena;
    struct zl_staged_file *v;
    size_t n, cap;
    void (*progress)(void *arg, uint64_t bytes); /* of contents, so far; may be NULL */
    void *arg;
    uint64_t bytes, holes; /* holes: of sparse files, which no byte of the archive stands for */
};

void zl_staged_init(struct zl_staged *s, int folder, struct zl_arena *arena);
void zl_staged_done(struct zl_staged *s);
/* All files of an archive that is open already. */
int zl_stage_archive(struct zl_staged *s, struct archive *tar, struct zl_err *err) ZL_MUST;
/* Of an OCI layout as a folder: oci-layout, index.json and the blobs. */
int zl_stage_folder(struct zl_staged *s, int folder, struct zl_err *err) ZL_MUST;
/* The file of this name, links followed; NULL: there is none. */
struct zl_staged_file *zl_staged_find(const struct zl_staged *s, const char *name);
struct zl_staged_file *zl_staged_find_digest(const struct zl_staged *s, const char *digest);
/* The content of a document of at most 4 MiB. */
int zl_staged_read(const struct zl_staged *s, const struct zl_staged_file *f, struct zl_buf *ret,
                   struct zl_err *err) ZL_MUST;
