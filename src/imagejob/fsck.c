/*
 * fsck: every blob's digest, every record's chain of manifest, config and layers, and, unless it is to be quick, every
 * layer's files beside what its blob unpacks to once more. What is broken is told; with `repair` it is dropped, records
 * that lack something with it, so that the next pull fetches it again. What a container uses is never dropped.
 */
#include "base/fd.h"
#include "imagejob/confine.h"
#include "imagejob/layer.h"
#include "imagejob/record.h"
#include "imagejob/tree.h"
#include "oci/archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 256 << 10, LINES_MAX = 4 << 20 };

struct broken {
    struct broken *next;
    const char *path; /* below images/ */
    bool layer;
    struct stat was; /* of a record */
};

struct fsck {
    struct zl_image_job *job;
    struct broken *broken;
    unsigned long long blobs, layers, images, problems, dropped;
    struct zl_strings checked; /* ChainIDs whose files were compared */
    char *block;
};

static void problem(struct fsck *f, const char *kind, const char *name, const char *what)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_printf(&line, "{\"event\":\"problem\",\"kind\":\"%s\",\"name\":", kind);
    zl_json_string(&line, zl_str(name));
    zl_buf_puts(&line, ",\"message\":");
    zl_json_string(&line, zl_str(what));
    zl_buf_putc(&line, '}');
    zl_image_job_event(f->job, &line);
    f->problems++;
}

static void to_drop(struct fsck *f, const char *folder, const char *name, bool layer)
{
    struct broken *b = zl_arena_alloc(&f->job->arena, sizeof *b);
    *b = (struct broken){ f->broken, zl_arena_printf(&f->job->arena, "%s/%s", folder, name), layer, { 0 } };
    (void)fstatat(f->job->store.dir, b->path, &b->was, AT_SYMLINK_NOFOLLOW);
    f->broken = b;
}

static bool is_broken(const struct fsck *f, const char *path)
{
    for (const struct broken *b = f->broken; b; b = b->next)
        if (zl_streq(b->path, path))
            return true;
    return false;
}

/* Calls fn with each name in a folder of the store that is no half-written file. */
static int each(struct fsck *f, const char *folder,
                int (*fn)(struct fsck *f, int dir, const char *name, struct zl_err *err), struct zl_err *err)
{
    int fd = zl_openat(f->job->store.dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return zl_fail(err, fd < 0 ? fd : -ENOMEM, "list %s", folder);
    }
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            r = fn(f, dirfd(d), e->d_name, err);
    closedir(d);
    return r;
}

/* Whether it is this machine's fault now, and says nothing about what is checked: then nothing is broken by that. */
static bool is_shortage(int e, const struct zl_err *why)
{
    int cause = why && why->cause ? why->cause : e;
    bool no_user = cause == -EINVAL && why && why->hint[0]; /* ranges of ids that the user had once */
    return e == ZL_E_DISK_FULL || cause == -EMFILE || cause == -ENFILE || cause == -ENOMEM || cause == -EAGAIN ||
           cause == -EROFS || cause == -EPERM || cause == -EACCES || no_user;
}

/* ---- blobs ---- */

static int hash(struct fsck *f, int dir, const char *name, char digest[ZL_DIGEST_SIZE])
{
    zl_auto_close int fd = zl_openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    struct zl_digest *d = zl_digest_new();
    ssize_t n;
    while ((n = zl_read_full(fd, f->block, BLOCK)) > 0)
        zl_digest_add(d, f->block, (size_t)n);
    zl_digest_finish(d, digest);
    zl_digest_free(d);
    return n < 0 ? (int)n : 0;
}

static int check_blob(struct fsck *f, int dir, const char *name, struct zl_err *err)
{
    char is[ZL_DIGEST_SIZE] = "", path[300], said[ZL_DIGEST_SIZE];
    snprintf(path, sizeof path, "blobs/sha256/%s", name);
    int r = zl_oci_blob_name(path, said) ? hash(f, dir, name, is) : -EINVAL;
    if (r == -ENOENT) /* a collector took it meanwhile */
        return 0;
    if (is_shortage(r, NULL))
        return zl_fail(err, r, "check the blob %.20s…", name);
    f->blobs++;
    if (r == 0 && zl_streq(said, is))
        return 0;
    problem(f, "blob", name,
            r == -EINVAL ? "it has no digest for a name"
            : r < 0      ? zl_error_text(r)
                         : "its content has another digest");
    to_drop(f, "blobs/sha256", name, false);
    return 0;
}

/* ---- images ---- */

/* Reads a blob that was found good. */
static int read_blob(struct fsck *f, const char *digest, struct zl_buf *ret, struct zl_err *err)
{
    char path[100];
    if (!zl_oci_digest_valid(zl_str(digest)))
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.80s' is no digest", digest);
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    int r = is_broken(f, path) ? -EIO : zl_read_file(f->job->store.dir, path, ZL_OCI_DOCUMENT_MAX, ret);
    if (is_shortage(r, NULL))
        return zl_fail(err, r, "read its blob %.19s…", digest);
    return r < 0 ? zl_fail(err, ZL_E_BAD_IMAGE, "its blob %.19s… is %s", digest, r == -ENOENT ? "missing" : "damaged")
                 : 0;
}

static int check_chain(const struct zl_image_record *r, const struct zl_oci_manifest *m, const struct zl_oci_config *c,
                       struct zl_err *err)
{
    char below[ZL_DIGEST_SIZE] = "", id[ZL_DIGEST_SIZE];
    if (c->diff_ids.n != m->n || r->layers.n != m->n || r->chain_ids.n != m->n)
        return zl_fail(err, ZL_E_BAD_IMAGE, "record, manifest and config do not have the same number of layers");
    for (unsigned i = 0; i < m->n; i++) {
        zl_chain_id(below, c->diff_ids.v[i], id);
        if (!zl_streq(id, r->chain_ids.v[i]) || !zl_streq(m->items[i].digest, r->layers.v[i]))
            return zl_fail(err, ZL_E_BAD_IMAGE, "layer %u of the record is not the manifest's", i + 1);
        memcpy(below, id, sizeof below);
    }
    return 0;
}

struct comparing {
    struct fsck *f;
    const char *chain;
    unsigned told;
};

static int differ(void *arg, const char *path, unsigned what)
{
    enum { TOLD_MAX = 10 };
    struct comparing *c = arg;
    char text[400];
    if (c->told++ >= TOLD_MAX)
        return 0;
    snprintf(text, sizeof text, "'/%.200s' %s", path,
             what & ZL_TREE_ADDED     ? "is not in its blob"
             : what & ZL_TREE_REMOVED ? "is missing"
             : what & ZL_TREE_CONTENT ? "has another content than in its blob"
                                      : "has another kind, mode, owner, time or attributes than in its blob");
    problem(c->f, "layer", c->chain + 7, text);
    return 0;
}

static bool was_checked(struct fsck *f, const char *chain)
{
    for (unsigned i = 0; i < f->checked.n; i++)
        if (zl_streq(f->checked.v[i], chain))
            return true;
    if ((f->checked.n & (f->checked.n - 1)) == 0)
        f->checked.v = zl_xrealloc(f->checked.v, f->checked.n ? 2 * f->checked.n : 1, sizeof *f->checked.v);
    f->checked.v[f->checked.n++] = chain;
    return false;
}

/* Unpacks the blob again above the layers below, and compares. */
static int unpack_and_compare(struct fsck *f, const struct zl_image_record *r, unsigned i, const int *dirs,
                              const char *diff_id, struct zl_err *err)
{
    char path[100];
    struct zl_layer layer;
    struct zl_err why = { 0 };
    struct comparing c = { .f = f, .chain = r->chain_ids.v[i] };
    const struct zl_lowers below = { dirs, i };
    snprintf(path, sizeof path, "blobs/sha256/%s", r->layers.v[i] + 7);
    zl_auto_close int blob = zl_openat(f->job->store.dir, path, O_RDONLY | O_NOFOLLOW, 0);
    if (blob < 0 || is_broken(f, path))
        return 0; /* said already */
    int e = zl_layer_open(f->job, &layer, err);
    if (e < 0)
        return e;
    e = zl_layer_place(&layer, blob, NULL, &why);
    e = e < 0 ? e : zl_layer_settle(&layer, &below, &why);
    if (e == 0 && !zl_streq(layer.diff_id, diff_id))
        e = zl_fail(&why, ZL_E_BAD_IMAGE, "its blob does not unpack to the config's diff id");
    if (e == 0) {
        struct zl_tree_diff d = {
            .a = { &layer.root, 1 }, .b = { &dirs[i], 1 }, .raw = true, .differ = differ, .arg = &c
        };
        e = zl_tree_compare(&d);
        if (e < 0)
            zl_fail(&why, e, "compare it with its blob");
    }
    if (e < 0 && is_shortage(e, &why)) {
        *err = why;
        zl_wrap(err, e, "check the layer %.20s…", c.chain);
    } else if (e < 0) {
        problem(f, "layer", c.chain + 7, why.text);
        c.told++;
        e = 0;
    }
    if (c.told)
        to_drop(f, "layers", c.chain + 7, true);
    zl_layer_close(&layer);
    return e;
}

static int check_layers(struct fsck *f, const struct zl_image_record *r, const struct zl_oci_config *c,
                        struct zl_err *why, struct zl_err *err)
{
    int *dirs = zl_arena_alloc(&f->job->arena, (r->chain_ids.n + 1) * sizeof *dirs);
    unsigned n = 0;
    int e = 0;
    for (; e == 0 && n < r->chain_ids.n; n++) {
        char path[ZL_LAYER_PATH_SIZE];
        dirs[n] = zl_openat(AT_FDCWD, zl_store_layer_path(&f->job->store, r->chain_ids.v[n], path),
                            O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
        if (is_shortage(dirs[n], NULL)) {
            e = zl_fail(err, dirs[n], "open the layer %.20s…", r->chain_ids.v[n]);
            break;
        }
        if (dirs[n] < 0) {
            zl_fail(why, ZL_E_BAD_IMAGE, "its layer %.20s… is missing", r->chain_ids.v[n]);
            break;
        }
        if (was_checked(f, r->chain_ids.v[n]))
            continue;
        f->layers++;
        zl_image_job_progress(f->job, "layers", f->layers, 0);
        if (!f->job->request->quick)
            e = unpack_and_compare(f, r, n, dirs, c->diff_ids.v[n], err);
    }
    while (n > 0)
        zl_close(dirs[--n]);
    return e;
}

static int check_image(struct fsck *f, int dir, const char *name, struct zl_err *err)
{
    struct zl_image_record *record = NULL;
    struct zl_oci_manifest m;
    struct zl_oci_config c;
    struct zl_err why = { 0 };
    zl_auto_buf top = ZL_BUF_INIT, manifest = ZL_BUF_INIT, config = ZL_BUF_INIT;
    int e = zl_store_read_record(dir, name, &f->job->arena, &record, &why);
    if (is_shortage(e, &why)) {
        *err = why;
        return e;
    }
    why = (struct zl_err){ 0 };
    if (!record && faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return 0; /* removed meanwhile */
    f->images++;
    if (!record) {
        problem(f, "image", name, "its record can't be read");
        to_drop(f, "refs", name, false);
        return 0;
    }
    e = read_blob(f, record->digest, &top, &why);
    e = e < 0 ? e : read_blob(f, record->manifest ? record->manifest : record->digest, &manifest, &why);
    e = e < 0 ? e : zl_oci_manifest_parse(&f->job->arena, zl_buf_view(&manifest), NULL, &m, &why);
    if (e == 0 && m.kind != ZL_OCI_MANIFEST)
        e = zl_fail(&why, ZL_E_BAD_IMAGE, "its manifest is an index");
    if (e == 0 && !zl_streq(m.config.digest, record->config))
        e = zl_fail(&why, ZL_E_BAD_IMAGE, "its config is not the manifest's");
    if (e == 0 && !m.artifact) { /* whose config is any blob */
        e = read_blob(f, record->config, &config, &why);
        e = e < 0 ? e : zl_oci_config_parse(&f->job->arena, zl_buf_view(&config), &c, &why);
        e = e < 0 ? e : check_chain(record, &m, &c, &why);
    }
    if (e == 0 && record->layers.n != m.n)
        e = zl_fail(&why, ZL_E_BAD_IMAGE, "record and manifest do not have the same number of layers");
    for (unsigned i = 0; e == 0 && i <= m.n; i++) {
        const char *digest = i < m.n ? record->layers.v[i] : record->config;
        char path[100];
        snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
        if (!zl_oci_digest_valid(zl_str(digest)) || is_broken(f, path) ||
            faccessat(f->job->store.dir, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            e = zl_fail(&why, ZL_E_BAD_IMAGE, "its blob %.19s… is missing or damaged", digest);
    }
    if (is_shortage(e, &why)) {
        *err = why;
        return e;
    }
    int fatal = e < 0 || m.artifact ? 0 : check_layers(f, record, &c, &why, err);
    if (why.code) {
        problem(f, "image", record->reference, why.text);
        to_drop(f, "refs", name, false);
    }
    return fatal;
}

/* ---- repair ---- */

/* Whether a file folder/<entry><below> of some entry names the layer in a line. */
static bool named_in(struct fsck *f, const char *folder, const char *below, const char *hex)
{
    char line[80];
    bool found = false;
    snprintf(line, sizeof line, "sha256:%.64s\n", hex);
    int fd = zl_openat(f->job->store.dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return true; /* who can't be asked may need it */
    }
    struct dirent *e;
    while (!found && (e = readdir(d)) != NULL) {
        zl_auto_buf text = ZL_BUF_INIT;
        char file[300];
        snprintf(file, sizeof file, "%s%s", e->d_name, below);
        if (e->d_name[0] != '.' && zl_read_file(dirfd(d), file, LINES_MAX, &text) == 0)
            found = text.p && strstr(text.p, line);
    }
    closedir(d);
    return found;
}

/* Whether some image whose record stays needs a broken layer: then the record goes, too. */
static void drop_users(struct fsck *f, const char *hex)
{
    struct zl_items records = { 0 };
    if (zl_store_list(&f->job->store, &f->job->arena, &records, NULL) < 0)
        return;
    for (unsigned i = 0; i < records.n; i++) {
        const struct zl_image_record *r = records.v[i];
        bool uses = false;
        for (unsigned k = 0; k < r->chain_ids.n; k++)
            uses |= zl_streq(r->chain_ids.v[k] + 7, hex);
        for (unsigned k = 0; k < r->layers.n; k++)
            uses |= zl_streq(r->layers.v[k] + 7, hex);
        uses |= zl_streq(r->config + 7, hex) || zl_streq(r->digest + 7, hex) ||
                (r->manifest && zl_streq(r->manifest + 7, hex));
        if (uses && zl_store_forget(&f->job->store, r->reference, NULL) == 0)
            f->dropped++;
    }
}

/* Whether a pull has written the record meanwhile: then it was whole at that time. */
static bool was_written(struct fsck *f, const struct broken *b)
{
    struct stat is;
    return fstatat(f->job->store.dir, b->path, &is, AT_SYMLINK_NOFOLLOW) < 0 || is.st_ino != b->was.st_ino ||
           is.st_mtim.tv_sec != b->was.st_mtim.tv_sec || is.st_mtim.tv_nsec != b->was.st_mtim.tv_nsec;
}

static int repair(struct fsck *f, struct zl_err *err)
{
    zl_auto_close int lock = zl_store_lock(&f->job->store, true);
    if (lock < 0)
        return zl_fail(err, lock, "lock the image store");
    for (const struct broken *b = f->broken; b; b = b->next) {
        const char *name = strrchr(b->path, '/') + 1;
        char is[ZL_DIGEST_SIZE];
        if (b->layer && (named_in(f, "leases", "", name) || named_in(f, "staging", "/keep", name))) {
            problem(f, "layer", name, "a container or a job uses it, so it stays; check again later");
            continue;
        }
        bool blob = strncmp(b->path, "blobs/", 6) == 0;
        if (blob && hash(f, f->job->store.dir, b->path, is) == 0 && zl_streq(is + 7, name))
            continue; /* a pull has replaced it meanwhile */
        bool record = strncmp(b->path, "refs/", 5) == 0;
        if (record && was_written(f, b))
            continue;
        if (!record)
            drop_users(f, name);
        zl_auto_free char *folder = zl_xstrndup(b->path, (size_t)(name - b->path));
        zl_auto_close int dir = zl_openat(f->job->store.dir, folder, O_RDONLY | O_DIRECTORY, 0);
        int r = dir < 0 ? dir : zl_store_drop(dir, name);
        if (r < 0)
            return zl_fail(err, r, "drop %s", b->path);
        f->dropped++;
        if (record && fsync(dir) < 0)
            return zl_fail(err, -errno, "write the folder refs to the disk");
    }
    return zl_image_job_sync(f->job, err);
}

int zl_fsck(struct zl_image_job *job, struct zl_err *err)
{
    struct fsck f = { .job = job };
    int r = zl_confine(&job->store, NULL, err);
    if (r < 0)
        return r;
    f.block = zl_xmalloc(BLOCK);
    {
        zl_auto_close int lock = zl_store_lock(&job->store, false); /* nothing is collected meanwhile */
        r = lock < 0 ? zl_fail(err, lock, "lock the image store") : each(&f, "blobs/sha256", check_blob, err);
        r = r < 0 ? r : each(&f, "refs", check_image, err);
    }
    unsigned long long found = f.problems;
    if (r == 0 && job->request->repair && f.broken)
        r = repair(&f, err);
    free(f.block);
    free(f.checked.v);
    if (r < 0)
        return r;
    if (found && !job->request->repair)
        return zl_hint(err, zl_fail(err, ZL_E_STORE_DAMAGED, "%llu problems in the image store", found),
                       "`zlayer image fsck --repair` drops what is broken; pull those images again then");
    dprintf(job->events,
            "{\"event\":\"done\",\"blobs\":%llu,\"layers\":%llu,\"images\":%llu,\"found\":%llu,\"dropped\":%llu}\n",
            f.blobs, f.layers, f.images, f.problems, f.dropped);
    return 0;
}
