/*
 * linux.intelRdt (config-linux.md, IntelRdt): a class of service for caches and memory bandwidth, and a group that
 * counts their use, in the machine's resctrl (resctrl(7) of the kernel's documentation): a folder a class, made of
 * `schemata`, `tasks` and `mon_groups`, which a new folder is born with.
 */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int ocirun_rdt_open(struct ocirun *r)
{
    zl_auto_buf mounts = ZL_BUF_INIT;
    int e = zl_read_file(AT_FDCWD, "/proc/self/mountinfo", 16 << 20, &mounts);
    if (e < 0)
        return zl_fail(&r->err, e, "read /proc/self/mountinfo");
    for (struct zl_str rest = zl_buf_view(&mounts); rest.p;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), place = line;
        const char *type = line.n ? memmem(line.p, line.n, " - resctrl ", 11) : NULL;
        for (int i = 0; type && i < 4; i++)
            (void)zl_str_cut(place, ' ', &place);
        if (type) {
            struct zl_str at = zl_str_cut(place, ' ', &place);
            int root = zl_openat(AT_FDCWD, zl_arena_strndup(&r->arena, at.p, at.n), O_RDONLY | O_DIRECTORY, 0);
            return root < 0 ? zl_fail(&r->err, root, "linux.intelRdt: open %.*s", ZL_STR_FMT(at)) : root;
        }
    }
    return zl_fail(&r->err, ZL_E_UNSUPPORTED, "linux.intelRdt: this machine has no resctrl mounted");
}

static int check_line(struct ocirun *r, const char *what, const char *line, const char *prefix)
{
    if (line && *line && (strchr(line, '\n') || strncmp(line, prefix, strlen(prefix)) != 0))
        return zl_fail(&r->err, ZL_E_INVALID, "%s: '%.60s' is no line that begins with '%s'", what, line, prefix);
    return 0;
}

int ocirun_rdt_plan(struct ocirun *r, const struct zl_oci_rdt *want, struct ocirun_state *s)
{
    static const char *const taken[] = { ".", "..", "info", "mon_groups", "mon_data" };
    const char *name = want->class_name;
    bool bad = name && (strlen(name) > 255 || (strchr(name, '/') && !zl_streq(name, "/")) || strchr(name, '\n'));
    s->rdt_class = "";
    if (!want->there)
        return 0;
    for (size_t i = 0; name && i < ZL_ARRAY_LEN(taken); i++)
        bad |= zl_streq(name, taken[i]);
    if (bad)
        return zl_fail(&r->err, ZL_E_INVALID, "linux.intelRdt.closID: '%.60s' is no name of a class", name);
    int e = check_line(r, "linux.intelRdt.l3CacheSchema", want->l3, "L3");
    e = e < 0 ? e : check_line(r, "linux.intelRdt.memBwSchema", want->bandwidth, "MB:");
    for (unsigned i = 0; i < want->schemata.n && e == 0; i++)
        e = check_line(r, "linux.intelRdt.schemata", want->schemata.v[i], "");
    bool own = !name || !*name;
    s->rdt_class = own ? s->id : zl_streq(name, "/") ? "." : name;
    s->rdt = (own ? OCIRUN_RDT_OWN : 0) | (want->monitoring ? OCIRUN_RDT_MONITORED : 0);
    return e;
}

/* What the kernel says of a line that it refused. */
static int refused(struct ocirun *r, int root, int e, const char *what, const char *line)
{
    zl_auto_buf said = ZL_BUF_INIT;
    if (zl_read_file(root, "info/last_cmd_status", 4096, &said) < 0 || said.n < 2 || strncmp(said.p, "ok", 2) == 0)
        return zl_fail(&r->err, e, "linux.intelRdt: write '%.60s' to %s", line, what);
    return zl_fail(&r->err, e, "linux.intelRdt: write '%.60s' to %s: %.*s", line, what,
                   (int)ZL_MIN(strcspn(said.p, "\n"), (size_t)120), said.p);
}

/* In one write, as the kernel takes it. */
static int write_line(struct ocirun *r, int root, const char *path, const char *line)
{
    zl_auto_buf text = ZL_BUF_INIT;
    zl_buf_printf(&text, "%s\n", line);
    zl_auto_close int fd = zl_openat(root, path, O_WRONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return zl_fail(&r->err, fd, "linux.intelRdt: open %s", path);
    return write(fd, text.p, text.n) == (ssize_t)text.n ? 0 : refused(r, root, -errno, path, line);
}

static const char *path_in(struct ocirun *r, const struct ocirun_state *s, const char *file)
{
    return zl_arena_printf(&r->arena, "%s/%s", s->rdt_class, file);
}

static const char *monitor_of(struct ocirun *r, const struct ocirun_state *s, const char *file)
{
    return zl_arena_printf(&r->arena, "%s/mon_groups/%s%s", s->rdt_class, s->id, file);
}

/* "L3:0=00ff;1=f" without blanks and without zeros in front of numbers, as the kernel fills its columns with either. */
static void normal(struct zl_str line, struct zl_buf *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < line.n; i++) {
        char c = line.p[i], before = ret->n ? ret->p[ret->n - 1] : ':';
        bool more = i + 1 < line.n && strchr("0123456789abcdefABCDEF", line.p[i + 1]);
        if (c == ' ' || c == '\t' || (c == '0' && more && strchr("=:;", before)))
            continue;
        zl_buf_putc(ret, c >= 'A' && c <= 'F' && strchr(ret->n ? ret->p : "", '=') ? (char)(c + 32) : c);
    }
}

static bool has_part(struct zl_str line, struct zl_str part)
{
    while (line.p)
        if (zl_str_eq(zl_str_cut(line, ';', &line), part))
            return true;
    return false;
}

/* Each cache that the line speaks of is so in the file. */
static bool agrees(const char *line, const struct zl_buf *file)
{
    zl_auto_buf want = ZL_BUF_INIT, have = ZL_BUF_INIT;
    struct zl_str values, other;
    normal(zl_str(line), &want);
    struct zl_str name = zl_str_cut(zl_buf_view(&want), ':', &values);
    for (struct zl_str rest = zl_buf_view(file); rest.p;) {
        normal(zl_str_cut(rest, '\n', &rest), &have);
        if (!have.n || !zl_str_eq(zl_str_cut(zl_buf_view(&have), ':', &other), name))
            continue;
        bool all = true;
        for (struct zl_str parts = values; parts.p && all;)
            all = has_part(other, zl_str_cut(parts, ';', &parts));
        return all;
    }
    return false;
}

/* A class that others made is as the document says, or is none for it. */
static int compare(struct ocirun *r, int root, const struct zl_oci_rdt *want, const struct ocirun_state *s)
{
    zl_auto_buf file = ZL_BUF_INIT;
    const char *const lines[] = { want->l3, want->bandwidth };
    int e = zl_read_file(root, path_in(r, s, "schemata"), 1 << 16, &file);
    if (e < 0)
        return zl_fail(&r->err, e, "linux.intelRdt: read %s", path_in(r, s, "schemata"));
    for (size_t i = 0; i < ZL_ARRAY_LEN(lines); i++)
        if (lines[i] && *lines[i] && !agrees(lines[i], &file))
            return zl_fail(&r->err, ZL_E_CONFLICT, "linux.intelRdt: the class %s is there, and not as '%.60s'",
                           s->rdt_class, lines[i]);
    return 0;
}

static int fill(struct ocirun *r, int root, const struct zl_oci_rdt *want, const struct ocirun_state *s, bool is_new)
{
    const char *schemata = path_in(r, s, "schemata");
    int e = is_new ? 0 : compare(r, root, want, s);
    if (e == 0 && is_new && want->l3 && *want->l3)
        e = write_line(r, root, schemata, want->l3);
    if (e == 0 && is_new && want->bandwidth && *want->bandwidth)
        e = write_line(r, root, schemata, want->bandwidth);
    for (unsigned i = 0; i < want->schemata.n && e == 0; i++)
        e = write_line(r, root, schemata, want->schemata.v[i]);
    if (e == 0 && s->rdt & OCIRUN_RDT_MONITORED && mkdirat(root, monitor_of(r, s, ""), 0755) < 0)
        e = zl_fail(&r->err, -errno, "linux.intelRdt: make %s", monitor_of(r, s, ""));
    return e;
}

int ocirun_rdt_make(struct ocirun *r, int root, const struct zl_oci_rdt *want, const struct ocirun_state *s)
{
    bool own = s->rdt & OCIRUN_RDT_OWN,
         asks = want->schemata.n || (want->l3 && *want->l3) || (want->bandwidth && *want->bandwidth);
    bool made = (own || asks) && mkdirat(root, s->rdt_class, 0755) == 0;
    if (!made && (own || asks) && (own || errno != EEXIST))
        return zl_fail(&r->err, errno == EEXIST ? ZL_E_EXISTS : -errno,
                       errno == ENOSPC ? "linux.intelRdt: make the class %s: the machine has no more of them"
                                       : "linux.intelRdt: make the class %s",
                       s->rdt_class);
    if (!made && faccessat(root, path_in(r, s, "tasks"), F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return zl_fail(&r->err, -errno, "linux.intelRdt: find the class %s", s->rdt_class);
    int e = fill(r, root, want, s, made);
    if (e < 0 && made)
        (void)unlinkat(root, s->rdt_class, AT_REMOVEDIR);
    return e;
}

int ocirun_rdt_enter(struct ocirun *r, int root, const struct ocirun_state *s, pid_t pid)
{
    const char *number = zl_arena_printf(&r->arena, "%d", (int)pid);
    int e = write_line(r, root, path_in(r, s, "tasks"), number);
    return e < 0 || !(s->rdt & OCIRUN_RDT_MONITORED) ? e : write_line(r, root, monitor_of(r, s, "/tasks"), number);
}

int ocirun_rdt_change(struct ocirun *r, int root, const struct ocirun_state *s, const char *l3, const char *bandwidth)
{
    int e = check_line(r, "--l3-cache-schema", l3, "L3");
    e = e < 0 ? e : check_line(r, "--mem-bw-schema", bandwidth, "MB:");
    if (e == 0 && l3)
        e = write_line(r, root, path_in(r, s, "schemata"), l3);
    return e < 0 || !bandwidth ? e : write_line(r, root, path_in(r, s, "schemata"), bandwidth);
}

int ocirun_rdt_remove(struct ocirun *r, int root, const struct ocirun_state *s)
{
    if (s->rdt & OCIRUN_RDT_MONITORED && unlinkat(root, monitor_of(r, s, ""), AT_REMOVEDIR) < 0 && errno != ENOENT)
        return zl_fail(&r->err, -errno, "linux.intelRdt: remove %s", monitor_of(r, s, ""));
    if (s->rdt & OCIRUN_RDT_OWN && unlinkat(root, s->rdt_class, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return zl_fail(&r->err, -errno, "linux.intelRdt: remove the class %s", s->rdt_class);
    return 0;
}
