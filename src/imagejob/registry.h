/*
 * One repository of a registry (OCI distribution-spec), by libcurl: HTTPS, plain HTTP on loopback and where
 * registries.yml says so; anonymous, basic and bearer tokens, renewed before they expire and after a refusal; redirects
 * without credentials to other hosts and never from HTTPS to HTTP; transient errors again with back-off, blobs from
 * where they stopped; mirrors before the registry itself.
 * Thread: any, several at once. Owns: the registry, freed after its last call; not the hosts.
 * Fails: ZL_E_IMAGE_NOT_FOUND, ZL_E_UNAUTHORIZED, ZL_E_RATE_LIMITED, ZL_E_REGISTRY, ZL_E_PULL_FAILED, ZL_E_DIGEST,
 * ZL_E_LIMIT, ZL_E_DISK_FULL, ZL_E_CANCELLED.
 */
#pragma once

#include "base/error.h"
#include "imagejob/hosts.h"

#include <stdatomic.h>
#include <stdint.h>

struct zl_oci_descriptor;
struct zl_registry;

struct zl_registry_options {
    const struct zl_hosts *hosts;
    bool push;                    /* tokens for writing, too */
    struct zl_strings mount_from; /* repositories of the same registry that blobs may be mounted from */
    unsigned stall_s;             /* a transfer in which nothing moves for so long is broken off */
    atomic_bool *stop;            /* set: calls end soon with ZL_E_CANCELLED */
};

struct zl_registry *zl_registry_new(const struct zl_reference *ref, const struct zl_registry_options *o);
struct zl_registry *zl_registry_free(struct zl_registry *r);

/* GET /v2/: whether the registry is one and takes the credentials; login is for this. */
int zl_registry_check(struct zl_registry *r, struct zl_err *err) ZL_MUST;

struct zl_registry_manifest {
    struct zl_buf body; /* the caller's to free; empty after a head */
    char content_type[160];
    char digest[72];   /* of the body; after a head what the registry says, or "" */
    char warning[200]; /* what the registry wants users to read, or "" */
};
/* `name` is a tag or a digest. With `head` only the digest is asked for. A digest as name is checked. */
int zl_registry_manifest(struct zl_registry *r, const char *name, bool head, struct zl_registry_manifest *ret,
                         struct zl_err *err) ZL_MUST;
/* After an error: whether the registry (of mirrors: the last) or its token server was away, so that it says nothing of
 * what was asked for: no network, 5xx, 408, 429. */
bool zl_registry_away(const struct zl_registry *r);
/* Into the file `fd`, which is empty or has what came before; its size and digest are right afterwards. `progress` and
 * `whole` may be NULL; *whole: all of a small blob that came at once, the caller's to free, otherwise left as it is.
 * What the registry does not give is looked for at the descriptor's URLs, which get no credentials. */
int zl_registry_blob(struct zl_registry *r, const struct zl_oci_descriptor *d, int fd,
                     void (*progress)(void *arg, uint64_t got), void *arg, unsigned char **whole,
                     struct zl_err *err) ZL_MUST;
