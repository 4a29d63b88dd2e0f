/*
 * Cgroups that systemd manages: a container's is the scope of a unit. zl-systemd, a program of its own, asks for what
 * is wanted over D-Bus, so that only who uses systemd pays for its library.
 */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where zl-oci stands, for its copy that no path leads to. */
static const char folder_variable[] = "ZL_OCI_FOLDER";
enum { ANSWER_MAX = 4096 };

void ocirun_remember_folder(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 1) /* this is such a copy */
        return;
    self[n] = 0;
    *strrchr(self, '/') = 0;
    (void)setenv(folder_variable, self, 1); /* without it, the program is not found, which is told */
}

/* Beside zl-oci; in a build tree, in its room's folder. */
int ocirun_systemd_find(struct ocirun *r, struct ocirun_state *s)
{
    char self[PATH_MAX];
    const char *folder = getenv(folder_variable);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 1 && self[0] == '/') {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        if (*self && access(self, F_OK) == 0)
            folder = self;
    }
    static const char *const places[] = { "", "/../systemd" };
    for (size_t i = 0; folder && i < ZL_ARRAY_LEN(places); i++) {
        const char *path = zl_arena_printf(&r->arena, "%s%s/zl-systemd", folder, places[i]);
        if (access(path, X_OK) == 0) {
            s->program = path;
            return 0;
        }
    }
    return zl_hint(&r->err,
                   zl_fail(&r->err, ZL_E_NOT_FOUND,
                           "the program zl-systemd, for cgroups managed by systemd, is not in %s",
                           folder ? folder : "the folder of zl-oci"),
                   "zlayer is not completely installed: run 'make install' again");
}

/* Its name, its text, its hint, a line each. */
static int take_error(struct ocirun *r, struct zl_str answer)
{
    struct zl_str rest, hint = { 0 }, name = zl_str_cut(answer, '\n', &rest);
    struct zl_str text = rest.p ? zl_str_cut(rest, '\n', &rest) : (struct zl_str){ 0 };
    int code = zl_error_by_name(zl_arena_strndup(&r->arena, name.n ? name.p : "", name.n));
    if (!text.n)
        return zl_fail(&r->err, ZL_E_RUNTIME, "zl-systemd ended without a word");
    if (rest.p)
        hint = zl_str_cut(rest, '\n', &rest);
    (void)zl_fail(&r->err, code ? code : ZL_E_RUNTIME, "%.*s", ZL_STR_FMT(text));
    return hint.n ? zl_hint(&r->err, r->err.code, "%.*s", ZL_STR_FMT(hint)) : r->err.code;
}

static int read_answer(int from, pid_t pid, struct zl_buf *answer)
{
    int status;
    zl_buf_reserve(answer, ANSWER_MAX);
    ssize_t n = zl_read_full(from, answer->p, ANSWER_MAX);
    answer->n = n < 0 ? 0 : (size_t)n;
    answer->p[answer->n] = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

/* `input`: NULL for none. */
static int ask(struct ocirun *r, const struct ocirun_state *s, const char *verb, const struct zl_value *input,
               const char *last)
{
    const char *argv[6] = { "zl-systemd" };
    unsigned n = 1;
    posix_spawn_file_actions_t files;
    zl_auto_buf text = ZL_BUF_INIT, answer = ZL_BUF_INIT;
    pid_t pid;
    int out[2];
    /* Where it was, else beside us: it may have been installed anew elsewhere. */
    struct ocirun_state found = *s;
    int e = found.program && access(found.program, X_OK) == 0 ? 0 : ocirun_systemd_find(r, &found);
    if (e < 0)
        return e;
    if (s->unit_user)
        argv[n++] = "--user";
    argv[n++] = verb;
    argv[n++] = s->unit;
    argv[n++] = last;
    if (input)
        zl_json_print(&text, input, 0);
    zl_auto_close int in = zl_sealed_memfd("properties", text.n ? text.p : "", text.n);
    if (in < 0 || pipe2(out, O_CLOEXEC) < 0)
        return zl_fail(&r->err, in < 0 ? in : -errno, "make the pipes to zl-systemd");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    e = -posix_spawn(&pid, found.program, &files, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    zl_close(out[1]);
    if (e == 0)
        e = read_answer(out[0], pid, &answer);
    else
        (void)zl_fail(&r->err, e, "run %s", found.program);
    zl_close(out[0]);
    return e > 0 ? take_error(r, zl_buf_view(&answer)) : e;
}

bool ocirun_is_user(void)
{
    static const char all[] = "         0          0 4294967295";
    zl_auto_buf map = ZL_BUF_INIT;
    if (geteuid() != 0)
        return true;
    return zl_read_file(AT_FDCWD, "/proc/self/uid_map", 1 << 16, &map) == 0 &&
           !zl_str_starts(zl_buf_view(&map), zl_str(all));
}

/* Where the kernel has put it: what is between is systemd's affair (slices, the group of the user's manager). */
static int find_group(struct ocirun *r, pid_t pid, struct ocirun_state *s)
{
    char path[64];
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_str group = { 0 };
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    int e = zl_read_file(AT_FDCWD, path, 1 << 16, &text);
    if (e < 0)
        return zl_fail(&r->err, e, "read %s", path);
    for (struct zl_str line, number, names, rest = zl_buf_view(&text); rest.p && rest.n;) {
        line = zl_str_cut(rest, '\n', &rest);
        number = zl_str_cut(line, ':', &line);
        names = line.p ? zl_str_cut(line, ':', &line) : line;
        if (line.p && (zl_str_is(names, "name=systemd") || (zl_str_is(number, "0") && !group.p)))
            group = line;
    }
    const char *copy = zl_arena_strndup(&r->arena, group.n ? group.p : "", group.n), *slash = strrchr(copy, '/');
    /* A name that might be one of the kernel's files has a _ before it, such as _cpu.scope. */
    bool is_it = slash && (zl_streq(slash + 1, s->unit) || (slash[1] == '_' && zl_streq(slash + 2, s->unit)));
    if (!is_it || strstr(copy, "/../"))
        return zl_fail(&r->err, ZL_E_RUNTIME, "systemd has started %s, but its process is in the cgroup '%.200s'",
                       s->unit, copy);
    s->cgroup_parent = slash == copy ? "" : zl_arena_strndup(&r->arena, copy + 1, (size_t)(slash - copy - 1));
    s->cgroup_name = slash + 1;
    return 0;
}

int ocirun_systemd_start(struct ocirun *r, struct ocirun_state *s, struct zl_value *properties, pid_t pid)
{
    struct zl_arena *a = &r->arena;
    struct zl_value *p = zl_value_new(a, ZL_LIST), *pids = zl_value_new(a, ZL_LIST);
    zl_value_append(pids, zl_value_int(a, pid));
    zl_value_append(p, zl_value_string(a, ZL_STR("PIDs")));
    zl_value_append(p, zl_value_string(a, ZL_STR("au")));
    zl_value_append(p, pids);
    zl_value_append(properties, p);
    int e = ask(r, s, "start", properties, NULL);
    return e < 0 ? e : find_group(r, pid, s);
}

int ocirun_systemd_set(struct ocirun *r, const struct ocirun_state *s, const struct zl_value *properties)
{
    return properties->count ? ask(r, s, "set", properties, NULL) : 0;
}

int ocirun_systemd_stop(struct ocirun *r, const struct ocirun_state *s)
{
    return ask(r, s, "stop", NULL, NULL);
}

int ocirun_systemd_attach(struct ocirun *r, const struct ocirun_state *s, pid_t pid)
{
    return ask(r, s, "attach", NULL, zl_arena_printf(&r->arena, "%d", (int)pid));
}
