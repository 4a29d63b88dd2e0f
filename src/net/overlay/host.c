#include "net/overlay/host_priv.h"

#include "base/fd.h"
#include "base/phase.h"
#include "sys/netlink.h"
#include "sys/ns.h"

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char folder[] = "/run/zlayer-host";

int zl_host_lock(struct zl_err *err)
{
    for (;;) {
        int r = zl_mkdirat(AT_FDCWD, folder, 0755);
        zl_auto_close int fd = r < 0 ? r : zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd == -ENOENT && r == 0)
            continue; /* removed between the two */
        if (fd < 0)
            return zl_fail(err, fd == -EACCES || fd == -EPERM ? ZL_E_PERMISSION : fd, "open %s", folder);
        int locked;
        do
            locked = flock(fd, LOCK_EX);
        while (locked < 0 && errno == EINTR);
        if (locked < 0)
            return zl_fail(err, -errno, "lock %s", folder);
        /* Its last user removes the folder: what we hold may be one that is gone. */
        struct stat held, there;
        if (fstat(fd, &held) == 0 && stat(folder, &there) == 0 && held.st_ino == there.st_ino &&
            held.st_dev == there.st_dev)
            return ZL_TAKE_FD(fd);
    }
}

void zl_host_unlock(int lock)
{
    (void)rmdir(folder); /* refused while a file is in it */
    (void)zl_close(lock);
}

enum { NAME_SIZE = 64 };

static int forward_name(char ret[NAME_SIZE], const char *suffix)
{
    zl_auto_close int self = zl_netns_self();
    struct stat st;
    if (self < 0)
        return self;
    if (fstat(self, &st) < 0)
        return -errno;
    snprintf(ret, NAME_SIZE, "forward.%llu.%s", (unsigned long long)st.st_ino, suffix);
    return 0;
}

/* How many others forward; the files of those whose link is gone are removed. */
static int count_users(int lock, int nl, const char *own_tag)
{
    char prefix[NAME_SIZE];
    int r = forward_name(prefix, "");
    if (r < 0)
        return r;
    int fd = zl_openat(lock, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        (void)zl_close(fd);
        return fd < 0 ? fd : -ENOMEM;
    }
    int users = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        size_t n = strlen(prefix);
        const char *tag = e->d_name + n;
        char link[IFNAMSIZ];
        if (strncmp(e->d_name, prefix, n) != 0 || zl_streq(tag, "old") || zl_streq(tag, own_tag))
            continue;
        if ((size_t)snprintf(link, sizeof link, "zl-%s", tag) < sizeof link && zl_link_index(nl, link) > 0)
            users++;
        else
            (void)unlinkat(lock, e->d_name, 0);
    }
    closedir(d);
    return users;
}

static int read_old(int lock, const char *name, char *ret)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = zl_read_file(lock, name, 16, &b);
    if (r < 0)
        return r;
    *ret = b.n ? b.p[0] : '1';
    return 0;
}

static int acquire(int lock, int nl, const char *tag)
{
    char mine[NAME_SIZE], old[NAME_SIZE], value[8], kept;
    int r = forward_name(mine, tag);
    r = r < 0 ? r : forward_name(old, "old");
    r = r < 0 ? r : count_users(lock, nl, tag);
    r = r < 0 ? r : zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value);
    if (r < 0)
        return r;
    /* The old value is written before the new one is set, and never over an older one: whoever is killed in between,
     * what was there at first is what comes back. */
    if (read_old(lock, old, &kept) < 0)
        r = zl_write_file_atomic(lock, old, value, strlen(value), 0644, ZL_KILL_PROOF);
    r = r < 0 ? r : zl_write_file_atomic(lock, mine, "", 0, 0644, ZL_KILL_PROOF);
    zl_phase("net.forward");
    return r < 0 || zl_streq(value, "1") ? r : zl_sysctl_write("net/ipv4/ip_forward", "1");
}

static int release(int lock, int nl, const char *tag)
{
    char mine[NAME_SIZE], old[NAME_SIZE], value[8], kept;
    int r = forward_name(mine, tag);
    r = r < 0 ? r : forward_name(old, "old");
    if (r < 0)
        return r;
    int users = count_users(lock, nl, tag);
    if (users < 0)
        return users;
    if (users == 0 && read_old(lock, old, &kept) == 0) {
        r = zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value);
        if (r == 0 && kept == '0' && value[0] != '0')
            r = zl_sysctl_write("net/ipv4/ip_forward", "0");
        if (r < 0)
            return r;
        (void)unlinkat(lock, old, 0);
    }
    return unlinkat(lock, mine, 0) == 0 || errno == ENOENT ? 0 : -errno;
}

int zl_host_forward_acquire(int lock, int nl, const char *tag, struct zl_err *err)
{
    int r = acquire(lock, nl, tag);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "switch on IP forwarding") : 0;
}

int zl_host_forward_release(int lock, int nl, const char *tag, struct zl_err *err)
{
    int r = release(lock, nl, tag);
    return r < 0 ? zl_fail_errno(err, ZL_E_NETWORK, r, "restore IP forwarding") : 0;
}
