/* The terminal of a container's process: sent to --console-socket, or else carried to and from our own. */
#include "ocirun/ocirun.h"

#include "base/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int ocirun_make_console(struct ocirun *r, struct zl_job *job, bool waits)
{
    struct winsize size;
    struct ocirun_console *ret = &r->console;
    *ret = (struct ocirun_console){ -EBADF, -EBADF };
    const char *path = r->o.console_socket;
    if (path && !job->terminal)
        return zl_fail(&r->err, ZL_E_USAGE, "--console-socket is of use with process.terminal only");
    if (path) {
        ret->theirs = ocirun_connect(path);
        return ret->theirs < 0 ? zl_fail(&r->err, ret->theirs, "connect to the console socket %s", path) : 0;
    }
    if (!job->terminal)
        return 0;
    if (!waits)
        return zl_fail(&r->err, ZL_E_USAGE,
                       "process.terminal needs --console-socket, to which the terminal is sent, or someone who waits");
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return zl_fail(&r->err, -errno, "make a console socket");
    ret->theirs = ends[0];
    ret->ours = ends[1];
    if (!job->rows && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) { /* before the program looks */
        job->rows = size.ws_row;
        job->columns = size.ws_col;
    }
    return 0;
}

static int take_master(int from)
{
    char name[32];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = { name, sizeof name };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    int fd = -EPROTO;
    if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) <= 0)
        return -EPIPE;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static volatile sig_atomic_t resized;
static pid_t forward_to;

static void on_resize(int signum)
{
    (void)signum;
    resized = 1;
}

static void forward(int signum)
{
    (void)kill(forward_to, signum);
}

/* What we are sent goes on to the process; our own size to its terminal. */
static void forward_signals(pid_t pid, bool terminal)
{
    forward_to = pid;
    for (int s = 1; s < 32; s++)
        if (s != SIGCHLD && s != SIGKILL && s != SIGSTOP && s != SIGURG && s != SIGSEGV && s != SIGBUS)
            (void)signal(s, forward);
    if (terminal) { /* no SA_RESTART, so that poll ends */
        struct sigaction act = { .sa_handler = on_resize };
        (void)sigaction(SIGWINCH, &act, NULL);
    }
}

static void copy_size(int master)
{
    struct winsize size;
    resized = 0;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
        (void)ioctl(master, TIOCSWINSZ, &size);
}

/* One read and the writing of it; false at the end. */
static bool carry(int from, int to)
{
    char bytes[8192];
    ssize_t n = read(from, bytes, sizeof bytes);
    if (n < 0)
        return errno == EINTR;
    return n > 0 && zl_write_full(to, bytes, (size_t)n) == 0;
}

static void carry_terminal(int master, int process)
{
    struct pollfd fds[] = { { STDIN_FILENO, POLLIN, 0 }, { master, POLLIN, 0 }, { process, POLLIN, 0 } };
    for (;;) {
        if (resized)
            copy_size(master);
        if (poll(fds, ZL_ARRAY_LEN(fds), -1) < 0) {
            if (errno != EINTR)
                return;
            continue;
        }
        if (fds[0].revents && !carry(STDIN_FILENO, master))
            fds[0].fd = -1;
        if (fds[1].revents && !carry(master, STDOUT_FILENO))
            return; /* nobody has the other end any more */
        if (fds[2].revents && !(fds[1].revents & POLLIN)) {
            struct pollfd rest = { master, POLLIN, 0 };
            while (poll(&rest, 1, 0) > 0 && rest.revents & POLLIN && carry(master, STDOUT_FILENO)) {
            }
            return; /* the process is gone, and what it wrote is out */
        }
    }
}

int ocirun_wait(struct ocirun *r, pid_t pid)
{
    int status, master = r->console.ours >= 0 ? take_master(r->console.ours) : -EBADF;
    forward_signals(pid, master >= 0);
    if (master >= 0) {
        struct termios before, raw;
        bool own = tcgetattr(STDIN_FILENO, &before) == 0;
        zl_auto_close int process = zl_pidfd_open(pid);
        if (own) {
            raw = before;
            cfmakeraw(&raw);
            (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
            copy_size(master);
        }
        carry_terminal(master, process);
        if (own)
            (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
        zl_close(master);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return zl_fail(&r->err, -errno, "wait for the process %d", (int)pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
