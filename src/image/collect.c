/*
 * Removing references and what nobody needs any more. Runs alone under the store's lock; what a record, a lease or a
 * job at work names stays. A crash in the middle leaves more than needed, never less: records go first, layers before
 * blobs.
 */
#include "base/fd.h"
#include "base/phase.h"
#include "image/store.h"
#include "image/store_priv.h"
#include "spec/reference.h"

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

/* What a digest, the beginning of one, or NAME@digest stands for, when it is no reference that is here. */
struct digest_wish {
    const char *hex;        /* at least as many digits as `image ls` shows; NULL: none is wished */
    struct zl_reference of; /* only of this repository; registry "": of any */
};

enum { HEX_SHOWN = 12, HEX_WHOLE = 64 };

static struct digest_wish read_wish(const char *text)
{
    struct digest_wish w = { .hex = text };
    const char *why;
    if (zl_reference_parse(zl_str(text), &w.of, &why) == 0 && w.of.digest[0] && !w.of.tag[0])
        w.hex = strchr(text, '@') + 1;
    else
        w.of.registry[0] = 0;
    w.hex += strncmp(w.hex, "sha256:", 7) == 0 ? 7 : 0;
    size_t n = strspn(w.hex, "0123456789abcdef");
    if (w.hex[n] || n < HEX_SHOWN || n > HEX_WHOLE)
        w.hex = NULL;
    return w;
}

/* Which of the record's digests is wished; NULL: none. */
static const char *wished(const struct digest_wish *w, const struct zl_image_record *r)
{
    struct zl_reference ref;
    const char *why, *const digests[] = { r->digest, r->manifest };
    if (w->of.registry[0] && (zl_reference_parse(zl_str(r->reference), &ref, &why) < 0 ||
                              !zl_streq(ref.registry, w->of.registry) || !zl_streq(ref.repository, w->of.repository)))
        return NULL;
    for (size_t i = 0; i < ZL_ARRAY_LEN(digests); i++)
        if (digests[i] && strncmp(digests[i], "sha256:", 7) == 0 &&
            strncmp(digests[i] + 7, w->hex, strlen(w->hex)) == 0)
            return digests[i];
    return NULL;
}

static int find_by_digest(const struct zl_store *s, struct zl_arena *arena, const struct digest_wish *w, bool force,
                          struct zl_items *ret, struct zl_err *err)
{
    struct zl_items all;
    const char *digest = NULL;
    zl_auto_buf names = ZL_BUF_INIT;
    int r = zl_store_list(s, arena, &all, err);
    if (r < 0)
        return r;
    *ret = (struct zl_items){ .v = zl_arena_alloc(arena, (all.n + 1) * sizeof *ret->v) };
    for (unsigned i = 0; i < all.n; i++) {
        struct zl_image_record *record = all.v[i];
        const char *has = wished(w, record);
        if (!has)
            continue;
        if (digest && !zl_streq(digest, has))
            return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "several images have a digest that begins with %s", w->hex),
                           "`zlayer image ls --no-trunc` shows them whole");
        digest = has;
        ret->v[ret->n++] = record;
        zl_buf_printf(&names, "%s%s", ret->n > 1 ? ", " : "", record->reference);
    }
    if (ret->n == 0)
        return ZL_E_IMAGE_NOT_FOUND; /* *err stays what it was */
    if (ret->n > 1 && !force)
        return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "%u references have this digest: %.300s", ret->n, names.p),
                       "remove one by its name, or all of them with --force");
    return 0;
}

/* The records that a name or a digest stands for. */
static int find_all(const struct zl_store *s, struct zl_arena *arena, const char *reference, bool force,
                    struct zl_items *ret, struct zl_err *err)
{
    struct digest_wish w = read_wish(reference);
    bool digest = w.hex && w.hex == reference + 7 && strlen(w.hex) == HEX_WHOLE; /* no name, though it looks like one */
    struct zl_image_record *record;
    int r = zl_store_find(s, arena, reference, &record, err);
    if (r == 0 && !digest) {
        *ret = (struct zl_items){ .v = zl_arena_alloc(arena, sizeof *ret->v), .n = 1 };
        ret->v[0] = record;
        return 0;
    }
    if (r < 0 && ((r != ZL_E_IMAGE_NOT_FOUND && r != ZL_E_INVALID) || !w.hex))
        return r;
    struct zl_err why = { 0 };
    int by_digest = find_by_digest(s, arena, &w, force, ret, &why);
    if (by_digest < 0 && why.code) {
        if (err)
            *err = why;
        return by_digest;
    }
    return by_digest < 0 ? zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "there is no image '%.200s' here", reference) : 0;
}

static int check_unused(const struct zl_store *s, const struct zl_items *records, struct zl_err *err)
{
    struct zl_needed leased = { 0 };
    const char *used = NULL;
    int r = zl_need_leases(s, &leased);
    zl_needed_sort(&leased);
    for (unsigned i = 0; r == 0 && i < records->n; i++) {
        const struct zl_image_record *record = records->v[i];
        used = zl_image_in_use(&leased, record) ? record->reference : used;
    }
    zl_needed_done(&leased);
    if (r < 0)
        return zl_fail(err, r, "look for containers that use the image");
    if (used)
        return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "a container uses the image '%.200s'", used),
                       "stop it first, or use --force (its layers stay until it ends)");
    return 0;
}

static int remove_locked(const struct zl_store *s, struct zl_arena *arena, const char *reference, bool force,
                         struct zl_prune *p, struct zl_err *err)
{
    struct zl_items records;
    int r = find_all(s, arena, reference, force, &records, err);
    r = r < 0 || force ? r : check_unused(s, &records, err);
    for (unsigned i = 0; r == 0 && i < records.n; i++)
        r = zl_store_forget(s, ((const struct zl_image_record *)records.v[i])->reference, err);
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
