#include "imagejob/settle.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "sys/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum kind { IMPLIED, FOLDER, OPAQUE, WHITEOUT, COPY, LINK };

enum { MEMORY_MAX = 256 << 10, READ_SIZE = 32 << 10 };

/* One note; behind it `length` bytes: the path with its NUL, of a COPY and a LINK also the link's path with its NUL. */
struct note {
    uint32_t kind, length;
    uint32_t mode, uid, gid; /* of a FOLDER; a COPY's mode is its number */
    uint32_t nsec;
    int64_t sec;
};

enum { ASIDE_SIZE = 96 };

static const char *aside_name(const struct zl_settle *s, unsigned number, const char *more, char ret[ASIDE_SIZE])
{
    snprintf(ret, ASIDE_SIZE, "%.64s.%u%s", s->name, number, more);
    return ret;
}

void zl_settle_init(struct zl_settle *s, int aside, const char *name)
{
    *s = (struct zl_settle){ .aside = aside, .name = name };
}

void zl_settle_done(struct zl_settle *s)
{
    char file[ASIDE_SIZE];
    if (s->file > 0)
        zl_close(s->file);
    for (unsigned i = 0; i < s->copies; i++) {
        (void)unlinkat(s->aside, aside_name(s, i, "", file), 0); /* goes with the folder otherwise */
        (void)unlinkat(s->aside, aside_name(s, i, ".node", file), 0);
    }
    zl_buf_done(&s->text);
    zl_settle_init(s, s->aside, s->name);
}

static int spill(struct zl_settle *s)
{
    if (s->file == 0) {
        char file[ASIDE_SIZE];
        int fd = zl_openat(s->aside, aside_name(s, 0, ".notes", file), O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd < 0)
            return fd;
        s->file = fd;
        (void)unlinkat(s->aside, file, 0); /* goes with the folder otherwise */
    }
    int r = zl_write_full(s->file, s->text.p, s->text.n);
    s->file_size += r < 0 ? 0 : s->text.n;
    zl_buf_clear(&s->text);
    return r;
}

static int note(struct zl_settle *s, struct note n, const char *path, const char *second)
{
    s->kinds |= 1u << n.kind;
    size_t first = strlen(path) + 1, more = second ? strlen(second) + 1 : 0;
    n.length = (uint32_t)(first + more);
    zl_buf_add(&s->text, &n, sizeof n);
    zl_buf_add(&s->text, path, first);
    zl_buf_add(&s->text, second, more);
    return s->text.n > MEMORY_MAX ? spill(s) : 0;
}

int zl_settle_whiteout(struct zl_settle *s, const char *path)
{
    return note(s, (struct note){ .kind = WHITEOUT }, path, NULL);
}

int zl_settle_opaque(struct zl_settle *s, const char *folder)
{
    return note(s, (struct note){ .kind = OPAQUE }, folder, NULL);
}

int zl_settle_implied(struct zl_settle *s, const char *folder)
{
    return note(s, (struct note){ .kind = IMPLIED }, folder, NULL);
}

int zl_settle_folder(struct zl_settle *s, const char *folder, const struct stat *st)
{
    struct note n = { .kind = FOLDER,
                      .mode = st->st_mode & 07777,
                      .uid = st->st_uid,
                      .gid = st->st_gid,
                      .sec = st->st_mtim.tv_sec,
                      .nsec = (uint32_t)st->st_mtim.tv_nsec };
    return note(s, n, folder, NULL);
}

/* No layer has a reason to make such a file. */
enum { PLACEHOLDER = S_IFREG | 01600 };

bool zl_settle_is_placeholder(const struct stat *st)
{
    return st->st_mode == PLACEHOLDER && st->st_size == 0 && st->st_nlink >= 3;
}

int zl_settle_link(struct zl_settle *s, const char *target, const char *link)
{
    return note(s, (struct note){ .kind = LINK }, target, link);
}

int zl_settle_copy(struct zl_settle *s, const char *target, const char *link, int dir, const char *name)
{
    char file[ASIDE_SIZE];
    unsigned number = s->copies++;
    zl_auto_close int fd = zl_openat(s->aside, aside_name(s, number, "", file), O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fd;
    if (fchmod(fd, PLACEHOLDER & 07777) < 0)
        return -errno;
    if (linkat(s->aside, file, dir, name, 0) < 0)
        return -errno;
    return note(s, (struct note){ .kind = COPY, .mode = number }, target, link);
}

/* ---- reading the notes again ---- */

struct reader {
    struct zl_settle *s;
    uint64_t at; /* of the next byte behind `have` */
    size_t used, have;
    char p[READ_SIZE];
};

/* `n` bytes in one piece, or NULL at the end. n is at most a note and two paths, which fit. */
static const char *take(struct reader *r, size_t n)
{
    if (r->have - r->used < n) {
        memmove(r->p, r->p + r->used, r->have - r->used);
        r->have -= r->used;
        r->used = 0;
        while (r->have < n) {
            ssize_t got;
            if (r->at < r->s->file_size) {
                got = pread(r->s->file, r->p + r->have,
                            (size_t)ZL_MIN((uint64_t)(sizeof r->p - r->have), r->s->file_size - r->at), (off_t)r->at);
                if (got <= 0)
                    return NULL;
            } else {
                size_t from = (size_t)(r->at - r->s->file_size);
                got = (ssize_t)ZL_MIN(sizeof r->p - r->have, r->s->text.n - from);
                if (got == 0)
                    return NULL;
                memcpy(r->p + r->have, r->s->text.p + from, (size_t)got);
            }
            r->at += (uint64_t)got;
            r->have += (size_t)got;
        }
    }
    r->used += n;
    return r->p + r->used - n;
}

struct settling {
    struct zl_settle *s;
    int root;
    const struct zl_lowers *lowers;
    uint64_t *bytes, limit;
    const char *path, *second; /* of the note at hand */
    struct zl_err *err;
    char where[200]; /* the path of a failure */
};

/* Calls fn with each note of these two kinds. */
static int each(struct settling *g, enum kind a, enum kind b, int (*fn)(struct settling *g, const struct note *n))
{
    if (!(g->s->kinds & (1u << a | 1u << b)))
        return 0;
    zl_auto_free struct reader *r = zl_xmalloc(sizeof *r);
    memset(r, 0, offsetof(struct reader, p));
    r->s = g->s;
    for (const char *head; (head = take(r, sizeof(struct note)));) {
        struct note n;
        memcpy(&n, head, sizeof n);
        g->path = take(r, n.length);
        if (!g->path)
            return -EIO;
        if (n.kind != a && n.kind != b)
            continue;
        g->second = g->path + strlen(g->path) + 1;
        int e = fn(g, &n);
        if (e < 0) {
            snprintf(g->where, sizeof g->where, "%s", g->path);
            return e;
        }
    }
    return 0;
}

/* A later entry may have taken a folder's place. */
static bool is_no_folder(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -ELOOP;
}

/* ---- copies ---- */

/* Holes stay holes: a file may be far larger than its layer was. */
static int copy_data(struct settling *g, int place, int to, off_t size)
{
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", place);
    zl_auto_close int from = zl_openat(AT_FDCWD, self, O_RDONLY, 0);
    if (from < 0)
        return from;
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* the rest is one */
            break;
        off_t end = data < 0 ? size : lseek(from, data, SEEK_HOLE);
        data = data < 0 ? at : data; /* a file system that does not know of holes */
        if (end < data)
            return end < 0 ? -errno : -EIO;
        end = ZL_MIN(end, size);
        *g->bytes += (uint64_t)(end - data);
        if (*g->bytes > g->limit)
            return zl_fail(g->err, ZL_E_LIMIT,
                           "the layer unpacks to more than %llu GiB, with the files below that it links to",
                           (unsigned long long)(g->limit >> 30));
        for (off_t out = data; data < end;) {
            ssize_t n = copy_file_range(from, &data, to, &out, (size_t)(end - data), 0);
            if (n <= 0)
                return n < 0 ? -errno : -EIO;
        }
        at = end;
    }
    return ftruncate(to, size) < 0 ? -errno : 0;
}

/* The folder of a path of this layer. */
static int parent_of(int root, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    zl_auto_free char *parent = zl_xstrndup(path, slash ? (size_t)(slash - path) : 0);
    return zl_open_beneath(root, parent, O_RDONLY | O_DIRECTORY);
}

/* Puts `made` (in `aside`) where the placeholder is, if it is still there. */
static int replace(struct settling *g, const char *path, ino_t placeholder, const char *made)
{
    const char *name;
    struct stat st;
    zl_auto_close int dir = parent_of(g->root, path, &name);
    if (dir < 0)
        return is_no_folder(dir) ? 0 : dir;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != placeholder)
        return 0;
    return unlinkat(dir, name, 0) < 0 || linkat(g->s->aside, made, dir, name, 0) < 0 ? -errno : 0;
}

/* What is linked to is no regular file: a link, a device or a fifo takes the placeholders' place. */
static int copy_special(struct settling *g, int place, const struct stat *st, const char *file)
{
    char target[4096] = "", made[ASIDE_SIZE + 8];
    struct stat empty;
    struct timespec times[2] = { st->st_atim, st->st_mtim };
    snprintf(made, sizeof made, "%s.node", file);
    if (fstatat(g->s->aside, file, &empty, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISLNK(st->st_mode) && readlinkat(place, "", target, sizeof target - 1) < 0)
        return -errno;
    int r = S_ISLNK(st->st_mode) ? symlinkat(target, g->s->aside, made)
                                 : mknodat(g->s->aside, made, st->st_mode, st->st_rdev);
    if (r < 0 || (fchownat(g->s->aside, made, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0 && geteuid() == 0))
        return -errno;
    if (!S_ISLNK(st->st_mode) && fchmodat(g->s->aside, made, st->st_mode & 07777, 0) < 0)
        return -errno;
    (void)utimensat(g->s->aside, made, times, AT_SYMLINK_NOFOLLOW);
    r = replace(g, g->path, empty.st_ino, made);
    return r < 0 ? r : replace(g, g->second, empty.st_ino, made);
}

static int copy_up(struct settling *g, const struct note *n)
{
    char file[ASIDE_SIZE];
    struct stat st;
    zl_auto_close int to = zl_openat(g->s->aside, aside_name(g->s, n->mode, "", file), O_WRONLY | O_NOFOLLOW, 0);
    if (to < 0)
        return to;
    zl_auto_close int place = zl_lowers_open(g->lowers, g->path, &st);
    if (place == -ENOENT || (place >= 0 && S_ISDIR(st.st_mode)))
        return zl_fail(g->err, ZL_E_BAD_IMAGE, "'%.100s' is a hard link to '%.100s', %s", g->second, g->path,
                       place < 0 ? "which no layer has" : "which is a folder");
    if (place < 0)
        return place;
    if (!S_ISREG(st.st_mode))
        return copy_special(g, place, &st, file);
    int r = copy_data(g, place, to, st.st_size);
    return r < 0 ? r : zl_copy_attributes(place, to);
}

/* One more link to what a placeholder stood for: where that was no regular file, this one is still the placeholder. */
static int link_again(struct settling *g, const struct note *n)
{
    const char *name, *target;
    struct stat is, to;
    (void)n;
    zl_auto_close int dir = parent_of(g->root, g->second, &name);
    zl_auto_close int target_dir = parent_of(g->root, g->path, &target);
    if (dir < 0 || target_dir < 0)
        return dir < 0 && !is_no_folder(dir) ? dir : target_dir < 0 && !is_no_folder(target_dir) ? target_dir : 0;
    if (fstatat(dir, name, &is, AT_SYMLINK_NOFOLLOW) < 0 || is.st_mode != PLACEHOLDER || is.st_size != 0 ||
        fstatat(target_dir, target, &to, AT_SYMLINK_NOFOLLOW) < 0 || to.st_ino == is.st_ino)
        return 0; /* later entries took their places */
    return unlinkat(dir, name, 0) < 0 || linkat(target_dir, target, dir, name, 0) < 0 ? -errno : 0;
}

/* ---- whiteouts ---- */

/* A folder of the new layer that is being made opaque. */
struct hiding {
    int dir;
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
        return is_no_folder(h.dir) ? 0 : h.dir;
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

static int hide_folder(struct settling *g, const struct note *n)
{
    (void)n;
    return hide_below(g->root, g->lowers, g->path, 0);
}

/* The folder of a whiteout is there: placing its entry has made it. */
static int hide_path(struct settling *g, const struct note *n)
{
    const char *name;
    struct stat st;
    (void)n;
    zl_auto_close int dir = parent_of(g->root, g->path, &name);
    if (dir < 0)
        return is_no_folder(dir) ? 0 : dir; /* a later entry took its place */
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISDIR(st.st_mode) ? hide_below(g->root, g->lowers, g->path, 0) : 0;
    zl_auto_close int lower = zl_lowers_open(g->lowers, g->path, &st);
    if (lower < 0)
        return lower == -ENOENT ? 0 : lower; /* nothing to hide */
    return mknodat(dir, name, S_IFCHR, makedev(0, 0)) < 0 ? -errno : 0;
}

/* ---- folders ---- */

/* A folder that the layer implies without having an entry for it looks as it does in the layers below; where they have
 * none either, it is root's and as old as can be, so that a layer is the same wherever it is unpacked. */
static int finish_implied(struct settling *g, int dir)
{
    static const struct timespec old[2] = { { 0, 0 }, { 0, 0 } };
    struct stat st;
    if (fstat(dir, &st) < 0)
        return -errno;
    if ((st.st_mode & 07777) != ZL_SETTLE_IMPLIED)
        return 0; /* an entry came behind */
    zl_auto_close int lower = zl_lowers_open(g->lowers, g->path, &st);
    if (lower >= 0 && S_ISDIR(st.st_mode))
        return zl_copy_attributes(lower, dir);
    if (lower < 0 && lower != -ENOENT)
        return lower;
    return fchmod(dir, 0755) < 0 || futimens(dir, old) < 0 ? -errno : 0;
}

static int finish_folder(struct settling *g, const struct note *n)
{
    struct timespec times[2] = { { 0, UTIME_OMIT }, { n->sec, n->nsec } };
    zl_auto_close int dir = zl_open_beneath(g->root, g->path, O_RDONLY | O_DIRECTORY);
    if (dir < 0)
        return is_no_folder(dir) ? 0 : dir;
    if (n->kind == IMPLIED)
        return finish_implied(g, dir);
    struct stat st;
    if (fstat(dir, &st) < 0)
        return -errno;
    bool other_owner = st.st_uid != n->uid || st.st_gid != n->gid;
    if (other_owner && fchown(dir, n->uid, n->gid) < 0 && (geteuid() == 0 || errno != EPERM))
        return -errno;
    bool other_mode = other_owner || (st.st_mode & 07777) != n->mode;
    return (other_mode && fchmod(dir, n->mode) < 0) || futimens(dir, times) < 0 ? -errno : 0;
}

int zl_settle(struct zl_settle *s, int root, const struct zl_lowers *lowers, uint64_t *bytes, uint64_t limit,
              struct zl_err *err)
{
    struct settling g = {
        .s = s, .root = root, .lowers = lowers, .bytes = bytes, .limit = limit, .path = "", .second = "", .err = err
    };
    int r = each(&g, COPY, COPY, copy_up);
    r = r < 0 ? r : each(&g, LINK, LINK, link_again);
    r = r < 0 ? r : each(&g, OPAQUE, OPAQUE, hide_folder);
    r = r < 0 ? r : each(&g, WHITEOUT, WHITEOUT, hide_path);
    r = r < 0 ? r : each(&g, IMPLIED, FOLDER, finish_folder);
    if (r == 0 || (err && err->code == r))
        return r;
    return zl_fail_errno(err, r == -ENOSPC || r == -EDQUOT ? ZL_E_DISK_FULL : ZL_E_BAD_IMAGE, r,
                         "settling whiteouts, links and times at '%s'", g.where);
}
