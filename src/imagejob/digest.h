/* sha256 digests as "sha256:<hex>". Thread: any, a digest one at a time. Owns: the digest. Fails: never. */
#pragma once

#include <stddef.h>

enum { ZL_DIGEST_SIZE = 72 }; /* "sha256:", 64 hex digits, NUL */

struct zl_digest;
struct zl_digest *zl_digest_new(void);
struct zl_digest *zl_digest_free(struct zl_digest *d);
void zl_digest_restart(struct zl_digest *d);
void zl_digest_add(struct zl_digest *d, const void *p, size_t n);
/* Returns ret; the digest must be restarted before it is used again. */
char *zl_digest_finish(struct zl_digest *d, char ret[ZL_DIGEST_SIZE]);

/* The digest of bytes in memory; returns ret. */
char *zl_digest_of(const void *p, size_t n, char ret[ZL_DIGEST_SIZE]);
/* Of an open file, from its start and without moving its offset; -errno. */
int zl_digest_of_file(int fd, char ret[ZL_DIGEST_SIZE]);
/* The ChainID of a layer on top of `below` ("" for the lowest): OCI image-spec, config.md. Returns ret. */
char *zl_chain_id(const char *below, const char *diff_id, char ret[ZL_DIGEST_SIZE]);
