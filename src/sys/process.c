#include "sys/process.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int read_proc(pid_t pid, const char *file, struct zl_buf *ret)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return zl_read_file(AT_FDCWD, path, 1 << 16, ret);
}

/* The n-th field (from 3) behind the command's closing bracket, which may itself hold anything. proc(5) */
static struct zl_str stat_field(const struct zl_buf *b, int n)
{
    const char *end = b->p ? memrchr(b->p, ')', b->n) : NULL;
    struct zl_str field = { NULL, 0 }, rest = { NULL, 0 };
    if (end && end + 2 < b->p + b->n)
        rest = zl_str_n(end + 2, (size_t)(b->p + b->n - end - 2));
    for (int i = 3; rest.p && i <= n; i++)
        field = zl_str_cut(rest, ' ', &rest);
    return field;
}

/* The leak checker of a sanitizer traces its own process, which it may not do with one that is not dumpable. */
enum { DUMPABLE = ZL_SANITIZED };

int zl_process_private(void)
{
    const struct rlimit none = { 0, 0 };
    return setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, DUMPABLE, 0, 0, 0) < 0 ? -errno : 0;
}

int zl_process_start_time(pid_t pid, uint64_t *ret)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = read_proc(pid, "stat", &b);
    return r < 0 ? r : zl_parse_u64(stat_field(&b, 22), 0, UINT64_MAX, ret);
}

pid_t zl_process_parent(pid_t pid)
{
    zl_auto_buf b = ZL_BUF_INIT;
    uint64_t parent;
    return read_proc(pid, "stat", &b) == 0 && zl_parse_u64(stat_field(&b, 4), 0, INT32_MAX, &parent) == 0
               ? (pid_t)parent
               : 0;
}

int zl_boot_id(char ret[ZL_BOOT_ID_SIZE])
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = zl_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &b);
    if (r < 0)
        return r;
    snprintf(ret, ZL_BOOT_ID_SIZE, "%.36s", b.p);
    return 0;
}

int zl_pidfd_open(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int zl_process_dying(pid_t pid)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int r = read_proc(pid, "stat", &b);
    if (r < 0)
        return r == -ENOENT || r == -ESRCH ? true : r;
    struct zl_str state = stat_field(&b, 3);
    if (zl_str_is(state, "Z") || zl_str_is(state, "X"))
        return true;
    r = read_proc(pid, "status", &b);
    if (r < 0)
        return r == -ENOENT || r == -ESRCH ? true : r;
    static const char *const masks[] = { "\nSigPnd:\t", "\nShdPnd:\t" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(masks); i++) {
        const char *at = strstr(b.p, masks[i]);
        if (at && (strtoull(at + strlen(masks[i]), NULL, 16) & (1u << (SIGKILL - 1))))
            return true;
    }
    return false;
}

int zl_caps_drop_bounding(uint64_t keep)
{
    for (int cap = 0; cap < 64; cap++) {
        if (keep >> cap & 1 || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL)
            break; /* the kernel's last one is behind us */
        int e = -errno;
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0) /* without the right to drop it, is it there? */
            return e;
    }
    return 0;
}

int zl_caps_set(const struct zl_caps *caps)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(caps->effective >> (32 * i));
        data[i].permitted = (uint32_t)(caps->permitted >> (32 * i));
        data[i].inheritable = (uint32_t)(caps->inheritable >> (32 * i));
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &head, data) < 0)
        return -errno;
    for (int cap = 0; cap < 64; cap++)
        if (caps->ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -errno;
    return 0;
}

int zl_caps_permitted(uint64_t *ret)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &head, data) < 0)
        return -errno;
    *ret = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    return 0;
}

int zl_caps_limit(uint64_t caps)
{
    struct zl_caps sets = { .effective = caps, .permitted = caps };
    return zl_caps_set(&sets);
}

int zl_signal_number(struct zl_str name)
{
    uint64_t n;
    if (zl_parse_u64(name, 1, 64, &n) == 0)
        return (int)n;
    if (name.n > 3 && strncasecmp(name.p, "SIG", 3) == 0)
        name = zl_str_n(name.p + 3, name.n - 3);
    if (name.n >= 5 && strncasecmp(name.p, "RTM", 3) == 0) {
        bool up = strncasecmp(name.p, "RTMIN", 5) == 0, down = strncasecmp(name.p, "RTMAX", 5) == 0;
        n = 0;
        if ((!up && !down) || (name.n > 5 && (name.p[5] != (up ? '+' : '-') ||
                                              zl_parse_u64(zl_str_n(name.p + 6, name.n - 6), 0, 30, &n) < 0)))
            return 0;
        return up ? SIGRTMIN + (int)n : SIGRTMAX - (int)n;
    }
    for (int s = 1; s < 32; s++) {
        const char *known = sigabbrev_np(s);
        if (known && strlen(known) == name.n && strncasecmp(known, name.p, name.n) == 0)
            return s;
    }
    return 0;
}

/* In a child; what could not be is written to `report`. */
static ZL_NORETURN void become(const char *program, char *const *argv, char *const *env, int in, int out, int report)
{
    if ((in < 0 || dup2(in, 0) >= 0) && (out < 0 || dup2(out, 1) >= 0))
        execvpe(program, argv, env);
    int why = errno;
    ZL_IGNORE(zl_write_full(report, &why, sizeof why));
    _exit(127);
}

static int spawn_by_fork(const char *program, char *const *argv, char *const *env, int in, int out, pid_t *ret)
{
    int report[2], why;
    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    int e = pid < 0 ? -errno : 0;
    if (pid == 0)
        become(program, argv, env, in, out, report[1]);
    zl_close(report[1]);
    if (e == 0 && zl_read_full(report[0], &why, sizeof why) == (ssize_t)sizeof why) {
        e = -why;
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    zl_close(report[0]);
    if (e == 0)
        *ret = pid;
    return e;
}

int zl_spawn(const char *program, const char *const *argv, const char *const *env, int in, int out, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    char *const *v = (char *const *)(uintptr_t)argv, *const *e = (char *const *)(uintptr_t)env;
    posix_spawn_file_actions_init(&files);
    if (in >= 0)
        posix_spawn_file_actions_adddup2(&files, in, 0);
    if (out >= 0)
        posix_spawn_file_actions_adddup2(&files, out, 1);
    int r = -posix_spawnp(ret, program, &files, NULL, v, e);
    posix_spawn_file_actions_destroy(&files);
    return r == -EPERM ? spawn_by_fork(program, v, e, in, out, ret) : r;
}
