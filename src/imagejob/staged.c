#include "imagejob/staged.h"

#include "base/fd.h"
#include "oci/archive.h"
#include "oci/layer.h"
#include "sys/path.h"

#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 20000, LINKS_MAX = 8, BLOCK = 256 << 10, HOLES_MAX = 1 << 30 };

void zl_staged_init(struct zl_staged *s, int folder, struct zl_arena *arena)
{
    *s = (struct zl_staged){ .folder = folder, .arena = arena };
}

void zl_staged_done(struct zl_staged *s)
{
    free(s->v);
    s->v = NULL;
    s->n = s->cap = 0;
}

static int add(struct zl_staged *s, const char *name, struct zl_staged_file **ret, struct zl_err *err)
{
    if (s->n >= FILES_MAX)
        return zl_fail(err, ZL_E_LIMIT, "the archive has more than %d files", FILES_MAX);
    ZL_GROW(s->v, s->n, s->cap);
    s->v[s->n] = (struct zl_staged_file){ .name = zl_arena_strdup(s->arena, name) };
    snprintf(s->v[s->n].file, sizeof s->v->file, "file.%zu", s->n);
    *ret = &s->v[s->n++];
    return 0;
}

/* A file that is being written and hashed. */
struct writing {
    struct zl_staged *s;
    struct zl_staged_file *file;
    int fd;
    struct zl_digest *digest;
};

static int begin(struct writing *w, struct zl_err *err)
{
    w->fd = zl_openat(w->s->folder, w->file->file, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (w->fd < 0)
        return zl_fail_errno(err, w->fd == -ENOSPC ? ZL_E_DISK_FULL : w->fd, w->fd, "make a staging file");
    w->digest = zl_digest_new();
    return 0;
}

static int write_block(struct writing *w, const void *p, size_t n, struct zl_err *err)
{
    int r = zl_write_full(w->fd, p, n);
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : r, r, "write '%.100s'",
                             w->file->name);
    zl_digest_add(w->digest, p, n);
    w->file->size += n;
    w->s->bytes += n;
    if (w->s->progress)
        w->s->progress(w->s->arg, w->s->bytes);
    return 0;
}

static int end(struct writing *w, int r, struct zl_err *err)
{
    char said[ZL_DIGEST_SIZE];
    if (w->fd < 0)
        return r;
    w->fd = zl_close(w->fd);
    zl_digest_finish(w->digest, w->file->digest);
    zl_digest_free(w->digest);
    if (r == 0 && zl_oci_blob_name(w->file->name, said) && !zl_streq(said, w->file->digest))
        return zl_fail(err, ZL_E_DIGEST, "the archive's blob %.19s… has the digest %.19s…", said, w->file->digest);
    return r;
}

/* Up to `end`: nobody writes such archives, but they are archives. */
static int write_hole(struct writing *w, uint64_t end, struct zl_err *err)
{
    static const char zeros[64 << 10];
    int r = 0;
    uint64_t more = end > w->file->size ? end - w->file->size : 0;
    if (more > HOLES_MAX - w->s->holes)
        return zl_fail(err, ZL_E_LIMIT, "the archive's sparse files have holes of more than 1 GiB: '%.100s'",
                       w->file->name);
    w->s->holes += more;
    while (r == 0 && end > w->file->size)
        r = write_block(w, zeros, ZL_MIN(sizeof zeros, (size_t)(end - w->file->size)), err);
    return r;
}

static int stage_data(struct zl_staged *s, struct zl_staged_file *f, struct archive *tar, uint64_t size,
                      struct zl_err *err)
{
    struct writing w = { .s = s, .file = f };
    const void *block;
    size_t n;
    la_int64_t offset;
    int r = begin(&w, err);
    while (r == 0) {
        int a = archive_read_data_block(tar, &block, &n, &offset);
        if (a == ARCHIVE_EOF)
            break;
        if (a < ARCHIVE_OK)
            r = zl_fail(err, ZL_E_BAD_IMAGE, "read '%.100s' from the archive: %.150s", f->name,
                        archive_error_string(tar) ? archive_error_string(tar) : "damaged");
        r = r < 0 ? r : write_hole(&w, (uint64_t)offset, err);
        r = r < 0 ? r : write_block(&w, block, n, err);
    }
    r = r < 0 ? r : write_hole(&w, size, err);
    return end(&w, r, err);
}

/* The name that a link leads to: `target` from the folder of `name`, or from the archive's root for a hard link. */
static int link_name(const char *name, const char *target, bool hard, char ret[ZL_OCI_PATH_SIZE])
{
    char joined[2 * ZL_OCI_PATH_SIZE];
    const char *slash = strrchr(name, '/');
    size_t n = 0;
    snprintf(joined, sizeof joined, "%.*s/%s", hard || !slash ? 0 : (int)(slash - name), name, target);
    ret[0] = 0;
    for (struct zl_str rest = zl_str(joined); rest.p;) {
        struct zl_str part = zl_str_cut(rest, '/', &rest);
        if (part.n == 0 || zl_str_is(part, "."))
            continue;
        if (zl_str_is(part, "..")) {
            char *last = strrchr(ret, '/');
            if (!n)
                return -EINVAL;
            n = last ? (size_t)(last - ret) : 0;
            ret[n] = 0;
            continue;
        }
        if (n + part.n + 2 > ZL_OCI_PATH_SIZE)
            return -EINVAL;
        n += (size_t)snprintf(ret + n, ZL_OCI_PATH_SIZE - n, "%s%.*s", n ? "/" : "", ZL_STR_FMT(part));
    }
    return 0;
}

static int stage_entry(struct zl_staged *s, struct archive *tar, struct archive_entry *e, struct zl_err *err)
{
    char name[ZL_OCI_PATH_SIZE], to[ZL_OCI_PATH_SIZE];
    const char *raw = archive_entry_pathname(e), *hard = archive_entry_hardlink(e);
    const char *target = hard ? hard : archive_entry_symlink(e);
    struct zl_staged_file *f;
    if (!raw || zl_oci_layer_path(raw, name) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "an entry's path leaves the archive or is too long: '%.200s'",
                       raw ? raw : "");
    if (!target && archive_entry_filetype(e) != AE_IFREG)
        return 0;
    int r = add(s, name, &f, err);
    if (r < 0)
        return r;
    if (!target)
        return stage_data(s, f, tar, (uint64_t)ZL_MAX(archive_entry_size(e), (la_int64_t)0), err);
    if (strlen(target) >= ZL_OCI_PATH_SIZE || link_name(name, target, hard, to) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a link out of the archive", name);
    f->link = zl_arena_strdup(s->arena, to);
    return 0;
}

int zl_stage_archive(struct zl_staged *s, struct archive *tar, struct zl_err *err)
{
    struct archive_entry *e;
    for (;;) {
        int r = archive_read_next_header(tar, &e);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r < ARCHIVE_WARN)
            return zl_fail(err, ZL_E_BAD_IMAGE, "it is no tar archive: %.200s",
                           archive_error_string(tar) ? archive_error_string(tar) : "damaged");
        r = stage_entry(s, tar, e, err);
        if (r < 0)
            return r;
    }
}

static int stage_file(struct zl_staged *s, int dir, const char *path, struct zl_err *err)
{
    struct zl_staged_file *f;
    struct writing w = { .s = s, .fd = -EBADF };
    zl_auto_close int from = zl_open_beneath(dir, path, O_RDONLY | O_NONBLOCK);
    if (from == -ENOENT)
        return 0; /* what is missing is said by whoever needs it */
    struct stat st;
    if (from < 0 || fstat(from, &st) < 0 || !S_ISREG(st.st_mode))
        return zl_fail(err, from < 0 ? from : -EINVAL, "open '%.100s' of the layout", path);
    int r = add(s, path, &f, err);
    w.file = f;
    r = r < 0 ? r : begin(&w, err);
    zl_auto_free char *block = zl_xmalloc(BLOCK);
    ssize_t n;
    while (r == 0 && (n = zl_read_full(from, block, BLOCK)) != 0)
        r = n < 0 ? zl_fail(err, (int)n, "read '%.100s'", path) : write_block(&w, block, (size_t)n, err);
    return end(&w, r, err);
}

int zl_stage_folder(struct zl_staged *s, int folder, struct zl_err *err)
{
    int r = stage_file(s, folder, "oci-layout", err);
    r = r < 0 ? r : stage_file(s, folder, "index.json", err);
    int fd = r < 0 ? r : zl_open_beneath(folder, "blobs/sha256", O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return r < 0 ? r : zl_fail(err, ZL_E_BAD_IMAGE, "the folder is no OCI layout: it has no folder blobs/sha256");
    }
    struct dirent *e;
    while (r == 0 && (e = readdir(d)) != NULL) {
        char path[300], digest[ZL_DIGEST_SIZE];
        snprintf(path, sizeof path, "blobs/sha256/%s", e->d_name);
        if (zl_oci_blob_name(path, digest))
            r = stage_file(s, folder, path, err);
    }
    closedir(d);
    return r;
}

struct zl_staged_file *zl_staged_find(const struct zl_staged *s, const char *name)
{
    for (unsigned links = 0; links < LINKS_MAX; links++) {
        struct zl_staged_file *f = NULL;
        for (size_t i = s->n; i-- > 0 && !f;) /* the last one of a name counts, as when it is unpacked */
            if (zl_streq(s->v[i].name, name))
                f = &s->v[i];
        if (!f || !f->link)
            return f;
        name = f->link;
    }
    return NULL;
}

struct zl_staged_file *zl_staged_find_digest(const struct zl_staged *s, const char *digest)
{
    for (size_t i = 0; i < s->n; i++)
        if (zl_streq(s->v[i].digest, digest))
            return &s->v[i];
    return NULL;
}

int zl_staged_read(const struct zl_staged *s, const struct zl_staged_file *f, struct zl_buf *ret, struct zl_err *err)
{
    int r = zl_read_file(s->folder, f->file, ZL_OCI_DOCUMENT_MAX, ret);
    if (r == -EFBIG)
        return zl_fail(err, ZL_E_LIMIT, "'%.100s' is larger than 4 MiB", f->name);
    return r < 0 ? zl_fail(err, r, "read '%.100s'", f->name) : 0;
}
