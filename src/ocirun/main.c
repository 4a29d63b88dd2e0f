/*
 * zl-oci: the command line of an OCI runtime, as podman, docker and containerd call crun and runc. A verb's exit code
 * is 0, 1 for an error (said on stderr and in --log), or the program's for `run`.
 */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PROGRAM_MAX = 64 << 20 };

static int kill_verb(struct ocirun *r, const char *id)
{
    return ocirun_kill(r, id, r->o.words.n > 1 ? r->o.words.v[1] : "SIGTERM");
}

static int create(struct ocirun *r, const char *id)
{
    return ocirun_create(r, id, false);
}

static int run(struct ocirun *r, const char *id)
{
    return ocirun_create(r, id, true);
}

/* podman asks for the help of `checkpoint` to find out whether there is one: it must fail, too. */
static int not_there(struct ocirun *r, const char *unused)
{
    (void)unused;
    return zl_fail(&r->err, ZL_E_UNSUPPORTED, "%s is not supported: zl-oci has no checkpoints", r->verb);
}

enum { MANY = 1 << 20 };

static const struct ocirun_verb verbs[] = {
    { "create", "ID", "Sets a container up; it waits to be started.", 1, 1, create, .enters = true },
    { "start", "ID", "Lets its program run.", 1, 1, ocirun_start },
    { "run", "ID", "Creates and starts; without -d waits for its end and deletes it.", 1, 1, run, .enters = true },
    { "exec", "ID [COMMAND…]", "One more process in it: a command, or what --process says.", 1, 1, ocirun_exec,
      .enters = true, .rest = true },
    { "state", "ID", "What it is, as JSON.", 1, 1, ocirun_show_state },
    { "kill", "ID [SIGNAL]", "Signals its first process, or all of them; SIGTERM if not said.", 1, 2, kill_verb },
    { "delete", "ID", "Removes what has stopped.", 1, 1, ocirun_delete },
    { "pause", "ID", "Freezes its processes.", 1, 1, ocirun_pause },
    { "resume", "ID", "Thaws them.", 1, 1, ocirun_resume },
    { "list", "", "The containers below the state folder.", 0, 0, ocirun_list },
    { "ps", "ID [PS-OPTION…]", "Its processes, as ps shows them (-ef), or their numbers as JSON.", 1, 1, ocirun_ps,
      .rest = true },
    { "update", "ID", "Changes its limits; what is not said stays.", 1, 1, ocirun_update },
    { "events", "ID", "What it takes, a JSON line each time.", 1, 1, ocirun_events },
    { "features", "", "What this program can do, as JSON.", 0, 0, ocirun_features },
    { "spec", "", "Writes a config.json to start from.", 0, 0, ocirun_spec },
    { "checkpoint", "ID", "Refused: there are no checkpoints.", 0, MANY, not_there, .refused = true },
    { "restore", "ID", "Refused: there are no checkpoints.", 0, MANY, not_there, .refused = true },
    { NULL },
};

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
    if (fstatvfs(self, &fs) == 0 && fs.f_flag & ST_RDONLY && readlink("/proc/self/exe", path, sizeof path) == 1 &&
        path[0] == '/')
        return true;
    int seals = fcntl(self, F_GET_SEALS); /* every file of a tmpfs can tell */
    return seals >= 0 && seals & F_SEAL_WRITE;
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
    if (r->o.systemd_cgroup)
        ocirun_remember_folder();
    fexecve(copy, argv, environ);
    return zl_fail(&r->err, -errno, "execute the copy of the program itself");
}

/* On stderr for people, in the log for the engine: both read what failed from there. */
static void report(const struct ocirun *r)
{
    ocirun_log(r, "error", "%s", r->err.text);
    fprintf(stderr, "zl-oci: %s\n", r->err.text);
    if (r->err.hint[0])
        fprintf(stderr, "hint: %s\n", r->err.hint);
}

static int run_verb(struct ocirun *r, const struct ocirun_verb *verb, char **argv)
{
    if (verb->enters && run_sealed(r, argv) < 0)
        return r->err.code;
    return verb->fn(r, r->o.words.n ? r->o.words.v[0] : NULL);
}

int main(int argc, char **argv)
{
    static struct ocirun r = { .log = -EBADF };
    const struct ocirun_verb *verb = NULL;
    if (argc == 2 && (zl_streq(argv[1], "--version") || zl_streq(argv[1], "-v"))) {
        printf("zl-oci version %s\nspec: 1.3.0\n", ZLAYER_VERSION);
        return 0;
    }
    zl_arena_init(&r.arena);
    const char *own = getenv("XDG_RUNTIME_DIR");
    r.o.root = own && *own && ocirun_is_user() ? zl_arena_printf(&r.arena, "%s/zl-oci", own) : "/run/zl-oci";
    r.console = (struct ocirun_console){ -EBADF, -EBADF };
    int code = ocirun_parse(&r, verbs, argc, argv, &verb);
    if (code == 0 && r.o.help && !(verb && verb->refused)) {
        ocirun_usage(stdout, verbs, verb);
        return 0;
    }
    int log = ocirun_open_log(&r, argc, argv);
    code = code < 0 ? code : log;
    code = code < 0 ? code : run_verb(&r, verb, argv);
    if (code < 0) {
        report(&r);
        bool program = r.err.code == ZL_E_NO_COMMAND || r.err.code == ZL_E_NOT_EXECUTABLE;
        code = program ? zl_error_exit(r.err.code) : 1;
    }
    /* The arena goes with the process: to free it would copy each page of it that the fork has shared. */
    return code;
}
