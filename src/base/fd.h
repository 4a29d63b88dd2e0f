/*
 * File descriptors and whole-file helpers. Descriptors are CLOEXEC from birth and -EBADF when empty. Names given
 * beside a directory descriptor are our own (ids, fixed names); paths from outside go through sys/path.h.
 * Thread: any. Fails: negative errno. Owns: ZL_TAKE_FD hands a descriptor over.
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

/* Closes and returns -EBADF, so that `fd = zl_close(fd)` reads well; errno is kept; -EBADF is allowed. */
int zl_close(int fd);
static inline void zl_auto_close_(int *fd)
{
    (void)zl_close(*fd);
}
#define zl_auto_close ZL_CLEANUP(zl_auto_close_)

#define ZL_TAKE_FD(fd)  \
    ({                  \
        int fd_ = (fd); \
        (fd) = -EBADF;  \
        fd_;            \
    })

/* openat with O_CLOEXEC; -errno instead of -1. */
int zl_openat(int dir, const char *name, int flags, mode_t mode) ZL_MUST;
/* All of it, through EINTR and short counts. zl_read_full: the count, less than n only at the end of the file. */
ssize_t zl_read_full(int fd, void *p, size_t n) ZL_MUST;
int zl_write_full(int fd, const void *p, size_t n) ZL_MUST;
/* The whole of a file of at most `limit` bytes; -EFBIG when it is larger. */
int zl_read_file(int dir, const char *name, size_t limit, struct zl_buf *ret) ZL_MUST;

/* How a written file must survive: the process (rename only), or a power cut (fsync of file and folder too). */
enum zl_durability { ZL_KILL_PROOF, ZL_POWER_PROOF };
/* Replaces the file as one step: readers see the old or the new content, a crash leaves one of both. */
int zl_write_file_atomic(int dir, const char *name, const void *p, size_t n, mode_t mode, enum zl_durability d) ZL_MUST;
/* mkdirat that takes an existing folder for success. */
int zl_mkdirat(int dir, const char *name, mode_t mode) ZL_MUST;
/* Each missing folder of an absolute path of our own. */
int zl_mkdir_p(const char *path, mode_t mode) ZL_MUST;
/* Removes a tree of ours without following links; the absence of `name` is success. */
int zl_remove_tree(int dir, const char *name) ZL_MUST;

/* Seals a memfd against every change; tries for one to two seconds while somebody holds a page of it, then -EBUSY. */
int zl_seal(int fd) ZL_MUST;
/* A memfd with this content, sealed so. */
int zl_sealed_memfd(const char *name, const void *p, size_t n) ZL_MUST;
int zl_set_nonblock(int fd, bool on) ZL_MUST;
