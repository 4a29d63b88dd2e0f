/*
 * The last steps before the program: user, working folder, rights, system-call filter, exec. Used for a container's
 * first process and for every exec into it.
 */
#include "base/error.h"
#include "base/fd.h"
#include "runtime/native/identity.h"
#include "runtime/native/setup_parts.h"
#include "sys/ns.h"
#include "sys/process.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DATABASE_MAX = 1 << 20 }; /* of an image's passwd or group file */

/* A database of the image: what is no plain file of a sane size (a FIFO would make us wait) counts as absent. */
static void read_database(const char *path, struct zl_buf *ret)
{
    struct stat st;
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > DATABASE_MAX ||
        zl_buf_try_reserve(ret, (size_t)st.st_size + 1) < 0)
        return;
    ssize_t n = zl_read_full(fd, ret->p, (size_t)st.st_size);
    ret->n = n > 0 ? (size_t)n : 0;
    ret->p[ret->n] = 0;
}

/* "user[:group]", each a name of the image's files or a number. */
static int resolve(const char *spec, struct zl_identity *id, struct zl_setup_error *err)
{
    zl_auto_buf passwd = ZL_BUF_INIT, group = ZL_BUF_INIT;
    read_database("/etc/passwd", &passwd);
    read_database("/etc/group", &group);
    const char *unknown = zl_identity_resolve(id, spec, zl_buf_view(&passwd), zl_buf_view(&group));
    return unknown ? zl_setup_fail(err, ZL_E_INVALID, "find the %s '%.40s' in the image's /etc/%s",
                                   zl_streq(unknown, "passwd") ? "user" : "group of", spec, unknown)
                   : 0;
}

/* "uid:gid", numbers, and the job's groups: nothing of the image has a say. */
static int exact(const struct zl_job *job, struct zl_identity *id, struct zl_setup_error *err)
{
    struct zl_str gid, uid = zl_str_cut(zl_str(job->user), ':', &gid);
    if (zl_parse_u64(uid, 0, UINT32_MAX - 1, &id->uid) < 0 || zl_parse_u64(gid, 0, UINT32_MAX - 1, &id->gid) < 0)
        return zl_setup_fail(err, -EINVAL, "become the user %s", job->user);
    if (job->ngroups > ZL_ARRAY_LEN(id->groups))
        return zl_setup_fail(err, -E2BIG, "take on %llu groups", (unsigned long long)job->ngroups);
    for (uint64_t i = 0; i < job->ngroups; i++)
        id->groups[id->ngroups++] = (gid_t)job->groups[i].gid;
    zl_auto_buf passwd = ZL_BUF_INIT;
    read_database("/etc/passwd", &passwd);
    zl_identity_home(id, uid, zl_buf_view(&passwd));
    return 0;
}

static int drop_rights(const struct zl_job *job, const struct zl_identity *id, struct zl_setup_error *err)
{
    struct zl_caps caps = { job->caps.effective, job->caps.permitted, job->caps.inheritable, job->caps.ambient };
    struct zl_caps none = { 0 };
    int with_parent = 0; /* the signal that a parent's death means, if it means one */
    (void)prctl(PR_GET_PDEATHSIG, &with_parent, 0, 0, 0);
    /* With the container's own rights it is no longer above what runs there already; the exec undoes it. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return zl_setup_fail(err, -errno, "hide from the container");
    if (job->exact_user && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return zl_setup_fail(err, -errno, "keep the capabilities");
    int r = zl_caps_drop_bounding(job->caps.bounding);
    if (r < 0)
        return zl_setup_fail(err, r, "limit the capabilities");
    /* An ordinary user's namespace may have no say over groups: those of the image's database are left out then, as
     * nothing there belongs to any of them; those that were asked for by number are not. */
    bool passed_over = id->ngroups == 0 || !job->exact_user;
    bool groups = setgroups(id->ngroups, id->groups) == 0 ||
                  (errno == EPERM && passed_over && (getgroups(0, NULL) == 0 || zl_setup_groups_are_fixed(job)));
    if (!groups || setresgid((gid_t)id->gid, (gid_t)id->gid, (gid_t)id->gid) < 0 ||
        setresuid((uid_t)id->uid, (uid_t)id->uid, (uid_t)id->uid) < 0)
        return zl_setup_fail(err, -errno, "become user %llu%s", (unsigned long long)id->uid,
                             errno == EINVAL ? ", an id that is not mapped here (/etc/subuid, /etc/subgid)" : "");
    r = zl_caps_set(job->exact_user || id->uid == 0 ? &caps : &none);
    if (r < 0)
        return zl_setup_fail(err, r, "set the capabilities");
    if (job->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return zl_setup_fail(err, -errno, "set no_new_privs");
    if (with_parent) /* changing the user has cleared it */
        (void)prctl(PR_SET_PDEATHSIG, with_parent, 0, 0, 0);
    return 0;
}

int zl_setup_limits(const struct zl_job *job, struct zl_setup_error *err)
{
    for (uint64_t i = 0; i < job->nrlimits; i++) {
        const struct zl_job_rlimit *l = &job->rlimits[i];
        struct rlimit limit = { l->soft, l->hard };
        if (setrlimit((__rlimit_resource_t)l->resource, &limit) < 0)
            return zl_setup_fail(err, -errno, "set the resource limit %llu to %llu", (unsigned long long)l->resource,
                                 (unsigned long long)l->hard);
    }
    return 0;
}

static void default_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < 65; s++)
        (void)signal(s, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * The filter's listener, to who starts us: by its number alone, as the filter may have a say over sendmsg already; the
 * other end takes it out of us (pidfd_getfd) and answers. So a filter must let read and write pass.
 */
static int offer_listener(int fd, int report, struct zl_setup_error *err)
{
    int offer[2] = { ZL_SETUP_LISTENER, fd };
    char taken;
    if (zl_write_full(report, offer, sizeof offer) < 0 || zl_read_full(report, &taken, 1) != 1)
        return zl_setup_fail(err, -EPIPE, "hand over the filter's listener");
    zl_close(fd);
    return 0;
}

static int load_filter(const struct zl_job *job, int report, struct zl_setup_error *err)
{
    if (job->seccomp.n == 0)
        return 0;
    struct sock_fprog prog = { .len = (unsigned short)(job->seccomp.n / sizeof(struct sock_filter)),
                               .filter = (struct sock_filter *)(uintptr_t)job->seccomp.p };
    bool plain = !job->seccomp_flags && !job->seccomp_listener;
    unsigned long flags = job->seccomp_flags | (job->seccomp_listener ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
    long fd = plain ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0)
                    : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
    if (fd < 0)
        return zl_setup_fail(err, -errno, "load the system-call filter");
    return job->seccomp_listener ? offer_listener((int)fd, report, err) : 0;
}

/* What a security module makes of the next exec: in one write. */
static int write_label(const char *file, const char *before, const char *label)
{
    char text[4200], path[64];
    int n = snprintf(text, sizeof text, "%s%s", before, label);
    snprintf(path, sizeof path, "self/attr/%s", file);
    return n >= (int)sizeof text ? -E2BIG : zl_proc_write(path, text);
}

static int set_labels(const struct zl_job *job, struct zl_setup_error *err)
{
    int r = 0;
    if (job->apparmor[0]) {
        r = write_label("apparmor/exec", "exec ", job->apparmor);
        r = r == -ENOENT ? write_label("exec", "exec ", job->apparmor) : r; /* below kernel 5.8 */
    }
    if (r < 0)
        return zl_setup_fail(err, r, "take on the AppArmor profile %.60s", job->apparmor);
    r = job->selinux[0] ? write_label("exec", "", job->selinux) : 0;
    return r < 0 ? zl_setup_fail(err, r, "take on the SELinux label %.60s", job->selinux) : 0;
}

static const char *env_of(const struct zl_job *job, const char *name)
{
    size_t n = strlen(name);
    for (const char *const *e = job->env; *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

/* Finds the program before the filter is loaded, so that what is missing is named. */
static int find_program(const struct zl_job *job, const char *name, char *ret, size_t size, struct zl_setup_error *err)
{
    struct stat st;
    bool denied = false;
    if (strchr(name, '/')) {
        snprintf(ret, size, "%s", name);
        if (stat(ret, &st) < 0)
            return zl_setup_fail(err, ZL_E_NO_COMMAND, "find the program '%.80s' in the image", name);
        if (!S_ISREG(st.st_mode) || access(ret, X_OK) < 0)
            return zl_setup_fail(err, ZL_E_NOT_EXECUTABLE, "execute '%.80s'", name);
        return 0;
    }
    const char *path = env_of(job, "PATH");
    struct zl_str rest = zl_str(path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    while (rest.p) {
        struct zl_str folder = zl_str_cut(rest, ':', &rest);
        snprintf(ret, size, "%.*s/%s", ZL_STR_FMT(folder), name);
        if (stat(ret, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (access(ret, X_OK) == 0)
            return 0;
        denied = true;
    }
    return denied ? zl_setup_fail(err, ZL_E_NOT_EXECUTABLE, "execute '%.80s'", name)
                  : zl_setup_fail(err, ZL_E_NO_COMMAND, "find the program '%.80s' in the image's PATH", name);
}

/* A working folder that the image does not have, as others make it too: owned by root. We are inside the root already.
 */
static int make_folders(const char *path)
{
    char part[4096];
    for (const char *p = path; *p; p++) {
        const char *end = strchrnul(p + 1, '/');
        snprintf(part, sizeof part, "%.*s", (int)ZL_MIN((ptrdiff_t)sizeof part - 1, end - path), path);
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        p = end - 1;
    }
    return 0;
}

/* A folder that no path from our root leads to is of the host (CVE-2024-21626). */
static int enter_folder(const char *path)
{
    char now[PATH_MAX];
    if (chdir(path) < 0 && !(errno == ENOENT && make_folders(path) == 0 && chdir(path) == 0))
        return -errno;
    if (syscall(SYS_getcwd, now, sizeof now) < 0) /* the C library would look for another way to say it */
        return -errno;
    return now[0] == '/' ? 0 : -EXDEV;
}

int zl_setup_check_program(const struct zl_job *job, struct zl_setup_error *err)
{
    char program[4096];
    if (!job->argv[0])
        return 0; /* there will be none */
    if (job->cwd[0] && chdir(job->cwd) < 0 && errno != ENOENT)
        return zl_setup_fail(err, -errno, "enter the working folder %.80s", job->cwd);
    int r = find_program(job, job->argv[0], program, sizeof program, err);
    return chdir("/") < 0 && r == 0 ? zl_setup_fail(err, -errno, "enter the root") : r;
}

/* A session keyring of its own, empty: what the caller's holds is none of the program's. Where the call itself is
 * forbidden or absent, it is to the program, too. */
static int leave_keyring(const struct zl_job *job, struct zl_setup_error *err)
{
    if (job->keep_keyring || syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) >= 0 || errno == ENOSYS ||
        errno == EPERM)
        return 0;
    return zl_setup_fail(err, -errno, "make a session keyring%s",
                         errno == EDQUOT ? ": the user has as many keys as kernel.keys.maxkeys and maxbytes allow"
                                         : "");
}

/* The job's variables, and one more unless it is NULL. */
static const char **make_env(const struct zl_job *job, const char *more)
{
    size_t n = 0;
    while (job->env[n])
        n++;
    const char **env = zl_try_malloc((n + 2) * sizeof *env);
    if (env) {
        memcpy(env, job->env, n * sizeof *env);
        env[n] = more;
        env[n + 1] = NULL;
    }
    return env;
}

int zl_setup_exec(const struct zl_job *job, const char *const *argv, int report, struct zl_setup_error *err)
{
    struct zl_identity id = { 0 };
    char program[4096], home[280];
    if (!argv[0])
        return zl_setup_fail(err, ZL_E_NO_COMMAND, "run nothing: there is no command");
    int r = job->exact_user ? exact(job, &id, err) : resolve(job->user, &id, err);
    if (r < 0)
        return r;
    if (job->terminal && !job->exact_user && fchown(0, (uid_t)id.uid, (gid_t)-1) < 0 && errno != EROFS)
        return zl_setup_fail(err, -errno, "give the terminal to user %llu", (unsigned long long)id.uid);
    const char *cwd = job->cwd[0] ? job->cwd : "/";
    r = enter_folder(cwd);
    if (r < 0)
        return zl_setup_fail(err, r, "enter the working folder %.80s", cwd);
    r = zl_setup_scheduling(job, err);
    r = r < 0 ? r : leave_keyring(job, err);
    r = r < 0 ? r : set_labels(job, err);
    if (r < 0)
        return r;
    /* Without no_new_privs it takes a capability, which is about to go; with it, the later the fewer calls it must
     * allow. */
    r = job->no_new_privs ? 0 : load_filter(job, report, err);
    r = r < 0 ? r : drop_rights(job, &id, err);
    r = r < 0 ? r : find_program(job, argv[0], program, sizeof program, err);
    if (r < 0)
        return r;
    snprintf(home, sizeof home, "HOME=%s", id.home);
    zl_auto_free const char **env = make_env(job, env_of(job, "HOME") ? NULL : home);
    if (!env)
        return zl_setup_fail(err, -ENOMEM, "make the list of variables");
    umask((mode_t)job->umask);
    default_signals();
    /* Nothing of the host stays open in the container (CVE-2024-21626). */
    unsigned from = 3 + (unsigned)job->preserve_fds;
    if (syscall(SYS_close_range, from, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        for (int fd = (int)from; fd < 1024; fd++)
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    r = job->no_new_privs ? load_filter(job, report, err) : 0;
    if (r < 0)
        return r;
    execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    if (errno == E2BIG || errno == ENOMEM)
        return zl_setup_fail(err, -errno, "execute '%.70s'", program);
    return zl_setup_fail(err, errno == ENOENT ? ZL_E_NO_COMMAND : ZL_E_NOT_EXECUTABLE, "execute '%.70s' (%s)", program,
                         zl_error_name(-errno));
}
