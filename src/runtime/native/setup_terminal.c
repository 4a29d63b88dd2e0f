/* A pseudo-terminal of the container's own devpts (pts(4)): the master goes to who asked for it, the program has the
 * rest. */
#include "base/fd.h"
#include "runtime/native/setup_parts.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int send_master(int console, int master)
{
    char name[] = "/dev/ptmx";
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec data = { name, sizeof name - 1 };
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
    memcpy(CMSG_DATA(c), &master, sizeof master);
    return sendmsg(console, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Programs write to /dev/console as to their terminal; a root without /dev of its own has none. What the image has
 * there is not opened, and no link is followed (CVE-2025-52565). */
static int bind_console(int slave)
{
    static const char console[] = "/dev/console";
    struct stat st;
    zl_auto_close int made = zl_openat(AT_FDCWD, console, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0600);
    if (made < 0 && made != -EEXIST)
        return made == -EROFS ? 0 : made;
    zl_auto_close int fd = zl_openat(AT_FDCWD, console, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fd < 0 ? fd : -errno;
    if (S_ISLNK(st.st_mode))
        return -ELOOP;
    zl_auto_close int top = -EBADF;
    int r = zl_setup_bind(slave, fd, MS_BIND, &top);
    return r == -ENOENT ? 0 : r; /* below kernel 5.2 it takes a /proc in the container */
}

/* A process that has come from outside is of no user that the user namespace knows, and its terminal would be, too. It
 * stays closed to those in there (CVE-2016-9962), which a change of user might undo. */
static int become_known(struct zl_setup_error *err)
{
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return zl_setup_fail(err, -errno, "become root of the user namespace (is id 0 mapped?)");
    return 0;
}

int zl_setup_terminal(const struct zl_job *job, int console, bool first, struct zl_setup_error *err)
{
    if (!first && zl_setup_namespace(job, CLONE_NEWUSER) && become_known(err) < 0)
        return err->code;
    zl_auto_close int master = zl_openat(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, 0);
    if (master < 0)
        return zl_setup_fail(err, master, "open the container's /dev/pts/ptmx");
    int unlocked = 0;
    zl_auto_close int slave =
        ioctl(master, TIOCSPTLCK, &unlocked) < 0 ? -errno : ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    if (slave < 0)
        return zl_setup_fail(err, -errno, "open the terminal's other end");
    struct winsize size = { .ws_row = (unsigned short)job->rows, .ws_col = (unsigned short)job->columns };
    if (job->rows && job->columns && ioctl(slave, TIOCSWINSZ, &size) < 0)
        return zl_setup_fail(err, -errno, "set the terminal's size");
    uint64_t uid;
    struct zl_str rest;
    if (job->exact_user && zl_parse_u64(zl_str_cut(zl_str(job->user), ':', &rest), 0, UINT32_MAX - 1, &uid) == 0 &&
        fchown(slave, (uid_t)uid, (gid_t)-1) < 0)
        return zl_setup_fail(err, -errno, "give the terminal to the user");
    int r = first ? bind_console(slave) : 0;
    if (r < 0)
        return zl_setup_fail(err, r, "bind /dev/console");
    if (setsid() < 0 && errno != EPERM)
        return zl_setup_fail(err, -errno, "begin a session");
    if (ioctl(slave, TIOCSCTTY, 0) < 0 || dup2(slave, 0) < 0 || dup2(slave, 1) < 0 || dup2(slave, 2) < 0)
        return zl_setup_fail(err, -errno, "take the terminal");
    r = send_master(console, master);
    return r < 0 ? zl_setup_fail(err, r, "send the terminal") : 0;
}
