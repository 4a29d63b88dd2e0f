#include "imagejob/unpack.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "sys/path.h"

#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { PATH_LIMIT = 4096, DEPTH_LIMIT = 512 };
static const uint64_t entries_limit = 5000000, bytes_limit = UINT64_C(256) << 30;

static int fail(struct zl_err *err, int code, const char *path, const char *what)
{
    if (code == -ENOSPC || code == -EDQUOT)
        return zl_fail(err, ZL_E_DISK_FULL, "%s of '%.200s': no space left on the disk", what, path);
    return zl_fail_errno(err, ZL_E_BAD_IMAGE, code, "%s of '%.200s'", what, path);
}

/* Without leading "/" and "./", inner "." and empty parts; -EINVAL for "..", NUL-free by the caller. */
static int clean_path(const char *in, char *ret, size_t size)
{
    struct zl_str rest = zl_str(in);
    size_t n = 0;
    int depth = 0;
    ret[0] = 0;
    while (rest.p) {
        struct zl_str part = zl_str_cut(rest, '/', &rest);
        if (part.n == 0 || zl_str_is(part, "."))
            continue;
        if (zl_str_is(part, "..") || part.n > 255 || ++depth > DEPTH_LIMIT || n + part.n + 2 > size)
            return -EINVAL;
        if (n)
            ret[n++] = '/';
        memcpy(ret + n, part.p, part.n);
        n += part.n;
        ret[n] = 0;
    }
    return 0;
}

static int open_part(int dir, const char *name)
{
    return zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/*
 * Opens the folder that holds `path`, making what is missing; *name points at the last part. A part of the path that is
 * not a folder (a link of an earlier entry) is replaced by one: an entry below a link is below what the layer means by
 * that name, and following it is how layers break out.
 */
static int open_parent(int root, const char *path, const char **name)
{
    zl_auto_close int dir = fcntl(root, F_DUPFD_CLOEXEC, 3);
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
            if (mkdirat(dir, part, 0755) < 0)
                return -errno;
            next = open_part(dir, part);
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

static int whiteout(int dir, const char *name)
{
    int r = zl_remove_tree(dir, name);
    if (r < 0)
        return r;
    return mknodat(dir, name, S_IFCHR, makedev(0, 0)) < 0 ? -errno : 0;
}

/* Hides what the layers below have in this folder, except what this layer has put there. */
static int opaque(const struct zl_unpack *u, int dir, const char *folder)
{
    for (unsigned i = 0; i < u->nlowers; i++) {
        zl_auto_close int lower = zl_openat(AT_FDCWD, u->lowers[i], O_PATH | O_DIRECTORY, 0);
        int fd = lower < 0 ? lower : zl_open_beneath(lower, folder, O_RDONLY | O_DIRECTORY);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        if (!d)
            continue; /* that layer has no such folder */
        struct dirent *e;
        int r = 0;
        while (r == 0 && (e = readdir(d)) != NULL) {
            if (zl_streq(e->d_name, ".") || zl_streq(e->d_name, ".."))
                continue;
            if (faccessat(dir, e->d_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
                r = mknodat(dir, e->d_name, S_IFCHR, makedev(0, 0)) < 0 && errno != EEXIST ? -errno : 0;
        }
        closedir(d);
        if (r < 0)
            return r;
    }
    return 0;
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

static int set_attributes(int dir, const char *name, struct archive_entry *e, int fd, const char *path,
                          struct zl_err *err)
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
    (void)utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int place_hardlink(struct zl_unpack *u, int dir, const char *name, const char *to, const char *path,
                          struct zl_err *err)
{
    char target[PATH_LIMIT];
    const char *target_name;
    if (clean_path(to, target, sizeof target) < 0 || !target[0])
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', outside the layer", path, to);
    zl_auto_close int target_dir = open_parent(u->root, target, &target_name);
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
    /* The target is in a layer below: the file comes up as a copy, as overlayfs would make it on a write. */
    for (unsigned i = 0; i < u->nlowers; i++) {
        zl_auto_close int lower = zl_openat(AT_FDCWD, u->lowers[i], O_PATH | O_DIRECTORY, 0);
        zl_auto_close int from = lower < 0 ? lower : zl_open_beneath(lower, target, O_RDONLY | O_NONBLOCK);
        if (from < 0 || fstat(from, &a) < 0 || !S_ISREG(a.st_mode))
            continue;
        zl_auto_close int copy = zl_openat(target_dir, target_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        off_t left = a.st_size;
        while (copy >= 0 && left > 0) {
            ssize_t n = copy_file_range(from, NULL, copy, NULL, (size_t)left, 0);
            if (n <= 0)
                return fail(err, n < 0 ? -errno : -EIO, path, "copying up the link target");
            left -= n;
        }
        struct timespec times[2] = { a.st_atim, a.st_mtim };
        if (copy < 0 || fchown(copy, a.st_uid, a.st_gid) < 0 || fchmod(copy, a.st_mode & 07777) < 0 ||
            futimens(copy, times) < 0 || linkat(target_dir, target_name, dir, name, 0) < 0)
            return fail(err, copy < 0 ? copy : -errno, path, "copying up the link target");
        return 0;
    }
    return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', which no layer has", path, to);
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
    return set_attributes(dir, name, e, fd, path, err);
}

static int one_entry(struct zl_unpack *u, struct archive *tar, struct archive_entry *e, struct zl_err *err)
{
    char path[PATH_LIMIT];
    const char *raw = archive_entry_pathname(e), *name;
    if (!raw || clean_path(raw, path, sizeof path) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "an entry's path leaves the layer or is too long: '%.200s'",
                       raw ? raw : "");
    if (++u->entries > entries_limit)
        return zl_fail(err, ZL_E_LIMIT, "the layer has more than %llu entries", (unsigned long long)entries_limit);
    if (!path[0])
        return archive_entry_filetype(e) == AE_IFDIR ? set_attributes(u->root, ".", e, u->root, "/", err) : 0;
    zl_auto_close int dir = open_parent(u->root, path, &name);
    if (dir < 0)
        return fail(err, dir, path, "making the folders above");
    if (zl_str_starts(zl_str(name), ZL_STR(".wh."))) {
        int r;
        if (zl_streq(name, ".wh..wh..opq")) {
            char folder[PATH_LIMIT];
            snprintf(folder, sizeof folder, "%.*s", (int)ZL_MAX(0, (int)(name - path) - 1), path);
            r = opaque(u, dir, folder);
        } else {
            r = zl_str_starts(zl_str(name), ZL_STR(".wh..wh.")) ? 0 : name[4] ? whiteout(dir, name + 4) : -EINVAL;
        }
        return r < 0 ? fail(err, r, path, "applying the whiteout") : 0;
    }
    const char *hard = archive_entry_hardlink(e);
    return hard ? place_hardlink(u, dir, name, hard, path, err) : place(u, tar, e, dir, name, path, err);
}

int zl_unpack(struct zl_unpack *u, struct archive *tar, struct zl_err *err)
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
