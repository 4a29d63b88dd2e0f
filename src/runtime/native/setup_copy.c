/* tmpcopyup: what a folder held is copied into the tmpfs that now hides it. Links are copied, never followed. */
#include "base/fd.h"
#include "runtime/native/setup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 64 };

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    zl_auto_close int in = zl_openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    zl_auto_close int out = zl_openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (in < 0 || out < 0)
        return in < 0 ? in : out;
    for (off_t left = st->st_size; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        if (n < 0)
            return -errno;
        if (n == 0)
            break; /* it has become shorter */
        left -= n;
    }
    return 0;
}

static int copy_folder(int from, int to, int depth);

static int copy_one(int from, int to, const char *name, int depth)
{
    struct stat st;
    int r = 0;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISLNK(st.st_mode)) {
        char target[4097];
        ssize_t n = readlinkat(from, name, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        r = n < 0 || symlinkat(target, to, name) < 0 ? -errno : 0;
    } else if (S_ISDIR(st.st_mode)) {
        zl_auto_close int in = zl_openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        r = in < 0 ? in : mkdirat(to, name, 0700) < 0 ? -errno : 0;
        zl_auto_close int out = r < 0 ? r : zl_openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        r = out < 0 ? out : copy_folder(in, out, depth + 1);
    } else if (S_ISREG(st.st_mode)) {
        r = copy_file(from, to, name, &st);
    } else {
        r = mknodat(to, name, st.st_mode, st.st_rdev) < 0 ? -errno : 0;
    }
    if (r == 0 && fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        r = -errno;
    if (r == 0 && !S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0)
        r = -errno;
    struct timespec times[] = { st.st_atim, st.st_mtim };
    return r == 0 && utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : r;
}

static int copy_folder(int from, int to, int depth)
{
    int fd = depth > DEPTH_MAX ? -ELOOP : zl_openat(from, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    DIR *d = fdopendir(fd);
    if (!d) {
        int e = -errno;
        zl_close(fd);
        return e;
    }
    int r = 0;
    struct dirent *e;
    while (r == 0 && (errno = 0, e = readdir(d)) != NULL)
        if (!zl_streq(e->d_name, ".") && !zl_streq(e->d_name, ".."))
            r = copy_one(from, to, e->d_name, depth);
    if (!e && errno)
        r = -errno;
    closedir(d);
    return r;
}

int zl_setup_copy_up(int from, int to)
{
    struct stat st;
    int r = copy_folder(from, to, 0);
    if (r < 0 || fstat(from, &st) < 0)
        return r < 0 ? r : -errno;
    return fchownat(to, ".", st.st_uid, st.st_gid, 0) < 0 || fchmodat(to, ".", st.st_mode & 07777, 0) < 0 ? -errno : 0;
}
