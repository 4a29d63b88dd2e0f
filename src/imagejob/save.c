/*
 * save: images as an archive, an OCI layout or what `docker load` reads, with the very bytes of their manifests,
 * configs and blobs. Each blob is verified while it is copied; an archive appears under its name by a rename, when it
 * is whole.
 */
#include "base/fd.h"
#include "base/id.h"
#include "imagejob/confine.h"
#include "imagejob/digest.h"
#include "imagejob/job.h"
#include "imagejob/stream.h"
#include "oci/config.h"
#include "oci/manifest.h"
#include "spec/reference.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 256 << 10, OUTPUT_FD = 3 };

struct save {
    struct zl_image_job *job;
    struct archive *tar;
    struct zl_buf written; /* names in the archive, a line each: what several images share comes once */
    uint64_t bytes, total, told;
    char *block;
};

static int failed(struct save *s, const char *name, struct zl_err *err)
{
    int e = archive_errno(s->tar), cause = e > 0 ? -e : -EIO;
    zl_auto_free char *what =
        *name ? zl_xasprintf("write '%.100s' into the archive", name) : zl_xstrdup("write the archive");
    return zl_fail_errno(err, e == ENOSPC || e == EDQUOT ? ZL_E_DISK_FULL : cause, cause, "%s", what);
}

static bool once(struct save *s, const char *name)
{
    zl_auto_free char *line = zl_xasprintf("%s\n", name);
    if (s->written.p && strstr(s->written.p, line))
        return false;
    zl_buf_puts(&s->written, line);
    return true;
}

static int begin(struct save *s, const char *name, uint64_t size, struct zl_err *err)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, 0, 0); /* the same images make the same archive */
    int r = archive_write_header(s->tar, e) < ARCHIVE_WARN ? failed(s, name, err) : 0;
    archive_entry_free(e);
    return r;
}

static int put_text(struct save *s, const char *name, struct zl_str text, struct zl_err *err)
{
    int r = begin(s, name, text.n, err);
    if (r == 0 && archive_write_data(s->tar, text.p, text.n) != (la_ssize_t)text.n)
        r = failed(s, name, err);
    return r;
}

static int open_blob(const struct save *s, const char *digest, uint64_t *size, struct zl_err *err)
{
    char path[100];
    struct stat st;
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    zl_auto_close int fd = zl_openat(s->job->store.dir, path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return zl_hint(err, zl_fail(err, ZL_E_BAD_IMAGE, "the store lost the blob %.19s…", digest),
                       "`zlayer image fsck` says what else is missing; pull the image again");
    *size = (uint64_t)st.st_size;
    return ZL_TAKE_FD(fd);
}

static void tell(struct save *s, uint64_t more)
{
    enum { STEP = 4 << 20 };
    s->bytes += more;
    if (s->bytes - s->told >= STEP || s->bytes == s->total) {
        s->told = s->bytes;
        zl_image_job_progress(s->job, "archive", s->bytes, ZL_MAX(s->bytes, s->total));
    }
}

/* `fd` from its start on under this name; `digest` NULL: whatever it has. */
static int put_file(struct save *s, const char *name, int fd, uint64_t size, const char *digest, struct zl_err *err)
{
    char is[ZL_DIGEST_SIZE];
    struct zl_digest *d = zl_digest_new();
    int r = begin(s, name, size, err);
    ssize_t n = 0;
    while (r == 0 && (n = zl_read_full(fd, s->block, BLOCK)) > 0) {
        zl_digest_add(d, s->block, (size_t)n);
        if (archive_write_data(s->tar, s->block, (size_t)n) != n)
            r = failed(s, name, err);
        tell(s, (uint64_t)n);
    }
    if (n < 0)
        r = zl_fail(err, (int)n, "read the blob of '%.100s'", name);
    zl_digest_finish(d, is);
    zl_digest_free(d);
    if (r == 0 && digest && !zl_streq(digest, is))
        r = zl_hint(err, zl_fail(err, ZL_E_DIGEST, "the store's blob %.19s… is damaged", digest),
                    "`zlayer image fsck --repair` drops it; pull the image again");
    return r;
}

static int put_blob(struct save *s, const char *digest, struct zl_err *err)
{
    char name[100];
    uint64_t size;
    snprintf(name, sizeof name, "blobs/sha256/%s", digest + 7);
    if (!once(s, name))
        return 0;
    zl_auto_close int fd = open_blob(s, digest, &size, err);
    return fd < 0 ? fd : put_file(s, name, fd, size, digest, err);
}

static int read_blob(struct save *s, const char *digest, struct zl_buf *ret, struct zl_err *err)
{
    char path[100], is[ZL_DIGEST_SIZE];
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    int r = zl_read_file(s->job->store.dir, path, ZL_OCI_DOCUMENT_MAX, ret);
    if (r < 0)
        return zl_fail(err, r == -ENOENT ? ZL_E_BAD_IMAGE : r, "the store lost the blob %.19s…", digest);
    if (!zl_streq(digest, zl_digest_of(ret->p ? ret->p : "", ret->n, is)))
        return zl_fail(err, ZL_E_DIGEST, "the store's blob %.19s… is damaged", digest);
    return 0;
}

static const char *manifest_of(const struct zl_image_record *r)
{
    return r->manifest ? r->manifest : r->digest;
}

/* ---- OCI layout ---- */

/* The media type that a manifest says of itself, as the index must repeat it. */
static const char *media_of(struct zl_arena *a, struct zl_str text)
{
    static const struct zl_parse_limits limits = { .bytes = ZL_OCI_DOCUMENT_MAX, .depth = 32, .nodes = 100000 };
    struct zl_value *v;
    struct zl_parse_error pe;
    if (zl_json_parse(a, text, &limits, &v, &pe) == 0 && *zl_value_cstr(v, "mediaType"))
        return zl_value_cstr(v, "mediaType");
    return "application/vnd.oci.image.manifest.v1+json";
}

static int index_entry(struct save *s, const struct zl_image_record *r, struct zl_value *list, struct zl_err *err)
{
    struct zl_arena *a = &s->job->arena;
    zl_auto_buf text = ZL_BUF_INIT;
    int e = read_blob(s, manifest_of(r), &text, err);
    if (e < 0)
        return e;
    struct zl_value *v = zl_value_new(a, ZL_MAP), *platform = zl_value_new(a, ZL_MAP), *notes = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "mediaType", zl_value_string(a, zl_str(zl_arena_strdup(a, media_of(a, zl_buf_view(&text))))));
    zl_value_set(a, v, "digest", zl_value_string(a, zl_str(manifest_of(r))));
    zl_value_set(a, v, "size", zl_value_int(a, (int64_t)text.n));
    if (r->os && r->architecture) {
        zl_value_set(a, platform, "architecture", zl_value_string(a, zl_str(r->architecture)));
        zl_value_set(a, platform, "os", zl_value_string(a, zl_str(r->os)));
        zl_value_set(a, v, "platform", platform);
    }
    if (!strchr(r->reference, '@')) { /* what has a digest for a name needs no other */
        zl_value_set(a, notes, "io.containerd.image.name", zl_value_string(a, zl_str(r->reference)));
        zl_value_set(a, notes, "org.opencontainers.image.ref.name", zl_value_string(a, zl_str(r->reference)));
        zl_value_set(a, v, "annotations", notes);
    }
    zl_value_append(list, v);
    return 0;
}

static int save_oci(struct save *s, const struct zl_items *records, struct zl_err *err)
{
    struct zl_arena *a = &s->job->arena;
    struct zl_value *index = zl_value_new(a, ZL_MAP), *list = zl_value_new(a, ZL_LIST);
    zl_auto_buf text = ZL_BUF_INIT;
    int r = put_text(s, "oci-layout", ZL_STR("{\"imageLayoutVersion\":\"1.0.0\"}"), err);
    for (unsigned i = 0; r == 0 && i < records->n; i++)
        r = index_entry(s, records->v[i], list, err);
    if (r < 0)
        return r;
    zl_value_set(a, index, "schemaVersion", zl_value_int(a, 2));
    zl_value_set(a, index, "mediaType", zl_value_string(a, ZL_STR("application/vnd.oci.image.index.v1+json")));
    zl_value_set(a, index, "manifests", list);
    zl_json_print(&text, index, 0);
    r = put_text(s, "index.json", zl_buf_view(&text), err);
    for (unsigned i = 0; r == 0 && i < records->n; i++) {
        const struct zl_image_record *record = records->v[i];
        r = put_blob(s, manifest_of(record), err);
        r = r < 0 ? r : put_blob(s, record->config, err);
        for (unsigned k = 0; r == 0 && k < record->layers.n; k++)
            r = put_blob(s, record->layers.v[k], err);
    }
    return r;
}

/* ---- docker archive ---- */

/* Docker takes layers plain or as gzip, not as zstd. */
static bool is_zstd(int fd)
{
    unsigned char head[4];
    return pread(fd, head, sizeof head, 0) == sizeof head && zl_stream_is_zstd(head);
}

static int unpacked(struct save *s, int blob, const char *diff_id, uint64_t *size, struct zl_err *err)
{
    char raw[ZL_DIGEST_SIZE], is[ZL_DIGEST_SIZE];
    zl_auto_close int out = zl_openat(s->job->staging, "layer", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct zl_stream *stream = zl_stream_new(blob, NULL, NULL);
    ssize_t n = 0;
    int r = out < 0 ? zl_fail(err, out, "make a staging file") : 0;
    while (r == 0 && (n = zl_stream_read(stream, s->block, BLOCK, err)) > 0) {
        r = zl_write_full(out, s->block, (size_t)n);
        if (r < 0)
            zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "unpack a layer");
    }
    r = r < 0 ? r : n < 0 ? (int)n : zl_stream_finish(stream, raw, is, err);
    zl_stream_free(stream);
    if (r == 0 && !zl_streq(is, diff_id))
        r = zl_fail(err, ZL_E_DIGEST, "the store's layer %.19s… is damaged", diff_id);
    struct stat st;
    if (r < 0 || fstat(out, &st) < 0 || lseek(out, 0, SEEK_SET) < 0)
        return r < 0 ? r : zl_fail(err, -errno, "read a staging file");
    *size = (uint64_t)st.st_size;
    return ZL_TAKE_FD(out);
}

static int put_layer(struct save *s, const char *digest, const char *diff_id, const char *name, struct zl_err *err)
{
    uint64_t size;
    if (!once(s, name))
        return 0;
    zl_auto_close int fd = open_blob(s, digest, &size, err);
    if (fd < 0 || !is_zstd(fd))
        return fd < 0 ? fd : put_file(s, name, fd, size, digest, err);
    zl_auto_close int plain = unpacked(s, fd, diff_id, &size, err);
    return plain < 0 ? plain : put_file(s, name, plain, size, diff_id, err);
}

static int save_docker_image(struct save *s, const struct zl_image_record *record, struct zl_value *list,
                             struct zl_err *err)
{
    struct zl_arena *a = &s->job->arena;
    struct zl_oci_config config;
    zl_auto_buf text = ZL_BUF_INIT;
    const char *config_name = zl_arena_printf(a, "%s.json", record->config + 7);
    struct zl_value *v = zl_value_new(a, ZL_MAP), *tags = zl_value_new(a, ZL_LIST), *layers = zl_value_new(a, ZL_LIST);
    int r = read_blob(s, record->config, &text, err);
    r = r < 0 ? r : zl_oci_config_parse(a, zl_buf_view(&text), &config, err);
    if (r == 0 && config.diff_ids.n != record->layers.n)
        r = zl_fail(err, ZL_E_BAD_IMAGE, "the image %.100s has not the layers that its config says", record->reference);
    if (r == 0 && once(s, config_name))
        r = put_text(s, config_name, zl_buf_view(&text), err);
    for (unsigned i = 0; r == 0 && i < record->layers.n; i++) {
        const char *name = zl_arena_printf(a, "%s.tar", config.diff_ids.v[i] + 7);
        r = put_layer(s, record->layers.v[i], config.diff_ids.v[i], name, err);
        zl_value_append(layers, zl_value_string(a, zl_str(name)));
    }
    if (r < 0)
        return r;
    if (!strchr(record->reference, '@'))
        zl_value_append(tags, zl_value_string(a, zl_str(record->reference)));
    zl_value_set(a, v, "Config", zl_value_string(a, zl_str(config_name)));
    zl_value_set(a, v, "RepoTags", tags);
    zl_value_set(a, v, "Layers", layers);
    zl_value_append(list, v);
    return 0;
}

static int save_docker(struct save *s, const struct zl_items *records, struct zl_err *err)
{
    struct zl_value *list = zl_value_new(&s->job->arena, ZL_LIST);
    zl_auto_buf text = ZL_BUF_INIT;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < records->n; i++)
        r = save_docker_image(s, records->v[i], list, err);
    if (r < 0)
        return r;
    zl_json_print(&text, list, 0);
    return put_text(s, "manifest.json", zl_buf_view(&text), err);
}

/* ---- the file ---- */

/* The images, and the promise of the collector not to touch them. */
static int find_images(struct save *s, struct zl_items *ret, struct zl_err *err)
{
    struct zl_image_job *job = s->job;
    const struct zl_strings *names = &job->request->references;
    ret->v = zl_arena_alloc(&job->arena, names->n * sizeof *ret->v);
    zl_auto_close int lock = zl_store_lock(&job->store, false);
    int r = lock < 0 ? zl_fail(err, lock, "lock the image store") : 0;
    for (; r == 0 && ret->n < names->n; ret->n++) {
        struct zl_image_record *record;
        r = zl_store_find(&job->store, &job->arena, names->v[ret->n], &record, err);
        if (r < 0)
            return r;
        ret->v[ret->n] = record;
        const char *documents[] = { manifest_of(record), record->config };
        r = zl_image_job_keep(job, documents, 2, err);
        r = r < 0 ? r : zl_image_job_keep(job, record->layers.v, record->layers.n, err);
        s->total += (uint64_t)record->size_bytes;
    }
    return r;
}

static int write_archive(struct save *s, int fd, const struct zl_items *records, struct zl_err *err)
{
    const struct zl_image_request *q = s->job->request;
    s->tar = archive_write_new();
    archive_write_set_format_pax_restricted(s->tar); /* ustar, but for blobs of 8 GiB and more */
    archive_write_set_bytes_in_last_block(s->tar, 1);
    if (q->gzip) { /* the same images make the same archive, at any time */
        archive_write_add_filter_gzip(s->tar);
        archive_write_set_filter_option(s->tar, "gzip", "timestamp", NULL);
    }
    int r = archive_write_open_fd(s->tar, fd) < ARCHIVE_WARN ? failed(s, "", err) : 0;
    s->block = zl_xmalloc(BLOCK);
    if (r == 0)
        r = q->format == ZL_ARCHIVE_DOCKER ? save_docker(s, records, err) : save_oci(s, records, err);
    if (archive_write_close(s->tar) < ARCHIVE_WARN && r == 0)
        r = failed(s, "", err);
    archive_write_free(s->tar);
    free(s->block);
    zl_buf_done(&s->written);
    return r;
}

/* A file of no name, which goes with the job, whatever ends that; where there are none, one called `half`. */
static int make_file(int dir, const char *half, bool *named)
{
    bool can_be_named = faccessat(AT_FDCWD, "/proc/self/fd", F_OK, 0) == 0;
    int fd = can_be_named ? zl_openat(dir, ".", O_WRONLY | O_TMPFILE, 0600) : -EOPNOTSUPP;
    *named = fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL;
    return *named ? zl_openat(dir, half, O_WRONLY | O_CREAT | O_EXCL, 0600) : fd;
}

/* The file is whole and on the disk before it takes the name. */
static int name_file(int dir, int fd, const char *half, bool named, const char *name)
{
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    if (fsync(fd) < 0 || (!named && linkat(AT_FDCWD, self, dir, half, AT_SYMLINK_FOLLOW) < 0) ||
        renameat(dir, half, dir, name) < 0)
        return -errno;
    return fsync(dir) < 0 && errno != EINVAL && errno != EOPNOTSUPP ? -errno
                                                                    : 0; /* some file systems sync no folders */
}

/* What is no file is nothing to put one in the place of: a device, a pipe, a link. */
static int check_target(const struct save *s, int dir, const char *name, struct zl_err *err)
{
    const char *target = s->job->request->target;
    struct stat there;
    if (fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) < 0 || S_ISREG(there.st_mode))
        return 0;
    if (S_ISDIR(there.st_mode))
        return zl_fail_errno(err, ZL_E_INVALID, -EISDIR, "write the archive '%.200s'", target);
    return zl_hint(err, zl_fail(err, ZL_E_INVALID, "'%.200s' is there, and no regular file", target),
                   "into a pipe or a device an archive goes by way of standard output: -o -");
}

/* Into a file beside `target`, which takes its name when it is whole. */
static int write_file(struct save *s, int dir, const char *name, const struct zl_items *records, struct zl_err *err)
{
    char id[ZL_ID_HEX_SIZE];
    zl_id_make(id);
    zl_auto_free char *half = zl_xasprintf(".%.180s.%.8s", name, id);
    bool named = false;
    int r = check_target(s, dir, name, err);
    if (r < 0)
        return r;
    zl_auto_close int fd = make_file(dir, half, &named);
    if (fd < 0)
        return zl_fail(err, fd, "make a file beside '%.200s'", s->job->request->target);
    r = write_archive(s, fd, records, err);
    if (r == 0 && (r = name_file(dir, fd, half, named, name)) < 0)
        zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : r, r, "name the archive '%.200s'",
                      s->job->request->target);
    if (r < 0)
        (void)unlinkat(dir, half, 0);
    return r;
}

int zl_save(struct zl_image_job *job, struct zl_err *err)
{
    struct save s = { .job = job };
    struct zl_items records = { 0 };
    const char *target = job->request->target, *name = target ? strrchr(target, '/') + 1 : "";
    zl_auto_free char *folder = target ? zl_xstrndup(target, (size_t)(name - target)) : NULL;
    zl_auto_close int dir = folder ? zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0) : -EBADF;
    if (target && (!*name || dir < 0))
        return zl_fail_errno(err, dir == -ENOENT ? ZL_E_NOT_FOUND : ZL_E_INVALID, *name ? dir : -EISDIR,
                             "write the archive '%.200s'", target);
    int r = zl_confine_writing(&job->store, dir, err);
    r = r < 0 ? r : find_images(&s, &records, err);
    if (r == 0)
        r = target ? write_file(&s, dir, name, &records, err) : write_archive(&s, OUTPUT_FD, &records, err);
    if (r < 0)
        return r;
    dprintf(job->events, "{\"event\":\"done\",\"images\":%u,\"bytes\":%llu}\n", records.n, (unsigned long long)s.bytes);
    return 0;
}
