#include "sys/path.h"

#include "base/fd.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NAME_SIZE = 256, PARTS_MAX = 64 };

/* The next part that is a name, as a string: 1, 0 at the end, or what is wrong with it. */
static int next_part(struct zl_str *rest, char ret[NAME_SIZE])
{
    while (rest->p && rest->n) {
        struct zl_str part = zl_str_cut(*rest, '/', rest);
        if (part.n == 0 || zl_str_is(part, "."))
            continue;
        if (zl_str_is(part, ".."))
            return -EXDEV; /* as openat2 says it */
        if (part.n >= NAME_SIZE)
            return -ENAMETOOLONG;
        memcpy(ret, part.p, part.n);
        ret[part.n] = 0;
        return 1;
    }
    return 0;
}

static int step(int dir, const char *name, int flags)
{
    zl_auto_close int fd = zl_openat(dir, name, flags | O_NOFOLLOW, 0);
    struct stat st;
    if (fd < 0)
        /* With O_DIRECTORY a link is said to be no folder. */
        return fd == -ENOTDIR && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) ? -ELOOP : fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISLNK(st.st_mode) ? -ELOOP : ZL_TAKE_FD(fd); /* O_PATH opens the link itself */
}

static int open_stepwise(int root, const char *path, int flags)
{
    char name[NAME_SIZE], following[NAME_SIZE];
    struct zl_str rest = zl_str(path);
    int r = next_part(&rest, name);
    if (r <= 0)
        return r < 0 ? r : zl_openat(root, ".", flags, 0);
    zl_auto_close int dir = zl_openat(root, ".", O_PATH | O_DIRECTORY, 0);
    while (dir >= 0) {
        r = next_part(&rest, following);
        if (r < 0)
            return r;
        bool last = r == 0;
        /* "name/" asks for a folder, as it does of the kernel. */
        bool folder = !last || (*path && path[strlen(path) - 1] == '/');
        int next = step(dir, name, last ? flags | (folder ? O_DIRECTORY : 0) : O_PATH | O_DIRECTORY);
        if (last || next < 0)
            return next;
        (void)zl_close(dir);
        dir = next;
        memcpy(name, following, sizeof name);
    }
    return dir;
}

int zl_open_beneath(int dir, const char *path, int flags)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
    while (*path == '/')
        path++;
    /* ".." is refused here: openat2 would allow one that stays below, which nobody needs to mean. */
    struct zl_str rest = zl_str(path);
    char name[NAME_SIZE];
    int r;
    while ((r = next_part(&rest, name)) > 0) {
    }
    if (r < 0)
        return r;
    long fd = syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_stepwise(dir, path, flags);
    return fd < 0 ? -errno : (int)fd;
}

int zl_open_folder_beneath(int dir, const char *path)
{
    char name[NAME_SIZE];
    struct zl_str rest = zl_str(path);
    zl_auto_close int at = zl_openat(dir, ".", O_PATH | O_DIRECTORY, 0);
    for (unsigned parts = 0; at >= 0; parts++) {
        int r = next_part(&rest, name);
        if (r <= 0)
            return r < 0 ? r : ZL_TAKE_FD(at);
        if (parts == PARTS_MAX)
            return -ENAMETOOLONG;
        int next = step(at, name, O_PATH | O_DIRECTORY);
        if (next == -ENOENT) {
            r = zl_mkdirat(at, name, 0755);
            next = r < 0 ? r : step(at, name, O_PATH | O_DIRECTORY);
        }
        (void)zl_close(at);
        at = next;
    }
    return at;
}
