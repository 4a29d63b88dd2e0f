/*
 * Removing references and what nobody needs any more. Runs alone under the store's lock; what a record, a lease or a
 * job at work names stays. A crash in the middle leaves more than needed, never less: records go first, layers before
 * blobs.
 */
#include "base/fd.h"
#include "base/phase.h"
#include "image/store.h"
#include "image/store_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* One collection: what is needed, what it does with the rest. */
struct collection {
    const struct zl_store *store;
    struct zl_prune *prune;
    struct zl_needed blobs, layers, leased;
    struct zl_needed *set; /* of the folder being swept */
    const char *kind;
};

static int sweep_one(void *arg, int dir, const char *name)
{
    struct collection *c = arg;
    struct zl_prune *p = c->prune;
    uint64_t bytes = 0;
    if (zl_needed_has(c->set, name))
        return 0;
    ZL_IGNORE(zl_tree_bytes(dir, name, &bytes)); /* what can't be read takes nothing that we could tell of */
    p->freed += bytes;
    if (p->gone)
        p->gone(p->arg, c->kind, name, bytes);
    return p->dry_run ? 0 : zl_store_drop(dir, name);
}

int zl_store_drop(int dir, const char *name)
{
    char gone[80];
    snprintf(gone, sizeof gone, ".%.70s", name);
    int r = zl_remove_tree(dir, gone); /* of a collector that was killed */
    if (r == 0 && renameat(dir, name, dir, gone) < 0)
        r = errno == ENOENT ? 0 : -errno;
    zl_phase("store.dropping");
    return r < 0 ? r : zl_remove_tree(dir, gone);
}

static int sweep(struct collection *c, const char *folder, const char *kind, struct zl_needed *set)
{
    zl_needed_sort(set);
    c->set = set;
    c->kind = kind;
    return zl_store_each(c->store, folder, sweep_one, c);
}

/* What has a leading dot was being written, or removed, by somebody who died: who writes holds the lock that we have
 * alone. */
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
            ZL_IGNORE(zl_remove_tree(dirfd(d), e->d_name)); /* the next collection tries again */
    closedir(d);
    return 0;
}

/* Removes the record, and sees to it that no power cut brings it back without what it names. */
int zl_store_forget(const struct zl_store *s, const char *reference, struct zl_err *err)
{
    char name[ZL_RECORD_NAME_SIZE];
    zl_store_record_name(reference, name);
    zl_auto_close int refs = zl_openat(s->dir, "refs", O_RDONLY | O_DIRECTORY, 0);
    if (refs < 0 || unlinkat(refs, name, 0) < 0 || fsync(refs) < 0)
        return zl_fail(err, refs < 0 ? refs : -errno, "remove the image record of %.200s", reference);
    return 0;
}

static bool has_label(const struct zl_image_record *r, const char *wanted)
{
    size_t n = strlen(wanted);
    bool whole = strchr(wanted, '=') != NULL;
    for (unsigned i = 0; i < r->labels.n; i++) {
        const char *label = r->labels.v[i];
        if (whole ? zl_streq(label, wanted) : strncmp(label, wanted, n) == 0 && label[n] == '=')
            return true;
    }
    return false;
}

static bool chosen(const struct collection *c, const struct zl_image_record *r)
{
    const struct zl_prune *p = c->prune;
    if (!p->all || zl_image_in_use(&c->leased, r) || (p->before_ms && r->created_ms >= p->before_ms))
        return false;
    for (unsigned i = 0; i < p->labels.n; i++)
        if (!has_label(r, p->labels.v[i]))
            return false;
    return true;
}

static int collect(struct collection *c, struct zl_arena *arena, struct zl_err *err)
{
    const struct zl_store *s = c->store;
    struct zl_prune *p = c->prune;
    struct zl_items records = { 0 };
    int r = zl_store_list(s, arena, &records, err);
    if (r < 0)
        return r;
    r = zl_need_leases(s, &c->leased);
    zl_needed_sort(&c->leased);
    for (unsigned i = 0; r == 0 && i < records.n; i++) {
        const struct zl_image_record *record = records.v[i];
        if (!chosen(c, record)) {
            zl_need_record(record, &c->blobs, &c->layers);
            continue;
        }
        if (p->gone)
            p->gone(p->arg, "image", record->reference, 0);
        if (!p->dry_run && zl_store_forget(s, record->reference, err) < 0)
            return err ? err->code : -EIO;
    }
    for (size_t i = 0; i < c->leased.n; i++)
        zl_need(&c->layers, c->leased.hex[i]);
    r = r < 0 ? r : zl_need_jobs(s, &c->layers);
    r = r < 0 ? r : zl_need_jobs(s, &c->blobs);
    r = r < 0 ? r : sweep(c, "layers", "layer", &c->layers);
    r = r < 0 ? r : sweep(c, "blobs/sha256", "blob", &c->blobs);
    if (r == 0 && !p->dry_run) {
        r = sweep_leftovers(s->dir, "refs");
        r = r < 0 ? r : sweep_leftovers(s->dir, "leases");
        r = r < 0 ? r : sweep_leftovers(s->dir, "blobs/sha256");
        r = r < 0 ? r : sweep_leftovers(s->dir, "layers");
    }
    return r < 0 ? zl_fail(err, r, "remove what no image needs") : 0;
}

static int collect_locked(const struct zl_store *s, struct zl_prune *p, struct zl_err *err)
{
    struct zl_arena arena;
    struct collection c = { .store = s, .prune = p };
    zl_arena_init(&arena);
    int r = collect(&c, &arena, err);
    zl_needed_done(&c.blobs);
    zl_needed_done(&c.layers);
    zl_needed_done(&c.leased);
    zl_arena_done(&arena);
    return r;
}

int zl_store_prune(const struct zl_store *s, struct zl_prune *p, struct zl_err *err)
{
    zl_auto_close int lock = zl_store_lock(s, true);
    return lock < 0 ? zl_fail(err, lock, "lock the image store") : collect_locked(s, p, err);
}

int zl_store_collect(const struct zl_store *s, uint64_t *freed_bytes, struct zl_err *err)
{
    struct zl_prune p = { 0 };
    int r = zl_store_prune(s, &p, err);
    if (freed_bytes)
        *freed_bytes = p.freed;
    return r;
}

static int remove_locked(const struct zl_store *s, struct zl_arena *arena, const char *reference, bool force,
                         struct zl_prune *p, struct zl_err *err)
{
    struct zl_image_record *record;
    struct zl_needed leased = { 0 };
    int r = zl_store_find(s, arena, reference, &record, err);
    if (r < 0)
        return r;
    r = zl_need_leases(s, &leased);
    zl_needed_sort(&leased);
    bool used = r == 0 && zl_image_in_use(&leased, record);
    zl_needed_done(&leased);
    if (r < 0)
        return zl_fail(err, r, "look for containers that use the image");
    if (used && !force)
        return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "a container uses the image '%.200s'", reference),
                       "stop it first, or use --force (its layers stay until it ends)");
    r = zl_store_forget(s, record->reference, err);
    return r < 0 ? r : collect_locked(s, p, err);
}

int zl_store_remove(const struct zl_store *s, const char *reference, bool force, uint64_t *freed_bytes,
                    struct zl_err *err)
{
    struct zl_arena arena;
    struct zl_prune p = { 0 };
    zl_auto_close int lock = zl_store_lock(s, true);
    if (lock < 0)
        return zl_fail(err, lock, "lock the image store");
    zl_arena_init(&arena);
    int r = remove_locked(s, &arena, reference, force, &p, err);
    zl_arena_done(&arena);
    if (freed_bytes)
        *freed_bytes = p.freed;
    return r;
}
