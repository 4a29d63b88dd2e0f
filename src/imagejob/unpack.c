#include "imagejob/unpack.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "oci/layer.h"

#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const uint64_t entries_limit = 5000000, bytes_limit = UINT64_C(256) << 30;

static int fail(struct zl_err *err, int code, const char *path, const char *what)
{
    if (code == -ENOSPC || code == -EDQUOT)
        return zl_fail(err, ZL_E_DISK_FULL, "%s of '%.200s': no space left on the disk", what, path);
    return zl_fail_errno(err, ZL_E_BAD_IMAGE, code, "%s of '%.200s'", what, path);
}

static int open_part(int dir, const char *name)
{
    return zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* A folder that the layer implies without having an entry for it looks as it does in the layers below. */
static int make_implied(struct zl_unpack *u, int dir, const char *name, const char *path)
{
    struct stat st;
    if (mkdirat(dir, name, 0755) < 0)
        return -errno;
    zl_auto_close int made = open_part(dir, name);
    if (made < 0)
        return made;
    zl_auto_close int lower = zl_lowers_open(&u->lowers, path, &st);
    if (lower >= 0 && S_ISDIR(st.st_mode)) {
        int r = zl_copy_attributes(lower, made);
        if (r < 0)
            return r;
        zl_settle_time(&u->settle, path, st.st_mtim);
    }
    return ZL_TAKE_FD(made);
}

/*
 * Opens the folder that holds `path`, making what is missing; *name points at the last part. A part of the path that is
 * not a folder (a link of an earlier entry) is replaced by one: an entry below a link is below what the layer means by
 * that name, and following it is how layers break out.
 */
static int open_parent(struct zl_unpack *u, const char *path, const char **name)
{
    zl_auto_close int dir = fcntl(u->root, F_DUPFD_CLOEXEC, 3);
    struct zl_str rest = zl_str(path);
    for (;;) {
        char part[256];
        struct zl_str p = zl_str_cut(rest, '/', &rest);
        if (!rest.p) {
            *name = p.p;
            return ZL_TAKE_FD(dir);
        }
        snprintf(part, sizeof part, "%.*s", ZL_STR_FMT(p));
        int next = open_part(dir, part);
        if (next == -ENOTDIR || next == -ELOOP) {
            if (unlinkat(dir, part, 0) < 0)
                return -errno;
            next = -ENOENT;
        }
        if (next == -ENOENT) {
            zl_auto_free char *so_far = zl_xstrndup(path, (size_t)(p.p + p.n - path));
            next = make_implied(u, dir, part, so_far);
        }
        if (next < 0)
            return next;
        zl_close(dir);
        dir = next;
    }
}

/* An entry replaces what an earlier one of this layer left under its name, except that a folder keeps its content. */
static int make_way(int dir, const char *name, bool folder)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (folder && S_ISDIR(st.st_mode))
        return 0;
    return zl_remove_tree(dir, name);
}

static int write_data(struct zl_unpack *u, struct archive *tar, int fd, const char *path, struct zl_err *err)
{
    const void *block;
    size_t n;
    la_int64_t offset, end = 0;
    for (;;) {
        int r = archive_read_data_block(tar, &block, &n, &offset);
        if (r == ARCHIVE_EOF)
            break;
        if (r < ARCHIVE_OK)
            return zl_fail(err, ZL_E_BAD_IMAGE, "read '%.200s' from the layer: %.150s", path,
                           archive_error_string(tar) ? archive_error_string(tar) : "damaged");
        if (offset < 0 || (u->bytes += n) > bytes_limit)
            return zl_fail(err, ZL_E_LIMIT, "the layer unpacks to more than 256 GiB");
        for (size_t done = 0; done < n;) {
            ssize_t w = pwrite(fd, (const char *)block + done, n - done, offset + (la_int64_t)done);
            if (w < 0 && errno != EINTR)
                return fail(err, -errno, path, "writing");
            done += w > 0 ? (size_t)w : 0;
        }
        end = offset + (la_int64_t)n;
    }
    (void)end;
    return 0;
}

static void set_xattrs(struct archive_entry *e, int fd)
{
    const char *name;
    const void *value;
    size_t size;
    archive_entry_xattr_reset(e);
    while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
        struct zl_str n = zl_str(name);
        if (zl_str_starts(n, ZL_STR("trusted.")) || zl_str_starts(n, ZL_STR("user.overlay.")))
            continue;
        (void)fsetxattr(fd, name, value, size, 0); /* what this file system can't hold is left out, as engines do */
    }
}

static int set_attributes(struct zl_unpack *u, int dir, const char *name, struct archive_entry *e, int fd,
                          const char *path, struct zl_err *err)
{
    bool link = archive_entry_filetype(e) == AE_IFLNK;
    uid_t uid = (uid_t)archive_entry_uid(e);
    gid_t gid = (gid_t)archive_entry_gid(e);
    struct timespec times[2] = { { 0, UTIME_OMIT }, { archive_entry_mtime(e), archive_entry_mtime_nsec(e) } };
    if (fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 && (geteuid() == 0 || errno != EPERM))
        return fail(err, -errno, path, "setting the owner");
    if (!link && fchmodat(dir, name, archive_entry_perm(e) & 07777, 0) < 0)
        return fail(err, -errno, path, "setting the mode");
    if (fd >= 0)
        set_xattrs(e, fd); /* after chown, which clears capabilities */
    if (archive_entry_filetype(e) == AE_IFDIR)
        zl_settle_time(&u->settle, zl_streq(path, "/") ? "" : path,
                       times[1]); /* what is placed in it changes it again */
    else
        (void)utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

/* The target of a hard link is in a layer below: the file comes up as a copy, as overlayfs would make it on a write. */
static int copy_up(struct zl_unpack *u, const char *path, int dir, const char *name)
{
    struct stat st;
    char self[40];
    zl_auto_close int place = zl_lowers_open(&u->lowers, path, &st);
    if (place < 0)
        return place;
    if (!S_ISREG(st.st_mode))
        return -ENOENT;
    snprintf(self, sizeof self, "/proc/self/fd/%d", place);
    zl_auto_close int from = zl_openat(AT_FDCWD, self, O_RDONLY, 0);
    if (from < 0)
        return from;
    zl_auto_close int copy = zl_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (copy < 0)
        return copy;
    u->bytes += (uint64_t)st.st_size;
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(from, NULL, copy, NULL, (size_t)left, 0);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        left -= n;
    }
    return zl_copy_attributes(from, copy);
}

static int place_hardlink(struct zl_unpack *u, int dir, const char *name, const char *to, const char *path,
                          struct zl_err *err)
{
    char target[ZL_OCI_PATH_SIZE];
    const char *target_name;
    if (zl_oci_layer_path(to, target) < 0 || !target[0])
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', outside the layer", path, to);
    zl_auto_close int target_dir = open_parent(u, target, &target_name);
    if (target_dir < 0)
        return fail(err, target_dir, path, "finding the link target");
    struct stat a, b;
    if (fstatat(target_dir, target_name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
        fstatat(dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino)
        return 0; /* onto itself */
    int r = make_way(dir, name, false);
    if (r == 0 && linkat(target_dir, target_name, dir, name, 0) < 0)
        r = -errno;
    if (r != -ENOENT)
        return r < 0 ? fail(err, r, path, "making the hard link") : 0;
    r = copy_up(u, target, target_dir, target_name);
    if (r == -ENOENT)
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', which no layer has", path, to);
    if (r == 0 && linkat(target_dir, target_name, dir, name, 0) < 0)
        r = -errno;
    return r < 0 ? fail(err, r, path, "copying up the link target") : 0;
}

static int place(struct zl_unpack *u, struct archive *tar, struct archive_entry *e, int dir, const char *name,
                 const char *path, struct zl_err *err)
{
    mode_t type = archive_entry_filetype(e);
    zl_auto_close int fd = -EBADF;
    int r = make_way(dir, name, type == AE_IFDIR);
    if (r < 0)
        return fail(err, r, path, "replacing an earlier entry");
    switch (type) {
    case AE_IFREG:
        fd = zl_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (fd < 0)
            return fail(err, fd, path, "making the file");
        r = write_data(u, tar, fd, path, err);
        if (r < 0)
            return r;
        if (archive_entry_size(e) > 0 && ftruncate(fd, archive_entry_size(e)) < 0) /* a hole at the end */
            return fail(err, -errno, path, "sizing the file");
        break;
    case AE_IFDIR:
        r = zl_mkdirat(dir, name, 0755);
        fd = r < 0 ? r : open_part(dir, name);
        if (fd < 0)
            return fail(err, fd, path, "making the folder");
        break;
    case AE_IFLNK:
        if (!archive_entry_symlink(e) || symlinkat(archive_entry_symlink(e), dir, name) < 0)
            return fail(err, archive_entry_symlink(e) ? -errno : -EINVAL, path, "making the link");
        break;
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        if (mknodat(dir, name, type | 0600,
                    makedev((unsigned)archive_entry_rdevmajor(e), (unsigned)archive_entry_rdevminor(e))) < 0) {
            /* Without the right to make devices (rootless) they are left out: /dev is the runtime's anyway. */
            if (errno == EPERM && type != AE_IFIFO)
                return 0;
            return fail(err, -errno, path, "making the device");
        }
        break;
    default:
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.200s' is of a kind that layers can't have", path);
    }
    return set_attributes(u, dir, name, e, fd, path, err);
}

static int hide(struct zl_unpack *u, enum zl_oci_whiteout w, const char *path, const char *name, struct zl_err *err)
{
    zl_auto_free char *folder = zl_xstrndup(path, name > path ? (size_t)(name - path) - 1 : 0);
    zl_auto_free char *hidden = zl_xasprintf("%s%s%s", folder, *folder ? "/" : "", name + 4);
    switch (w) {
    case ZL_OCI_OPAQUE:
        zl_settle_opaque(&u->settle, folder);
        break;
    case ZL_OCI_WHITEOUT:
        zl_settle_whiteout(&u->settle, hidden);
        break;
    case ZL_OCI_MALFORMED:
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.200s' is a whiteout of nothing", path);
    case ZL_OCI_AUFS:
    case ZL_OCI_PLAIN:
        break;
    }
    return 0;
}

static int one_entry(struct zl_unpack *u, struct archive *tar, struct archive_entry *e, struct zl_err *err)
{
    char path[ZL_OCI_PATH_SIZE];
    const char *raw = archive_entry_pathname(e), *name;
    if (!raw || zl_oci_layer_path(raw, path) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "an entry's path leaves the layer or is too long: '%.200s'",
                       raw ? raw : "");
    if (++u->entries > entries_limit)
        return zl_fail(err, ZL_E_LIMIT, "the layer has more than %llu entries", (unsigned long long)entries_limit);
    if (!path[0])
        return archive_entry_filetype(e) == AE_IFDIR ? set_attributes(u, u->root, ".", e, u->root, "/", err) : 0;
    zl_auto_close int dir = open_parent(u, path, &name);
    if (dir < 0)
        return fail(err, dir, path, "making the folders above");
    enum zl_oci_whiteout w = zl_oci_whiteout_of(name);
    if (w != ZL_OCI_PLAIN)
        return hide(u, w, path, name, err);
    const char *hard = archive_entry_hardlink(e);
    return hard ? place_hardlink(u, dir, name, hard, path, err) : place(u, tar, e, dir, name, path, err);
}

static int every_entry(struct zl_unpack *u, struct archive *tar, struct zl_err *err)
{
    struct archive_entry *e;
    for (;;) {
        int r = archive_read_next_header(tar, &e);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r < ARCHIVE_WARN)
            return zl_fail(err, ZL_E_BAD_IMAGE, "the layer is no tar archive: %.200s",
                           archive_error_string(tar) ? archive_error_string(tar) : "damaged");
        r = one_entry(u, tar, e, err);
        if (r < 0)
            return r;
    }
}

int zl_unpack(struct zl_unpack *u, struct archive *tar, struct zl_err *err)
{
    const char *where = "";
    int r = every_entry(u, tar, err);
    if (r == 0) {
        r = zl_settle(&u->settle, u->root, &u->lowers, &where);
        r = r < 0 ? fail(err, r, where, "settling whiteouts and times") : 0;
    }
    zl_settle_done(&u->settle);
    return r;
}
