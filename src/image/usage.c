/* What the store's files take on the disk, and which images share them. */
#include "image/store_priv.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 1024 };

/* Inodes with several names that were counted, as a hash table of a power of two. */
struct seen {
    uint64_t *ino;
    size_t n, cap;
};

static bool slot(struct seen *s, uint64_t ino)
{
    size_t i = (size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->cap - 1);
    for (; s->ino[i]; i = (i + 1) & (s->cap - 1))
        if (s->ino[i] == ino)
            return false;
    s->ino[i] = ino;
    s->n++;
    return true;
}

static bool first_time(struct seen *s, uint64_t ino)
{
    if (2 * (s->n + 1) > s->cap) {
        struct seen bigger = { .cap = s->cap ? s->cap * 2 : 256 };
        bigger.ino = zl_xcalloc(bigger.cap, sizeof *bigger.ino);
        for (size_t i = 0; i < s->cap; i++)
            if (s->ino[i])
                (void)slot(&bigger, s->ino[i]);
        free(s->ino);
        *s = bigger;
    }
    return slot(s, ino);
}

static int add(int dir, const char *name, struct seen *seen, unsigned depth, uint64_t *bytes)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st.st_mode) || st.st_nlink < 2 || first_time(seen, st.st_ino))
        *bytes += (uint64_t)st.st_blocks * 512;
    if (!S_ISDIR(st.st_mode))
        return 0;
    if (depth > DEPTH_MAX)
        return -ELOOP;
    int fd = zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return fd == -ENOENT ? 0 : fd < 0 ? fd : -ENOMEM;
    }
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL)
        if (!zl_streq(e->d_name, ".") && !zl_streq(e->d_name, ".."))
            r = add(dirfd(d), e->d_name, seen, depth + 1, bytes);
    closedir(d);
    return r;
}

int zl_tree_bytes(int dir, const char *name, uint64_t *ret)
{
    struct seen seen = { 0 };
    uint64_t bytes = 0;
    int r = add(dir, name, &seen, 0, &bytes);
    free(seen.ino);
    if (r == 0)
        *ret = bytes;
    return r;
}

/* A blob or layer: what it takes, and how many images need it. */
struct part {
    char hex[65];
    uint64_t bytes;
    unsigned users;
};

struct parts {
    struct part *v;
    size_t n, cap;
    uint64_t bytes;
};

static int take_part(void *arg, int dir, const char *name)
{
    struct parts *p = arg;
    uint64_t bytes;
    int r = zl_tree_bytes(dir, name, &bytes);
    if (r < 0)
        return r;
    ZL_GROW(p->v, p->n, p->cap);
    p->v[p->n] = (struct part){ .bytes = bytes };
    snprintf(p->v[p->n++].hex, sizeof p->v->hex, "%.64s", name);
    p->bytes += bytes;
    return 0;
}

static int by_hex(const void *a, const void *b)
{
    return strcmp(((const struct part *)a)->hex, ((const struct part *)b)->hex);
}

static struct part *part_of(const struct parts *p, const char *hex)
{
    struct part key;
    snprintf(key.hex, sizeof key.hex, "%.64s", hex);
    return p->n ? bsearch(&key, p->v, p->n, sizeof *p->v, by_hex) : NULL;
}

static int take_folder(const struct zl_store *s, const char *folder, struct parts *p)
{
    int r = zl_store_each(s, folder, take_part, p);
    if (p->n)
        qsort(p->v, p->n, sizeof *p->v, by_hex);
    return r;
}

/* An image may name a digest twice (two layers that are the same): once is enough. */
static void unique(struct zl_needed *set)
{
    size_t n = 0;
    zl_needed_sort(set);
    for (size_t i = 0; i < set->n; i++)
        if (i == 0 || strcmp(set->hex[n - 1], set->hex[i]) != 0)
            memmove(set->hex[n++], set->hex[i], sizeof *set->hex);
    set->n = n;
}

static void each_part(const struct parts *p, const struct zl_needed *set, struct zl_image_usage *u)
{
    for (size_t i = 0; i < set->n; i++) {
        struct part *part = part_of(p, set->hex[i]);
        if (!part)
            continue;
        if (!u) {
            part->users++;
            continue;
        }
        u->bytes += part->bytes;
        u->unique_bytes += part->users == 1 ? part->bytes : 0;
    }
}

/* Counts users (fn NULL), or tells of each image with them. */
static void each_image(const struct zl_items *records, const struct parts *blobs, const struct parts *layers,
                       const struct zl_needed *leased, void (*fn)(void *arg, const struct zl_image_usage *u), void *arg)
{
    for (unsigned i = 0; i < records->n; i++) {
        struct zl_needed b = { 0 }, l = { 0 };
        struct zl_image_usage u = { .record = records->v[i] };
        zl_need_record(u.record, &b, &l);
        unique(&b);
        unique(&l);
        each_part(blobs, &b, fn ? &u : NULL);
        each_part(layers, &l, fn ? &u : NULL);
        zl_needed_done(&b);
        zl_needed_done(&l);
        if (fn) {
            u.in_use = zl_image_in_use(leased, u.record);
            fn(arg, &u);
        }
    }
}

static uint64_t unneeded(const struct parts *p, const struct zl_needed *a, const struct zl_needed *b)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].users == 0 && !zl_needed_has(a, p->v[i].hex) && !zl_needed_has(b, p->v[i].hex))
            bytes += p->v[i].bytes;
    return bytes;
}

int zl_store_usage(const struct zl_store *s, struct zl_arena *arena, struct zl_store_use *ret,
                   void (*fn)(void *arg, const struct zl_image_usage *u), void *arg, struct zl_err *err)
{
    struct parts blobs = { 0 }, layers = { 0 };
    struct zl_needed leased = { 0 }, jobs = { 0 };
    struct zl_items records = { 0 };
    uint64_t staging = 0;
    zl_auto_close int lock = zl_store_lock(s, false);
    int r = lock < 0 ? zl_fail(err, lock, "lock the image store") : zl_store_list(s, arena, &records, err);
    if (r < 0)
        return r;
    r = take_folder(s, "blobs/sha256", &blobs);
    r = r < 0 ? r : take_folder(s, "layers", &layers);
    r = r < 0 ? r : zl_need_leases(s, &leased);
    r = r < 0 ? r : zl_need_jobs(s, &jobs);
    r = r < 0 ? r : zl_tree_bytes(s->dir, "staging", &staging);
    if (r == 0) {
        zl_needed_sort(&leased);
        zl_needed_sort(&jobs);
        each_image(&records, &blobs, &layers, NULL, NULL, NULL);
        each_image(&records, &blobs, &layers, &leased, fn, arg);
        const struct zl_needed none = { 0 };
        *ret = (struct zl_store_use){
            .blobs = blobs.n,
            .blob_bytes = blobs.bytes,
            .layers = layers.n,
            .layer_bytes = layers.bytes,
            .reclaimable_bytes = unneeded(&blobs, &jobs, &none) + unneeded(&layers, &jobs, &leased),
            .staging_bytes = staging,
        };
    }
    free(blobs.v);
    free(layers.v);
    zl_needed_done(&leased);
    zl_needed_done(&jobs);
    return r < 0 ? zl_fail(err, r, "count what the image store holds") : 0;
}
