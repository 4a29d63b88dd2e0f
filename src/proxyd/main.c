/*
 * zl-proxy: fd 2 log, fd 3 the node's network namespace (or /dev/null: stay), fd 4 the listening control socket, fd 5
 * the lock, which is held by being open. It joins the namespace, gives up every right, starts its workers, and serves
 * until it is told to quit.
 */
#include "base/alloc.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "proxyd/control_priv.h"
#include "sys/idmap.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { FD_NETNS = 3, FD_CONTROL = 4, FD_LOCK = 5, NOBODY = 65534, NSFS = 0x6e736673 };

static int join_namespace(void)
{
    struct statfs st;
    if (fstatfs(FD_NETNS, &st) < 0)
        return -errno;
    if (st.f_type == NSFS && setns(FD_NETNS, CLONE_NEWNET) < 0)
        return -errno;
    (void)close(FD_NETNS);
    return 0;
}

/* No rights, no way back to any; no core with other people's requests in it. */
static int give_up_rights(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* fewer connections otherwise, no more */
    }
    const struct rlimit none = { 0, 0 };
    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    if (geteuid() == 0) {
        for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
            if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EPERM)
                return -errno;
        /* In a user namespace of the own id alone there is nobody else to be, and groups can't be given up: what is
         * left is that user, without a capability. */
        bool others = zl_idmap_has("uid_map", NOBODY) && zl_idmap_has("gid_map", NOBODY);
        if ((others || !zl_idmap_inside()) &&
            (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
            return -errno;
    }
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[2] = { { 0 } };
    if (syscall(SYS_capset, &head, caps) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) < 0 ? 1 : CPU_COUNT(&set);
    return (unsigned)ZL_MIN(ZL_MAX(n, 1), (int)ZL_PX_THREADS_MAX);
}

int main(void)
{
    zl_log_level_from_env();
    if (fcntl(FD_CONTROL, F_GETFD) < 0 || fcntl(FD_LOCK, F_GETFD) < 0) {
        fputs("zl-proxy is started by zlayerd, not by hand\n", stderr);
        return 2;
    }
    (void)mallopt(M_ARENA_MAX, 1); /* buffers have free lists of their own: arenas would only hold memory */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    int r = join_namespace();
    if (r == 0)
        r = give_up_rights();
    if (r < 0) {
        zl_log_error("the proxy can't confine itself, so it does not serve: %s", zl_error_text(r));
        return 1;
    }
    for (int fd = FD_CONTROL; fd <= FD_LOCK; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    struct shared *shared = zl_xcalloc(1, sizeof *shared);
    shared->nworkers = cpus();
    shared->workers = zl_xcalloc(shared->nworkers, sizeof *shared->workers);
    shared->control_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = shared->control_wake < 0 ? -errno : zl_set_nonblock(FD_CONTROL, true);
    for (unsigned i = 0; r == 0 && i < shared->nworkers; i++)
        r = worker_init(&shared->workers[i], shared, i);
    for (unsigned i = 0; r == 0 && i < shared->nworkers; i++)
        r = worker_start(&shared->workers[i]);
    if (r < 0) {
        zl_log_error("the proxy can't start: %s", zl_error_text(r));
        return 1;
    }
    /* The workers hold pointers into everything and are simply ended with the process. */
    _exit(control_run(shared, FD_CONTROL));
}
