/* state, list, ps: what there is, for people and for engines; pause and resume. */
#include "ocirun/ocirun.h"

#include "base/fd.h"
#include "sys/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES_MAX = 16 << 20, DEPTH_MAX = 16 }; /* bytes that ps may write; groups below each other */

static int say_json(struct ocirun *r, const struct zl_value *v)
{
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, v, 2);
    printf("%s\n", text.p);
    return fflush(stdout) ? zl_fail(&r->err, -errno, "write to the standard output") : 0;
}

int ocirun_show_state(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    struct zl_value *v;
    e = e < 0 ? e : ocirun_show(r, s, folder, &v);
    return e < 0 ? e : say_json(r, v);
}

/* Who made it: there are no names here but root's. */
static struct zl_value *owner(struct zl_arena *a, int folder)
{
    struct stat st;
    uid_t uid = fstat(folder, &st) == 0 ? st.st_uid : 0;
    return zl_value_string(a, zl_str(uid == 0 ? "root" : zl_arena_printf(a, "#%u", (unsigned)uid)));
}

/* One whose creation was cut off, or whose record is damaged, is listed, too: else nobody would delete it. */
static int one_container(struct ocirun *r, const char *id, struct zl_value *all)
{
    static const struct ocirun_state cut_off = { .version = "1.0.0", .bundle = "", .rootfs = "", .created = "" };
    struct ocirun_state *s, unknown = cut_off;
    struct zl_value *v;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    if (folder < 0)
        return folder == ZL_E_NOT_FOUND ? 0 : folder; /* it went meanwhile */
    int e = ocirun_read_state(r, folder, id, &s);
    if (e == ZL_E_NOT_FOUND || e == ZL_E_RUNTIME) {
        ocirun_log(r, "warning", "%s", r->err.text);
        unknown.id = id;
        s = &unknown;
        e = 0;
    }
    e = e < 0 ? e : ocirun_show(r, s, folder, &v);
    if (e < 0)
        return e;
    zl_value_set(&r->arena, v, "owner", owner(&r->arena, folder));
    zl_value_append(all, v);
    return 0;
}

static int all_containers(struct ocirun *r, struct zl_value **ret)
{
    DIR *d = opendir(r->o.root);
    struct dirent *i = NULL;
    int e = 0;
    *ret = zl_value_new(&r->arena, ZL_LIST);
    if (!d)
        return errno == ENOENT ? 0 : zl_fail(&r->err, -errno, "open the state folder %s", r->o.root);
    while (e == 0 && (errno = 0, i = readdir(d)) != NULL) {
        struct zl_err none = { 0 };
        if (i->d_name[0] != '.' && ocirun_check_id(i->d_name, &none) == 0)
            e = one_container(r, zl_arena_strdup(&r->arena, i->d_name), *ret);
    }
    if (e == 0 && errno)
        e = zl_fail(&r->err, -errno, "read the state folder %s", r->o.root);
    closedir(d);
    return e;
}

int ocirun_list(struct ocirun *r, const char *unused)
{
    (void)unused;
    struct zl_value *all;
    int e = all_containers(r, &all);
    if (e < 0)
        return e;
    if (r->o.json)
        return say_json(r, all);
    if (!r->o.quiet)
        printf("%-24s %-8s %-8s %-24s %-8s %s\n", "ID", "PID", "STATUS", "CREATED", "OWNER", "BUNDLE");
    for (const struct zl_value *v = all->first; v; v = v->next) {
        if (r->o.quiet)
            printf("%s\n", zl_value_cstr(v, "id"));
        else
            printf("%-24s %-8llu %-8s %-24s %-8s %s\n", zl_value_cstr(v, "id"),
                   (unsigned long long)zl_value_u64(v, "pid", 0), zl_value_cstr(v, "status"),
                   zl_value_cstr(v, "created"), zl_value_cstr(v, "owner"), zl_value_cstr(v, "bundle"));
    }
    return fflush(stdout) ? zl_fail(&r->err, -errno, "write to the standard output") : 0;
}

static int freeze(struct ocirun *r, const char *id, bool on)
{
    struct ocirun_state *s;
    struct zl_cgroup g;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return e;
    enum ocirun_status status;
    e = ocirun_status(r, s, folder, &status);
    if (e < 0)
        return e;
    if (status == OCIRUN_STOPPED)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container not running: %s", id);
    if (on ? status == OCIRUN_PAUSED : status != OCIRUN_PAUSED)
        return zl_fail(&r->err, ZL_E_CONFLICT, on ? "container is paused already: %s" : "container not paused: %s", id);
    e = ocirun_cgroup(s, &g);
    e = e < 0 ? e : zl_cgroup_freeze(&g, on);
    return e < 0 ? zl_fail(&r->err, e, "%s %s", on ? "freeze" : "thaw", id) : 0;
}

int ocirun_pause(struct ocirun *r, const char *id)
{
    return freeze(r, id, true);
}

int ocirun_resume(struct ocirun *r, const char *id)
{
    return freeze(r, id, false);
}

/* Of a group and those below it, which the container may have made; one that goes meanwhile has none. */
static int add_pids(struct ocirun *r, int dir, int depth, struct zl_value *list)
{
    zl_auto_buf pids = ZL_BUF_INIT;
    zl_auto_close int own = dir;
    int e = zl_read_file(dir, "cgroup.procs", 1 << 20, &pids);
    if (e < 0)
        return e == -ENOENT || e == -ENODEV || e == -EOPNOTSUPP ? 0 : e;
    for (struct zl_str rest = zl_buf_view(&pids); rest.p && rest.n;)
        zl_value_append(list, zl_value_plain(&r->arena, zl_str_cut(rest, '\n', &rest)));
    DIR *d = depth < DEPTH_MAX ? fdopendir(dir) : NULL;
    struct dirent *i;
    if (!d)
        return depth < DEPTH_MAX ? -errno : 0;
    own = -EBADF; /* it is the stream's now */
    while (e == 0 && (errno = 0, i = readdir(d)) != NULL) {
        if (i->d_type != DT_DIR || i->d_name[0] == '.')
            continue;
        int below = zl_openat(dirfd(d), i->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        e = below >= 0 ? add_pids(r, below, depth + 1, list) : below == -ENOENT ? 0 : below;
    }
    if (e == 0 && errno)
        e = -errno;
    closedir(d);
    return e;
}

static int read_pids(struct ocirun *r, const char *id, struct zl_value **ret)
{
    struct ocirun_state *s;
    struct zl_cgroup g;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return e;
    e = ocirun_cgroup(s, &g);
    if (e < 0)
        return zl_fail(&r->err, e, "find the cgroup of %s", id);
    if (!s->cgroup_name[0])
        return zl_fail(&r->err, ZL_E_UNSUPPORTED, "%s has no cgroup, by which its processes would be known", id);
    *ret = zl_value_new(&r->arena, ZL_LIST);
    for (int c = 0; c < ZL_CONTROLLER_COUNT && !(*ret)->first && e == 0; c++) {
        int dir = g.dir[c][0] ? zl_openat(AT_FDCWD, g.dir[c], O_RDONLY | O_DIRECTORY, 0) : -ENOENT;
        e = dir >= 0 ? add_pids(r, dir, 0, *ret) : dir == -ENOENT ? 0 : dir;
    }
    return e < 0 ? zl_fail(&r->err, e, "read the processes of %s", id) : 0;
}

static struct zl_str next_field(struct zl_str *line)
{
    struct zl_str field = { NULL, 0 };
    while (line->n && *line->p == ' ') {
        line->p++;
        line->n--;
    }
    if (line->n)
        field = zl_str_cut(*line, ' ', line);
    return field;
}

static bool is_one_of(struct zl_str pid, const struct zl_value *pids)
{
    for (const struct zl_value *v = pids->first; v; v = v->next)
        if (zl_str_eq(v->text, pid))
            return true;
    return false;
}

/* The heading and the lines of its processes, of what the machine's ps wrote. */
static int say_chosen(struct ocirun *r, struct zl_str table, const struct zl_value *pids)
{
    struct zl_str rest = table, heading = zl_str_cut(rest, '\n', &rest), left = heading;
    int column = 0;
    for (struct zl_str f = next_field(&left); !zl_str_is(f, "PID"); f = next_field(&left), column++)
        if (!f.p)
            return zl_fail(&r->err, ZL_E_USAGE, "what ps wrote has no column PID");
    printf("%.*s\n", ZL_STR_FMT(heading));
    while (rest.p && rest.n) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), pid = { NULL, 0 };
        left = line;
        for (int i = 0; i <= column; i++)
            pid = next_field(&left);
        if (pid.p && is_one_of(pid, pids))
            printf("%.*s\n", ZL_STR_FMT(line));
    }
    return fflush(stdout) ? zl_fail(&r->err, -errno, "write to the standard output") : 0;
}

/* The machine's own ps, with the caller's options. */
static int run_ps(struct ocirun *r, struct zl_buf *ret)
{
    unsigned n = r->o.command.n;
    const char **argv = zl_arena_alloc(&r->arena, (n + 3) * sizeof *argv);
    int status = 0;
    pid_t pid;
    argv[0] = "ps";
    argv[1] = n ? NULL : "-ef";
    for (unsigned i = 0; i < n; i++)
        argv[i + 1] = r->o.command.v[i];
    zl_auto_close int out = memfd_create("ps", MFD_CLOEXEC);
    if (out < 0)
        return zl_fail(&r->err, -errno, "make a file in memory");
    int e = zl_spawn("ps", argv, (const char *const *)(uintptr_t)environ, -EBADF, out, &pid);
    if (e < 0)
        return zl_fail(&r->err, e, "run ps");
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0)
        return zl_fail(&r->err, ZL_E_USAGE, "ps did not take these options");
    e = zl_read_file(AT_FDCWD, zl_arena_printf(&r->arena, "/proc/self/fd/%d", out), PROCESSES_MAX, ret);
    return e < 0 ? zl_fail(&r->err, e, "read what ps wrote") : 0;
}

int ocirun_ps(struct ocirun *r, const char *id)
{
    struct zl_value *pids;
    zl_auto_buf table = ZL_BUF_INIT;
    int e = read_pids(r, id, &pids);
    if (e < 0)
        return e;
    if (r->o.json)
        return say_json(r, pids);
    e = run_ps(r, &table);
    return e < 0 ? e : say_chosen(r, zl_buf_view(&table), pids);
}
