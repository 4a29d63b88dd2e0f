#include "base/fd.h"

#include "base/alloc.h"
#include "base/id.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEAL_WAIT_MAX_MS 512 /* the longest of the waits, each twice the one before: 1 s in all */

int zl_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        (void)close(fd); /* on Linux the descriptor is gone whatever close says */
        errno = saved;
    }
    return -EBADF;
}

int zl_openat(int dir, const char *name, int flags, mode_t mode)
{
    int fd = openat(dir, name, flags | O_CLOEXEC, mode);
    return fd < 0 ? -errno : fd;
}

ssize_t zl_read_full(int fd, void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = read(fd, (char *)p + done, n - done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (ssize_t)done;
}

int zl_write_full(int fd, const void *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = write(fd, (const char *)p + done, n - done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        done += (size_t)r;
    }
    return 0;
}

int zl_read_file(int dir, const char *name, size_t limit, struct zl_buf *ret)
{
    zl_auto_close int fd = zl_openat(dir, name, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    zl_auto_buf b = ZL_BUF_INIT;
    for (;;) {
        if (zl_buf_try_reserve(&b, 4096) < 0)
            return -ENOMEM;
        size_t room = b.cap - b.n - 1;
        ssize_t r = zl_read_full(fd, b.p + b.n, room);
        if (r < 0)
            return (int)r;
        b.n += (size_t)r;
        if (b.n > limit)
            return -EFBIG;
        if ((size_t)r < room)
            break;
    }
    b.p[b.n] = 0;
    zl_buf_done(ret);
    *ret = b;
    b = (struct zl_buf)ZL_BUF_INIT;
    return 0;
}

int zl_write_file_atomic(int dir, const char *name, const void *p, size_t n, mode_t mode, enum zl_durability d)
{
    char id[ZL_ID_HEX_SIZE], tmp[300];
    zl_id_make(id);
    int len = snprintf(tmp, sizeof tmp, ".%s.%.8s", name, id);
    if (len < 0 || (size_t)len >= sizeof tmp)
        return -ENAMETOOLONG;
    int fd = zl_openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return fd;
    int r = zl_write_full(fd, p, n);
    if (r == 0 && d == ZL_POWER_PROOF && fsync(fd) < 0)
        r = -errno;
    (void)zl_close(fd);
    if (r == 0 && renameat(dir, tmp, dir, name) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlinkat(dir, tmp, 0);
        return r;
    }
    if (d == ZL_POWER_PROOF) {
        zl_auto_close int folder = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
        if (folder < 0)
            return folder;
        if (fsync(folder) < 0)
            return -errno;
    }
    return 0;
}

int zl_mkdirat(int dir, const char *name, mode_t mode)
{
    if (mkdirat(dir, name, mode) == 0 || errno == EEXIST)
        return 0;
    return -errno;
}

int zl_mkdir_p(const char *path, mode_t mode)
{
    int all = zl_mkdirat(AT_FDCWD, path, mode); /* mostly there is what is above */
    if (all != -ENOENT)
        return all;
    zl_auto_free char *copy = zl_xstrdup(path);
    for (char *s = copy + 1; *s; s++) {
        if (*s != '/')
            continue;
        *s = 0;
        int r = zl_mkdirat(AT_FDCWD, copy, mode);
        if (r < 0)
            return r;
        *s = '/';
    }
    return zl_mkdirat(AT_FDCWD, copy, mode);
}

/*
 * One open folder at a time per level would bind depth to RLIMIT_NOFILE, so the depth is bounded instead; layers are
 * checked against a smaller one when they are unpacked.
 */
enum { TREE_DEPTH_MAX = 1024 };

static int remove_tree(int dir, const char *name, int depth)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (depth > TREE_DEPTH_MAX)
        return -ELOOP;
    int fd = zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    DIR *d = fdopendir(fd);
    if (!d) {
        int r = -errno;
        (void)zl_close(fd);
        return r;
    }
    int r = 0;
    struct dirent *e;
    while (r == 0 && (errno = 0, e = readdir(d)) != NULL)
        if (!zl_streq(e->d_name, ".") && !zl_streq(e->d_name, ".."))
            r = remove_tree(dirfd(d), e->d_name, depth + 1);
    if (!e && errno)
        r = -errno;
    closedir(d);
    if (r < 0)
        return r;
    return unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

int zl_remove_tree(int dir, const char *name)
{
    return remove_tree(dir, name, 0);
}

/*
 * The kernel refuses the seal against writing with EBUSY while anything holds a page of the file, and that may be the
 * kernel itself, for a moment, moving pages under load (mm/memfd.c, memfd_wait_for_pins). It waits about 0.1 s for
 * them on its own.
 */
int zl_seal(int fd)
{
    for (int ms = 1;; ms *= 2) {
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
            return 0;
        if (errno != EBUSY || ms > SEAL_WAIT_MAX_MS)
            return -errno;
        (void)poll(NULL, 0, ms);
    }
}

int zl_sealed_memfd(const char *name, const void *p, size_t n)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int r = zl_write_full(fd, p, n);
    if (r == 0)
        r = zl_seal(fd);
    if (r < 0) {
        (void)zl_close(fd);
        return r;
    }
    return fd;
}

int zl_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}
