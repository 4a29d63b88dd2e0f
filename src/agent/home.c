#include "agent/home.h"

#include "base/clock.h"
#include "base/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { DATA_VERSION = 1, LOCK_WAIT_MS = 400 };

static int as_error(int r)
{
    return r == -ENOSPC || r == -EDQUOT                 ? ZL_E_DISK_FULL
           : r == -EACCES || r == -EPERM || r == -EROFS ? ZL_E_PERMISSION
                                                        : r;
}

static int real_folder(const char *path, mode_t mode, char ret[4096], struct zl_err *err)
{
    int r = zl_mkdir_p(path, mode);
    if (r == 0 && !realpath(path, ret))
        r = -errno;
    if (r < 0)
        return zl_hint(err, zl_fail_errno(err, as_error(r), r, "make the folder %.300s", path),
                       "run as root, or name a folder of your own with --data-dir");
    return 0;
}

static void make_tag(const char *path, char ret[8])
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *path; path++)
        h = (h ^ (unsigned char)*path) * UINT64_C(0x100000001b3);
    snprintf(ret, 8, "%06x", (unsigned)(h & 0xffffff));
}

static int check_version(const struct zl_home *h, struct zl_err *err)
{
    zl_auto_buf text = ZL_BUF_INIT;
    uint64_t version;
    int r = zl_read_file(h->data_dir, "version", 64, &text);
    if (r == -ENOENT) {
        r = zl_write_file_atomic(h->data_dir, "version", "1\n", 2, 0644, ZL_POWER_PROOF);
        return r < 0 ? zl_fail_errno(err, as_error(r), r, "write %.300s/version", h->data) : 0;
    }
    if (r < 0)
        return zl_fail(err, r, "read %.300s/version", h->data);
    struct zl_str rest, line = zl_str_cut(zl_buf_view(&text), '\n', &rest);
    if (zl_parse_u64(line, 1, INT32_MAX, &version) < 0)
        return zl_fail(err, ZL_E_STORE_DAMAGED, "%.300s/version holds no version number", h->data);
    if (version > DATA_VERSION)
        return zl_hint(err,
                       zl_fail(err, ZL_E_STORE_NEWER, "the data dir %.300s is of version %llu, this zlayer knows %d",
                               h->data, (unsigned long long)version, DATA_VERSION),
                       "use the newer zlayer, or another --data-dir");
    return 0;
}

/* Who is not told of the session's volatile files finds the socket by the data dir (client/place.h). */
static void lead_to_run(const struct zl_home *h)
{
    char beside[4104];
    struct stat st;
    snprintf(beside, sizeof beside, "%s/run", h->data);
    if (geteuid() == 0 || zl_streq(beside, h->run))
        return;
    if (fstatat(h->data_dir, "run", &st, AT_SYMLINK_NOFOLLOW) == 0)
        (void)unlinkat(h->data_dir, "run", S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
    ZL_IGNORE(symlinkat(h->run, h->data_dir, "run")); /* a convenience: what is in its way stays */
}

/* The way to another agent's run dir, which has ended. */
static void forget_run(const struct zl_home *h)
{
    struct stat st;
    if (geteuid() != 0 && fstatat(h->data_dir, "run", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
        (void)unlinkat(h->data_dir, "run", 0);
}

static int take_lock(struct zl_home *h, struct zl_err *err)
{
    zl_auto_close int fd = zl_openat(h->data_dir, "agent.lock", O_RDWR | O_CREAT, 0644);
    if (fd < 0)
        return zl_fail_errno(err, as_error(fd), fd, "open %.300s/agent.lock", h->data);
    /* A killed agent lets go only when the last of its threads has ended, an ending one soon. */
    uint64_t until = zl_clock_mono_ms() + LOCK_WAIT_MS;
    bool held;
    while ((held = flock(fd, LOCK_EX | LOCK_NB) < 0) && zl_clock_mono_ms() < until)
        (void)poll(NULL, 0, 5);
    if (held) {
        char holder[32] = "";
        ZL_IGNORE(zl_read_full(fd, holder, sizeof holder - 1)); /* only for the message */
        holder[strspn(holder, "0123456789")] = 0;
        return zl_fail(err, ZL_E_LOCKED, "another agent (pid %s) works on %.300s", holder[0] ? holder : "unknown",
                       h->data);
    }
    char text[64];
    uint64_t started = 0;
    ZL_IGNORE(zl_process_start_time(getpid(), &started));
    int n = snprintf(text, sizeof text, "%d %llu\n", (int)getpid(), (unsigned long long)started);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return zl_fail_errno(err, as_error(-errno), -errno, "write %.300s/agent.lock", h->data);
    h->lock = ZL_TAKE_FD(fd);
    return 0;
}

int zl_home_open(const char *data, const char *run, struct zl_home *ret, struct zl_err *err)
{
    struct zl_home *h = ret;
    *h = (struct zl_home){ .data_dir = -EBADF, .lock = -EBADF };
    char default_run[4120];
    int r = real_folder(data, 0711, h->data, err);
    if (r < 0)
        return r;
    if (strlen(h->data) > 3900)
        return zl_fail(err, -ENAMETOOLONG, "use the data dir %.200s…", h->data);
    snprintf(default_run, sizeof default_run, "%s/run", h->data);
    h->data_dir = zl_openat(AT_FDCWD, h->data, O_RDONLY | O_DIRECTORY, 0);
    if (h->data_dir < 0)
        return zl_fail_errno(err, as_error(h->data_dir), h->data_dir, "open the data dir %.300s", h->data);
    r = take_lock(h, err);
    r = r < 0 ? r : check_version(h, err);
    if (r == 0 && !run)
        run = zl_streq(h->data, "/var/lib/zlayer") ? "/var/run/zlayer" : default_run;
    if (r == 0 && zl_streq(run, default_run))
        forget_run(h);
    r = r < 0 ? r : real_folder(run, 0755, h->run, err);
    if (r < 0) {
        zl_home_done(h);
        return r;
    }
    lead_to_run(h);
    make_tag(h->data, h->tag);
    snprintf(h->cgroup, sizeof h->cgroup, "zlayer-%s", h->tag);
    snprintf(h->netns, sizeof h->netns, "%s/netns", h->run);
    snprintf(h->socket, sizeof h->socket, "%s/zlayer.sock", h->run);
    snprintf(h->containers, sizeof h->containers, "%s/containers", h->data);
    return 0;
}

void zl_home_done(struct zl_home *h)
{
    h->lock = zl_close(h->lock);
    h->data_dir = zl_close(h->data_dir);
}

int zl_home_listen(const struct zl_home *h, struct zl_err *err)
{
    zl_auto_close int dir = zl_openat(AT_FDCWD, h->run, O_PATH | O_DIRECTORY, 0);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (dir < 0 || fd < 0)
        return zl_fail(err, dir < 0 ? dir : -errno, "open %.300s", h->run);
    /* Through the descriptor, as paths may be longer than a socket's name; the lock makes a socket there a stale one.
     */
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/zlayer.sock", dir);
    (void)unlinkat(dir, "zlayer.sock", 0);
    (void)unlinkat(dir, ".zlayer.sock.hidden", 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || fchmodat(dir, "zlayer.sock", 0660, 0) < 0 ||
        listen(fd, 512) < 0)
        return zl_fail_errno(err, as_error(-errno), -errno, "listen on %.300s", h->socket);
    return ZL_TAKE_FD(fd);
}

void zl_home_unlink_socket(const struct zl_home *h)
{
    (void)unlink(h->socket);
}

static int rename_socket(const struct zl_home *h, const char *from, const char *to)
{
    zl_auto_close int dir = zl_openat(AT_FDCWD, h->run, O_PATH | O_DIRECTORY, 0);
    if (dir < 0)
        return dir;
    return renameat(dir, from, dir, to) < 0 ? -errno : 0;
}

int zl_home_hide_socket(const struct zl_home *h)
{
    return rename_socket(h, "zlayer.sock", ".zlayer.sock.hidden");
}

int zl_home_show_socket(const struct zl_home *h)
{
    return rename_socket(h, ".zlayer.sock.hidden", "zlayer.sock");
}
