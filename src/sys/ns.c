#include "sys/ns.h"

#include "base/fd.h"
#include "sys/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PROC_ROOT_INO = 1 };

int zl_netns_self(void)
{
    /* /proc/thread-self may be missing in a chroot's proc of an old kernel; the floor is 5.4, where it is there. */
    return zl_openat(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY, 0);
}

int zl_netns_open(const char *path)
{
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    struct statfs st;
    if (fstatfs(fd, &st) < 0)
        return -errno;
    return (unsigned long)st.f_type == NSFS_MAGIC ? ZL_TAKE_FD(fd) : -ENOENT;
}

int zl_netns_enter(int netns)
{
    return setns(netns, CLONE_NEWNET) < 0 ? -errno : 0;
}

struct call {
    int netns, result;
    int (*fn)(void *arg);
    void *arg;
};

static void *run_inside(void *arg)
{
    struct call *c = arg;
    c->result = zl_netns_enter(c->netns);
    if (c->result == 0)
        c->result = c->fn(c->arg);
    return NULL;
}

int zl_netns_run(int netns, int (*fn)(void *arg), void *arg)
{
    struct call c = { netns, 0, fn, arg };
    pthread_t t;
    int r = pthread_create(&t, NULL, run_inside, &c);
    if (r)
        return -r;
    pthread_join(t, NULL);
    return c.result;
}

static void *make_inside(void *arg)
{
    struct call *c = arg;
    const char *path = c->arg;
    if (unshare(CLONE_NEWNET) < 0) {
        c->result = -errno;
        return NULL;
    }
    zl_auto_close int nl = zl_netlink_open();
    int lo = nl < 0 ? nl : zl_link_index(nl, "lo");
    c->result = lo < 0 ? lo : zl_link_up(nl, (unsigned)lo);
    if (c->result == 0 && mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) < 0)
        c->result = -errno;
    return NULL;
}

int zl_netns_make(const char *path)
{
    int fd = zl_openat(AT_FDCWD, path, O_RDONLY | O_CREAT, 0600);
    if (fd < 0)
        return fd;
    zl_close(fd);
    struct call c = { -1, 0, NULL, (void *)(uintptr_t)path };
    pthread_t t;
    int r = pthread_create(&t, NULL, make_inside, &c);
    if (r)
        return -r;
    pthread_join(t, NULL);
    return c.result;
}

int zl_netns_unpin(const char *path)
{
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return -errno;
    return unlink(path) == 0 || errno == ENOENT ? 0 : -errno;
}

/* As far as the kernel says so (5.8); before it, being procfs must do. */
static bool same_mount(int a, int b)
{
    struct statx x = { 0 }, y = { 0 };
    if (statx(a, "", AT_EMPTY_PATH, STATX_MNT_ID, &x) < 0 || statx(b, "", AT_EMPTY_PATH, STATX_MNT_ID, &y) < 0)
        return errno == ENOSYS;
    return !(x.stx_mask & y.stx_mask & STATX_MNT_ID) || x.stx_mnt_id == y.stx_mnt_id;
}

/* openat2 says that no mount and no magic link is on the way; without it, what was opened is looked at. */
static int open_proc(const char *path)
{
    struct open_how how = { .flags = O_WRONLY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS };
    struct statfs fs;
    struct stat st;
    zl_auto_close int proc = zl_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (proc < 0 || fstatfs(proc, &fs) < 0 || fstat(proc, &st) < 0)
        return proc < 0 ? proc : -errno;
    if (fs.f_type != PROC_SUPER_MAGIC || st.st_ino != PROC_ROOT_INO)
        return -EXDEV;
    long opened = syscall(SYS_openat2, proc, path, &how, sizeof how);
    if (opened >= 0 || (errno != ENOSYS && errno != EPERM))
        return opened < 0 ? -errno : (int)opened;
    zl_auto_close int fd = zl_openat(proc, path, O_WRONLY | O_NOFOLLOW, 0);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return fd < 0 ? fd : -errno;
    return fs.f_type == PROC_SUPER_MAGIC && same_mount(proc, fd) ? ZL_TAKE_FD(fd) : -EXDEV;
}

int zl_proc_write(const char *path, const char *value)
{
    zl_auto_close int fd = open_proc(path);
    return fd < 0 ? fd : zl_write_full(fd, value, strlen(value));
}

int zl_sysctl_write(const char *name, const char *value)
{
    char path[256];
    snprintf(path, sizeof path, "/proc/sys/%s", name);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, value, strlen(value));
}

int zl_sysctl_read(const char *name, char *ret, unsigned size)
{
    char path[256];
    snprintf(path, sizeof path, "/proc/sys/%s", name);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    ssize_t n = zl_read_full(fd, ret, size - 1);
    if (n < 0)
        return (int)n;
    ret[n] = 0;
    ret[strcspn(ret, "\n")] = 0;
    return 0;
}

const struct zl_sysctl zl_node_sysctls[] = {
    { "net/ipv4/ip_forward", "1", false },
    /* `all` holds for every link, also for one whose shim was killed before it set its own. */
    { "net/ipv4/conf/all/rp_filter", "1", false },
    { "net/ipv4/conf/all/send_redirects", "0", false },
    { "net/ipv4/conf/default/send_redirects", "0", false },
    { "net/ipv4/conf/all/accept_redirects", "0", false },
    /* No link-local addresses on a thousand links while replicas have IPv4 only; absent without IPv6. */
    { "net/ipv6/conf/all/disable_ipv6", "1", true },
    { "net/ipv6/conf/default/disable_ipv6", "1", true },
    { NULL, NULL, false },
};
