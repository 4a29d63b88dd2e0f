#include "imagejob/chain_lock.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_US = 20000 };

static void file_of(const char *chain_id, char ret[80])
{
    snprintf(ret, 80, "locks/%.64s", chain_id + 7);
}

int zl_chain_lock(const struct zl_store *s, const char *chain_id, atomic_bool *stop, struct zl_err *err)
{
    char file[80];
    file_of(chain_id, file);
    for (;;) {
        struct stat st;
        zl_auto_close int fd = zl_openat(s->dir, file, O_RDWR | O_CREAT, 0600);
        if (fd < 0)
            return zl_fail_errno(err, fd == -ENOSPC ? ZL_E_DISK_FULL : fd, fd, "lock a layer");
        int r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
        if (r == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
            return ZL_TAKE_FD(fd);
        if (r < 0 && r != -EWOULDBLOCK && r != -EINTR)
            return zl_fail(err, r, "lock a layer");
        if (r == 0)
            continue; /* the holder removed the file when it was done: take the new one */
        if (atomic_load(stop))
            return zl_fail(err, ZL_E_CANCELLED, "the job was stopped");
        usleep(WAIT_US);
    }
}

int zl_chain_unlock(const struct zl_store *s, const char *chain_id, int lock)
{
    char file[80];
    if (lock < 0)
        return -EBADF;
    file_of(chain_id, file);
    (void)unlinkat(s->dir, file, 0);
    return zl_close(lock);
}
