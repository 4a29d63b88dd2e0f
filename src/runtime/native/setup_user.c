/* User and time namespaces, and what only the parent may do for them: writing the maps and mapping mounts. */
#include "base/fd.h"
#include "runtime/native/setup_parts.h"
#include "sys/idmap.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

const struct zl_job_namespace *zl_setup_namespace(const struct zl_job *job, uint64_t kind)
{
    for (uint64_t i = 0; i < job->nnamespaces; i++)
        if (job->namespaces[i].kind == kind)
            return &job->namespaces[i];
    return NULL;
}

bool zl_setup_is_new(const struct zl_job *job, uint64_t kind)
{
    const struct zl_job_namespace *n = zl_setup_namespace(job, kind);
    return n && !n->path[0];
}

static int join(const struct zl_job_namespace *n, struct zl_setup_error *err)
{
    zl_auto_close int fd = zl_openat(AT_FDCWD, n->path, O_RDONLY, 0);
    if (fd < 0 || setns(fd, (int)n->kind) < 0)
        return zl_setup_fail(err, fd < 0 ? fd : -errno, "join the namespace %s", n->path);
    return 0;
}

/* What holds for the next child of who does it, only. */
static int prepare_clone(const struct zl_job *job, struct zl_setup_error *err)
{
    const struct zl_job_namespace *pid = zl_setup_namespace(job, CLONE_NEWPID),
                                  *user = zl_setup_namespace(job, CLONE_NEWUSER);
    int r = pid && pid->path[0] ? join(pid, err) : 0;
    if (r == 0 && zl_setup_is_new(job, CLONE_NEWTIME)) {
        if (unshare(CLONE_NEWTIME) < 0)
            return zl_setup_fail(err, -errno, "make the time namespace");
        zl_auto_close int fd = zl_openat(AT_FDCWD, "/proc/self/timens_offsets", O_WRONLY, 0);
        r = fd < 0 ? fd : zl_write_full(fd, job->time_offsets, strlen(job->time_offsets));
        if (r < 0)
            return zl_setup_fail(err, r, "set the clocks of the time namespace");
    }
    return r < 0 || !user || !user->path[0] ? r : join(user, err);
}

pid_t zl_setup_clone_job(const struct zl_job *job, uint64_t flags, int cgroup, bool *inside, struct zl_setup_error *err)
{
    const struct zl_job_namespace *pid = zl_setup_namespace(job, CLONE_NEWPID),
                                  *user = zl_setup_namespace(job, CLONE_NEWUSER);
    if (!zl_setup_is_new(job, CLONE_NEWTIME) && !(pid && pid->path[0]) && !(user && user->path[0])) {
        pid_t child = zl_setup_clone(flags, cgroup, inside);
        if (child == -EPERM && !user)
            return zl_setup_fail(err, child,
                                 "make the namespaces (without rights over the machine there must be a user "
                                 "namespace, too)");
        return child < 0 ? zl_setup_fail(err, child, "make the namespaces") : child;
    }
    /* A helper goes there and makes the process, as a child of ours. */
    int answer[2];
    struct {
        pid_t pid;
        struct zl_setup_error err;
    } a = { 0 };
    if (pipe2(answer, O_CLOEXEC) < 0)
        return zl_setup_fail(err, -errno, "make a pipe");
    pid_t helper = fork();
    if (helper == 0) {
        a.pid = prepare_clone(job, &a.err);
        if (a.pid == 0) {
            a.pid = zl_setup_clone(flags | CLONE_PARENT, cgroup, inside);
            if (a.pid == 0)
                return 0;
            if (a.pid < 0)
                ZL_IGNORE(zl_setup_fail(&a.err, a.pid, "make the namespaces"));
        }
        ZL_IGNORE(zl_write_full(answer[1], &a, sizeof a));
        _exit(0);
    }
    zl_close(answer[1]);
    bool answered = helper > 0 && zl_read_full(answer[0], &a, sizeof a) == (ssize_t)sizeof a;
    zl_close(answer[0]);
    while (helper > 0 && waitpid(helper, NULL, 0) < 0 && errno == EINTR) {
    }
    if (answered && a.pid > 0)
        return a.pid;
    a.err.step[sizeof a.err.step - 1] = 0;
    return answered ? zl_setup_fail(err, a.err.code, "%s", a.err.step) : zl_setup_fail(err, -ECHILD, "make a helper");
}

static int write_maps(pid_t pid, const char *uids, const char *gids, struct zl_setup_error *err)
{
    const char *failed;
    int r = zl_idmap_write(pid, uids, gids, &failed);
    return r < 0 ? zl_setup_fail(err, r, "map the %s of the user namespace", failed) : 0;
}

int zl_setup_write_maps(const struct zl_job *job, pid_t pid, struct zl_setup_error *err)
{
    return zl_setup_is_new(job, CLONE_NEWUSER) ? write_maps(pid, job->uid_map, job->gid_map, err) : 0;
}

/* A user namespace that has these maps and nobody in it. */
static int make_user_namespace(const char *uids, const char *gids, struct zl_setup_error *err)
{
    int hold[2];
    char path[64];
    if (pipe2(hold, O_CLOEXEC) < 0)
        return zl_setup_fail(err, -errno, "make a pipe");
    bool inside;
    pid_t pid = zl_setup_clone(CLONE_NEWUSER, -EBADF, &inside);
    if (pid == 0) {
        char end;
        zl_close(hold[1]);
        ZL_IGNORE(zl_read_full(hold[0], &end, 1));
        _exit(0);
    }
    zl_close(hold[0]);
    int r = pid < 0 ? zl_setup_fail(err, pid, "make a user namespace for a mount") : write_maps(pid, uids, gids, err);
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    if (r == 0 && (r = zl_openat(AT_FDCWD, path, O_RDONLY, 0)) < 0)
        ZL_IGNORE(zl_setup_fail(err, r, "open a mount's user namespace"));
    zl_close(hold[1]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return r;
}

static const char *needs_mount_api(int why)
{
    return why == ENOSYS ? ", for which a kernel since 5.12 is needed" : "";
}

/* What is mounted is a copy of the source's mount in which owners are mapped; only who has rights over the file system
 * may make it. */
static int map_tree(const struct zl_job_mount *m, pid_t pid, struct zl_setup_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    zl_auto_close int user =
        m->uid_map[0] ? make_user_namespace(m->uid_map, m->gid_map, err) : zl_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (user < 0)
        return m->uid_map[0] ? user : zl_setup_fail(err, user, "open the container's user namespace");
    unsigned below = m->flags & MS_REC ? AT_RECURSIVE : 0;
    zl_auto_close int tree =
        (int)syscall(SYS_open_tree, AT_FDCWD, m->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | below);
    if (tree < 0)
        return zl_setup_fail(err, -errno, "open %.80s to map its owners%s", m->source, needs_mount_api(errno));
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user };
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | (m->idmap & MS_REC ? AT_RECURSIVE : 0), &attr,
                sizeof attr) < 0)
        return zl_setup_fail(err, -errno, "map the owners of %.80s", m->source);
    return ZL_TAKE_FD(tree);
}

static void fill_message(struct msghdr *m, struct iovec *data, char *byte, char *control, size_t size)
{
    *data = (struct iovec){ byte, 1 };
    *m = (struct msghdr){ .msg_iov = data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = size };
}

int zl_setup_send_fd(int to, char byte, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr m;
    struct iovec data;
    fill_message(&m, &data, &byte, control, sizeof control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(to, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int zl_setup_send_trees(const struct zl_job *job, pid_t pid, int gate, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->nmounts; i++) {
        if (!job->mounts[i].idmap)
            continue;
        zl_auto_close int tree = map_tree(&job->mounts[i], pid, err);
        int r = tree < 0 ? tree : zl_setup_send_fd(gate, 'm', tree);
        if (r < 0)
            return tree < 0 ? r : zl_setup_fail(err, r, "hand over %.80s", job->mounts[i].source);
    }
    return 0;
}

int zl_setup_take_trees(const struct zl_job *job, int gate, struct zl_setup_places *p, struct zl_setup_error *err)
{
    uint64_t next = 0;
    for (;;) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        char what = 0;
        struct msghdr m;
        struct iovec data;
        fill_message(&m, &data, &what, control, sizeof control);
        ssize_t n = recvmsg(gate, &m, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != 1)
            _exit(1); /* who makes the container is gone */
        if (what == 'g')
            return 0;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        while (next < job->nmounts && !job->mounts[next].idmap)
            next++;
        if (!c || c->cmsg_type != SCM_RIGHTS || next == job->nmounts)
            return zl_setup_fail(err, -EPROTO, "take the mapped mounts");
        memcpy(&p->sources[next++], CMSG_DATA(c), sizeof(int));
    }
}

bool zl_setup_groups_are_fixed(const struct zl_job *job)
{
    char text[8] = "";
    zl_auto_close int fd = zl_openat(AT_FDCWD, "/proc/self/setgroups", O_RDONLY, 0);
    if (fd == -ENOENT) /* a container without /proc */
        return zl_setup_namespace(job, CLONE_NEWUSER);
    return fd >= 0 && zl_read_full(fd, text, sizeof text - 1) > 0 && strncmp(text, "deny", 4) == 0;
}

int zl_setup_become_root(const struct zl_job *job, struct zl_setup_error *err)
{
    if (!zl_setup_namespace(job, CLONE_NEWUSER))
        return 0;
    bool groups = setgroups(0, NULL) == 0 || (errno == EPERM && zl_setup_groups_are_fixed(job));
    if (!groups || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return zl_setup_fail(err, -errno, "become root of the user namespace (is id 0 mapped?)");
    /* Else /proc/self would be the host's root's. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? zl_setup_fail(err, -errno, "open /proc/self to its owner") : 0;
}
