/*
 * Removing references and what nobody needs any more. Runs alone under the store's lock; what a record or a lease names
 * stays. A crash in the middle leaves more than needed, never less: records go first, layers before blobs.
 */
#include "base/fd.h"
#include "image/store.h"
#include "image/store_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Hex digests that are needed, as a set kept sorted. */
struct needed {
    char (*hex)[65];
    size_t n, cap;
};

static void need(struct needed *set, const char *digest)
{
    const char *colon = strchr(digest, ':');
    if (set->n >= set->cap) {
        set->cap = set->cap * 2 + 64;
        set->hex = zl_xrealloc(set->hex, set->cap, sizeof *set->hex);
    }
    snprintf(set->hex[set->n++], sizeof *set->hex, "%.64s", colon ? colon + 1 : digest);
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void need_records(const struct zl_items *records, struct needed *blobs, struct needed *layers)
{
    for (unsigned i = 0; i < records->n; i++) {
        const struct zl_image_record *r = records->v[i];
        need(blobs, r->digest);
        need(blobs, r->config);
        if (r->manifest)
            need(blobs, r->manifest);
        for (unsigned k = 0; k < r->layers.n; k++)
            need(blobs, r->layers.v[k]);
        for (unsigned k = 0; k < r->chain_ids.n; k++)
            need(layers, r->chain_ids.v[k]);
    }
}

/* Each line of a file names a digest that is needed. A file that is gone needs nothing. */
static int need_lines(int dir, const char *file, struct needed *set)
{
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_read_file(dir, file, 1 << 20, &text);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (struct zl_str rest = zl_buf_view(&text); rest.p && rest.n;) {
        char line[80];
        struct zl_str digest = zl_str_cut(rest, '\n', &rest);
        snprintf(line, sizeof line, "%.*s", (int)ZL_MIN(digest.n, sizeof line - 1), digest.p);
        need(set, line);
    }
    return 0;
}

/* The lines of folder/<entry><below> of each entry. */
static int need_folder(const struct zl_store *s, const char *folder, const char *below, struct needed *set)
{
    int fd = zl_openat(s->dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL) {
        char file[300];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s%s", e->d_name, below);
        r = need_lines(dirfd(d), file, set);
    }
    closedir(d);
    return r;
}

static int need_leases(const struct zl_store *s, struct needed *layers)
{
    return need_folder(s, "leases", "", layers);
}

static int sweep(int dir, const char *folder, struct needed *set, uint64_t *freed)
{
    int fd = zl_openat(dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    if (set->n)
        qsort(set->hex, set->n, sizeof *set->hex, compare);
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL) {
        struct stat st;
        char key[65];
        snprintf(key, sizeof key, "%.64s", e->d_name);
        if (zl_streq(e->d_name, ".") || zl_streq(e->d_name, "..") ||
            (set->n && bsearch(key, set->hex, set->n, sizeof *set->hex, compare)))
            continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            *freed += (uint64_t)st.st_size;
        r = zl_remove_tree(dirfd(d), e->d_name);
    }
    closedir(d);
    return r;
}

/* Files with a leading dot were being written by somebody who died: who writes holds the lock that we have alone. */
static int sweep_leftovers(int dir, const char *folder)
{
    int fd = zl_openat(dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] == '.' && !zl_streq(e->d_name, ".") && !zl_streq(e->d_name, ".."))
            (void)unlinkat(dirfd(d), e->d_name, 0); /* the next collection tries again */
    closedir(d);
    return 0;
}

static int collect_locked(const struct zl_store *s, uint64_t *freed, struct zl_err *err)
{
    struct zl_arena arena;
    struct zl_items records = { 0 };
    struct needed blobs = { 0 }, layers = { 0 };
    zl_arena_init(&arena);
    int r = zl_store_list(s, &arena, &records, err);
    if (r == 0) {
        need_records(&records, &blobs, &layers);
        r = need_leases(s, &layers);
        r = r < 0 ? r : need_folder(s, "staging", "/keep", &layers);
        r = r < 0 ? r : need_folder(s, "staging", "/keep", &blobs);
        r = r < 0 ? r : sweep(s->dir, "layers", &layers, freed);
        r = r < 0 ? r : sweep(s->dir, "blobs/sha256", &blobs, freed);
        r = r < 0 ? r : sweep_leftovers(s->dir, "refs");
        r = r < 0 ? r : sweep_leftovers(s->dir, "leases");
        if (r < 0)
            zl_fail(err, r, "remove what no image needs");
    }
    free(blobs.hex);
    free(layers.hex);
    zl_arena_done(&arena);
    return r;
}

int zl_store_collect(const struct zl_store *s, uint64_t *freed_bytes, struct zl_err *err)
{
    uint64_t freed = 0;
    zl_auto_close int lock = zl_store_lock(s, true);
    if (lock < 0)
        return zl_fail(err, lock, "lock the image store");
    int r = collect_locked(s, &freed, err);
    if (freed_bytes)
        *freed_bytes = freed;
    return r;
}

static int in_use(const struct zl_store *s, const struct zl_image_record *r, bool *ret)
{
    struct needed leased = { 0 };
    int e = need_leases(s, &leased);
    const char *top = r->chain_ids.n ? strchr(r->chain_ids.v[r->chain_ids.n - 1], ':') : NULL;
    *ret = false;
    for (size_t i = 0; e == 0 && top && i < leased.n; i++)
        *ret |= zl_streq(leased.hex[i], top + 1);
    free(leased.hex);
    return e;
}

static int remove_locked(const struct zl_store *s, struct zl_arena *arena, const char *reference, bool force,
                         uint64_t *freed, struct zl_err *err)
{
    struct zl_image_record *record;
    bool used = false;
    int r = zl_store_find(s, arena, reference, &record, err);
    if (r < 0)
        return r;
    r = in_use(s, record, &used);
    if (r < 0)
        return zl_fail(err, r, "look for containers that use the image");
    if (used && !force)
        return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "a container uses the image '%.200s'", reference),
                       "stop it first, or use --force (its layers stay until it ends)");
    char name[900] = "refs/";
    zl_store_escape(record->reference, name + 5, sizeof name - 5);
    zl_auto_close int refs = zl_openat(s->dir, "refs", O_RDONLY | O_DIRECTORY, 0);
    /* On the disk before anything that it names goes, so that no power cut brings back a record without its layers. */
    if (refs < 0 || unlinkat(s->dir, name, 0) < 0 || fsync(refs) < 0)
        return zl_fail(err, refs < 0 ? refs : -errno, "remove the image record of %.200s", reference);
    return collect_locked(s, freed, err);
}

int zl_store_remove(const struct zl_store *s, const char *reference, bool force, uint64_t *freed_bytes,
                    struct zl_err *err)
{
    uint64_t freed = 0;
    struct zl_arena arena;
    zl_auto_close int lock = zl_store_lock(s, true);
    if (lock < 0)
        return zl_fail(err, lock, "lock the image store");
    zl_arena_init(&arena);
    int r = remove_locked(s, &arena, reference, force, &freed, err);
    zl_arena_done(&arena);
    if (freed_bytes)
        *freed_bytes = freed;
    return r;
}
