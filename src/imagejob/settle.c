#include "imagejob/settle.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "sys/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void zl_settle_done(struct zl_settle *s)
{
    zl_buf_done(&s->whiteouts);
    zl_buf_done(&s->opaques);
    zl_buf_done(&s->folders);
    free(s->times);
    *s = (struct zl_settle){ 0 };
}

void zl_settle_whiteout(struct zl_settle *s, const char *path)
{
    zl_buf_add(&s->whiteouts, path, strlen(path) + 1);
}

void zl_settle_opaque(struct zl_settle *s, const char *folder)
{
    zl_buf_add(&s->opaques, folder, strlen(folder) + 1);
}

void zl_settle_time(struct zl_settle *s, const char *folder, struct timespec mtime)
{
    ZL_GROW(s->times, s->ntimes, s->cap);
    s->times[s->ntimes++] = mtime;
    zl_buf_add(&s->folders, folder, strlen(folder) + 1);
}

/* A folder of the new layer that is being made opaque. */
struct hiding {
    int dir;
    struct stat lower;
};

static int hide_name(void *arg, const char *name)
{
    const struct hiding *h = arg;
    struct stat st;
    if (fstatat(h->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return mknodat(h->dir, name, S_IFCHR, makedev(0, 0)) < 0 && errno != EEXIST ? -errno : 0;
}

/* Hides all that the layers below have in the folder; then in its folders, which overlayfs would merge with theirs. */
static int hide_below(int root, const struct zl_lowers *lowers, const char *folder, int depth)
{
    struct hiding h = { .dir = zl_open_beneath(root, folder, O_RDONLY | O_DIRECTORY) };
    if (h.dir < 0)
        return h.dir == -ENOENT || h.dir == -ENOTDIR || h.dir == -ELOOP ? 0 : h.dir;
    DIR *d = fdopendir(h.dir);
    if (!d) {
        zl_close(h.dir);
        return -ENOMEM;
    }
    int r = depth > 512 ? -ELOOP : zl_lowers_each(lowers, folder, hide_name, &h);
    struct dirent *e;
    rewinddir(d);
    while (r == 0 && (e = readdir(d)) != NULL) {
        struct stat st;
        if (zl_streq(e->d_name, ".") || zl_streq(e->d_name, "..") ||
            fstatat(h.dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            continue;
        zl_auto_free char *below = zl_xasprintf("%s%s%s", folder, *folder ? "/" : "", e->d_name);
        r = hide_below(root, lowers, below, depth + 1);
    }
    closedir(d);
    return r;
}

/* The folder of a whiteout is there: placing its entry has made it, with the attributes of the one below. */
static int hide_path(int root, const struct zl_lowers *lowers, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    struct stat st;
    zl_auto_free char *parent = zl_xstrndup(path, slash ? (size_t)(slash - path) : 0);
    zl_auto_close int dir = zl_open_beneath(root, parent, O_RDONLY | O_DIRECTORY);
    if (dir < 0)
        return dir == -ENOENT || dir == -ENOTDIR || dir == -ELOOP ? 0 : dir; /* a later entry took its place */
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISDIR(st.st_mode) ? hide_below(root, lowers, path, 0) : 0;
    zl_auto_close int lower = zl_lowers_open(lowers, path, &st);
    if (lower < 0)
        return lower == -ENOENT ? 0 : lower; /* nothing to hide */
    return mknodat(dir, name, S_IFCHR, makedev(0, 0)) < 0 ? -errno : 0;
}

int zl_settle(struct zl_settle *s, int root, const struct zl_lowers *lowers, const char **where)
{
    int r = 0;
    for (size_t at = 0; at < s->opaques.n; at += strlen(*where) + 1) {
        *where = s->opaques.p + at;
        if ((r = hide_below(root, lowers, *where, 0)) < 0)
            return r;
    }
    for (size_t at = 0; at < s->whiteouts.n; at += strlen(*where) + 1) {
        *where = s->whiteouts.p + at;
        if ((r = hide_path(root, lowers, *where)) < 0)
            return r;
    }
    size_t i = 0;
    for (size_t at = 0; at < s->folders.n; at += strlen(*where) + 1) {
        *where = s->folders.p + at;
        struct timespec times[2] = { { 0, UTIME_OMIT }, s->times[i++] };
        zl_auto_close int dir = zl_open_beneath(root, *where, O_RDONLY | O_DIRECTORY);
        if (dir >= 0 && futimens(dir, times) < 0)
            return -errno;
    }
    return 0;
}
