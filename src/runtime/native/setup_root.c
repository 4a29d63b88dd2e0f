/*
 * The child's half of the set-up: from a bare clone to the start gate. It runs before anything of the image does, but
 * the image's tree is hostile already: a mount target is opened under the new root without following any link, and
 * mounted through its descriptor (CVE-2021-30465); what hides a path is checked to be what it must be
 * (CVE-2025-31133: the /dev/null that masks is a descriptor of the device, not a name in the image).
 */
#include "base/error.h"
#include "base/fd.h"
#include "runtime/native/setup_parts.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/path.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The new mount API takes one layer at a time, so it has no limit on the list (kernel 6.5). */
static int mount_overlay_long(const struct zl_job *job, struct zl_setup_error *err)
{
#if defined(SYS_fsopen) && defined(SYS_fsconfig)
    zl_auto_close int fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    long r = fs < 0 ? -1 : 0;
    for (unsigned i = 0; i < job->nlowers && r == 0; i++)
        r = syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "lowerdir+", job->lowers[i], 0);
    if (r == 0)
        r = syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "upperdir", "upper", 0);
    if (r == 0)
        r = syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "workdir", "work", 0);
    if (r == 0 && job->user_xattr)
        r = syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0);
    if (r == 0)
        r = syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int mnt = r == 0 ? (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV) : -1;
    if (mnt >= 0)
        r = syscall(SYS_move_mount, mnt, "", AT_FDCWD, "merged", MOVE_MOUNT_F_EMPTY_PATH);
    int code = r < 0 || mnt < 0 ? -errno : 0;
    zl_close(mnt);
    if (code == 0)
        return 0;
    return zl_setup_fail(err, code, "mount an overlay of %u layers (more than 30 need Linux 6.5)",
                         (unsigned)job->nlowers);
#else
    return zl_setup_fail(err, -ENOSYS, "mount an overlay of %u layers", (unsigned)job->nlowers);
#endif
}

/* The working directory is the instance folder, so that upper and work have short names. */
static int mount_overlay(const struct zl_job *job, struct zl_setup_error *err)
{
    zl_auto_buf o = ZL_BUF_INIT;
    zl_buf_printf(&o, "%supperdir=upper,workdir=work,lowerdir=", job->user_xattr ? "userxattr," : "");
    for (unsigned i = 0; i < job->nlowers; i++) {
        if (strpbrk(job->lowers[i], ":,\\"))
            return mount_overlay_long(job, err);
        zl_buf_printf(&o, "%s%s", i ? ":" : "", job->lowers[i]);
    }
    if (o.n > 4000)
        return mount_overlay_long(job, err);
    /* A device node of a layer must not open the host's device. */
    if (mount("overlay", "merged", "overlay", MS_NODEV, o.p) < 0)
        return zl_setup_fail(err, -errno, "mount the overlay root");
    return 0;
}

/* The folder that holds `path`, made when missing, and in *name the last part, which is a name and nothing else. */
static int open_above(int root, const char *path, const char **name)
{
    char above[4096];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (**name == 0 || zl_streq(*name, ".") || zl_streq(*name, ".."))
        return -EINVAL;
    if (slash && slash - path >= (ptrdiff_t)sizeof above)
        return -ENAMETOOLONG;
    snprintf(above, sizeof above, "%.*s", slash ? (int)(slash - path) : 0, path);
    return zl_open_folder_beneath(root, above);
}

/* Where devices can't be made, in a user namespace, the machine's own are bound. */
static int bind_device(int dir, const char *name, const struct zl_job_device *d)
{
    char path[40];
    struct stat st;
    zl_auto_close int source = zl_openat(AT_FDCWD, d->path, O_PATH, 0);
    if (source < 0 || fstat(source, &st) < 0)
        return source < 0 ? source : -errno;
    if ((st.st_mode & S_IFMT) != (d->mode & S_IFMT) || st.st_rdev != makedev((unsigned)d->major, (unsigned)d->minor))
        return -ENODEV;
    zl_auto_close int made = zl_openat(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
    zl_auto_close int target = made < 0 ? made : zl_openat(dir, name, O_PATH | O_NOFOLLOW, 0);
    if (target < 0)
        return target;
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    return zl_setup_mount_on(target, path, NULL, MS_BIND, NULL);
}

static int make_device(int dir, const char *name, const struct zl_job_device *d)
{
    struct stat there;
    dev_t number = makedev((unsigned)d->major, (unsigned)d->minor);
    /* One that is there already (a bind mount's) stays, when it is the same device. */
    if (fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && (there.st_mode & S_IFMT) == (d->mode & S_IFMT) &&
        there.st_rdev == number)
        return 0;
    if (mknodat(dir, name, (mode_t)d->mode, number) < 0)
        return errno == EPERM ? bind_device(dir, name, d) : -errno;
    if (fchmodat(dir, name, d->mode & 07777, 0) < 0)
        return -errno;
    bool owned = d->uid || d->gid;
    return owned && fchownat(dir, name, (uid_t)d->uid, (gid_t)d->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int make_devices(const struct zl_job *job, int root, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->ndevices; i++) {
        const struct zl_job_device *d = &job->devices[i];
        const char *name;
        zl_auto_close int dir = open_above(root, d->path, &name);
        int r = dir < 0 ? dir : make_device(dir, name, d);
        if (r < 0)
            return zl_setup_fail(err, r, "make the device %s", d->path);
    }
    for (uint64_t i = 0; i < job->nlinks; i++) {
        const char *name;
        zl_auto_close int dir = open_above(root, job->links[i].name, &name);
        int r = dir < 0 ? dir : symlinkat(job->links[i].value, dir, name) < 0 && errno != EEXIST ? -errno : 0;
        if (r < 0)
            return zl_setup_fail(err, r, "link %s", job->links[i].name);
    }
    return 0;
}

/* hosts, resolv.conf, hostname: plain files in the upper layer; whatever the image has under the name is replaced. */
static int write_files(const struct zl_job *job, int root, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->nfiles; i++) {
        const char *name, *content = job->files[i].value;
        zl_auto_close int dir = open_above(root, job->files[i].name, &name);
        int r = dir;
        if (dir >= 0) {
            (void)unlinkat(dir, name, 0);
            zl_auto_close int fd = zl_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
            r = fd < 0 ? fd : zl_write_full(fd, content, strlen(content));
        }
        if (r < 0)
            return zl_setup_fail(err, r, "write %s", job->files[i].name);
    }
    return 0;
}

static int bring_lo_up(void)
{
    enum { LO = 1 }; /* its index in every namespace (the kernel's LOOPBACK_IFINDEX) */
    zl_auto_close int nl = zl_netlink_open();
    return nl < 0 ? nl : zl_link_up(nl, LO);
}

/* Whether mounts that are shared outside are still so in here until we leave them: with a shared root, so that what is
 * mounted on shared volumes is seen outside, and where "/" alone is said to be private or a slave. */
static bool stays_open(const struct zl_job *job)
{
    uint64_t p = job->root_propagation;
    return p && job->rootfs[0] && !(p & MS_UNBINDABLE) && (p & MS_SHARED || !(p & MS_REC));
}

/* Of the mount that a path is on: what is mounted on it then is not mounted outside, too, as it would be on a shared
 * one. */
static int part_from_outside(const char *at)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s", at) >= (int)sizeof path)
        return -ENAMETOOLONG;
    while (mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0) {
        char *slash = strrchr(path, '/');
        if (errno != EINVAL || !slash || !path[1]) /* that: it is no mount's top */
            return -errno;
        slash[slash == path] = 0;
    }
    return 0;
}

/* The new root, mounted and opened, with the paths of who made us. */
static int mount_root(const struct zl_job *job, struct zl_setup_places *p, struct zl_setup_error *err)
{
    const char *at = job->rootfs[0] ? job->rootfs : "merged";
    bool open = stays_open(job);
    uint64_t propagation = job->root_propagation & MS_UNBINDABLE ? MS_REC | MS_SLAVE
                           : job->root_propagation               ? job->root_propagation
                                                                 : MS_REC | MS_PRIVATE;
    int r = propagation & MS_SHARED || mount(NULL, "/", NULL, propagation, NULL) == 0 ? 0 : -errno;
    r = r == 0 && open ? part_from_outside(at) : r;
    if (r < 0)
        return zl_setup_fail(err, r, "set the propagation of the mounts");
    if (!job->rootfs[0])
        r = mount_overlay(job, err);
    else if (mount(at, at, NULL, MS_BIND | MS_REC, NULL) < 0 ||
             (open && mount(NULL, at, NULL, MS_PRIVATE | MS_REC, NULL) < 0))
        r = zl_setup_fail(err, -errno, "bind the root %s", at);
    if (r < 0)
        return r;
    p->root = zl_openat(AT_FDCWD, at, O_PATH | O_DIRECTORY, 0);
    return p->root < 0 ? zl_setup_fail(err, p->root, "open the root") : 0;
}

/* Nothing, and nothing can be put there: a mount that no path leads to yet. */
static int make_empty(void)
{
    zl_auto_close int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "0k", 0) < 0 ||
        syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "555", 0) < 0 ||
        syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
        syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
    return mnt < 0 ? -errno : mnt;
}

/* One empty file system hides all folders: the first time it is moved there, then bound by its descriptor. Below kernel
 * 5.2 each has one of its own. */
static int hide_folder(int at, int *empty)
{
    int top = -EBADF;
    if (*empty >= 0) {
        int r = zl_setup_bind(*empty, at, MS_BIND, &top);
        zl_close(top);
        return r;
    }
    *empty = make_empty();
    return *empty >= 0 ? zl_setup_move(*empty, at)
           : *empty == -ENOSYS || *empty == -EPERM
               ? zl_setup_mount_on(at, "tmpfs", "tmpfs", MS_RDONLY, "size=0k,mode=555")
               : *empty;
}

static int make_path_readonly(int root, const char *path, int at)
{
    zl_auto_close int top = -EBADF;
    int r = zl_setup_bind(at, at, MS_BIND | MS_REC, &top);
    if (r == 0 && top < 0)
        top = zl_open_beneath(root, path, O_PATH);
    return r < 0 ? r : top < 0 ? top : zl_setup_remount(top, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

/* While /proc, by which descriptors are mounted, is still that of who made us. */
static int hide_paths(const struct zl_job *job, int root, struct zl_setup_error *err)
{
    int empty = -EBADF;
    zl_auto_close int null = zl_open_beneath(root, "dev/null", O_PATH);
    struct stat st;
    if (null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return zl_setup_fail(err, -EIO, "find /dev/null as it was made");
    char source[40];
    snprintf(source, sizeof source, "/proc/self/fd/%d", null);
    for (const char *const *p = job->masked; *p; p++) {
        zl_auto_close int at = zl_open_beneath(root, *p, O_PATH);
        if (at == -ENOENT || at == -ENOTDIR)
            continue;
        int r = at < 0 || fstat(at, &st) < 0 ? -EIO
                : S_ISDIR(st.st_mode)        ? hide_folder(at, &empty)
                                             : zl_setup_mount_on(at, source, NULL, MS_BIND, NULL);
        if (r < 0)
            return zl_setup_fail(err, r, "mask %s", *p);
    }
    zl_close(empty);
    for (const char *const *p = job->readonly; *p; p++) {
        zl_auto_close int at = zl_open_beneath(root, *p, O_PATH);
        if (at == -ENOENT || at == -ENOTDIR)
            continue;
        int r = at < 0 ? at : make_path_readonly(root, *p, at);
        if (r < 0)
            return zl_setup_fail(err, r, "make %s read-only", *p);
    }
    return 0;
}

/* The old root is left on top of the new one, and taken off. Its mounts must not go outside, where they are shared,
 * when they go here. */
static int pivot(const struct zl_job *job, int root)
{
    zl_auto_close int old = zl_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    if (old < 0)
        return old;
    return fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || fchdir(old) < 0 ||
                   (stays_open(job) && mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0) ||
                   umount2(".", MNT_DETACH) < 0 || chdir("/") < 0
               ? -errno
               : 0;
}

static int fill_root(const struct zl_job *job, const struct zl_setup_options *o, const struct zl_setup_places *p,
                     struct zl_setup_error *err)
{
    uint64_t propagation = job->root_propagation;
    int r = zl_setup_mounts(job, p, o->cgroup, err);
    r = r < 0 ? r : make_devices(job, p->root, err);
    r = r < 0 ? r : write_files(job, p->root, err);
    if (r == 0 && o->in_container)
        r = o->in_container(o->arg, false, err);
    r = r < 0 ? r : hide_paths(job, p->root, err);
    if (r < 0)
        return r;
    r = pivot(job, p->root);
    if (r < 0)
        return zl_setup_fail(err, r, "pivot into the root");
    if (propagation & (MS_SHARED | MS_UNBINDABLE) && mount(NULL, "/", NULL, propagation, NULL) < 0)
        return zl_setup_fail(err, -errno, "set the propagation of the root");
    return 0;
}

static int set_oom_score(const struct zl_job *job, struct zl_setup_error *err)
{
    if (!job->oom_score_adj[0])
        return 0;
    int r = zl_proc_write("self/oom_score_adj", job->oom_score_adj);
    return r < 0 ? zl_setup_fail(err, r, "set the OOM score to %s", job->oom_score_adj) : 0;
}

static int join_namespaces(const struct zl_job *job, struct zl_setup_error *err)
{
    int last = -EBADF;
    const char *path = "";
    for (uint64_t i = 0; i < job->nnamespaces; i++) {
        const struct zl_job_namespace *n = &job->namespaces[i];
        if (!n->path[0] || n->kind == CLONE_NEWPID || n->kind == CLONE_NEWUSER)
            continue; /* those are joined before we are made */
        int fd = zl_openat(AT_FDCWD, n->path, O_RDONLY, 0);
        path = n->path;
        if (n->kind == CLONE_NEWNS) { /* in it, the other paths mean something else */
            last = fd;
            continue;
        }
        if (fd < 0 || setns(fd, (int)n->kind) < 0)
            return zl_setup_fail(err, fd < 0 ? fd : -errno, "join the namespace %s", n->path);
        zl_close(fd);
    }
    if (last >= 0 && setns(last, CLONE_NEWNS) < 0)
        return zl_setup_fail(err, -errno, "join the mount namespace %s", path);
    zl_close(last);
    return 0;
}

static int make_root_readonly(struct zl_setup_error *err)
{
    zl_auto_close int root = zl_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    int r = root < 0 ? root : zl_setup_remount(root, MS_RDONLY);
    return r < 0 ? zl_setup_fail(err, r, "make the root read-only") : 0;
}

static int set_names(const struct zl_job *job, struct zl_setup_error *err)
{
    if (job->hostname[0] && sethostname(job->hostname, strlen(job->hostname)) < 0)
        return zl_setup_fail(err, -errno, "set the host name");
    if (job->domainname[0] && setdomainname(job->domainname, strlen(job->domainname)) < 0)
        return zl_setup_fail(err, -errno, "set the domain name");
    int r = zl_setup_is_new(job, CLONE_NEWNET) ? bring_lo_up() : 0;
    if (r < 0)
        return zl_setup_fail(err, r, "bring lo up");
    for (uint64_t i = 0; i < job->nsysctls; i++) {
        char path[256];
        int n = snprintf(path, sizeof path, "sys/%s", job->sysctls[i].name);
        r = n >= (int)sizeof path ? -ENAMETOOLONG : zl_proc_write(path, job->sysctls[i].value);
        if (r < 0)
            return zl_setup_fail(err, r, "set the sysctl %s", job->sysctls[i].name);
    }
    return 0;
}

static int to_the_gate(const struct zl_job *job, const struct zl_setup_options *o, int gate, struct zl_setup_error *err)
{
    struct zl_setup_places p = { zl_xcalloc(job->nmounts + 1, sizeof(int)), -EBADF };
    for (uint64_t i = 0; i < job->nmounts; i++)
        p.sources[i] = -EBADF;
    int r = zl_setup_take_trees(job, gate, &p, err);
    r = r < 0 ? r : join_namespaces(job, err);
    if (r == 0 && zl_setup_is_new(job, CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return zl_setup_fail(err, -errno, "make the cgroup namespace");
    /* Of its own session, whose terminal is not the caller's. */
    if (r == 0 && setsid() < 0)
        return zl_setup_fail(err, -errno, "begin a session");
    umask(0022);
    r = r < 0 ? r : set_oom_score(job, err);
    r = r < 0 ? r : mount_root(job, &p, err);
    r = r < 0 ? r : zl_setup_open_sources(job, &p, err);
    r = r < 0 ? r : zl_setup_become_root(job, err);
    r = r < 0 ? r : set_names(job, err);
    r = r < 0 ? r : fill_root(job, o, &p, err);
    zl_close(p.root);
    for (uint64_t i = 0; i < job->nmounts; i++)
        zl_close(p.sources[i]);
    free(p.sources);
    r = r < 0 ? r : zl_setup_limits(job, err);
    r = r < 0 || !job->terminal ? r : zl_setup_terminal(job, o->console, true, err);
    return r < 0 || !job->root_readonly ? r : make_root_readonly(err);
}

static ZL_NORETURN void give_up(int report, const struct zl_setup_error *err)
{
    ZL_IGNORE(zl_write_full(report, &err->code, sizeof err->code));
    ZL_IGNORE(zl_write_full(report, err->step, sizeof err->step));
    _exit(1);
}

void zl_setup_child(const struct zl_job *job, const struct zl_setup_options *o, bool unified, int gate, int report)
{
    struct zl_setup_error err = { 0 };
    int at_the_gate = 0;
    char start;
    const int keep[] = { gate, report, o->starter, job->terminal ? o->console : -EBADF };
    /* The shim's lock above all: held here it would outlive a killed shim. */
    zl_setup_close_others(job->preserve_fds, keep, ZL_ARRAY_LEN(keep));
    /* An accelerator only: the agent proves an orphaned cgroup empty itself. */
    if (!o->outlives)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (o->place && zl_read_full(gate, &start, 1) != 1)
        _exit(1); /* who makes the container has given up, or is gone */
    int r = zl_cgroup_enter(o->cgroup, unified);
    if (r < 0)
        ZL_IGNORE(zl_setup_fail(&err, r, "enter the cgroup"));
    if (r < 0 || to_the_gate(job, o, gate, &err) < 0 || (o->starter >= 0 && zl_setup_check_program(job, &err) < 0))
        give_up(report, &err);
    if (zl_write_full(report, &at_the_gate, sizeof at_the_gate) < 0)
        _exit(1);
    if (o->starter >= 0) {
        zl_close(report);
        zl_close(gate);
        do {
            gate = report = accept4(o->starter, NULL, NULL, SOCK_CLOEXEC);
        } while (gate < 0 && (errno == EINTR || errno == ECONNABORTED || errno == ENOMEM));
        zl_close(o->starter);
    }
    ssize_t told = gate < 0 ? 0 : zl_read_full(gate, &start, 1);
    if (told < 0) {
        ZL_IGNORE(zl_setup_fail(&err, (int)told, "wait to be started"));
        give_up(report, &err);
    }
    if (told == 0)
        _exit(1); /* nobody will start it */
    if (o->in_container && o->in_container(o->arg, true, &err) < 0)
        give_up(report, &err);
    ZL_IGNORE(zl_setup_exec(job, job->argv, report, &err));
    give_up(report, &err);
}
