/*
 * load: the images of an archive (an OCI layout as a tar or a folder, or what `docker save` writes) become images of
 * the store. All of the archive is staged and verified first; then each image is unpacked and made visible, as after a
 * pull. A docker archive has no manifest: one is made of its config and layers.
 */
#include "base/fd.h"
#include "imagejob/confine.h"
#include "imagejob/layer.h"
#include "imagejob/layers.h"
#include "imagejob/owners.h"
#include "imagejob/pump.h"
#include "imagejob/record.h"
#include "imagejob/staged.h"
#include "oci/archive.h"
#include "oci/platform.h"
#include "spec/reference.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the command line puts its standard input. */
enum { GIVEN = 3 };
static const char standard_input[] = "/proc/self/fd/3";

struct load {
    struct zl_image_job *job;
    struct zl_staged staged;
    uint64_t total, told;
    unsigned images;
};

static void on_bytes(void *arg, uint64_t bytes)
{
    struct load *l = arg;
    enum { STEP = 4 << 20 };
    if (bytes - l->told >= STEP) {
        l->told = bytes;
        zl_image_job_progress(l->job, "archive", bytes, ZL_MAX(bytes, l->total));
    }
}

/* ---- the archive ---- */

static int stage_tar(struct load *l, int fd, struct zl_err *err)
{
    struct zl_pump_source src = { 0 };
    int r = zl_pump_new(fd, NULL, NULL, &src.pump, err);
    if (r < 0)
        return r;
    struct archive *tar = archive_read_new();
    archive_read_support_format_tar(tar);
    archive_read_set_options(tar, "hdrcharset=BINARY");
    r = archive_read_open(tar, &src, NULL, zl_pump_next_block, NULL) < ARCHIVE_WARN
            ? zl_fail(err, ZL_E_BAD_IMAGE, "it is no tar archive: %.200s", archive_error_string(tar))
            : zl_stage_archive(&l->staged, tar, err);
    archive_read_free(tar);
    zl_pump_free(src.pump);
    if (src.err.code) {
        *err = src.err;
        r = src.err.code;
    }
    return r;
}

/* What can't be read at any place, as a pipe, is written into the staging folder first. */
static int spool(struct load *l, int in, struct zl_err *err)
{
    zl_auto_close int out = zl_openat(l->job->staging, "spool", O_RDWR | O_CREAT | O_EXCL, 0600);
    zl_auto_free char *block = zl_xmalloc(1 << 18);
    ssize_t n = 0;
    int r = out < 0 ? out : 0;
    while (r == 0 && (n = zl_read_full(in, block, 1 << 18)) > 0)
        r = zl_write_full(out, block, (size_t)n);
    r = n < 0 ? (int)n : r;
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "copy the archive");
    r = stage_tar(l, out, err);
    ZL_IGNORE(unlinkat(l->job->staging, "spool", 0)); /* goes with the folder otherwise */
    return r;
}

static int stage(struct load *l, struct zl_err *err)
{
    const char *source = l->job->request->source;
    /* What is given is read as it is: a socket or another user's pipe can't be opened again, and a file is read on. */
    bool given = zl_streq(source, standard_input);
    zl_auto_close int fd = given ? fcntl(GIVEN, F_DUPFD_CLOEXEC, 0) : zl_openat(AT_FDCWD, source, O_RDONLY, 0);
    struct stat st;
    if (given && fd < 0)
        fd = -errno;
    if (fd < 0 || fstat(fd, &st) < 0)
        return zl_fail_errno(err, fd == -ENOENT ? ZL_E_NOT_FOUND : fd, fd < 0 ? fd : -errno, "open '%.300s'", source);
    l->total = (uint64_t)st.st_size;
    zl_staged_init(&l->staged, l->job->staging, &l->job->arena);
    l->staged.progress = on_bytes;
    l->staged.arg = l;
    if (S_ISDIR(st.st_mode))
        return zl_stage_folder(&l->staged, fd, err);
    bool from_start = !given || lseek(fd, 0, SEEK_CUR) == 0;
    return S_ISREG(st.st_mode) && from_start ? stage_tar(l, fd, err) : spool(l, fd, err);
}

/* ---- its images ---- */

/* A staged file becomes a blob of the store; it may be one already. */
static int take_blob(struct load *l, struct zl_staged_file *f, struct zl_err *err)
{
    const char *digest = f->digest;
    char blob[100];
    int r = zl_image_job_keep(l->job, &digest, 1, err);
    snprintf(blob, sizeof blob, "blobs/sha256/%s", digest + 7);
    if (r < 0 || faccessat(l->job->staging, f->file, F_OK, AT_SYMLINK_NOFOLLOW) < 0) /* another image had it */
        return r;
    return zl_image_job_keep_blob(l->job, f->file, digest, err);
}

/* A document by its digest, read while it is staged or once it is a blob. */
static int read_blob(struct load *l, const char *digest, struct zl_buf *ret, struct zl_err *err)
{
    char blob[100];
    const struct zl_staged_file *f = zl_staged_find_digest(&l->staged, digest);
    snprintf(blob, sizeof blob, "blobs/sha256/%s", digest + 7);
    if (!f)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the archive has no blob %.19s…", digest);
    if (f->size > ZL_OCI_DOCUMENT_MAX)
        return zl_fail(err, ZL_E_LIMIT, "the document %.19s… is larger than 4 MiB", digest);
    int r = zl_read_file(l->job->staging, f->file, ZL_OCI_DOCUMENT_MAX, ret);
    if (r == -ENOENT)
        r = zl_read_file(l->job->store.dir, blob, ZL_OCI_DOCUMENT_MAX, ret);
    return r < 0 ? zl_fail(err, r, "read the blob %.19s…", digest) : 0;
}

static int take_blobs(struct load *l, const struct zl_new_image *image, struct zl_err *err)
{
    const struct zl_oci_manifest *m = image->manifest;
    const char *documents[] = { image->digest, image->manifest_digest, m->config.digest };
    int r = 0;
    for (size_t i = 0; r == 0 && i < ZL_ARRAY_LEN(documents) + m->n; i++) {
        const char *digest = i < ZL_ARRAY_LEN(documents) ? documents[i] : m->items[i - ZL_ARRAY_LEN(documents)].digest;
        struct zl_staged_file *f = zl_staged_find_digest(&l->staged, digest);
        if (f)
            r = take_blob(l, f, err);
        else if (i > 1) /* a manifest that was made here is in the store already */
            r = zl_fail(err, ZL_E_BAD_IMAGE, "the archive has no blob %.19s…", digest);
        if (r == 0 && f && i > 2 && f->size != (uint64_t)m->items[i - ZL_ARRAY_LEN(documents)].size)
            r = zl_fail(err, ZL_E_DIGEST, "the blob %.19s… has not the size that the manifest says", digest);
    }
    return r;
}

/* `chosen`: from an index, for this machine. What is named alone is loaded for whatever machine it is. */
static int load_image(struct load *l, struct zl_new_image *image, bool chosen, struct zl_err *err)
{
    struct zl_image_job *job = l->job;
    struct zl_oci_config config = { 0 };
    struct zl_strings chains = { 0 };
    struct zl_image_record record;
    struct zl_oci_platform wanted = zl_oci_platform_host();
    zl_auto_buf text = ZL_BUF_INIT;
    atomic_bool stop = false;
    bool artifact = image->manifest->artifact; /* blobs of any type, as they are */
    int r = artifact ? 0 : read_blob(l, image->manifest->config.digest, &text, err);
    if (r == 0 && !artifact) {
        r = zl_oci_config_parse(&job->arena, zl_buf_view(&text), &config, err);
        if (r == 0 && !chosen && *config.platform.os && *config.platform.architecture)
            wanted = config.platform;
        r = r < 0 ? r : zl_image_check_config(image->manifest, &wanted, false, &config, err);
        chains = zl_image_chain_ids(job, &config);
    }
    if (r < 0)
        return r;
    image->config = &config;
    image->documents += artifact ? (uint64_t)image->manifest->config.size : text.n;
    r = zl_image_keep(job, image->manifest, &chains, err);
    r = r < 0 ? r : take_blobs(l, image, err);
    if (r == 0 && artifact)
        r = zl_image_job_flush(job, err);
    if (r == 0 && !artifact)
        r = zl_layers_fetch(job, NULL, image->manifest, &chains, &config.diff_ids, &stop, err);
    r = r < 0 ? r : zl_image_commit(job, image, &chains, &record, err);
    if (r == 0) {
        zl_auto_buf line = ZL_BUF_INIT;
        zl_buf_printf(&line, "{\"event\":\"loaded\",\"reference\":\"%s\",\"digest\":\"%s\",\"size_bytes\":%lld}",
                      record.reference, record.digest, (long long)record.size_bytes);
        zl_image_job_event(job, &line);
        l->images++;
    }
    return r;
}

/* The canonical name of an image: what the user says, what the archive says, or one made of its digest. `is_tag`: a
 * word without more is a tag, as skopeo and buildah write it into layouts. */
static int name_image(struct load *l, const char *said, bool is_tag, bool alone, const char *digest, const char **ret,
                      struct zl_err *err)
{
    struct zl_reference ref;
    char text[ZL_REFERENCE_TEXT_SIZE], made[200];
    const char *why, *own = l->job->request->reference;
    if (own && *own) {
        if (!alone)
            return zl_fail(err, ZL_E_INVALID, "'%.100s' can't name all images of the archive: it has several", own);
        said = own;
    } else if (!*said || (is_tag && !strpbrk(said, "/:"))) {
        snprintf(made, sizeof made, "imported-%.12s%s%.128s", digest + 7, *said ? ":" : "", said);
        said = made;
    }
    if (zl_reference_parse(zl_str(said), &ref, &why) < 0 || ref.digest[0])
        return zl_hint(err,
                       zl_fail(err, ZL_E_BAD_IMAGE, "the archive's name '%.100s' can't be one here: %s", said,
                               ref.digest[0] ? "it has a digest" : why),
                       "name it with --tag");
    *ret = zl_arena_strdup(&l->job->arena, zl_reference_print(&ref, text));
    return 0;
}

/* ---- OCI layouts ---- */

/* The one image of an index; NULL when there are several. What attests to it is said to be for no platform. */
static const struct zl_oci_descriptor *only_image(const struct zl_oci_manifest *index)
{
    const struct zl_oci_descriptor *only = NULL;
    for (unsigned i = 0; i < index->n; i++) {
        const struct zl_oci_descriptor *d = &index->items[i];
        if (!zl_oci_is_manifest_type(d->media_type) || !*d->platform.os || zl_streq(d->platform.os, "unknown"))
            continue;
        if (only)
            return NULL;
        only = d;
    }
    return only;
}

/* From an entry of the archive's index down to a manifest: this machine's, of an index with several. */
static int find_manifest(struct load *l, const struct zl_oci_descriptor *d, struct zl_oci_manifest *m,
                         struct zl_new_image *image, bool *chosen, struct zl_err *err)
{
    const struct zl_oci_platform host = zl_oci_platform_host();
    image->digest = d->digest;
    *chosen = false;
    for (unsigned depth = 0;; depth++) {
        zl_auto_buf text = ZL_BUF_INIT;
        int r = read_blob(l, d->digest, &text, err);
        if (r == 0 && text.n != (uint64_t)d->size)
            r = zl_fail(err, ZL_E_DIGEST, "the manifest %.19s… has %zu bytes, its index says %lld", d->digest, text.n,
                        (long long)d->size);
        r = r < 0 ? r : zl_oci_manifest_parse(&l->job->arena, zl_buf_view(&text), d->media_type, m, err);
        if (r < 0)
            return r;
        image->documents += text.n;
        if (m->kind == ZL_OCI_MANIFEST)
            break;
        const struct zl_oci_descriptor *next = zl_oci_platform_choose(m, &host);
        *chosen |= next != NULL;
        next = next ? next : only_image(m);
        if (!next)
            return zl_fail(err, ZL_E_BAD_IMAGE, "it has no image for this machine");
        if (depth == ZL_OCI_INDEX_DEPTH_MAX)
            return zl_fail(err, ZL_E_BAD_IMAGE, "its index names an index that names an index");
        d = next;
    }
    image->manifest = m;
    image->manifest_digest = d->digest;
    return 0;
}

/* Index and manifest beside each other: the one between them, when an index names an index, is not needed again. */
static int load_layout(struct load *l, struct zl_staged_file *version, struct zl_staged_file *index, struct zl_err *err)
{
    struct zl_arena *a = &l->job->arena;
    struct zl_oci_layout layout = { 0 };
    zl_auto_buf head = ZL_BUF_INIT, text = ZL_BUF_INIT;
    int r = zl_staged_read(&l->staged, version, &head, err);
    r = r < 0 ? r : zl_oci_layout_check(a, zl_buf_view(&head), err);
    r = r < 0 ? r : zl_staged_read(&l->staged, index, &text, err);
    r = r < 0 ? r : zl_oci_layout_parse(a, zl_buf_view(&text), &layout, err);
    if (r == 0 && layout.index.n == 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the archive has no image");
    for (unsigned i = 0; r == 0 && i < layout.index.n; i++) {
        struct zl_oci_manifest m;
        struct zl_new_image image = { 0 };
        const struct zl_oci_descriptor *d = &layout.index.items[i];
        bool chosen;
        r = find_manifest(l, d, &m, &image, &chosen, err);
        r = r < 0 ? r : name_image(l, layout.names[i], true, layout.index.n == 1, d->digest, &image.reference, err);
        r = r < 0 ? r : load_image(l, &image, chosen, err);
        if (r < 0)
            zl_wrap(err, r, "the image %.80s", *layout.names[i] ? layout.names[i] : d->digest);
    }
    return r;
}

/* ---- docker archives ---- */

static struct zl_value *descriptor(struct zl_arena *a, const char *media, const struct zl_staged_file *f)
{
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "mediaType", zl_value_string(a, zl_str(media)));
    zl_value_set(a, v, "digest", zl_value_string(a, zl_str(f->digest)));
    zl_value_set(a, v, "size", zl_value_int(a, (int64_t)f->size));
    return v;
}

static const char *layer_media(const struct load *l, const struct zl_staged_file *f)
{
    zl_auto_close int fd = zl_openat(l->job->staging, f->file, O_RDONLY, 0);
    if (fd < 0) { /* a blob already */
        char blob[100];
        snprintf(blob, sizeof blob, "blobs/sha256/%s", f->digest + 7);
        fd = zl_openat(l->job->store.dir, blob, O_RDONLY, 0);
    }
    return zl_layer_media(fd);
}

static int make_manifest(struct load *l, const struct zl_docker_image *d, struct zl_buf *text, struct zl_err *err)
{
    struct zl_arena *a = &l->job->arena;
    struct zl_staged_file *config = zl_staged_find(&l->staged, d->config);
    struct zl_value *m = zl_value_new(a, ZL_MAP), *layers = zl_value_new(a, ZL_LIST);
    if (!config)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the archive has no file '%.100s'", d->config);
    zl_value_set(a, m, "schemaVersion", zl_value_int(a, 2));
    zl_value_set(a, m, "mediaType", zl_value_string(a, ZL_STR("application/vnd.oci.image.manifest.v1+json")));
    zl_value_set(a, m, "config", descriptor(a, "application/vnd.oci.image.config.v1+json", config));
    for (unsigned i = 0; i < d->layers.n; i++) {
        const struct zl_staged_file *f = zl_staged_find(&l->staged, d->layers.v[i]);
        if (!f)
            return zl_fail(err, ZL_E_BAD_IMAGE, "the archive has no file '%.100s'", d->layers.v[i]);
        zl_value_append(layers, descriptor(a, layer_media(l, f), f));
    }
    zl_value_set(a, m, "layers", layers);
    zl_json_print(text, m, 0);
    return 0;
}

static int load_docker_image(struct load *l, const struct zl_docker_image *d, bool alone, struct zl_err *err)
{
    struct zl_arena *a = &l->job->arena;
    struct zl_oci_manifest m;
    struct zl_new_image image = { .manifest = &m };
    char digest[ZL_DIGEST_SIZE];
    zl_auto_buf text = ZL_BUF_INIT;
    int r = make_manifest(l, d, &text, err);
    r = r < 0 ? r : zl_oci_manifest_parse(a, zl_buf_view(&text), NULL, &m, err);
    r = r < 0 ? r : zl_image_job_put_blob(l->job, text.p, text.n, digest, err);
    if (r < 0)
        return r;
    image.digest = image.manifest_digest = zl_arena_strdup(a, digest);
    for (unsigned i = 0; r == 0 && (i < d->tags.n || i == 0); i++) {
        image.documents = text.n;
        r = name_image(l, d->tags.n ? d->tags.v[i] : "", false, alone && d->tags.n <= 1, m.config.digest,
                       &image.reference, err);
        r = r < 0 ? r : load_image(l, &image, false, err);
    }
    return r;
}

static int load_docker(struct load *l, struct zl_staged_file *manifest, struct zl_err *err)
{
    struct zl_items images = { 0 };
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_staged_read(&l->staged, manifest, &text, err);
    r = r < 0 ? r : zl_docker_archive_parse(&l->job->arena, zl_buf_view(&text), &images, err);
    for (unsigned i = 0; r == 0 && i < images.n; i++)
        r = load_docker_image(l, images.v[i], images.n == 1, err);
    return r;
}

int zl_load(struct zl_image_job *job, struct zl_err *err)
{
    struct load l = { .job = job };
    int r = zl_confine(&job->store, job->request->source, err);
    r = r < 0 ? r : stage(&l, err);
    if (r == 0) {
        struct zl_staged_file *version = zl_staged_find(&l.staged, "oci-layout");
        struct zl_staged_file *index = zl_staged_find(&l.staged, "index.json");
        struct zl_staged_file *docker = zl_staged_find(&l.staged, "manifest.json");
        if (version && index)
            r = load_layout(&l, version, index, err);
        else if (docker)
            r = load_docker(&l, docker, err);
        else
            r = zl_hint(err, zl_fail(err, ZL_E_BAD_IMAGE, "it has neither oci-layout and index.json nor manifest.json"),
                        "a root filesystem is taken by `zlayer image import`");
    }
    zl_staged_done(&l.staged);
    if (r == ZL_E_DISK_FULL)
        zl_hint(err, r, "make room below %.150s", job->store.path);
    if (r < 0 && zl_streq(job->request->source, standard_input))
        return zl_wrap(err, r, "load standard input");
    if (r < 0)
        return zl_wrap(err, r, "load '%.200s'", job->request->source);
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_printf(&line, "{\"event\":\"done\",\"images\":%u", l.images);
    if (zl_owners_warning()) {
        zl_buf_puts(&line, ",\"warning\":");
        zl_json_string(&line, zl_str(zl_owners_warning()));
    }
    zl_buf_putc(&line, '}');
    zl_image_job_event(job, &line);
    return 0;
}
