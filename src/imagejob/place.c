#include "imagejob/place.h"

#include "base/fd.h"
#include "sys/path.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 };

int zl_place_make_way(int dir, const char *name, bool folder)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st.st_mode))
        return folder ? 1 : zl_remove_tree(dir, name);
    return unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

/* A path that is being followed: `left` is still to go, u->at is where it has come to. */
struct walk {
    struct zl_unpack *u;
    int dir;
    unsigned links, depth; /* depth: the parts of u->at */
    char left[2 * ZL_OCI_PATH_SIZE];
};

static int enter(struct walk *w, int next, const char *part)
{
    size_t n = strlen(w->u->at), more = strlen(part);
    if (n + more + 2 > sizeof w->u->at ||
        ++w->depth > ZL_OCI_DEPTH_MAX) { /* links count: such a tree must be removed, too */
        zl_close(next);
        return -ENAMETOOLONG;
    }
    if (n)
        w->u->at[n++] = '/';
    memcpy(w->u->at + n, part, more + 1);
    zl_close(w->dir);
    w->dir = next;
    return 0;
}

/* Back to the path that u->at says. */
static int leave(struct walk *w)
{
    char *slash = strrchr(w->u->at, '/');
    w->depth -= w->u->at[0] != 0;
    *(slash ? slash : w->u->at) = 0;
    int next = zl_open_beneath(w->u->root, w->u->at, O_PATH | O_DIRECTORY);
    if (next < 0)
        return next;
    zl_close(w->dir);
    w->dir = next;
    return 0;
}

static int make(struct walk *w, const char *part)
{
    if (mkdirat(w->dir, part, ZL_SETTLE_IMPLIED) < 0)
        return -errno;
    int next = zl_openat(w->dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (next < 0)
        return next;
    w->u->entries++; /* it takes an inode, too */
    int r = enter(w, next, part);
    return r < 0 ? r : zl_settle_implied(&w->u->settle, w->u->at);
}

/* The part is there and no folder: a link is followed inside the layer, anything else replaced by a folder. */
static int follow(struct walk *w, const char *part)
{
    char target[ZL_OCI_PATH_SIZE];
    ssize_t n = readlinkat(w->dir, part, target, sizeof target - 1);
    if (n < 0 && errno != EINVAL)
        return -errno;
    if (n < 0)
        return unlinkat(w->dir, part, 0) < 0 ? -errno : make(w, part);
    target[n] = 0;
    if (++w->links > LINKS_MAX)
        return -ELOOP;
    size_t rest = strlen(w->left);
    if ((size_t)n + rest + 2 > sizeof w->left)
        return -ENAMETOOLONG;
    memmove(w->left + n + 1, w->left, rest + 1);
    memcpy(w->left, target, (size_t)n);
    w->left[n] = '/';
    if (target[0] != '/')
        return 0;
    w->u->at[0] = 0;
    w->depth = 0;
    int root = zl_openat(w->u->root, ".", O_PATH | O_DIRECTORY, 0);
    if (root < 0)
        return root;
    zl_close(w->dir);
    w->dir = root;
    return 0;
}

static int step(struct walk *w)
{
    char part[256];
    struct zl_str rest, p = zl_str_cut(zl_str(w->left), '/', &rest);
    if (p.n > 255)
        return -ENAMETOOLONG;
    snprintf(part, sizeof part, "%.*s", ZL_STR_FMT(p));
    if (rest.p)
        memmove(w->left, rest.p, rest.n + 1);
    else
        w->left[0] = 0;
    if (!part[0] || zl_streq(part, "."))
        return 0;
    if (zl_streq(part, ".."))
        return leave(w);
    int next = zl_openat(w->dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (next >= 0)
        return enter(w, next, part);
    return next == -ENOENT ? make(w, part) : next == -ENOTDIR || next == -ELOOP ? follow(w, part) : next;
}

static int go_to(struct zl_unpack *u, const char *path, size_t n)
{
    char parent[ZL_OCI_PATH_SIZE];
    snprintf(parent, sizeof parent, "%.*s", (int)n, path);
    u->dir = zl_close(u->dir);
    int fd = parent[0] ? zl_open_beneath(u->root, parent, O_PATH | O_DIRECTORY)
                       : zl_openat(u->root, ".", O_PATH | O_DIRECTORY, 0);
    if (fd >= 0) {
        snprintf(u->at, sizeof u->at, "%s", parent);
    } else {
        struct walk w = { .u = u, .dir = zl_openat(u->root, ".", O_PATH | O_DIRECTORY, 0) };
        snprintf(w.left, sizeof w.left, "%s", parent);
        u->at[0] = 0;
        int r = w.dir < 0 ? w.dir : 0;
        while (r == 0 && w.left[0])
            r = step(&w);
        if (r < 0) {
            zl_close(w.dir);
            return r;
        }
        fd = w.dir;
    }
    u->dir = fd;
    snprintf(u->asked, sizeof u->asked, "%s", parent);
    return 0;
}

int zl_place_parent(struct zl_unpack *u, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    *name = slash ? slash + 1 : path;
    /* Mostly entries come folder by folder. What they replace lies in that folder, so that it stays what it is. */
    return u->dir >= 0 && strlen(u->asked) == n && memcmp(u->asked, path, n) == 0 ? 0 : go_to(u, path, n);
}
