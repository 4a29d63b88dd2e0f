#include "imagejob/job.h"

#include "base/fd.h"
#include "base/id.h"
#include "base/phase.h"
#include "image/credentials.h"
#include "imagejob/owners.h"
#include "imagejob/partial.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Staging folders whose lock nobody holds are of jobs that died. */
static void drop_dead_staging(int staging)
{
    int fd = zl_openat(staging, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        char lock[300];
        if (e->d_name[0] == '.')
            continue;
        snprintf(lock, sizeof lock, "%s/.lock", e->d_name);
        zl_auto_close int held = zl_openat(staging, lock, O_RDONLY, 0);
        if (held < 0 || flock(held, LOCK_EX | LOCK_NB) == 0) {
            zl_partial_keep(staging, e->d_name);
            ZL_IGNORE(zl_remove_tree(staging, e->d_name)); /* the next job tries again */
        }
    }
    closedir(d);
    zl_partial_drop(staging, false);
}

/* What the folders above would give to each file of a layer: a default ACL, which masks modes, and a group. */
static int inherit_nothing(int folder)
{
    if (fremovexattr(folder, "system.posix_acl_default") < 0 && errno != ENODATA && errno != EOPNOTSUPP)
        return -errno;
    struct stat st;
    if (fstat(folder, &st) < 0 || (st.st_gid != getegid() && fchown(folder, (uid_t)-1, getegid()) < 0))
        return -errno;
    return fchmod(folder, 0700) < 0 ? -errno : 0; /* behind fchown, and without its set-group-ID bit */
}

/* Makes and locks the job's folder. One job at a time does this (until `all` is unlocked), so that no folder is seen
 * before its lock is held. */
static int make_staging(struct zl_image_job *job, int all)
{
    while (flock(all, LOCK_EX) < 0)
        if (errno != EINTR)
            return -errno;
    drop_dead_staging(all);
    int r = zl_mkdirat(all, job->id, 0700);
    r = r < 0 ? r : (job->staging = zl_openat(all, job->id, O_RDONLY | O_DIRECTORY, 0));
    r = r < 0 ? r : inherit_nothing(job->staging);
    r = r < 0 ? r : (job->staging_lock = zl_openat(job->staging, ".lock", O_RDWR | O_CREAT, 0600));
    return r >= 0 && flock(job->staging_lock, LOCK_EX | LOCK_NB) < 0 ? -errno : r;
}

int zl_image_job_open(struct zl_image_job *job, const char *data_dir, struct zl_err *err)
{
    *job = (struct zl_image_job){ .staging = -EBADF, .all_staging = -EBADF, .staging_lock = -EBADF, .events = -EBADF };
    job->store.dir = -EBADF;
    zl_arena_init(&job->arena);
    zl_decoders_init(&job->decoders);
    zl_owners_look();
    if (!data_dir)
        return 0;
    int r = zl_store_open(data_dir, &job->store, err);
    if (r < 0)
        return r;
    zl_id_make(job->id);
    r = job->all_staging = zl_openat(job->store.dir, "staging", O_RDONLY | O_DIRECTORY, 0);
    r = r < 0 ? r : make_staging(job, job->all_staging);
    if (r >= 0)
        (void)flock(job->all_staging, LOCK_UN);
    return r < 0 ? zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "make the job's staging folder") : 0;
}

void zl_image_job_close(struct zl_image_job *job)
{
    if (job->staging >= 0) {
        if (!job->disk_full)
            zl_partial_keep(job->all_staging, job->id);
        ZL_IGNORE(zl_remove_tree(job->all_staging, job->id)); /* the next job drops what is left */
    }
    zl_close(job->all_staging);
    zl_close(job->staging);
    zl_close(job->staging_lock);
    zl_store_close(&job->store);
    zl_buf_done(&job->kept);
    zl_decoders_done(&job->decoders);
    zl_arena_done(&job->arena);
}

void zl_image_job_event(struct zl_image_job *job, struct zl_buf *line)
{
    zl_buf_putc(line, '\n');
    ZL_IGNORE(zl_write_full(job->events, line->p, line->n)); /* nobody listens any more; the work is still wanted */
}

void zl_image_job_progress(struct zl_image_job *job, const char *layer, uint64_t current, uint64_t total)
{
    if (job->request->quiet)
        return;
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_puts(&line, "{\"event\":\"progress\",\"layer\":");
    zl_json_string(&line, zl_str(layer));
    zl_buf_printf(&line, ",\"current\":%llu,\"total\":%llu}", (unsigned long long)current, (unsigned long long)total);
    zl_image_job_event(job, &line);
}

void zl_image_job_done(struct zl_image_job *job, const struct zl_image_record *r, const char *warning)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_puts(&line, "{\"event\":\"done\",\"reference\":");
    zl_json_string(&line, zl_str(r->reference));
    zl_buf_puts(&line, ",\"digest\":");
    zl_json_string(&line, zl_str(r->digest));
    warning = warning ? warning : zl_owners_warning();
    if (warning) {
        zl_buf_puts(&line, ",\"warning\":");
        zl_json_string(&line, zl_str(warning));
    }
    zl_buf_puts(&line, job->stale ? ",\"stale\":true}" : "}");
    zl_image_job_event(job, &line);
}

void zl_image_job_pushed(struct zl_image_job *job, const char *reference, const char *digest, const char *blobs,
                         const char *warning)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_puts(&line, "{\"event\":\"done\",\"reference\":");
    zl_json_string(&line, zl_str(reference));
    zl_buf_printf(&line, ",\"digest\":\"%s\",\"blobs\":%s", digest, blobs);
    if (warning) {
        zl_buf_puts(&line, ",\"warning\":");
        zl_json_string(&line, zl_str(warning));
    }
    zl_buf_putc(&line, '}');
    zl_image_job_event(job, &line);
}

void zl_image_job_credentials(const struct zl_image_job *job, struct zl_credentials *ret)
{
    const struct zl_image_request *q = job->request;
    *ret = (struct zl_credentials){ 0 };
    snprintf(ret->user, sizeof ret->user, "%s", q->username ? q->username : "");
    snprintf(ret->password, sizeof ret->password, "%s", q->password ? q->password : "");
    snprintf(ret->identity_token, sizeof ret->identity_token, "%s", q->identity_token ? q->identity_token : "");
    snprintf(ret->registry_token, sizeof ret->registry_token, "%s", q->registry_token ? q->registry_token : "");
}

int zl_image_job_keep(struct zl_image_job *job, const char *const *digests, unsigned n, struct zl_err *err)
{
    for (unsigned i = 0; i < n; i++)
        zl_buf_printf(&job->kept, "%s\n", digests[i]);
    /* Under the lock: a collector that did not see the file is through when it is there. */
    zl_auto_close int lock = zl_store_lock(&job->store, false);
    int r = lock < 0 ? lock : zl_write_file_atomic(job->staging, "keep", job->kept.p, job->kept.n, 0600, ZL_KILL_PROOF);
    return r < 0 ? zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "keep what the job needs") : 0;
}

int zl_image_job_stage_blob(struct zl_image_job *job, const char *digest, struct zl_err *err)
{
    char file[ZL_PARTIAL_NAME_SIZE];
    zl_partial_take(job->all_staging, job->staging, digest);
    int fd = zl_openat(job->staging, zl_partial_name(digest, file), O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
    return fd < 0 ? zl_fail_errno(err, fd == -ENOSPC ? ZL_E_DISK_FULL : fd, fd, "make a staging file") : fd;
}

/* A blob that is there may be on the disk and an image's, so it stays when it is whole: in its place a file whose bytes
 * are not on the disk yet would be lost with the power, and the image with it. */
static int place_blob(struct zl_image_job *job, const char *file, const char *to, const char *digest)
{
    struct stat st;
    if (renameat2(job->staging, file, job->store.dir, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EEXIST && errno != EINVAL) /* not every file system can tell */
        return -errno;
    if (fstatat(job->staging, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    zl_auto_close int stored = zl_image_job_stored_blob(job, digest, st.st_size);
    if (stored >= 0) {
        (void)unlinkat(job->staging, file, 0); /* the job's end drops it otherwise */
        return 0;
    }
    zl_auto_close int fd = zl_openat(job->staging, file, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    return fsync(fd) < 0 || renameat(job->staging, file, job->store.dir, to) < 0 ? -errno : 0;
}

int zl_image_job_keep_blob(struct zl_image_job *job, const char *file, const char *digest, struct zl_err *err)
{
    char to[100];
    snprintf(to, sizeof to, "blobs/sha256/%s", digest + 7);
    int r = place_blob(job, file, to, digest);
    atomic_store(&job->unflushed, true); /* one writing to the disk does for all of them */
    return r < 0 ? zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "keep the blob %.20s…", digest) : 0;
}

int zl_image_job_put_blob(struct zl_image_job *job, const void *p, size_t n, char digest[ZL_DIGEST_SIZE],
                          struct zl_err *err)
{
    static const char file[] = "document";
    const char *kept = zl_digest_of(p, n, digest);
    int r = zl_image_job_keep(job, &kept, 1, err);
    if (r < 0)
        return r;
    zl_auto_close int fd = zl_openat(job->staging, file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    r = fd < 0 ? fd : zl_write_full(fd, p, n);
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "keep a blob");
    return zl_image_job_keep_blob(job, file, digest, err);
}

int zl_image_job_stored_blob(struct zl_image_job *job, const char *digest, int64_t size)
{
    char path[100], is[ZL_DIGEST_SIZE];
    snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
    zl_auto_close int fd = zl_openat(job->store.dir, path, O_RDONLY | O_NOFOLLOW, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != size)
        return -ENOENT;
    return zl_digest_of_file(fd, is) == 0 && zl_streq(digest, is) ? ZL_TAKE_FD(fd) : -ENOENT;
}

int zl_image_job_flush(struct zl_image_job *job, struct zl_err *err)
{
    atomic_store(&job->unflushed, false);
    if (syncfs(job->staging) < 0)
        return zl_fail_errno(err, errno == ENOSPC ? ZL_E_DISK_FULL : -errno, -errno, "write the layers to the disk");
    return 0;
}

int zl_image_job_sync(struct zl_image_job *job, struct zl_err *err)
{
    static const char *const folders[] = { "layers", "blobs/sha256" };
    if (atomic_load(&job->unflushed))
        return zl_image_job_flush(job, err); /* which takes the folders with it */
    for (size_t i = 0; i < ZL_ARRAY_LEN(folders); i++) {
        zl_auto_close int fd = zl_openat(job->store.dir, folders[i], O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 || fsync(fd) < 0)
            return zl_fail(err, fd < 0 ? fd : -errno, "write the folder %s to the disk", folders[i]);
    }
    return 0;
}
