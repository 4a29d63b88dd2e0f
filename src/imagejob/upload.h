/*
 * Writing to a repository: blobs that it lacks, by mounting or in pieces that go on after a break and manifests byte
 * for byte. Thread: any, several at once; a repository's manifests from one. Owns: nothing. Fails: as registry.h.
 */
#pragma once

#include "imagejob/registry.h"
#include "oci/manifest.h"

enum zl_upload_how { ZL_UPLOAD_THERE, ZL_UPLOAD_MOUNTED, ZL_UPLOAD_SENT };

struct zl_upload {
    const char *digest;
    uint64_t size;
    int fd;           /* the blob, from its start */
    const char *from; /* a repository of the same registry that may have it; NULL: none is known */
    uint64_t chunk;   /* how much goes in one request */
    void (*progress)(void *arg, uint64_t sent);
    void *arg;
};
int zl_registry_push_blob(struct zl_registry *r, const struct zl_upload *u, enum zl_upload_how *ret,
                          struct zl_err *err) ZL_MUST;

/* `name` is a tag or the digest. *subject: the registry has put it among the referrers of its subject. */
int zl_registry_push_manifest(struct zl_registry *r, const char *name, const char *media_type, struct zl_str body,
                              const char *digest, bool *subject, struct zl_err *err) ZL_MUST;
