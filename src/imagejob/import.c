/* A root filesystem, as a tar file or a folder, becomes an image of one layer with the config that was asked for. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/confine.h"
#include "imagejob/folder_tar.h"
#include "imagejob/job.h"
#include "imagejob/layer.h"
#include "spec/reference.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *architecture(void)
{
    static struct utsname u;
    uname(&u);
    return zl_streq(u.machine, "x86_64") ? "amd64" : zl_streq(u.machine, "aarch64") ? "arm64" : u.machine;
}

/* The next bytes; 0 at the end. The kernel copies within a file system, and between two of a kind. */
static ssize_t copy_some(int in, int out)
{
    char block[64 << 10];
    ssize_t n = copy_file_range(in, NULL, out, NULL, 1 << 24, 0);
    if (n >= 0)
        return n;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP)
        return -errno;
    n = zl_read_full(in, block, sizeof block);
    int r = n > 0 ? zl_write_full(out, block, (size_t)n) : 0;
    return r < 0 ? r : n;
}

/* The source as a file of the staging folder: a tar as it is, a folder as a tar made of it. */
static int stage(struct zl_image_job *job, const char *source, struct zl_err *err)
{
    zl_auto_close int in = zl_openat(AT_FDCWD, source, O_RDONLY, 0);
    struct stat st;
    if (in < 0)
        return zl_fail_errno(err, in == -ENOENT ? ZL_E_NOT_FOUND : in, in, "open '%.300s'", source);
    zl_auto_close int out = zl_openat(job->staging, "layer", O_RDWR | O_CREAT | O_EXCL, 0644);
    if (out < 0 || fstat(in, &st) < 0)
        return zl_fail(err, out < 0 ? out : -errno, "make a staging file");
    if (S_ISDIR(st.st_mode)) {
        int r = zl_folder_tar(in, out, err);
        return r < 0 ? r : ZL_TAKE_FD(out);
    }
    if (!S_ISREG(st.st_mode))
        return zl_fail(err, ZL_E_INVALID, "'%.300s' is neither a tar file nor a folder", source);
    for (uint64_t done = 0;;) {
        ssize_t n = copy_some(in, out);
        if (n < 0)
            return zl_fail_errno(err, n == -ENOSPC ? ZL_E_DISK_FULL : (int)n, (int)n, "copy '%.300s'", source);
        if (n == 0)
            return ZL_TAKE_FD(out);
        zl_image_job_progress(job, "copy", done += (uint64_t)n, (uint64_t)st.st_size);
    }
}

struct made {
    const char *media;
    char blob[ZL_DIGEST_SIZE], diff_id[ZL_DIGEST_SIZE], chain_id[ZL_DIGEST_SIZE];
};

/* The layer's digests are whatever they are: nobody said any. */
static int unpack(struct zl_image_job *job, int blob, struct made *ret, struct zl_err *err)
{
    struct zl_layer layer;
    const struct zl_lowers nothing = { 0 };
    int r = zl_layer_open(job, &layer, err);
    if (r < 0)
        return r;
    r = zl_layer_place(&layer, blob, NULL, err);
    r = r < 0 ? r : zl_layer_settle(&layer, &nothing, err);
    r = r < 0 ? r : zl_image_job_flush(job, err);
    if (r == 0) {
        snprintf(ret->blob, sizeof ret->blob, "%s", layer.blob);
        snprintf(ret->diff_id, sizeof ret->diff_id, "%s", layer.diff_id);
        zl_chain_id("", layer.diff_id, ret->chain_id);
        r = zl_layer_commit(&layer, ret->chain_id, err);
    }
    zl_layer_close(&layer);
    return r;
}

static void set_strings(struct zl_arena *a, struct zl_value *map, const char *key, const struct zl_strings *s)
{
    struct zl_value *list = zl_value_new(a, ZL_LIST);
    for (unsigned i = 0; i < s->n; i++)
        zl_value_append(list, zl_value_string(a, zl_str(s->v[i])));
    if (s->n)
        zl_value_set(a, map, key, list);
}

static void set_string(struct zl_arena *a, struct zl_value *map, const char *key, const char *text)
{
    if (text && *text)
        zl_value_set(a, map, key, zl_value_string(a, zl_str(text)));
}

/* The OCI image config (image-spec, config.md). */
static struct zl_value *make_config(struct zl_image_job *job, const struct made *layer)
{
    struct zl_arena *a = &job->arena;
    const struct zl_image_request *q = job->request;
    char created[ZL_TIME_TEXT_SIZE];
    struct zl_value *v = zl_value_new(a, ZL_MAP), *config = zl_value_new(a, ZL_MAP), *rootfs = zl_value_new(a, ZL_MAP),
                    *diffs = zl_value_new(a, ZL_LIST), *ports = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "created", zl_value_string(a, zl_str(zl_time_text_s(zl_clock_wall_ms(), created))));
    zl_value_set(a, v, "architecture", zl_value_string(a, zl_str(architecture())));
    zl_value_set(a, v, "os", zl_value_string(a, ZL_STR("linux")));
    set_strings(a, config, "Entrypoint", &q->entrypoint);
    set_strings(a, config, "Cmd", &q->cmd);
    set_strings(a, config, "Env", &q->env);
    set_string(a, config, "WorkingDir", q->workdir);
    set_string(a, config, "User", q->user);
    for (unsigned i = 0; i < q->ports.n; i++) {
        const char *port = q->ports.v[i], *full = strchr(port, '/') ? port : zl_arena_printf(a, "%s/tcp", port);
        if (!zl_value_get(ports, full))
            zl_value_set(a, ports, full, zl_value_new(a, ZL_MAP));
    }
    if (ports->count)
        zl_value_set(a, config, "ExposedPorts", ports);
    zl_value_set(a, v, "config", config);
    zl_value_set(a, rootfs, "type", zl_value_string(a, ZL_STR("layers")));
    zl_value_append(diffs, zl_value_string(a, zl_str(layer->diff_id)));
    zl_value_set(a, rootfs, "diff_ids", diffs);
    zl_value_set(a, v, "rootfs", rootfs);
    return v;
}

static struct zl_value *descriptor(struct zl_arena *a, const char *media, const char *digest, uint64_t size)
{
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "mediaType", zl_value_string(a, zl_str(media)));
    zl_value_set(a, v, "digest", zl_value_string(a, zl_str(digest)));
    zl_value_set(a, v, "size", zl_value_int(a, (int64_t)size));
    return v;
}

static int write_image(struct zl_image_job *job, const char *reference, const struct made *layer, uint64_t layer_size,
                       struct zl_err *err)
{
    struct zl_arena *a = &job->arena;
    char config_digest[ZL_DIGEST_SIZE], manifest_digest[ZL_DIGEST_SIZE];
    zl_auto_buf config = ZL_BUF_INIT, manifest = ZL_BUF_INIT;
    zl_json_print(&config, make_config(job, layer), 0);
    int r = zl_image_job_put_blob(job, config.p, config.n, config_digest, err);
    if (r < 0)
        return r;
    struct zl_value *m = zl_value_new(a, ZL_MAP), *layers = zl_value_new(a, ZL_LIST);
    zl_value_set(a, m, "schemaVersion", zl_value_int(a, 2));
    zl_value_set(a, m, "mediaType", zl_value_string(a, ZL_STR("application/vnd.oci.image.manifest.v1+json")));
    zl_value_set(a, m, "config", descriptor(a, "application/vnd.oci.image.config.v1+json", config_digest, config.n));
    zl_value_append(layers, descriptor(a, layer->media, layer->blob, layer_size));
    zl_value_set(a, m, "layers", layers);
    zl_json_print(&manifest, m, 0);
    r = zl_image_job_put_blob(job, manifest.p, manifest.n, manifest_digest, err);
    if (r < 0)
        return r;
    const struct zl_image_request *q = job->request;
    const char *blobs[] = { layer->blob }, *chains[] = { layer->chain_id };
    struct zl_image_record record = {
        .reference = reference,
        .digest = manifest_digest,
        .config = config_digest,
        .size_bytes = (int64_t)(layer_size + config.n + manifest.n),
        .created_ms = (int64_t)zl_clock_wall_ms(),
        .os = "linux",
        .architecture = architecture(),
        .layers = { blobs, 1 },
        .chain_ids = { chains, 1 },
        .entrypoint = q->entrypoint,
        .cmd = q->cmd,
        .env = q->env,
        .ports = q->ports,
        .workdir = q->workdir && *q->workdir ? q->workdir : NULL,
        .user = q->user && *q->user ? q->user : NULL,
    };
    r = zl_image_job_sync(job, err);
    if (r < 0)
        return r;
    zl_phase("import.commit");
    r = zl_store_put(&job->store, &record, err);
    if (r == 0)
        zl_image_job_done(job, &record, NULL);
    return r;
}

static int make(struct zl_image_job *job, const char *reference, struct zl_err *err)
{
    struct made layer;
    struct stat st;
    zl_auto_close int blob = stage(job, job->request->source, err);
    if (blob < 0)
        return blob;
    if (lseek(blob, 0, SEEK_SET) < 0 || fstat(blob, &st) < 0)
        return zl_fail(err, -errno, "read the staged layer");
    zl_auto_close int lock = zl_store_lock(&job->store, false);
    if (lock < 0)
        return zl_fail(err, lock, "lock the image store");
    layer.media = zl_layer_media(blob);
    int r = unpack(job, blob, &layer, err);
    r = r < 0 ? r : zl_image_job_keep_blob(job, "layer", layer.blob, err);
    return r < 0 ? r : write_image(job, reference, &layer, (uint64_t)st.st_size, err);
}

int zl_import(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_reference ref;
    char text[ZL_REFERENCE_TEXT_SIZE];
    const char *why, *name = job->request->reference;
    if (zl_reference_parse(zl_str(name), &ref, &why) < 0 || ref.digest[0])
        return zl_fail(err, ZL_E_INVALID, "'%.100s' can't name an imported image: %s", name,
                       ref.digest[0] ? "it has a digest" : why);
    zl_reference_print(&ref, text);
    int r = zl_confine(&job->store, job->request->source, err);
    r = r < 0 ? r : make(job, text, err);
    if (r < 0)
        zl_wrap(err, r, "import %.200s", text);
    if (r == ZL_E_DISK_FULL)
        return zl_hint(err, r, "make room below %.150s", job->store.path);
    return r;
}
