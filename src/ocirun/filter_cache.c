/*
 * Compiled filters: libseccomp takes 30 ms for what engines send with every container, and it is always the same. A
 * file below <root>/.seccomp holds the whole profile that it is of, beside the filter, so that its name need not be
 * unique.
 */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <unistd.h>

enum { FILES_MAX = 64, FILE_MAX = 1 << 20 };

static void add_word(struct zl_buf *b, const char *word)
{
    zl_buf_add(b, word, strlen(word) + 1); /* with its end, so that no two profiles read the same */
}

static void add_words(struct zl_buf *b, const struct zl_strings *s)
{
    zl_buf_printf(b, "%u ", s->n);
    for (unsigned i = 0; i < s->n; i++)
        add_word(b, s->v[i]);
}

/* All that the filter depends on. */
static void write_key(struct zl_buf *b, const struct zl_oci_seccomp *s)
{
    const struct scmp_version *v = seccomp_version();
    zl_buf_printf(b, "%u.%u.%u %lld ", v->major, v->minor, v->micro, (long long)s->default_errno_ret);
    add_word(b, s->default_action);
    add_words(b, &s->architectures);
    zl_buf_printf(b, "%u ", s->rules.n);
    for (unsigned i = 0; i < s->rules.n; i++) {
        const struct zl_oci_seccomp_rule *r = s->rules.v[i];
        zl_buf_printf(b, "%lld ", (long long)r->errno_ret);
        add_word(b, r->action);
        add_words(b, &r->names);
        zl_buf_printf(b, "%u ", r->args.n);
        for (unsigned k = 0; k < r->args.n; k++) {
            const struct zl_oci_seccomp_arg *a = r->args.v[k];
            zl_buf_printf(b, "%lld %llu %llu ", (long long)a->index, (unsigned long long)a->value,
                          (unsigned long long)a->value_two);
            add_word(b, a->op);
        }
    }
}

static void write_name(const struct zl_buf *key, char ret[24])
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < key->n; i++)
        h = (h ^ (unsigned char)key->p[i]) * UINT64_C(0x100000001b3);
    snprintf(ret, 24, "%016llx", (unsigned long long)h);
}

static int open_cache(struct ocirun *r)
{
    const char *path = zl_arena_printf(&r->arena, "%s/.seccomp", r->o.root);
    int e = zl_mkdirat(AT_FDCWD, path, 0700);
    return e < 0 ? e : zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
}

bool ocirun_cached_filter(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_str *ret)
{
    zl_auto_buf key = ZL_BUF_INIT, file = ZL_BUF_INIT;
    char name[24];
    write_key(&key, s);
    write_name(&key, name);
    zl_auto_close int dir = open_cache(r);
    if (dir < 0 || zl_read_file(dir, name, FILE_MAX, &file) < 0 || file.n <= key.n || memcmp(file.p, key.p, key.n) != 0)
        return false;
    size_t n = file.n - key.n;
    if (n % sizeof(struct sock_filter) || n / sizeof(struct sock_filter) > BPF_MAXINSNS)
        return false;
    char *copy = zl_arena_alloc(&r->arena, n);
    memcpy(copy, file.p + key.n, n);
    *ret = zl_str_n(copy, n);
    return true;
}

/* Too many different ones, and all start anew: it is a few milliseconds each. */
static void make_room(int dir)
{
    int copy = dup(dir), count = 0;
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;
    if (!d) {
        zl_close(copy);
        return;
    }
    while ((e = readdir(d)) != NULL)
        count += e->d_name[0] != '.';
    rewinddir(d);
    while (count >= FILES_MAX && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            (void)unlinkat(dir, e->d_name, 0);
    closedir(d);
}

void ocirun_keep_filter(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_str filter)
{
    zl_auto_buf key = ZL_BUF_INIT;
    char name[24];
    write_key(&key, s);
    write_name(&key, name);
    zl_auto_close int dir = open_cache(r);
    if (dir < 0 || key.n + filter.n > FILE_MAX)
        return;
    make_room(dir);
    zl_buf_add(&key, filter.p, filter.n);
    ZL_IGNORE(zl_write_file_atomic(dir, name, key.p, key.n, 0600, ZL_KILL_PROOF)); /* then it is compiled again */
}
