#include "sys/path.h"

#include "base/fd.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { NAME_SIZE = 256, PARTS_MAX = 64, LINKS_MAX = 8, LINKS_FOLLOWED_MAX = 40 /* the kernel's */ };

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

/* As next_part, but ".." is a part: of a link's text. */
static int next_part_of_link(struct zl_str *rest, char ret[NAME_SIZE])
{
    struct zl_str ahead = *rest;
    while (ahead.p && ahead.n) {
        struct zl_str part = zl_str_cut(ahead, '/', &ahead);
        if (part.n == 0 || zl_str_is(part, "."))
            continue;
        if (!zl_str_is(part, ".."))
            break;
        *rest = ahead;
        memcpy(ret, "..", 3);
        return 1;
    }
    return next_part(rest, ret);
}

/* The way from the root to where a walk is: ".." goes back to a folder that is held, so that who moves folders about
 * meanwhile leads nobody out. */
struct walk {
    int held[PARTS_MAX + 1];
    unsigned n;
    unsigned links;
    struct zl_str rest;     /* of the path */
    char text[2][PATH_MAX]; /* what `rest` is of, once a link was followed */
    unsigned current;
};

static void walk_back(struct walk *w, unsigned n)
{
    while (w->n > n)
        zl_close(w->held[--w->n]);
}

/* Links of procfs that are no text (openat2's RESOLVE_NO_MAGICLINKS): they show a path, or "kind:[number]". */
static bool is_magic(int link, const char *target)
{
    struct statfs fs;
    return fstatfs(link, &fs) < 0 || (fs.f_type == PROC_SUPER_MAGIC && (target[0] == '/' || strchr(target, ':')));
}

/* The link's text in its place in the path. */
static int follow(struct walk *w, int link)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(link, "", target, sizeof target - 1);
    if (n <= 0)
        return n < 0 ? -errno : -ENOENT;
    target[n] = 0;
    if (w->links++ == LINKS_FOLLOWED_MAX || is_magic(link, target))
        return -ELOOP;
    char *whole = w->text[w->current = !w->current];
    int length = snprintf(whole, PATH_MAX, "%s%s%.*s", target, w->rest.p ? "/" : "", ZL_STR_FMT(w->rest));
    if (length >= PATH_MAX)
        return -ENAMETOOLONG;
    w->rest = zl_str_n(whole, (size_t)length);
    if (target[0] == '/')
        walk_back(w, 1);
    return 0;
}

/* One name further; *ret is set at the path's end. */
static int walk_on(struct walk *w, const char *name, int flags, int *ret)
{
    char ahead[NAME_SIZE];
    struct zl_str more = w->rest;
    struct stat st;
    int at = w->held[w->n - 1];
    bool last = next_part_of_link(&more, ahead) == 0, folder = !last || w->rest.p || flags & O_DIRECTORY;
    zl_auto_close int next = zl_openat(at, name, O_PATH | O_NOFOLLOW, 0);
    if (next < 0 || fstat(next, &st) < 0)
        return next < 0 ? next : -errno;
    if (S_ISLNK(st.st_mode) && !(last && !w->rest.p && flags & O_NOFOLLOW))
        return follow(w, next);
    if (folder && !S_ISDIR(st.st_mode))
        return -ENOTDIR;
    if (last) {
        *ret = flags & O_PATH ? ZL_TAKE_FD(next) : zl_openat(at, name, flags | O_NOFOLLOW, 0);
        return *ret;
    }
    if (w->n == ZL_ARRAY_LEN(w->held))
        return -ENAMETOOLONG;
    w->held[w->n++] = ZL_TAKE_FD(next);
    return 0;
}

static int open_in_root_stepwise(int root, const char *path, int flags)
{
    char name[NAME_SIZE];
    struct walk w = { .rest = zl_str(path) };
    int found = -EBADF, r = w.held[0] = zl_openat(root, ".", O_PATH | O_DIRECTORY, 0);
    w.n = r >= 0;
    while (r >= 0 && found < 0) {
        r = next_part_of_link(&w.rest, name);
        if (r == 0)
            r = found = zl_openat(w.held[w.n - 1], ".", flags, 0);
        else if (r > 0 && zl_streq(name, ".."))
            walk_back(&w, ZL_MAX(w.n - 1, 1u));
        else if (r > 0)
            r = walk_on(&w, name, flags, &found);
    }
    walk_back(&w, 0);
    return r < 0 ? r : found;
}

int zl_open_in_root(int dir, const char *path, int flags)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    long fd = syscall(SYS_openat2, dir, *path ? path : "/", &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_in_root_stepwise(dir, path, flags);
    return fd < 0 ? -errno : (int)fd;
}

/* One part more each time: what is there is resolved by the kernel, what is missing is made in what was resolved. A
 * link whose end is missing is followed by hand, the same way. */
static int make_in_root(int dir, const char *path, bool file, unsigned links)
{
    char name[NAME_SIZE], so_far[PATH_MAX] = "", target[PATH_MAX], ahead[NAME_SIZE];
    struct zl_str rest = zl_str(path);
    size_t n = 0;
    zl_auto_close int at = zl_openat(dir, ".", O_PATH | O_DIRECTORY, 0);
    for (unsigned parts = 0; at >= 0; parts++) {
        int r = next_part_of_link(&rest, name);
        if (r <= 0)
            return r < 0 ? r : ZL_TAKE_FD(at);
        struct zl_str more = rest;
        bool last = next_part_of_link(&more, ahead) == 0;
        size_t before = n;
        int w = snprintf(so_far + n, sizeof so_far - n, "/%s", name);
        if (parts == PARTS_MAX || w < 0 || (size_t)w >= sizeof so_far - n)
            return -ENAMETOOLONG;
        n += (size_t)w;
        int kind = last && file ? O_PATH : O_PATH | O_DIRECTORY;
        int next = zl_open_in_root(dir, so_far, kind);
        if (next == -ENOENT) {
            ssize_t length = readlinkat(at, name, target, sizeof target - 1);
            if (length > 0) {
                target[length] = 0;
                char whole[2 * PATH_MAX];
                snprintf(whole, sizeof whole, "%.*s/%s/%.*s", target[0] == '/' ? 0 : (int)before, so_far, target,
                         ZL_STR_FMT(rest));
                return links == 0 ? -ELOOP : make_in_root(dir, whole, file, links - 1);
            }
            if (last && file) {
                zl_auto_close int made = zl_openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
                r = made < 0 ? made : 0;
            } else {
                r = zl_mkdirat(at, name, 0755);
            }
            next = r < 0 ? r : zl_open_in_root(dir, so_far, kind);
        }
        (void)zl_close(at);
        at = next;
    }
    return at;
}

int zl_make_in_root(int dir, const char *path, bool file)
{
    char name[NAME_SIZE];
    struct zl_str rest = zl_str(path);
    int r;
    while ((r = next_part(&rest, name)) > 0) { /* ".." is for links only */
    }
    return r < 0 ? r : make_in_root(dir, path, file, LINKS_MAX);
}
