/*
 * The child's half of the set-up: from a bare clone to the start gate. It runs before anything of the image does, but
 * the image's tree is hostile already: a mount target is opened under the new root without following any link, and
 * mounted through its descriptor (CVE-2021-30465); what hides a path is checked to be what it must be
 * (CVE-2025-31133: the /dev/null that masks is a descriptor of the device, not a name in the image).
 */
#include "base/error.h"
#include "base/fd.h"
#include "runtime/native/setup.h"
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

static int mount_on(int target, const char *source, const char *type, unsigned long flags, const char *data)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", target);
    return mount(source, path, type, flags, data) < 0 ? -errno : 0;
}

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
    zl_buf_puts(&o, "upperdir=upper,workdir=work,lowerdir=");
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

static int make_devices(const struct zl_job *job, int root, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->ndevices; i++) {
        const struct zl_job_device *d = &job->devices[i];
        const char *name;
        zl_auto_close int dir = open_above(root, d->path, &name);
        int r = dir < 0 ? dir : 0;
        struct stat there;
        /* One that is there already (a bind mount's) stays, when it is the same device. */
        if (r == 0 && fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
            (there.st_mode & S_IFMT) == (d->mode & S_IFMT) &&
            there.st_rdev == makedev((unsigned)d->major, (unsigned)d->minor))
            continue;
        if (r == 0 &&
            (mknodat(dir, name, (mode_t)d->mode, makedev((unsigned)d->major, (unsigned)d->minor)) < 0 ||
             fchmodat(dir, name, d->mode & 07777, 0) < 0 ||
             ((d->uid || d->gid) && fchownat(dir, name, (uid_t)d->uid, (gid_t)d->gid, AT_SYMLINK_NOFOLLOW) < 0)))
            r = -errno;
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

static int bind_cgroup(int root, const char *path, const char *group, unsigned long flags)
{
    zl_auto_close int target = zl_open_beneath(root, path, O_PATH | O_DIRECTORY);
    int r = target < 0 ? target : mount_on(target, group, NULL, MS_BIND, NULL);
    zl_auto_close int top = r < 0 ? r : zl_open_beneath(root, path, O_PATH | O_DIRECTORY);
    return top < 0 ? top : mount_on(top, NULL, NULL, MS_BIND | MS_REMOUNT | flags, NULL);
}

/*
 * The type "cgroup": the container's own groups, by which programs size themselves: as its cgroup namespace shows them,
 * or, without one, bound one by one, as a mount of the hierarchy would show the machine's. What the machine does not
 * have is left out.
 */
static int mount_cgroups(int root, const struct zl_job_mount *m, const struct zl_cgroup *g, bool own_namespace)
{
    static const char *const names[ZL_CONTROLLER_COUNT] = {
        "", "memory", "cpu", "cpuacct", "pids", "freezer", "devices"
    };
    zl_auto_close int at = zl_open_beneath(root, m->target, O_PATH | O_DIRECTORY);
    if (at < 0)
        return at == -ENOENT ? 0 : at;
    if (g->layout == ZL_CGROUP_V2)
        return own_namespace ? mount_on(at, "cgroup", "cgroup2", m->flags, NULL)
                             : bind_cgroup(root, m->target, g->dir[ZL_CONTROLLER_UNIFIED], m->flags);
    int r = mount_on(at, "tmpfs", "tmpfs", m->flags & ~(unsigned long)MS_RDONLY, "mode=755,size=64k");
    for (int c = 1; c < ZL_CONTROLLER_COUNT && r == 0; c++) {
        char path[4096];
        if (!g->dir[c][0])
            continue;
        snprintf(path, sizeof path, "%s/%s", m->target, names[c]);
        zl_auto_close int dir = zl_open_folder_beneath(root, path);
        r = dir < 0         ? dir
            : own_namespace ? mount_on(dir, "cgroup", "cgroup", m->flags, names[c])
                            : bind_cgroup(root, path, g->dir[c], m->flags);
    }
    zl_auto_close int top = zl_open_beneath(root, m->target, O_PATH | O_DIRECTORY);
    return r < 0 ? r : top < 0 ? top : mount_on(top, NULL, NULL, MS_REMOUNT | MS_BIND | m->flags, NULL);
}

static int make_mount(const struct zl_job_mount *m, int root, const struct zl_cgroup *g, bool own_cgroups)
{
    if (zl_streq(m->type, "cgroup"))
        return mount_cgroups(root, m, g, own_cgroups);
    bool bind = m->flags & MS_BIND, file = false;
    struct stat st;
    if (bind && stat(m->source, &st) < 0)
        return -errno;
    file = bind && !S_ISDIR(st.st_mode);
    /* What programs trust to be the kernel's is mounted where it is said, and nowhere that a link leads to. */
    bool strict = zl_streq(m->type, "proc") || zl_streq(m->type, "sysfs");
    zl_auto_close int target =
        strict ? zl_open_folder_beneath(root, m->target) : zl_make_in_root(root, m->target, file);
    unsigned long first = bind ? m->flags & (MS_BIND | MS_REC) : m->flags, more = bind ? m->flags & ~first : 0;
    int r =
        target < 0 ? target : mount_on(target, m->source, bind ? NULL : m->type, first, m->data[0] ? m->data : NULL);
    if (r < 0 || (!more && !m->propagation && !m->copy_up))
        return r;
    zl_auto_close int top =
        strict ? zl_open_beneath(root, m->target, O_PATH) : zl_open_in_root(root, m->target, O_PATH);
    if (top >= 0 && m->copy_up) {
        r = zl_setup_copy_up(target, top);
        if (r < 0)
            return r;
    }
    r = top < 0 ? top : more ? mount_on(top, NULL, NULL, MS_BIND | MS_REMOUNT | more, NULL) : 0;
    return r < 0 || !m->propagation ? r : mount_on(top, NULL, NULL, m->propagation, NULL);
}

static int bring_lo_up(void)
{
    zl_auto_close int nl = zl_netlink_open();
    int lo = nl < 0 ? nl : zl_link_index(nl, "lo");
    return lo < 0 ? lo : zl_link_up(nl, (unsigned)lo);
}

static bool is_new(const struct zl_job *job, uint64_t kind)
{
    for (uint64_t i = 0; i < job->nnamespaces; i++)
        if (job->namespaces[i].kind == kind)
            return !job->namespaces[i].path[0];
    return false;
}

static int make_root(const struct zl_job *job, const struct zl_setup_options *o, struct zl_setup_error *err)
{
    /* Nothing of ours is seen outside; what is mounted outside is seen here only where the job wants that. */
    uint64_t propagation = job->root_propagation ? job->root_propagation : MS_REC | MS_PRIVATE;
    bool outward = propagation & (MS_SHARED | MS_UNBINDABLE);
    if (mount(NULL, "/", NULL, outward ? MS_REC | MS_SLAVE : propagation, NULL) < 0)
        return zl_setup_fail(err, -errno, "set the propagation of the mounts");
    const char *at = job->rootfs[0] ? job->rootfs : "merged";
    int r =
        job->rootfs[0]
            ? mount(at, at, NULL, MS_BIND | MS_REC, NULL) < 0 ? zl_setup_fail(err, -errno, "bind the root %s", at) : 0
            : mount_overlay(job, err);
    if (r < 0)
        return r;
    zl_auto_close int root = zl_openat(AT_FDCWD, at, O_PATH | O_DIRECTORY, 0);
    if (root < 0)
        return zl_setup_fail(err, root, "open the root");
    for (uint64_t i = 0; i < job->nmounts; i++) {
        r = make_mount(&job->mounts[i], root, o->cgroup, is_new(job, CLONE_NEWCGROUP));
        if (r < 0)
            return zl_setup_fail(err, r, "mount %s", job->mounts[i].target);
    }
    r = make_devices(job, root, err);
    r = r < 0 ? r : write_files(job, root, err);
    if (r == 0 && o->in_container)
        r = o->in_container(o->arg, false, err);
    if (r < 0)
        return r;
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return zl_setup_fail(err, -errno, "pivot into the root");
    if (outward && mount(NULL, "/", NULL, propagation, NULL) < 0)
        return zl_setup_fail(err, -errno, "set the propagation of the root");
    return 0;
}

static int hide_paths(const struct zl_job *job, struct zl_setup_error *err)
{
    zl_auto_close int root = zl_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    zl_auto_close int null = zl_open_beneath(root, "dev/null", O_PATH);
    struct stat st;
    if (root < 0 || null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return zl_setup_fail(err, -EIO, "find /dev/null as it was made");
    char source[40];
    snprintf(source, sizeof source, "/proc/self/fd/%d", null);
    for (const char *const *p = job->masked; *p; p++) {
        zl_auto_close int at = zl_open_beneath(root, *p, O_PATH);
        if (at == -ENOENT || at == -ENOTDIR)
            continue;
        int r = at < 0 || fstat(at, &st) < 0 ? -EIO
                : S_ISDIR(st.st_mode)        ? mount_on(at, "tmpfs", "tmpfs", MS_RDONLY, "size=0k,mode=555")
                                             : mount_on(at, source, NULL, MS_BIND, NULL);
        if (r < 0)
            return zl_setup_fail(err, r, "mask %s", *p);
    }
    for (const char *const *p = job->readonly; *p; p++) {
        char self[40];
        zl_auto_close int at = zl_open_beneath(root, *p, O_PATH);
        if (at == -ENOENT || at == -ENOTDIR)
            continue;
        snprintf(self, sizeof self, "/proc/self/fd/%d", at);
        int r = at < 0 ? at : mount_on(at, self, NULL, MS_BIND | MS_REC, NULL);
        zl_auto_close int again = r < 0 ? -EBADF : zl_open_beneath(root, *p, O_PATH); /* what is now on top */
        if (r == 0)
            r = again < 0 ? again
                          : mount_on(again, NULL, NULL,
                                     MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
        if (r < 0)
            return zl_setup_fail(err, r, "make %s read-only", *p);
    }
    return 0;
}

static int set_oom_score(const struct zl_job *job, struct zl_setup_error *err)
{
    if (!job->oom_score_adj[0])
        return 0;
    zl_auto_close int fd = zl_openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY, 0);
    int r = fd < 0 ? fd : zl_write_full(fd, job->oom_score_adj, strlen(job->oom_score_adj));
    return r < 0 ? zl_setup_fail(err, r, "set the OOM score to %s", job->oom_score_adj) : 0;
}

static int join_namespaces(const struct zl_job *job, struct zl_setup_error *err)
{
    int last = -EBADF;
    const char *path = "";
    for (uint64_t i = 0; i < job->nnamespaces; i++) {
        const struct zl_job_namespace *n = &job->namespaces[i];
        if (!n->path[0] || n->kind == CLONE_NEWPID)
            continue;
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

static int to_the_gate(const struct zl_job *job, const struct zl_setup_options *o, int gate, struct zl_setup_error *err)
{
    char go;
    if (zl_read_full(gate, &go, 1) != 1)
        _exit(1);
    int r = join_namespaces(job, err);
    if (r < 0)
        return r;
    if (is_new(job, CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return zl_setup_fail(err, -errno, "make the cgroup namespace");
    if (job->hostname[0] && sethostname(job->hostname, strlen(job->hostname)) < 0)
        return zl_setup_fail(err, -errno, "set the host name");
    if (job->domainname[0] && setdomainname(job->domainname, strlen(job->domainname)) < 0)
        return zl_setup_fail(err, -errno, "set the domain name");
    (void)setsid();
    umask(0022);
    r = is_new(job, CLONE_NEWNET) ? bring_lo_up() : 0;
    if (r < 0)
        return zl_setup_fail(err, r, "bring lo up");
    for (uint64_t i = 0; i < job->nsysctls; i++) {
        r = zl_sysctl_write(job->sysctls[i].name, job->sysctls[i].value);
        if (r < 0)
            return zl_setup_fail(err, r, "set the sysctl %s", job->sysctls[i].name);
    }
    r = set_oom_score(job, err);
    r = r < 0 ? r : make_root(job, o, err);
    r = r < 0 ? r : zl_setup_limits(job, err);
    r = r < 0 || !job->terminal ? r : zl_setup_terminal(job, o->console, true, err);
    r = r < 0 ? r : hide_paths(job, err);
    if (r == 0 && job->root_readonly && mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
        return zl_setup_fail(err, -errno, "make the root read-only");
    return r;
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
    zl_setup_close_others(keep, ZL_ARRAY_LEN(keep));
    /* An accelerator only: the agent proves an orphaned cgroup empty itself. */
    if (!o->outlives)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
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
        gate = report = accept4(o->starter, NULL, NULL, SOCK_CLOEXEC);
        zl_close(o->starter);
    }
    if (gate < 0 || zl_read_full(gate, &start, 1) != 1)
        _exit(1);
    if (o->in_container && o->in_container(o->arg, true, &err) < 0)
        give_up(report, &err);
    ZL_IGNORE(zl_setup_exec(job, job->argv, &err));
    give_up(report, &err);
}
