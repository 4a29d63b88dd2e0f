/*
 * zl-oci: the command line of an OCI runtime, as podman, docker and containerd call crun and runc. A verb's exit code
 * is 0, 1 for an error (said on stderr and in --log), or the program's for `run`.
 */
#include "ocirun/ocirun.h"

#include "base/clock.h"
#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef ZLAYER_VERSION
#define ZLAYER_VERSION "0"
#endif

enum { PROGRAM_MAX = 64 << 20 };

static const char usage[] =
    "usage: zl-oci [--root DIR] [--log FILE] [--log-format text|json] VERB …\n"
    "\n"
    "  create [-b BUNDLE] [--pid-file FILE] ID   set a container up; it waits to be started\n"
    "  start ID                                  let its program run\n"
    "  run [-b BUNDLE] [-d] [--pid-file FILE] ID create and start; without -d wait for its end and remove it\n"
    "  state ID                                  what it is, as JSON\n"
    "  kill [--all] ID [SIGNAL]                  signal its first process, or all of them\n"
    "  exec [-d] [--pid-file FILE] --process FILE ID, exec [--cwd DIR] [-e NAME=VALUE]… ID COMMAND…\n"
    "                                            one more process in it\n"
    "  pause ID · resume ID                      freeze and thaw its processes\n"
    "  update [-r FILE | --memory N --memory-swap N --cpu-quota N --cpu-period N --cpu-share N --pids-limit N] ID\n"
    "                                            change its limits; -r -: linux.resources from standard input\n"
    "  events [--stats] [--interval TIME] ID     what it takes, a JSON line each time; --stats: once\n"
    "  delete [--force] ID                       remove what has stopped; --force: kill it first\n"
    "  list [-q] [-f table|json]                 the containers below the state folder\n"
    "  ps [-f table|json] ID                     its processes\n"
    "  spec [-b BUNDLE]                          write a config.json to start from\n"
    "  features                                  what this can do, as JSON\n"
    "  --version\n";

static void say_json(const struct zl_value *v)
{
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, v, 2);
    printf("%s\n", text.p);
}

static int state(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e == 0)
        say_json(ocirun_show(r, s, folder));
    return e;
}

static int list(struct ocirun *r, const char *unused)
{
    (void)unused;
    struct zl_value *all = zl_value_new(&r->arena, ZL_LIST);
    DIR *d = opendir(r->o.root);
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        struct ocirun_state *s;
        struct zl_err none = { 0 };
        if (e->d_name[0] == '.' || ocirun_check_id(e->d_name, &none) < 0)
            continue;
        const char *id = zl_arena_strdup(&r->arena, e->d_name);
        zl_auto_close int folder = ocirun_open_folder(r, id);
        if (folder >= 0 && ocirun_read_state(r, folder, id, &s) == 0)
            zl_value_append(all, ocirun_show(r, s, folder));
    }
    if (d)
        closedir(d);
    r->err = (struct zl_err){ 0 }; /* of containers that went meanwhile */
    if (r->o.json) {
        say_json(all);
        return 0;
    }
    if (!r->o.quiet)
        printf("%-24s %-8s %-8s %-24s %s\n", "ID", "PID", "STATUS", "CREATED", "BUNDLE");
    for (const struct zl_value *v = all->first; v; v = v->next) {
        if (r->o.quiet)
            printf("%s\n", zl_value_cstr(v, "id"));
        else
            printf("%-24s %-8llu %-8s %-24s %s\n", zl_value_cstr(v, "id"),
                   (unsigned long long)zl_value_u64(v, "pid", 0), zl_value_cstr(v, "status"),
                   zl_value_cstr(v, "created"), zl_value_cstr(v, "bundle"));
    }
    return 0;
}

static int freeze(struct ocirun *r, const char *id, bool on)
{
    struct ocirun_state *s;
    struct zl_cgroup g;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    if (e < 0)
        return e;
    enum ocirun_status status = ocirun_status(s, folder);
    if (on ? status != OCIRUN_RUNNING && status != OCIRUN_CREATED : status != OCIRUN_PAUSED)
        return zl_fail(&r->err, ZL_E_CONFLICT, "container %s is %s", id, ocirun_status_names[status]);
    e = ocirun_cgroup(s, &g);
    e = e < 0 ? e : zl_cgroup_freeze(&g, on);
    return e < 0 ? zl_fail(&r->err, e, "%s %s", on ? "freeze" : "thaw", id) : 0;
}

static int pause_verb(struct ocirun *r, const char *id)
{
    return freeze(r, id, true);
}

static int resume(struct ocirun *r, const char *id)
{
    return freeze(r, id, false);
}

static int ps(struct ocirun *r, const char *id)
{
    struct ocirun_state *s;
    struct zl_cgroup g;
    zl_auto_buf pids = ZL_BUF_INIT;
    zl_auto_close int folder = ocirun_open_folder(r, id);
    int e = folder < 0 ? folder : ocirun_read_state(r, folder, id, &s);
    e = e < 0 ? e : ocirun_cgroup(s, &g);
    for (int c = 0; e == 0 && c < ZL_CONTROLLER_COUNT && !pids.n; c++)
        if (g.dir[c][0])
            ZL_IGNORE(zl_read_file(AT_FDCWD, zl_arena_printf(&r->arena, "%s/cgroup.procs", g.dir[c]), 1 << 20, &pids));
    if (e < 0)
        return r->err.code ? e : zl_fail(&r->err, e, "find the cgroup of %s", id);
    if (r->o.json) {
        struct zl_value *v = zl_value_new(&r->arena, ZL_LIST);
        for (struct zl_str rest = zl_buf_view(&pids); rest.p && rest.n;)
            zl_value_append(v, zl_value_plain(&r->arena, zl_str_cut(rest, '\n', &rest)));
        say_json(v);
    } else {
        printf("PID\n%s", pids.n ? pids.p : "");
    }
    return 0;
}

static int kill_verb(struct ocirun *r, const char *id)
{
    return ocirun_kill(r, id, r->o.signal ? r->o.signal : "SIGTERM");
}

static int create(struct ocirun *r, const char *id)
{
    return ocirun_create(r, id, false);
}

static int run(struct ocirun *r, const char *id)
{
    return ocirun_create(r, id, true);
}

static const struct verb {
    const char *name;
    int (*fn)(struct ocirun *r, const char *id);
    bool id, signal, enters; /* a container */
} verbs[] = { { "create", create, true, false, true },
              { "start", ocirun_start, true, false },
              { "exec", ocirun_exec, true, false, true },
              { "run", run, true, false, true },
              { "state", state, true, false },
              { "kill", kill_verb, true, true },
              { "delete", ocirun_delete, true, false },
              { "pause", pause_verb, true, false },
              { "resume", resume, true, false },
              { "list", list, false, false },
              { "ps", ps, true, false },
              { "update", ocirun_update, true, false },
              { "events", ocirun_events, true, false },
              { "features", ocirun_features, false, false },
              { "spec", ocirun_spec, false, false } };

/* Options that take a value, and where it goes; NULL: it is taken and means nothing here. */
static int take_option(struct ocirun *r, const char *name, const char *value, bool *ret_used)
{
    const struct {
        const char *name;
        const char **value;
        bool *flag;
    } options[] = { { "--root", &r->o.root, NULL },
                    { "--log", &r->o.log, NULL },
                    { "--log-format", &r->o.log_format, NULL },
                    { "--bundle", &r->o.bundle, NULL },
                    { "-b", &r->o.bundle, NULL },
                    { "--pid-file", &r->o.pid_file, NULL },
                    { "--console-socket", &r->o.console_socket, NULL },
                    { "--format", &r->o.format, NULL },
                    { "--process", &r->o.process, NULL },
                    { "-p", &r->o.process, NULL },
                    { "--cwd", &r->o.cwd, NULL },
                    { "-f", &r->o.format, &r->o.force },
                    { "--debug", NULL, &r->o.debug },
                    { "--detach", NULL, &r->o.detach },
                    { "-d", NULL, &r->o.detach },
                    { "--force", NULL, &r->o.force },
                    { "--all", NULL, &r->o.all },
                    { "-a", NULL, &r->o.all },
                    { "--quiet", NULL, &r->o.quiet },
                    { "-q", NULL, &r->o.quiet },
                    { "--tty", NULL, &r->o.tty },
                    { "--resources", &r->o.resources, NULL },
                    { "-r", &r->o.resources, NULL },
                    { "--stats", NULL, &r->o.stats },
                    { "--interval", &r->o.interval, NULL },
                    { "--memory", &r->o.memory, NULL },
                    { "--memory-swap", &r->o.memory_swap, NULL },
                    { "--cpu-quota", &r->o.cpu_quota, NULL },
                    { "--cpu-period", &r->o.cpu_period, NULL },
                    { "--cpu-share", &r->o.cpu_shares, NULL },
                    { "--pids-limit", &r->o.pids, NULL },
                    { "-t", NULL, &r->o.tty } };
    const char *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name);
    *ret_used = false;
    for (size_t i = 0; i < ZL_ARRAY_LEN(options); i++) {
        if (strlen(options[i].name) != n || strncmp(options[i].name, name, n) != 0)
            continue;
        /* -f is --force of delete and --format of the others. */
        bool flag = options[i].flag && (!options[i].value || (r->verb && zl_streq(r->verb, "delete")));
        if (flag) {
            *options[i].flag = true;
            return 0;
        }
        if (!equals && !value)
            return zl_fail(&r->err, ZL_E_USAGE, "%s needs a value", name);
        *options[i].value = equals ? equals + 1 : value;
        *ret_used = !equals;
        return 0;
    }
    if ((zl_streq(name, "-e") || zl_streq(name, "--env")) && value) {
        r->o.env.v[r->o.env.n++] = value;
        *ret_used = true;
        return 0;
    }
    return zl_fail(&r->err, ZL_E_USAGE, "there is no option %.40s here", name);
}

/* Behind the id, exec's words are the command's, whatever they look like. */
static int take_word(struct ocirun *r, char **word, int left, const char *words[3], int *n)
{
    if (*n == 2 && zl_streq(r->verb, "exec")) {
        r->o.command = (struct zl_strings){ (const char **)(void *)word, (unsigned)left };
        return 1;
    }
    if (*n == 3)
        return zl_fail(&r->err, ZL_E_USAGE, "'%.40s' is one argument too many", *word);
    words[(*n)++] = *word;
    r->verb = words[0];
    return 0;
}

static int parse(struct ocirun *r, int argc, char **argv, const struct verb **ret, const char **ret_id)
{
    const char *words[3] = { NULL, NULL, NULL };
    int n = 0, e = 0;
    bool options = true;
    r->o.env.v = zl_arena_alloc(&r->arena, (size_t)argc * sizeof *r->o.env.v);
    for (int i = 1; i < argc && e == 0; i++) {
        bool used = false;
        bool command = n == 2 && zl_streq(words[0], "exec");
        if (options && zl_streq(argv[i], "--")) {
            options = false;
        } else if (options && !command && argv[i][0] == '-' && argv[i][1]) {
            e = take_option(r, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
            i += used;
        } else {
            e = take_word(r, argv + i, argc - i, words, &n);
        }
    }
    if (e < 0)
        return e;
    for (size_t i = 0; words[0] && i < ZL_ARRAY_LEN(verbs); i++)
        if (zl_streq(words[0], verbs[i].name))
            *ret = &verbs[i];
    if (!*ret)
        return zl_fail(&r->err, ZL_E_USAGE, words[0] ? "there is no verb '%.40s'" : "there is no verb", words[0]);
    if ((*ret)->id != (words[1] != NULL) || (words[2] && !(*ret)->signal))
        return zl_fail(&r->err, ZL_E_USAGE, "%s takes %s", words[0],
                       !(*ret)->id      ? "no argument"
                       : (*ret)->signal ? "an id and a signal"
                                        : "one id");
    r->o.json = r->o.format && zl_streq(r->o.format, "json");
    if (r->o.format && !r->o.json && !zl_streq(r->o.format, "table"))
        return zl_fail(&r->err, ZL_E_USAGE, "--format is table or json, not '%.20s'", r->o.format);
    r->o.log_json = r->o.log_format && zl_streq(r->o.log_format, "json");
    r->o.signal = words[2];
    *ret_id = words[1];
    return 0;
}

/* A read-only mount of the program's file alone, which no path leads to (kernel 5.12), or -errno. */
static int mount_self(void)
{
    struct mount_attr readonly = { .attr_set = MOUNT_ATTR_RDONLY };
    zl_auto_close int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0 || syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &readonly, sizeof readonly) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

/* Such a mount is its own top, so that the file's path is "/"; of the copy in memory the seals tell. */
static bool is_sealed(int self)
{
    char path[8];
    struct statvfs fs;
    int seals = fcntl(self, F_GET_SEALS);
    if (seals >= 0)
        return seals & F_SEAL_WRITE;
    return fstatvfs(self, &fs) == 0 && fs.f_flag & ST_RDONLY && readlink("/proc/self/exe", path, sizeof path) == 1 &&
           path[0] == '/';
}

/*
 * What enters a container runs from where /proc/self/exe leads to nothing of the host that could be written to
 * (CVE-2019-5736): a read-only mount, else a sealed copy in memory. Returns when this is the one that runs there.
 */
static int run_sealed(struct ocirun *r, char **argv)
{
    zl_auto_close int self = zl_openat(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0);
    if (self < 0)
        return zl_fail(&r->err, self, "open the program itself");
    if (is_sealed(self))
        return 0;
    zl_auto_close int copy = mount_self();
    if (copy < 0) {
        zl_auto_buf text = ZL_BUF_INIT;
        int e = zl_read_file(AT_FDCWD, "/proc/self/exe", PROGRAM_MAX, &text);
        copy = e < 0 ? e : zl_sealed_memfd("zl-oci", text.p, text.n);
    }
    if (copy < 0)
        return zl_fail(&r->err, copy, "copy the program itself");
    fexecve(copy, argv, environ);
    return zl_fail(&r->err, -errno, "execute the copy of the program itself");
}

/* On stderr for people, in the log for the engine: both read what failed from there (runc's format). */
static void report(struct ocirun *r)
{
    zl_auto_buf line = ZL_BUF_INIT;
    char now[ZL_TIME_TEXT_SIZE];
    zl_time_text_s(zl_clock_wall_ms(), now);
    if (r->o.log_json) {
        zl_buf_puts(&line, "{\"level\":\"error\",\"msg\":");
        zl_json_string(&line, zl_str(r->err.text));
        zl_buf_printf(&line, ",\"time\":\"%s\"}\n", now);
    } else {
        zl_buf_printf(&line, "time=\"%s\" level=error msg=", now);
        zl_json_string(&line, zl_str(r->err.text));
        zl_buf_putc(&line, '\n');
    }
    zl_auto_close int log =
        r->o.log && *r->o.log ? open(r->o.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -EBADF;
    if (log >= 0)
        ZL_IGNORE(zl_write_full(log, line.p, line.n)); /* stderr has it, too */
    fprintf(stderr, "zl-oci: %s\n", r->err.text);
    if (r->err.hint[0])
        fprintf(stderr, "hint: %s\n", r->err.hint);
}

int main(int argc, char **argv)
{
    static struct ocirun r;
    const struct verb *verb = NULL;
    const char *id = NULL;
    if (argc == 2 && (zl_streq(argv[1], "--version") || zl_streq(argv[1], "-v"))) {
        printf("zl-oci version %s\nspec: 1.2.0\n", ZLAYER_VERSION);
        return 0;
    }
    if (argc < 2 || zl_streq(argv[1], "--help") || zl_streq(argv[1], "-h")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 1 : 0;
    }
    zl_arena_init(&r.arena);
    r.o.root = "/run/zl-oci";
    int e = parse(&r, argc, argv, &verb, &id);
    e = e < 0 || !verb->enters ? e : run_sealed(&r, argv);
    int code = e < 0 ? e : verb->fn(&r, id);
    if (code < 0) {
        report(&r);
        bool program = r.err.code == ZL_E_NO_COMMAND || r.err.code == ZL_E_NOT_EXECUTABLE;
        code = program ? zl_error_exit(r.err.code) : 1;
    }
    zl_arena_done(&r.arena);
    return code;
}
