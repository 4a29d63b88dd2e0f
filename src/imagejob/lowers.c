#include "imagejob/lowers.h"

#include "base/fd.h"
#include "imagejob/owners.h"
#include "sys/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

bool zl_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

/* The path in one layer. -ENOTDIR: something on the way is no folder, so what lies deeper in the layers is hidden. */
static int open_in(int layer, const char *path, int flags)
{
    const char *slash = strrchr(path, '/');
    int fd = *path ? zl_open_beneath(layer, path, flags) : zl_openat(layer, ".", flags, 0);
    if (fd != -ELOOP)
        return fd;
    /* A link: as the last part it is what was asked for, before that it is no folder. */
    char parent[4096];
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 0, path);
    zl_auto_close int dir = zl_open_beneath(layer, parent, O_PATH | O_DIRECTORY);
    if (dir < 0)
        return dir == -ELOOP ? -ENOTDIR : dir;
    return zl_openat(dir, slash ? slash + 1 : path, flags | O_NOFOLLOW, 0);
}

int zl_lower_open(int dir, const char *path, struct stat *st)
{
    zl_auto_close int fd = open_in(dir, path, O_PATH);
    if (fd < 0)
        return fd;
    return fstat(fd, st) < 0 ? -errno : ZL_TAKE_FD(fd);
}

int zl_lowers_open(const struct zl_lowers *l, const char *path, struct stat *st)
{
    for (unsigned i = l->n; i-- > 0;) {
        zl_auto_close int fd = open_in(l->dirs[i], path, O_PATH);
        if (fd == -ENOENT)
            continue;
        if (fd == -ENOTDIR)
            return -ENOENT;
        if (fd < 0)
            return fd;
        if (fstat(fd, st) < 0)
            return -errno;
        return zl_is_whiteout(st) ? -ENOENT : ZL_TAKE_FD(fd);
    }
    return -ENOENT;
}

int zl_lowers_each(const struct zl_lowers *l, const char *folder, int (*fn)(void *arg, const char *name), void *arg)
{
    int r = 0;
    for (unsigned i = l->n; r == 0 && i-- > 0;) {
        int fd = open_in(l->dirs[i], folder, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        if (fd == -ENOENT)
            continue;
        if (fd == -ENOTDIR || fd == -ELOOP)
            return 0;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        if (!d) {
            zl_close(fd);
            return fd < 0 ? fd : -ENOMEM;
        }
        struct dirent *e;
        while (r == 0 && (e = readdir(d)) != NULL)
            if (!zl_streq(e->d_name, ".") && !zl_streq(e->d_name, ".."))
                r = fn(arg, e->d_name);
        closedir(d);
    }
    return r;
}

static void copy_xattrs(const char *from, int to)
{
    char names[4096], value[65536];
    ssize_t n = listxattr(from, names, sizeof names);
    for (const char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
        ssize_t size = getxattr(from, name, value, sizeof value);
        if (size >= 0)
            (void)fsetxattr(to, name, value, (size_t)size, 0); /* what this file system can't hold is left out */
    }
}

int zl_copy_attributes(int from, int to)
{
    struct stat st;
    char path[40];
    if (fstat(from, &st) < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d", from);
    struct timespec times[2] = { st.st_atim, st.st_mtim };
    zl_owners_map(&st.st_uid, &st.st_gid);
    if (fchown(to, st.st_uid, st.st_gid) < 0 && (geteuid() == 0 || errno != EPERM))
        return -errno;
    if (fchmod(to, st.st_mode & 07777) < 0)
        return -errno;
    copy_xattrs(path, to); /* behind chown, which clears capabilities */
    return futimens(to, times) < 0 ? -errno : 0;
}
