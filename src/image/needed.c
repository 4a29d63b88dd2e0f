/* Which digests records, leases and jobs need. */
#include "image/store_priv.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

void zl_need(struct zl_needed *set, const char *digest)
{
    const char *colon = strchr(digest, ':');
    if (set->n >= set->cap) {
        set->cap = set->cap * 2 + 64;
        set->hex = zl_xrealloc(set->hex, set->cap, sizeof *set->hex);
    }
    snprintf(set->hex[set->n++], sizeof *set->hex, "%.64s", colon ? colon + 1 : digest);
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

void zl_needed_sort(struct zl_needed *set)
{
    if (set->n)
        qsort(set->hex, set->n, sizeof *set->hex, compare);
}

bool zl_needed_has(const struct zl_needed *set, const char *hex)
{
    char key[65];
    snprintf(key, sizeof key, "%.64s", hex);
    return set->n && bsearch(key, set->hex, set->n, sizeof *set->hex, compare);
}

void zl_needed_done(struct zl_needed *set)
{
    free(set->hex);
    *set = (struct zl_needed){ 0 };
}

void zl_need_record(const struct zl_image_record *r, struct zl_needed *blobs, struct zl_needed *layers)
{
    zl_need(blobs, r->digest);
    zl_need(blobs, r->config);
    if (r->manifest)
        zl_need(blobs, r->manifest);
    for (unsigned k = 0; k < r->layers.n; k++)
        zl_need(blobs, r->layers.v[k]);
    for (unsigned k = 0; k < r->chain_ids.n; k++)
        zl_need(layers, r->chain_ids.v[k]);
}

/* Each line of a file names a digest that is needed. A file that is gone needs nothing. */
static int need_lines(int dir, const char *file, struct zl_needed *set)
{
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_read_file(dir, file, 4 << 20, &text);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (struct zl_str rest = zl_buf_view(&text); rest.p && rest.n;) {
        char line[80];
        struct zl_str digest = zl_str_cut(rest, '\n', &rest);
        snprintf(line, sizeof line, "%.*s", (int)ZL_MIN(digest.n, sizeof line - 1), digest.p);
        zl_need(set, line);
    }
    return 0;
}

int zl_store_each(const struct zl_store *s, const char *folder, int (*fn)(void *arg, int dir, const char *name),
                  void *arg)
{
    int fd = zl_openat(s->dir, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    struct dirent *e;
    int r = 0;
    while (r == 0 && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            r = fn(arg, dirfd(d), e->d_name);
    closedir(d);
    return r;
}

static int lease(void *set, int dir, const char *name)
{
    return need_lines(dir, name, set);
}

int zl_need_leases(const struct zl_store *s, struct zl_needed *layers)
{
    return zl_store_each(s, "leases", lease, layers);
}

static int job(void *set, int dir, const char *name)
{
    char file[300];
    snprintf(file, sizeof file, "%s/keep", name);
    return need_lines(dir, file, set);
}

int zl_need_jobs(const struct zl_store *s, struct zl_needed *both)
{
    return zl_store_each(s, "staging", job, both);
}

bool zl_image_in_use(const struct zl_needed *leased, const struct zl_image_record *r)
{
    const char *top = r->chain_ids.n ? strchr(r->chain_ids.v[r->chain_ids.n - 1], ':') : NULL;
    return top && zl_needed_has(leased, top + 1);
}
