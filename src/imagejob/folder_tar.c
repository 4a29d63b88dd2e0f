#include "imagejob/folder_tar.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "imagejob/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { DEPTH_MAX = 128, XATTR_MAX = 64 << 10 };

struct tar {
    struct archive *archive;
    struct archive_entry_linkresolver *links;
};

static int failed(struct zl_err *err, struct archive *tar, const char *path)
{
    int e = archive_errno(tar);
    if (e == ENOSPC || e == EDQUOT)
        return zl_fail_errno(err, ZL_E_DISK_FULL, -e, "write '%.200s' into the layer", path);
    return zl_fail(err, ZL_E_CREATE_FAILED, "write '%.200s' into the layer: %.120s", path,
                   archive_error_string(tar) ? archive_error_string(tar) : "unknown");
}

static int copy_data(struct archive *tar, int fd, const char *path, struct zl_err *err)
{
    char buf[65536];
    ssize_t n;
    while ((n = zl_read_full(fd, buf, sizeof buf)) > 0)
        if (archive_write_data(tar, buf, (size_t)n) < 0)
            return failed(err, tar, path);
    return n < 0 ? zl_fail(err, (int)n, "read '%.200s'", path) : 0;
}

/* Those that a layer may have. */
static int add_xattrs(struct archive_entry *e, int dir, const char *name, const char *path, struct zl_err *err)
{
    char names[XATTR_MAX], file[400];
    zl_auto_free char *value = zl_xmalloc(XATTR_MAX);
    if (snprintf(file, sizeof file, "/proc/self/fd/%d/%s", dir, name) >= (int)sizeof file)
        return zl_fail(err, -ENAMETOOLONG, "look at '%.200s'", path);
    ssize_t n = llistxattr(file, names, sizeof names);
    if (n < 0 && errno != EOPNOTSUPP)
        return zl_fail(err, -errno, "list the extended attributes of '%.200s'", path);
    for (const char *x = names; n > 0 && x < names + n; x += strlen(x) + 1) {
        if (zl_unpack_drops(zl_str(x)))
            continue;
        ssize_t size = lgetxattr(file, x, value, XATTR_MAX);
        if (size >= 0)
            archive_entry_xattr_add_entry(e, x, value, (size_t)size);
        else if (errno != ENODATA) /* gone meanwhile */
            return zl_fail(err, -errno, "read the attribute %.60s of '%.200s'", x, path);
    }
    return 0;
}

static int add_entry(struct tar *t, int dir, const char *name, const char *path, const struct stat *st,
                     struct zl_err *err)
{
    struct archive *tar = t->archive;
    zl_auto_close int fd = -EBADF;
    char target[4097] = "";
    if (S_ISREG(st->st_mode)) {
        fd = zl_openat(dir, name, O_RDONLY | O_NOFOLLOW, 0);
        if (fd < 0)
            return zl_fail(err, fd, "open '%.200s'", path);
    }
    if (S_ISLNK(st->st_mode) && readlinkat(dir, name, target, sizeof target - 1) < 0)
        return zl_fail(err, -errno, "read the link '%.200s'", path);
    struct archive_entry *e = archive_entry_new();
    archive_entry_copy_stat(e, st);
    archive_entry_copy_pathname(e, path);
    if (target[0])
        archive_entry_copy_symlink(e, target);
    int r = add_xattrs(e, dir, name, path, err);
    if (S_ISREG(st->st_mode)) { /* of several names the first has the content; that strategy gives every entry back */
        struct archive_entry *spare = NULL;
        archive_entry_linkify(t->links, &e, &spare);
    }
    r = r < 0 ? r : archive_write_header(tar, e) < ARCHIVE_WARN ? failed(err, tar, path) : 0;
    bool is_link = archive_entry_hardlink(e) != NULL;
    archive_entry_free(e);
    return r == 0 && fd >= 0 && !is_link ? copy_data(tar, fd, path, err) : r;
}

static int walk(struct tar *tar, int dir, const char *prefix, int depth, struct zl_err *err)
{
    struct dirent **names = NULL;
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", dir);
    int n = depth > DEPTH_MAX ? -1 : scandir(self, &names, NULL, alphasort), r = 0;
    if (n < 0)
        return zl_fail(err, depth > DEPTH_MAX ? -ELOOP : -errno, "list the folder '/%.200s'", prefix);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        struct stat st;
        if (r == 0 && !zl_streq(name, ".") && !zl_streq(name, "..")) {
            zl_auto_free char *path = zl_xasprintf("%s%s%s", prefix, *prefix ? "/" : "", name);
            if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                r = zl_fail(err, -errno, "look at '%.200s'", path);
            else if (!S_ISSOCK(st.st_mode))
                r = add_entry(tar, dir, name, path, &st, err);
            if (r == 0 && S_ISDIR(st.st_mode)) {
                zl_auto_close int below = zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
                r = below < 0 ? zl_fail(err, below, "open '%.200s'", path) : walk(tar, below, path, depth + 1, err);
            }
        }
        free(names[i]);
    }
    free(names);
    return r;
}

int zl_folder_tar(int folder, int out, struct zl_err *err)
{
    struct archive *tar = archive_write_new();
    struct tar t = { tar, archive_entry_linkresolver_new() };
    archive_entry_linkresolver_set_strategy(t.links, ARCHIVE_FORMAT_TAR_PAX_RESTRICTED);
    archive_write_set_format_pax_restricted(tar);
    archive_write_set_bytes_in_last_block(tar, 1);
    int r = archive_write_open_fd(tar, out) < ARCHIVE_WARN ? failed(err, tar, "/") : walk(&t, folder, "", 0, err);
    if (archive_write_close(tar) < ARCHIVE_WARN && r == 0)
        r = failed(err, tar, "/");
    archive_write_free(tar);
    archive_entry_linkresolver_free(t.links);
    return r;
}
