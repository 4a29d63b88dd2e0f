#include "cluster/kept.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 4096 };

/* Calls fn for each name of a folder until it gives something else than 0. */
static int each_name(int dir, const char *path, int (*fn)(const char *name, void *arg), void *arg)
{
    int fd = zl_openat(dir, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    DIR *d = fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));)
        if (e->d_name[0] != '.')
            r = fn(e->d_name, arg);
    closedir(d);
    return r;
}

static bool is_zero(const char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Prepared space is zeros: holes on our side. Returns whether there was anything else, or -errno. */
static int copy(int from, int to)
{
    char block[BLOCK];
    off_t at = 0;
    int content = 0;
    for (;;) {
        ssize_t n = zl_read_full(from, block, sizeof block);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        if (!is_zero(block, (size_t)n)) {
            content = 1;
            if (lseek(to, at, SEEK_SET) < 0)
                return -errno;
            int r = zl_write_full(to, block, (size_t)n);
            if (r < 0)
                return r;
        }
        at += n;
    }
    return ftruncate(to, at) < 0 ? -errno : content;
}

struct saving {
    int dir, set;
    bool any;
};

static int save_one(const char *name, void *arg)
{
    struct saving *s = arg;
    if (strncmp(name, "open-", 5) != 0)
        return 0;
    zl_auto_close int from = zl_openat(s->dir, name, O_RDONLY, 0);
    zl_auto_close int to = zl_openat(s->set, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (from < 0 || to < 0)
        return from < 0 ? from : to;
    int r = copy(from, to);
    if (r == 0)
        (void)unlinkat(s->set, name, 0);
    s->any |= r > 0;
    return r < 0 ? r : 0;
}

static int is_open(const char *name, void *arg)
{
    (void)arg;
    return strncmp(name, "open-", 5) == 0;
}

struct sets {
    uint64_t newest, oldest;
    unsigned plain, damaged;
};

static int count_set(const char *name, void *arg)
{
    struct sets *s = arg;
    uint64_t n;
    bool damaged = strncmp(name, "damaged-", 8) == 0;
    if (zl_parse_u64(zl_str(damaged ? name + 8 : name), 1, UINT32_MAX, &n) < 0)
        return 0;
    s->newest = ZL_MAX(s->newest, n);
    if (damaged)
        s->damaged++;
    else {
        s->oldest = s->plain++ ? ZL_MIN(s->oldest, n) : n;
    }
    return 0;
}

int zl_kept_save(int dir, char ret[ZL_KEPT_NAME_SIZE])
{
    ret[0] = 0;
    int r = each_name(dir, ".", is_open, NULL);
    if (r <= 0)
        return r;
    if ((r = zl_mkdirat(dir, "kept", 0700)) < 0)
        return r;
    for (;;) {
        struct sets s = { 0 };
        if ((r = each_name(dir, "kept", count_set, &s)) < 0)
            return r;
        if (s.plain < ZL_KEPT_SETS) {
            (void)snprintf(ret, ZL_KEPT_NAME_SIZE, "kept/%llu", (unsigned long long)s.newest + 1);
            break;
        }
        char old[ZL_KEPT_NAME_SIZE];
        (void)snprintf(old, sizeof old, "kept/%llu", (unsigned long long)s.oldest);
        if ((r = zl_remove_tree(dir, old)) < 0)
            return r;
    }
    struct saving saving = { .dir = dir };
    r = zl_mkdirat(dir, ret, 0700);
    zl_auto_close int set = r < 0 ? r : zl_openat(dir, ret, O_RDONLY | O_DIRECTORY, 0);
    saving.set = set;
    r = set < 0 ? set : each_name(dir, ".", save_one, &saving);
    if (r < 0 || !saving.any) {
        (void)!zl_remove_tree(dir, ret);
        ret[0] = 0;
    }
    return r;
}

void zl_kept_damaged(int dir, char name[ZL_KEPT_NAME_SIZE])
{
    struct sets s = { 0 };
    if (!name[0] || each_name(dir, "kept", count_set, &s) < 0)
        return;
    /* The first ones tell most: later starts find what the first one left. */
    if (s.damaged >= ZL_KEPT_SETS) {
        (void)!zl_remove_tree(dir, name);
        name[0] = 0;
        return;
    }
    char to[ZL_KEPT_NAME_SIZE];
    (void)snprintf(to, sizeof to, "kept/damaged-%.20s", name + strlen("kept/"));
    if (renameat(dir, name, dir, to) == 0)
        (void)snprintf(name, ZL_KEPT_NAME_SIZE, "%s", to);
}
