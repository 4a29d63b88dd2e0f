#include "imagejob/tree.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { DEPTH_MAX = 1024, BLOCK = 64 << 10, XATTR_MAX = 64 << 10 };

/* Names of a folder, sorted, each once. */
struct names {
    char **v;
    size_t n, cap;
};

static void names_done(struct names *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->v[i]);
    free(s->v);
}

static int add_name(void *arg, const char *name)
{
    struct names *s = arg;
    ZL_GROW(s->v, s->n, s->cap);
    s->v[s->n++] = zl_xstrdup(name);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(const struct zl_lowers *l, const char *folder, struct names *ret)
{
    int r = zl_lowers_each(l, folder, add_name, ret);
    size_t n = 0;
    if (ret->n)
        qsort(ret->v, ret->n, sizeof *ret->v, by_name);
    for (size_t i = 0; i < ret->n; i++) {
        if (n && zl_streq(ret->v[n - 1], ret->v[i]))
            free(ret->v[i]);
        else
            ret->v[n++] = ret->v[i];
    }
    ret->n = n;
    return r;
}

static int read_again(int fd, int *ret)
{
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    *ret = zl_openat(AT_FDCWD, self, O_RDONLY | O_NONBLOCK, 0);
    return *ret < 0 ? *ret : 0;
}

static int same_content(int a, int b, bool *ret)
{
    zl_auto_free char *p = zl_xmalloc(2 * BLOCK);
    for (;;) {
        ssize_t n = zl_read_full(a, p, BLOCK), m = zl_read_full(b, p + BLOCK, BLOCK);
        if (n < 0 || m < 0)
            return n < 0 ? (int)n : (int)m;
        *ret = n == m && memcmp(p, p + BLOCK, (size_t)n) == 0;
        if (!*ret || n == 0)
            return 0;
    }
}

static int compare_files(int a, const struct stat *sa, int b, const struct stat *sb, unsigned *what)
{
    bool same = sa->st_size == sb->st_size;
    if (same && !(sa->st_dev == sb->st_dev && sa->st_ino == sb->st_ino)) {
        zl_auto_close int fa = -EBADF;
        zl_auto_close int fb = -EBADF;
        int r = read_again(a, &fa);
        r = r < 0 ? r : read_again(b, &fb);
        r = r < 0 ? r : same_content(fa, fb, &same);
        if (r < 0)
            return r;
    }
    *what |= same ? 0 : ZL_TREE_CONTENT;
    return 0;
}

static int compare_links(int a, int b, unsigned *what)
{
    char ta[4096], tb[4096];
    ssize_t n = readlinkat(a, "", ta, sizeof ta), m = readlinkat(b, "", tb, sizeof tb);
    if (n < 0 || m < 0)
        return -errno;
    *what |= n == m && memcmp(ta, tb, (size_t)n) == 0 ? 0 : ZL_TREE_CONTENT;
    return 0;
}

/* Whether each attribute that `a` has is the same of `b`. */
static int has_all(const char *a, const char *b, bool *ret)
{
    zl_auto_free char *names = zl_xmalloc(XATTR_MAX), *va = zl_xmalloc(XATTR_MAX), *vb = zl_xmalloc(XATTR_MAX);
    ssize_t n = listxattr(a, names, XATTR_MAX);
    *ret = true;
    if (n < 0)
        return errno == ENOTSUP ? 0 : -errno;
    for (const char *name = names; *ret && name < names + n; name += strlen(name) + 1) {
        ssize_t sa = getxattr(a, name, va, XATTR_MAX), sb = getxattr(b, name, vb, XATTR_MAX);
        *ret = sa == sb && (sa <= 0 || memcmp(va, vb, (size_t)sa) == 0);
    }
    return 0;
}

static int compare_xattrs(int a, int b, unsigned *what)
{
    char pa[40], pb[40];
    bool one = true, other = true;
    snprintf(pa, sizeof pa, "/proc/self/fd/%d", a);
    snprintf(pb, sizeof pb, "/proc/self/fd/%d", b);
    int r = has_all(pa, pb, &one);
    r = r < 0 ? r : has_all(pb, pa, &other);
    *what |= r == 0 && !(one && other) ? ZL_TREE_XATTR : 0;
    return r;
}

static int compare(int a, const struct stat *sa, int b, const struct stat *sb, unsigned *what)
{
    *what = 0;
    if (zl_is_whiteout(sa) && zl_is_whiteout(sb)) /* whose time and owner say nothing */
        return 0;
    if ((sa->st_mode & S_IFMT) != (sb->st_mode & S_IFMT)) {
        *what = ZL_TREE_KIND;
        return 0;
    }
    *what |= (sa->st_mode & 07777) != (sb->st_mode & 07777) ? ZL_TREE_MODE : 0;
    *what |= sa->st_uid != sb->st_uid || sa->st_gid != sb->st_gid ? ZL_TREE_OWNER : 0;
    *what |= sa->st_mtim.tv_sec != sb->st_mtim.tv_sec || sa->st_mtim.tv_nsec != sb->st_mtim.tv_nsec ? ZL_TREE_TIME : 0;
    if (S_ISLNK(sa->st_mode))
        return compare_links(a, b, what);
    if (S_ISCHR(sa->st_mode) || S_ISBLK(sa->st_mode))
        *what |= sa->st_rdev != sb->st_rdev ? ZL_TREE_CONTENT : 0;
    int r = S_ISREG(sa->st_mode) ? compare_files(a, sa, b, sb, what) : 0;
    if (r == 0 && (S_ISREG(sa->st_mode) || S_ISDIR(sa->st_mode)))
        r = compare_xattrs(a, b, what);
    return r;
}

static int folder(struct zl_tree_diff *d, const char *path, bool in_a, bool in_b, int depth);

static int one(struct zl_tree_diff *d, const char *path, int depth)
{
    struct stat sa, sb;
    unsigned what = 0;
    zl_auto_close int a = d->raw ? zl_lower_open(d->a.dirs[0], path, &sa) : zl_lowers_open(&d->a, path, &sa);
    zl_auto_close int b = d->raw ? zl_lower_open(d->b.dirs[0], path, &sb) : zl_lowers_open(&d->b, path, &sb);
    if ((a < 0 && a != -ENOENT) || (b < 0 && b != -ENOENT))
        return a < 0 && a != -ENOENT ? a : b;
    if (a < 0 && b < 0) /* whited out in both */
        return 0;
    int r = a >= 0 && b >= 0 ? compare(a, &sa, b, &sb, &what) : 0;
    what = a < 0 ? ZL_TREE_ADDED : b < 0 ? ZL_TREE_REMOVED : what;
    if (r == 0 && what)
        r = d->differ(d->arg, path, what);
    bool in_a = a >= 0 && S_ISDIR(sa.st_mode), in_b = b >= 0 && S_ISDIR(sb.st_mode);
    if (r < 0 || !(in_a || in_b) || (d->whole_folders && !(in_a && in_b)))
        return r;
    a = zl_close(a); /* depth is not to cost descriptors */
    b = zl_close(b);
    return folder(d, path, in_a, in_b, depth + 1);
}

static int folder(struct zl_tree_diff *d, const char *path, bool in_a, bool in_b, int depth)
{
    struct names a = { 0 }, b = { 0 };
    int r = depth > DEPTH_MAX ? -ELOOP : 0;
    if (r == 0 && in_a)
        r = list(&d->a, path, &a);
    if (r == 0 && in_b)
        r = list(&d->b, path, &b);
    for (size_t i = 0, k = 0; r == 0 && (i < a.n || k < b.n);) {
        int order = i == a.n ? 1 : k == b.n ? -1 : strcmp(a.v[i], b.v[k]);
        zl_auto_free char *below = zl_xasprintf("%s%s%s", path, *path ? "/" : "", order <= 0 ? a.v[i] : b.v[k]);
        i += order <= 0;
        k += order >= 0;
        r = one(d, below, depth);
    }
    names_done(&a);
    names_done(&b);
    return r;
}

int zl_tree_compare(struct zl_tree_diff *d)
{
    return one(d, "", 0);
}
