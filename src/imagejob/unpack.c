#include "imagejob/unpack.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "imagejob/owners.h"
#include "imagejob/place.h"

#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const uint64_t entries_limit = 5000000, bytes_limit = UINT64_C(256) << 30;

/* What an entry says of itself, checked. */
struct entry {
    struct archive *tar;
    struct archive_entry *e;
    const char *path, *name; /* below the root; its last part */
    mode_t type, mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    bool other_owner; /* than new files have */
    char text[ZL_OCI_PATH_SIZE];
};

static int fail(struct zl_err *err, int code, const char *path, const char *what)
{
    if (code == -ENOSPC || code == -EDQUOT)
        return zl_fail(err, ZL_E_DISK_FULL, "%s of '%.200s': no space left on the disk", what, path);
    zl_fail_errno(err, ZL_E_BAD_IMAGE, code, "%s of '%.200s'", what, path);
    return code == -EINVAL && zl_streq(what, "setting the owner")
               ? zl_hint(err, ZL_E_BAD_IMAGE, "this user namespace has no such user: see /etc/subuid and /etc/subgid")
               : ZL_E_BAD_IMAGE;
}

void zl_unpack_init(struct zl_unpack *u, int root, int aside, const char *name)
{
    *u = (struct zl_unpack){ .root = root, .dir = -EBADF, .uid = geteuid(), .gid = getegid() };
    zl_settle_init(&u->settle, aside, name);
}

void zl_unpack_done(struct zl_unpack *u)
{
    u->dir = zl_close(u->dir);
    zl_settle_done(&u->settle);
}

static int write_data(struct zl_unpack *u, const struct entry *n, int fd, struct zl_err *err)
{
    const void *block;
    size_t size;
    la_int64_t offset, end = 0, whole = archive_entry_size(n->e);
    if (whole < 0 || (uint64_t)whole > bytes_limit)
        return zl_fail(err, ZL_E_LIMIT, "'%.200s' is larger than 256 GiB", n->path);
    for (;;) {
        int r = archive_read_data_block(n->tar, &block, &size, &offset);
        if (r == ARCHIVE_EOF)
            break;
        if (r < ARCHIVE_OK)
            return zl_fail(err, ZL_E_BAD_IMAGE, "read '%.200s' from the layer: %.150s", n->path,
                           archive_error_string(n->tar) ? archive_error_string(n->tar) : "damaged");
        if (offset < 0 || (u->bytes += size) > bytes_limit)
            return zl_fail(err, ZL_E_LIMIT, "the layer unpacks to more than 256 GiB");
        for (size_t done = 0; done < size;) {
            ssize_t w = pwrite(fd, (const char *)block + done, size - done, offset + (la_int64_t)done);
            if (w < 0 && errno != EINTR)
                return fail(err, -errno, n->path, "writing");
            done += w > 0 ? (size_t)w : 0;
        }
        end = offset + (la_int64_t)size;
        if (u->written)
            atomic_fetch_add_explicit(u->written, size, memory_order_relaxed);
    }
    if (end < whole && ftruncate(fd, whole) < 0) /* a hole at the end */
        return fail(err, -errno, n->path, "sizing the file");
    return 0;
}

bool zl_unpack_drops(struct zl_str name)
{
    return zl_str_starts(name, ZL_STR("trusted.")) || zl_str_starts(name, ZL_STR("user.overlay.")) ||
           zl_str_is(name, "security.selinux");
}

/* Behind chown, which clears capabilities. What this file system or this user can't set is left out, as engines do. */
static int set_xattrs(const struct entry *n, int fd, struct zl_err *err)
{
    const char *name;
    const void *value;
    size_t size;
    archive_entry_xattr_reset(n->e);
    while (archive_entry_xattr_next(n->e, &name, &value, &size) == ARCHIVE_OK) {
        if (zl_unpack_drops(zl_str(name)) || fsetxattr(fd, name, value, size, 0) == 0)
            continue;
        if (errno == ENOSPC || errno == EDQUOT)
            return fail(err, -errno, n->path, "setting attributes");
    }
    return 0;
}

static int set_owner(const struct entry *n, int dir, struct zl_err *err)
{
    if (n->other_owner && fchownat(dir, n->name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW) < 0 &&
        (geteuid() == 0 || errno != EPERM))
        return fail(err, -errno, n->path, "setting the owner");
    return 0;
}

static int place_file(struct zl_unpack *u, const struct entry *n, struct zl_err *err)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
    zl_auto_close int fd = zl_openat(u->dir, n->name, flags, n->mode & 0777);
    if (fd == -EEXIST) {
        int r = zl_place_make_way(u->dir, n->name, false);
        if (r < 0)
            return fail(err, r, n->path, "replacing an earlier entry");
        fd = zl_openat(u->dir, n->name, flags, n->mode & 0777);
    }
    if (fd < 0)
        return fail(err, fd, n->path, "making the file");
    struct timespec times[2] = { n->mtime, n->mtime };
    int r = write_data(u, n, fd, err);
    if (r == 0 && n->other_owner && fchown(fd, n->uid, n->gid) < 0 && (geteuid() == 0 || errno != EPERM))
        return fail(err, -errno, n->path, "setting the owner");
    if (r == 0 && (n->mode & 07000) && fchmod(fd, n->mode) < 0) /* writing and chown clear what is beyond 0777 */
        return fail(err, -errno, n->path, "setting the mode");
    if (r == 0 && archive_entry_xattr_count(n->e))
        r = set_xattrs(n, fd, err);
    if (r == 0 && futimens(fd, times) < 0)
        return fail(err, -errno, n->path, "setting the time");
    return r;
}

static int note_folder(struct zl_unpack *u, const struct entry *n, const char *path, struct zl_err *err)
{
    struct stat st = { .st_mode = n->mode, .st_uid = n->uid, .st_gid = n->gid, .st_mtim = n->mtime };
    int r = zl_settle_folder(&u->settle, path, &st);
    return r < 0 ? fail(err, r, n->path, "noting the attributes") : 0;
}

/* The path of an entry as it is in the layer, with the links on the way followed. */
static char *real_path(const struct zl_unpack *u, const char *name)
{
    return zl_xasprintf("%s%s%s", u->at, u->at[0] ? "/" : "", name);
}

/* Its own, where files can be made in it. */
static mode_t folder_mode(const struct entry *n)
{
    return (n->mode & 0700) == 0700 && n->mode <= 0777 ? n->mode : ZL_SETTLE_FOLDER;
}

static int place_folder(struct zl_unpack *u, const struct entry *n, struct zl_err *err)
{
    if (mkdirat(u->dir, n->name, folder_mode(n)) < 0) {
        int r = errno == EEXIST ? zl_place_make_way(u->dir, n->name, true) : -errno;
        if (r == 1) /* it keeps what is in it, and is implied no longer */
            r = fchmodat(u->dir, n->name, folder_mode(n), 0) < 0 ? -errno : 0;
        else if (r == 0)
            r = mkdirat(u->dir, n->name, folder_mode(n)) < 0 ? -errno : 0;
        if (r < 0)
            return fail(err, r, n->path, "making the folder");
    }
    if (archive_entry_xattr_count(n->e)) {
        zl_auto_close int fd = zl_openat(u->dir, n->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        int r = fd < 0 ? fail(err, fd, n->path, "opening the folder") : set_xattrs(n, fd, err);
        if (r < 0)
            return r;
    }
    zl_auto_free char *real = real_path(u, n->name);
    return note_folder(u, n, real, err);
}

static int make_node(const struct entry *n, int dir)
{
    const char *target = archive_entry_symlink(n->e);
    if (n->type == AE_IFLNK)
        return !target ? -EINVAL : symlinkat(target, dir, n->name) < 0 ? -errno : 0;
    dev_t dev = makedev((unsigned)archive_entry_rdevmajor(n->e), (unsigned)archive_entry_rdevminor(n->e));
    return mknodat(dir, n->name, n->type | (n->mode & 0777), n->type == AE_IFIFO ? 0 : dev) < 0 ? -errno : 0;
}

static int place_node(struct zl_unpack *u, const struct entry *n, struct zl_err *err)
{
    int r = make_node(n, u->dir);
    if (r == -EEXIST) {
        r = zl_place_make_way(u->dir, n->name, false);
        r = r < 0 ? r : make_node(n, u->dir);
    }
    /* Without the right to make devices (rootless) they are left out: /dev is the runtime's anyway. */
    if (r == -EPERM && (n->type == AE_IFCHR || n->type == AE_IFBLK))
        return 0;
    if (r < 0)
        return fail(err, r, n->path, n->type == AE_IFLNK ? "making the link" : "making the device");
    struct timespec times[2] = { n->mtime, n->mtime };
    r = set_owner(n, u->dir, err);
    if (r == 0 && n->type != AE_IFLNK && (n->mode & 07000) && fchmodat(u->dir, n->name, n->mode, 0) < 0)
        return fail(err, -errno, n->path, "setting the mode");
    if (r == 0 && utimensat(u->dir, n->name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, -errno, n->path, "setting the time");
    return r;
}

static int place_hardlink(struct zl_unpack *u, const struct entry *n, const char *to, struct zl_err *err)
{
    char target[ZL_OCI_PATH_SIZE];
    const char *target_name, *name;
    if (zl_oci_layer_path(to, target) < 0 || !target[0])
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', outside the layer", n->path, to);
    int r = zl_place_parent(u, target, &target_name);
    zl_auto_free char *real_target = r < 0 ? NULL : real_path(u, target_name);
    zl_auto_close int target_dir = r < 0 ? r : fcntl(u->dir, F_DUPFD_CLOEXEC, 3);
    r = target_dir < 0 ? target_dir : zl_place_parent(u, n->path, &name);
    if (r < 0)
        return fail(err, r, n->path, "finding the link target");
    struct stat a, b;
    bool there = fstatat(target_dir, target_name, &a, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && fstatat(u->dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino)
        return 0; /* onto itself */
    if (there && S_ISDIR(a.st_mode))
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', which is a folder", n->path, to);
    zl_auto_free char *real = real_path(u, name);
    r = zl_place_make_way(u->dir, name, false);
    if (r == 0 && !there) /* then it must be in a layer below */
        r = zl_settle_copy(&u->settle, real_target, real, target_dir, target_name);
    else if (r == 0 && zl_settle_is_placeholder(&a)) /* of one that is */
        r = zl_settle_link(&u->settle, real_target, real);
    if (r == 0 && linkat(target_dir, target_name, u->dir, name, 0) < 0)
        r = -errno;
    return r < 0 ? fail(err, r, n->path, "making the hard link") : 0;
}

static int hide(struct zl_unpack *u, const struct entry *n, enum zl_oci_whiteout w, struct zl_err *err)
{
    zl_auto_free char *hidden = w == ZL_OCI_WHITEOUT ? real_path(u, n->name + 4) : NULL;
    int r = 0;
    if (w == ZL_OCI_MALFORMED)
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.200s' is a whiteout of nothing", n->path);
    if (w == ZL_OCI_OPAQUE)
        r = zl_settle_opaque(&u->settle, u->at);
    else if (w == ZL_OCI_WHITEOUT)
        r = zl_settle_whiteout(&u->settle, hidden);
    return r < 0 ? fail(err, r, n->path, "noting the whiteout") : 0;
}

static int read_entry(const struct zl_unpack *u, struct entry *n, struct zl_err *err)
{
    la_int64_t uid = archive_entry_uid(n->e), gid = archive_entry_gid(n->e);
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX) /* -1 means "as it is" to chown */
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.200s' belongs to nobody that there can be (%lld:%lld)", n->path,
                       (long long)uid, (long long)gid);
    long nsec = archive_entry_mtime_nsec(n->e);
    n->uid = (uid_t)uid;
    n->gid = (gid_t)gid;
    zl_owners_map(&n->uid, &n->gid);
    n->other_owner = n->uid != u->uid || n->gid != u->gid;
    n->type = archive_entry_filetype(n->e);
    n->mode = archive_entry_perm(n->e) & 07777;
    n->mtime = (struct timespec){ archive_entry_mtime(n->e), nsec < 0 || nsec > 999999999 ? 0 : nsec };
    return 0;
}

static int place(struct zl_unpack *u, const struct entry *n, struct zl_err *err)
{
    switch (n->type) {
    case AE_IFREG:
        return place_file(u, n, err);
    case AE_IFDIR:
        return place_folder(u, n, err);
    case AE_IFLNK:
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
        return place_node(u, n, err);
    default:
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.200s' is of a kind that layers can't have", n->path);
    }
}

static int place_root(struct zl_unpack *u, const struct entry *n, struct zl_err *err)
{
    if (n->type != AE_IFDIR)
        return 0;
    if (fchmod(u->root, ZL_SETTLE_FOLDER) < 0)
        return fail(err, -errno, "/", "setting the mode");
    int r = set_xattrs(n, u->root, err);
    return r < 0 ? r : note_folder(u, n, "", err);
}

static int one_entry(struct zl_unpack *u, struct entry *n, struct zl_err *err)
{
    char *path = n->text;
    const char *raw = archive_entry_pathname(n->e);
    if (!raw || zl_oci_layer_path(raw, path) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "an entry's path leaves the layer or is too long: '%.200s'",
                       raw ? raw : "");
    u->entries++;
    n->path = path[0] ? path : "/";
    int r = read_entry(u, n, err);
    if (r < 0)
        return r;
    if (!path[0])
        return place_root(u, n, err);
    r = zl_place_parent(u, path, &n->name);
    if (r < 0)
        return fail(err, r, path, "making the folders above");
    if (u->entries > entries_limit)
        return zl_fail(err, ZL_E_LIMIT, "the layer has more than %llu entries and folders",
                       (unsigned long long)entries_limit);
    enum zl_oci_whiteout w = zl_oci_whiteout_of(n->name);
    if (w != ZL_OCI_PLAIN)
        return hide(u, n, w, err);
    const char *hard = archive_entry_hardlink(n->e);
    return hard ? place_hardlink(u, n, hard, err) : place(u, n, err);
}

int zl_unpack_place(struct zl_unpack *u, struct archive *tar, struct zl_err *err)
{
    struct entry n = { .tar = tar };
    /* Layers need no entry for their root. */
    if (fchmod(u->root, ZL_SETTLE_IMPLIED) < 0)
        return fail(err, -errno, "/", "setting the mode");
    int r = zl_settle_implied(&u->settle, "");
    if (r < 0)
        return fail(err, r, "/", "noting the root");
    for (;;) {
        r = archive_read_next_header(tar, &n.e);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r < ARCHIVE_WARN)
            return zl_fail(err, ZL_E_BAD_IMAGE, "the layer is no tar archive: %.200s",
                           archive_error_string(tar) ? archive_error_string(tar) : "damaged");
        r = one_entry(u, &n, err);
        if (r < 0)
            return r;
    }
}

int zl_unpack_settle(struct zl_unpack *u, const struct zl_lowers *lowers, struct zl_err *err)
{
    return zl_settle(&u->settle, u->root, lowers, &u->bytes, bytes_limit, err);
}
