/*
 * The image store below <data>/images: blobs by digest, one record a reference, unpacked layers by ChainID, leases of
 * what containers use. Several processes use it at once; all changes are renames, so kill -9 leaves old or new.
 *   blobs/sha256/<hex>  refs/<reference, escaped or hashed>  layers/<chain hex>/  staging/<job>/  leases/<holder>
 * locks/  lock A job that is at work names what it needs in staging/<job>/keep, a line a digest; the collector keeps
 * that too. Readers take the lock shared, the collector takes it alone. Thread: any; a zl_store one at a time. Owns:
 * records belong to the arena. Fails: zl_err.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

struct zl_oci_platform;

struct zl_store {
    int dir; /* images/ */
    char path[4096];
};

struct zl_image_record {
    const char *reference; /* canonical: docker.io/library/nginx:latest */
    const char *digest;    /* of what the reference names: a manifest, or an index */
    const char *manifest;  /* of the manifest that was chosen from the index; NULL when `digest` is it */
    const char *config;    /* its digest */
    int64_t size_bytes;    /* of the blobs */
    int64_t created_ms;    /* when it came here, wall clock */
    const char *os, *architecture, *variant;
    const char
        *os_version; /* this and the next as the index has them that it was chosen from; NULL when it says none */
    struct zl_strings os_features;
    const char *artifact_type;   /* of what is no container image: then there are no layers to run; else NULL */
    struct zl_strings layers;    /* blob digests, lowest first */
    struct zl_strings chain_ids; /* "sha256:…", lowest first */
    struct zl_strings entrypoint, cmd, env, ports;
    struct zl_strings labels; /* "key=value" */
    const char *workdir, *user, *stop_signal;
};
extern const struct zl_type zl_type_image_record;

/* Makes what is missing. */
int zl_store_open(const char *data_dir, struct zl_store *ret, struct zl_err *err) ZL_MUST;
void zl_store_close(struct zl_store *s);

/* The record of a reference as a user writes it; ZL_E_IMAGE_NOT_FOUND. */
int zl_store_find(const struct zl_store *s, struct zl_arena *arena, const char *reference, struct zl_image_record **ret,
                  struct zl_err *err) ZL_MUST;
/* How well an image that is here is for a platform: as zl_oci_platform_fit. What the record does not say fits. */
unsigned zl_image_fit(const struct zl_image_record *r, const struct zl_oci_platform *wanted);
/* As zl_store_find, of an image for `wanted` (NULL: this machine) whose layers are all here. ZL_E_IMAGE_NOT_FOUND for
 * another, too; the message says what it lacks. */
int zl_store_find_for(const struct zl_store *s, struct zl_arena *arena, const char *reference,
                      const struct zl_oci_platform *wanted, struct zl_image_record **ret, struct zl_err *err) ZL_MUST;
int zl_store_list(const struct zl_store *s, struct zl_arena *arena, struct zl_items *ret, struct zl_err *err) ZL_MUST;
/* One record, of a file below `dir`: -errno when it can't be read, ZL_E_BAD_IMAGE when it is none. */
int zl_store_read_record(int dir, const char *file, struct zl_arena *arena, struct zl_image_record **ret,
                         struct zl_err *err) ZL_MUST;
/* Power-proof. ZL_E_LIMIT for what could not be read again; what comes of a manifest and a config can be. */
int zl_store_put(const struct zl_store *s, const struct zl_image_record *r, struct zl_err *err) ZL_MUST;
/* Removes the reference, then what nobody needs any more. Instead of a reference: sha256:<hex>, its first 12 digits or
 * more, or NAME@sha256:<hex> for those of one repository. Refused without `force` (ZL_E_CONFLICT): an image that a
 * lease uses, and a digest that several references have; with it all of them go. */
int zl_store_remove(const struct zl_store *s, const char *reference, bool force, uint64_t *freed_bytes,
                    struct zl_err *err) ZL_MUST;
int zl_store_collect(const struct zl_store *s, uint64_t *freed_bytes, struct zl_err *err) ZL_MUST;
/* Removes a layer or blob: at first its name, as one step, so that one that is half removed is never taken for whole.
 */
int zl_store_drop(int dir, const char *name) ZL_MUST;
/* Removes the record alone, for good; the caller holds the store's lock, alone. */
int zl_store_forget(const struct zl_store *s, const char *reference, struct zl_err *err) ZL_MUST;
/* Another name for an image that is here; what the name named before loses it. */
int zl_store_tag(const struct zl_store *s, const char *source, const char *target, struct zl_err *err) ZL_MUST;

/* Removes what no image needs; with `all` first the images that no container uses and that the rest asks for. */
struct zl_prune {
    bool all, dry_run;        /* dry_run: only tells */
    int64_t before_ms;        /* only images that came before; 0: any */
    struct zl_strings labels; /* only those that have each: "key" or "key=value" */
    /* Told of each thing that goes: "image", "blob" or "layer"; may be NULL. */
    void (*gone)(void *arg, const char *kind, const char *name, uint64_t bytes);
    void *arg;
    uint64_t freed; /* bytes on the disk */
};
int zl_store_prune(const struct zl_store *s, struct zl_prune *p, struct zl_err *err) ZL_MUST;

/* The absolute path of an unpacked layer; returns ret. */
enum { ZL_LAYER_PATH_SIZE = 4096 + 80 };
char *zl_store_layer_path(const struct zl_store *s, const char *chain_id, char ret[ZL_LAYER_PATH_SIZE]);
bool zl_store_has_layer(const struct zl_store *s, const char *chain_id);
/* Whether all blobs are there that the record names; their bytes are not looked at. */
bool zl_store_has_blobs(const struct zl_store *s, const struct zl_image_record *r);

/* A lease keeps an image's layers while a container needs them, whatever happens to its reference. */
int zl_store_lease(const struct zl_store *s, const char *holder, const struct zl_strings *chain_ids,
                   struct zl_err *err) ZL_MUST;
void zl_store_release(const struct zl_store *s, const char *holder);
/* Releases what holders left that live no more: an agent may die between a container and its lease. -errno. */
int zl_store_release_others(const struct zl_store *s, bool (*lives)(void *arg, const char *holder), void *arg) ZL_MUST;

/* The bytes that a file or folder takes on the disk, hard links counted once. -errno. */
int zl_tree_bytes(int dir, const char *name, uint64_t *ret) ZL_MUST;

/* What the store holds, in bytes on the disk. */
struct zl_store_use {
    uint64_t blobs, blob_bytes, layers, layer_bytes;
    uint64_t reclaimable_bytes; /* of both: what no image, container or job needs */
    uint64_t staging_bytes;     /* of jobs at work */
};
struct zl_image_usage {
    const struct zl_image_record *record;
    uint64_t bytes, unique_bytes; /* of its blobs and layers; of those that no other image has */
    bool in_use;                  /* by a container */
};
/* Calls fn with each image, by name. */
int zl_store_usage(const struct zl_store *s, struct zl_arena *arena, struct zl_store_use *ret,
                   void (*fn)(void *arg, const struct zl_image_usage *u), void *arg, struct zl_err *err) ZL_MUST;

/* The store's lock: shared while layers are looked up and leased or added, alone to collect. -errno or a descriptor. */
int zl_store_lock(const struct zl_store *s, bool alone) ZL_MUST;
