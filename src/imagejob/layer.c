#include "imagejob/layer.h"

#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/pump.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

const char *zl_layer_media(int fd)
{
    unsigned char head[4] = { 0 };
    ssize_t n = pread(fd, head, sizeof head, 0);
    if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b)
        return "application/vnd.oci.image.layer.v1.tar+gzip";
    if (n == 4 && zl_stream_is_zstd(head))
        return "application/vnd.oci.image.layer.v1.tar+zstd";
    return "application/vnd.oci.image.layer.v1.tar";
}

int zl_layer_open(struct zl_image_job *job, struct zl_layer *l, struct zl_err *err)
{
    *l = (struct zl_layer){ .job = job, .root = -EBADF };
    zl_id_make(l->name);
    int r = mkdirat(job->staging, l->name, 0700) < 0 ? -errno : 0;
    r = r < 0 ? r : (l->root = zl_openat(job->staging, l->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0));
    zl_unpack_init(&l->unpack, l->root, job->staging, l->name);
    if (r >= 0)
        return 0;
    zl_layer_close(l);
    return zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "make a staging folder");
}

void zl_layer_close(struct zl_layer *l)
{
    if (!l->job)
        return;
    zl_unpack_done(&l->unpack);
    l->root = zl_close(l->root);
    ZL_IGNORE(zl_remove_tree(l->job->staging, l->name)); /* the job's end drops what is left */
    l->job = NULL;
}

static int read_tar(struct zl_layer *l, struct zl_pump_source *src, struct zl_err *err)
{
    struct archive *tar = archive_read_new();
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    archive_read_set_options(tar, "hdrcharset=BINARY");
    int r = archive_read_open(tar, src, NULL, zl_pump_next_block, NULL) < ARCHIVE_WARN
                ? zl_fail(err, ZL_E_BAD_IMAGE, "the layer is no tar archive: %.200s", archive_error_string(tar))
                : zl_unpack_place(&l->unpack, tar, err);
    archive_read_free(tar);
    if (src->err.code) { /* what the tar reader says of it is less than what the stream said */
        *err = src->err;
        r = src->err.code;
    }
    return r;
}

int zl_layer_place(struct zl_layer *l, int blob, struct zl_feed *feed, struct zl_err *err)
{
    struct zl_pump_source src = { 0 };
    int r = zl_pump_new(blob, feed, &l->job->decoders, &src.pump, err);
    if (r < 0)
        return r;
    r = read_tar(l, &src, err);
    r = r < 0 ? r : zl_pump_finish(src.pump, l->blob, l->diff_id, err);
    zl_pump_free(src.pump);
    return r;
}

int zl_layer_settle(struct zl_layer *l, const struct zl_lowers *lowers, struct zl_err *err)
{
    int r = zl_unpack_settle(&l->unpack, lowers, err);
    zl_unpack_done(&l->unpack);
    if (r == 0)
        zl_phase("pull.unpacked");
    return r;
}

/* A layer that another job has made meanwhile is as good as ours: content under a ChainID is the same. */
int zl_layer_commit(struct zl_layer *l, const char *chain_id, struct zl_err *err)
{
    char to[100];
    snprintf(to, sizeof to, "layers/%s", chain_id + 7);
    if (renameat(l->job->staging, l->name, l->job->store.dir, to) < 0 && errno != EEXIST && errno != ENOTEMPTY)
        return zl_fail(err, -errno, "commit the layer %.20s…", chain_id);
    return 0;
}
