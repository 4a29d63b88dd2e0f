/*
 * The mounts of a container, below its new root. The image's tree is hostile: a target is opened under the root and
 * mounted through its descriptor (CVE-2021-30465); one of proc or sysfs is where it says, and nowhere a link leads to.
 */
#include "base/fd.h"
#include "runtime/native/setup_parts.h"
#include "sys/path.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

int zl_setup_mount_on(int target, const char *source, const char *type, unsigned long flags, const char *data)
{
    enum { DATA_MAX = 4095 }; /* the kernel would cut it off */
    char path[40];
    struct statfs fs;
    if (data && strlen(data) > DATA_MAX)
        return -E2BIG;
    snprintf(path, sizeof path, "/proc/self/fd/%d", target);
    /* Inside the root /proc may be anything that the document mounts there (CVE-2019-16884). */
    if (statfs("/proc/self/fd", &fs) < 0)
        return -errno;
    if (fs.f_type != PROC_SUPER_MAGIC)
        return -EXDEV;
    return mount(source, path, type, flags, data) < 0 ? -errno : 0;
}

int zl_setup_remount(int at, unsigned long flags)
{
    int r = zl_setup_mount_on(at, NULL, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
    struct statfs fs;
    if (r != -EPERM || fstatfs(at, &fs) < 0)
        return r;
    /* mount_namespaces(7): flags that came from a namespace with more rights are locked. */
    static const struct {
        long there;
        unsigned long flag;
    } locked[] = { { ST_NOSUID, MS_NOSUID },   { ST_NODEV, MS_NODEV },           { ST_NOEXEC, MS_NOEXEC },
                   { ST_NOATIME, MS_NOATIME }, { ST_NODIRATIME, MS_NODIRATIME }, { ST_RELATIME, MS_RELATIME } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(locked); i++)
        if (fs.f_flags & locked[i].there)
            flags |= locked[i].flag;
    return zl_setup_mount_on(at, NULL, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static int bind_cgroup(int root, const char *path, const char *group, unsigned long flags)
{
    zl_auto_close int target = zl_open_beneath(root, path, O_PATH | O_DIRECTORY);
    int r = target < 0 ? target : zl_setup_mount_on(target, group, NULL, MS_BIND, NULL);
    zl_auto_close int top = r < 0 ? r : zl_open_beneath(root, path, O_PATH | O_DIRECTORY);
    r = top < 0 ? top
                : zl_setup_mount_on(top, NULL, NULL, MS_PRIVATE, NULL); /* not the machine's, whatever the root is */
    return r < 0 ? r : zl_setup_remount(top, flags);
}

/*
 * The type "cgroup": the container's own groups, by which programs size themselves: as its cgroup namespace shows them,
 * or, without one, bound one by one, as a mount of the hierarchy would show the machine's. What the machine does not
 * have is left out.
 */
static int mount_cgroups(int root, const struct zl_job_mount *m, const struct zl_cgroup *g, bool own_namespace)
{
    zl_auto_close int at = zl_open_beneath(root, m->target, O_PATH | O_DIRECTORY);
    if (at < 0)
        return at == -ENOENT ? 0 : at;
    if (g->layout == ZL_CGROUP_V2) {
        int e = own_namespace ? zl_setup_mount_on(at, "cgroup", "cgroup2", m->flags, NULL) : -EBUSY;
        /* Where the machine's /sys was bound, the tree is there already, and not mounted twice in one place. */
        return e == -EBUSY ? bind_cgroup(root, m->target, g->dir[ZL_CONTROLLER_UNIFIED], m->flags) : e;
    }
    int r = zl_setup_mount_on(at, "tmpfs", "tmpfs", m->flags & ~(unsigned long)MS_RDONLY, "mode=755,size=64k");
    for (int c = 1; c < ZL_CONTROLLER_COUNT && r == 0; c++) {
        char path[4096];
        if (!g->dir[c][0])
            continue;
        const char *name = zl_controller_name((enum zl_controller)c);
        snprintf(path, sizeof path, "%s/%s", m->target, name);
        zl_auto_close int dir = zl_open_folder_beneath(root, path);
        r = dir < 0 ? dir : own_namespace ? zl_setup_mount_on(dir, "cgroup", "cgroup", m->flags, name) : -EBUSY;
        /* The hierarchy has other controllers, too, as systemd has cpu and cpuacct in one: in a cgroup namespace the
         * kernel takes it for a new one, which is refused. */
        if (r == -EBUSY || r == -EPERM)
            r = bind_cgroup(root, path, g->dir[c], m->flags);
    }
    /* For systemd in there: an engine that wants it binds the machine's own on it. */
    char path[4096];
    snprintf(path, sizeof path, "%s/systemd", m->target);
    if (access("/sys/fs/cgroup/systemd", F_OK) == 0)
        zl_close(zl_open_folder_beneath(root, path));
    zl_auto_close int top = zl_open_beneath(root, m->target, O_PATH | O_DIRECTORY);
    return r < 0 ? r : top < 0 ? top : zl_setup_remount(top, m->flags);
}

static int open_source(const struct zl_job_mount *m)
{
    return zl_openat(AT_FDCWD, m->source, O_PATH, 0);
}

int zl_setup_open_sources(const struct zl_job *job, struct zl_setup_places *p, struct zl_setup_error *err)
{
    if (!zl_setup_namespace(job, CLONE_NEWUSER))
        return 0; /* the same user opens them later */
    for (uint64_t i = 0; i < job->nmounts; i++) {
        const struct zl_job_mount *m = &job->mounts[i];
        if (!(m->flags & MS_BIND) || m->idmap)
            continue;
        p->sources[i] = open_source(m);
        if (p->sources[i] < 0)
            return zl_setup_fail(err, p->sources[i], "mount %s: open %.60s", m->target, m->source);
    }
    return 0;
}

int zl_setup_move(int tree, int target)
{
    return syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno
                                                                                                                : 0;
}

/*
 * By the mount API the descriptor of the new mount is there before the mount is (kernel 5.2): what follows is done to
 * it, and not to what is found under its name, where another process may have put something else.
 */
int zl_setup_bind(int source, int target, unsigned long flags, int *top)
{
    char path[40];
    unsigned below = flags & MS_REC ? AT_RECURSIVE : 0;
    zl_auto_close int tree =
        (int)syscall(SYS_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | below);
    if (tree >= 0) {
        int r = zl_setup_move(tree, target);
        *top = r < 0 ? -EBADF : ZL_TAKE_FD(tree);
        return r;
    }
    *top = -EBADF;
    if (errno != ENOSYS && errno != EPERM)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    return zl_setup_mount_on(target, path, NULL, flags & (MS_BIND | MS_REC), NULL);
}

static int attach(const struct zl_job_mount *m, int source, int target, int *top)
{
    if (!m->idmap)
        return zl_setup_bind(source, target, m->flags, top);
    int r = zl_setup_move(source, target);
    *top = r < 0 ? -EBADF : fcntl(source, F_DUPFD_CLOEXEC, 3);
    return r < 0 ? r : *top < 0 ? -errno : 0;
}

static bool says_mode(const struct zl_job_mount *m)
{
    for (struct zl_str rest = zl_str(m->data); rest.p;) {
        struct zl_str option = zl_str_cut(rest, ',', &rest);
        if (option.n > 5 && memcmp(option.p, "mode=", 5) == 0)
            return true;
    }
    return false;
}

/* A tmpfs on a folder that is there has its mode, if none is said, as with runc; on one that is not, the kernel's. */
static int mount_new(const struct zl_job_mount *m, int target, bool on_folder)
{
    struct stat st;
    char data[4200];
    const char *given = m->data[0] ? m->data : NULL;
    if (on_folder && !says_mode(m)) {
        if (fstat(target, &st) < 0)
            return -errno;
        int n = snprintf(data, sizeof data, "mode=%04o%s%s", (unsigned)st.st_mode & 07777, given ? "," : "", m->data);
        if (n >= (int)sizeof data)
            return -E2BIG;
        given = data;
    }
    return zl_setup_mount_on(target, m->source, m->type, m->flags, given);
}

/* The folder's content, owner and mode; a mode that is said stays. */
static int copy_up(const struct zl_job_mount *m, int below, int top)
{
    struct stat st;
    int r = fstat(top, &st) < 0 ? -errno : zl_setup_copy_up(below, top);
    return r < 0 || !says_mode(m) ? r : fchmodat(top, ".", st.st_mode & 07777, 0) < 0 ? -errno : 0;
}

/* What comes after the mount itself, on its top. */
static int finish(const struct zl_job_mount *m, int below, int top)
{
    unsigned long more = m->flags & MS_BIND ? m->flags & ~(unsigned long)(MS_BIND | MS_REC) : 0;
    int r = m->copy_up ? copy_up(m, below, top) : 0;
    r = r < 0 || !more ? r : zl_setup_remount(top, more);
    struct mount_attr attr = { .attr_set = m->attr_set, .attr_clr = m->attr_clear };
    if (r == 0 && (m->attr_set || m->attr_clear) &&
        syscall(SYS_mount_setattr, top, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
        return -errno;
    return r < 0 || !m->propagation ? r : zl_setup_mount_on(top, NULL, NULL, m->propagation, NULL);
}

static int make_mount(const struct zl_job_mount *m, int source, int root, const struct zl_cgroup *g, bool own_cgroups)
{
    if (zl_streq(m->type, "cgroup"))
        return mount_cgroups(root, m, g, own_cgroups);
    bool bind = m->flags & MS_BIND;
    zl_auto_close int opened = bind && source < 0 ? open_source(m) : -EBADF;
    struct stat st = { 0 };
    if (bind && source < 0)
        source = opened;
    if (bind && (source < 0 || fstat(source, &st) < 0))
        return source < 0 ? source : -errno;
    /* What programs trust to be the kernel's is mounted where it is said, and nowhere that a link leads to. */
    bool strict = zl_streq(m->type, "proc") || zl_streq(m->type, "sysfs");
    zl_auto_close int there = zl_streq(m->type, "tmpfs") ? zl_open_in_root(root, m->target, O_PATH) : -EBADF;
    if (there < 0 && there != -EBADF && there != -ENOENT)
        return there;
    zl_auto_close int target = strict ? zl_open_folder_beneath(root, m->target)
                                      : zl_make_in_root(root, m->target, bind && !S_ISDIR(st.st_mode));
    zl_auto_close int top = -EBADF;
    int r = target < 0 ? target : bind ? attach(m, source, target, &top) : mount_new(m, target, there >= 0);
    bool more = m->flags & MS_BIND || m->copy_up || m->attr_set || m->attr_clear || m->propagation;
    if (r < 0 || !more)
        return r;
    if (top < 0)
        top = strict ? zl_open_beneath(root, m->target, O_PATH) : zl_open_in_root(root, m->target, O_PATH);
    return top < 0 ? top : finish(m, target, top);
}

int zl_setup_mounts(const struct zl_job *job, const struct zl_setup_places *p, const struct zl_cgroup *g,
                    struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->nmounts; i++) {
        int r = make_mount(&job->mounts[i], p->sources[i], p->root, g, zl_setup_is_new(job, CLONE_NEWCGROUP));
        if (r < 0)
            return zl_setup_fail(
                err, r, r == -ENOSYS ? "mount %s: options for a whole tree need a kernel since 5.12" : "mount %s",
                job->mounts[i].target);
    }
    return 0;
}
