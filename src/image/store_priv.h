/* What the files of the store share. Thread: any. Fails: -errno. Owns: a set's memory is freed by zl_needed_done. */
#pragma once

#include "image/store.h"

#include <stddef.h>

/* The name of the record's file of a canonical reference: everything but letters, digits, '.', '-' and '_' as %XX, and
 * never a leading dot; when that is too long for a file name, "%h" and a hash of 32 hex digits. Returns ret. */
enum { ZL_RECORD_NAME_SIZE = 256 };
char *zl_store_record_name(const char *reference, char ret[ZL_RECORD_NAME_SIZE]);

/* Hex digests as a set; sorted by zl_needed_sort, before it is asked. */
struct zl_needed {
    char (*hex)[65];
    size_t n, cap;
};
void zl_need(struct zl_needed *set, const char *digest);
void zl_needed_sort(struct zl_needed *set);
bool zl_needed_has(const struct zl_needed *set, const char *hex);
void zl_needed_done(struct zl_needed *set);
void zl_need_record(const struct zl_image_record *r, struct zl_needed *blobs, struct zl_needed *layers);
int zl_need_leases(const struct zl_store *s, struct zl_needed *layers) ZL_MUST;
/* What jobs at work keep, which may be blobs or layers. */
int zl_need_jobs(const struct zl_store *s, struct zl_needed *both) ZL_MUST;
/* Whether a container uses the image, by what its leases name. */
bool zl_image_in_use(const struct zl_needed *leased, const struct zl_image_record *r);
/* Calls fn with each name in a folder of the store that does not begin with a dot, until it is negative. */
int zl_store_each(const struct zl_store *s, const char *folder, int (*fn)(void *arg, int dir, const char *name),
                  void *arg) ZL_MUST;
