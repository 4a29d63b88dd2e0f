#include "imagejob/confine.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rights that are newer than the headers of the oldest supported system (Landlock ABI 2 to 5). */
#define ACCESS_REFER     (UINT64_C(1) << 13)
#define ACCESS_TRUNCATE  (UINT64_C(1) << 14)
#define ACCESS_IOCTL_DEV (UINT64_C(1) << 15)
#define ACCESS_BIND_TCP  (UINT64_C(1) << 0)

/* linux/landlock.h as of ABI 4; the kernel takes a longer attribute whose tail it does not know when that is zero. */
struct ruleset {
    uint64_t fs, net;
};

static const uint64_t file_reading = LANDLOCK_ACCESS_FS_READ_FILE;
static const uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;

static int allow(int rules, int fd, uint64_t access)
{
    struct stat st;
    struct landlock_path_beneath_attr a = { .allowed_access = access, .parent_fd = fd };
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        a.allowed_access &= file_reading;
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0) == 0)
        return 0;
    return errno == EBADFD ? 0 : -errno; /* a pipe, say: of no file system, and not under the rules */
}

/* What names and certificates are looked up in; what is missing needs no rule. */
static int allow_lookups(int rules)
{
    static const char *const paths[] = { "/etc/resolv.conf",
                                         "/etc/hosts",
                                         "/etc/host.conf",
                                         "/etc/nsswitch.conf",
                                         "/etc/gai.conf",
                                         "/etc/services",
                                         "/etc/ld.so.cache",
                                         "/etc/ssl",
                                         "/etc/pki",
                                         "/etc/ca-certificates",
                                         "/usr/share/ca-certificates",
                                         "/usr/local/share/ca-certificates",
                                         "/usr/lib",
                                         "/usr/lib64",
                                         "/lib",
                                         "/lib64",
                                         "/dev/urandom",
                                         "/dev/null",
                                         ZL_SANITIZED ? "/proc" : "/dev/null" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(paths); i++) {
        zl_auto_close int fd = zl_openat(AT_FDCWD, paths[i], O_PATH, 0);
        int r = fd < 0 ? 0 : allow(rules, fd, reading);
        if (r < 0)
            return r;
    }
    return 0;
}

static int landlock(const struct zl_store *store, const char *source, int target)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 2) /* ABI 1 forbids every rename between folders */
        return 0;
    struct ruleset set = { .fs = (UINT64_C(1) << 13) - 1 + ACCESS_REFER };
    set.fs |= abi >= 3 ? ACCESS_TRUNCATE : 0;
    set.fs |= abi >= 5 ? ACCESS_IOCTL_DEV : 0;
    set.net = abi >= 4 ? ACCESS_BIND_TCP : 0;
    zl_auto_close int rules = (int)syscall(SYS_landlock_create_ruleset, &set, abi >= 4 ? sizeof set : sizeof set.fs, 0);
    if (rules < 0)
        return -errno;
    /* Of the store everything but running programs from it. */
    int r = store ? allow(rules, store->dir, set.fs & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE) : 0;
    r = r < 0 ? r : allow_lookups(rules);
    if (r == 0 && source) {
        zl_auto_close int fd = zl_openat(AT_FDCWD, source, O_PATH, 0);
        r = fd < 0 ? 0 : allow(rules, fd, reading); /* opening it for real says better what is wrong */
    }
    if (r == 0 && target >= 0)
        r = allow(rules, target,
                  (reading | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
                   LANDLOCK_ACCESS_FS_REMOVE_FILE | ACCESS_TRUNCATE) &
                      set.fs);
    if (r == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        r = -errno;
    return r;
}

static int drop_capabilities(void)
{
    static const cap_value_t kept[] = { CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_DAC_OVERRIDE, CAP_MKNOD, CAP_SETFCAP };
    cap_t now = cap_get_proc(), next = cap_init();
    int r = now && next ? 0 : -ENOMEM;
    for (int c = 0; r == 0 && c <= CAP_LAST_CAP; c++)
        (void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* without SETPCAP it does not, and then it gains nothing either */
    for (size_t i = 0; r == 0 && i < ZL_ARRAY_LEN(kept); i++) {
        cap_flag_value_t has = CAP_CLEAR;
        if (cap_get_flag(now, kept[i], CAP_PERMITTED, &has) < 0)
            r = -errno;
        for (int set = 0; r == 0 && has == CAP_SET && set < 2; set++)
            if (cap_set_flag(next, set ? CAP_EFFECTIVE : CAP_PERMITTED, 1, &kept[i], CAP_SET) < 0)
                r = -errno;
    }
    if (r == 0 && cap_set_proc(next) < 0)
        r = -errno;
    cap_free(now);
    cap_free(next);
    return r;
}

/* Calls that neither fetching nor unpacking makes, and that exploits of kernels and processes begin with. */
static int filter_calls(void)
{
    static const char *const denied[] = {
        "execve",
        "execveat",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "unshare",
        "setns",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "open_by_handle_at",
        "name_to_handle_at",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "keyctl",
        "add_key",
        "request_key",
        "sethostname",
        "setdomainname",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "clock_adjtime",
        "iopl",
        "ioperm",
        "syslog",
        "personality",
        "vhangup",
        "nfsservctl",
        "fanotify_init",
        "lookup_dcookie",
        "modify_ldt",
    };
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int r = ctx ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < ZL_ARRAY_LEN(denied); i++) {
        int call = seccomp_syscall_resolve_name(denied[i]);
        if (call == __NR_SCMP_ERROR || (ZL_SANITIZED && zl_streq(denied[i], "ptrace"))) /* the leak checker's */
            continue;
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 0);
    }
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
    if (r == 0)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    return r;
}

static int confine(const struct zl_store *store, const char *source, int target, struct zl_err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return zl_fail(err, -errno, "forbid new privileges to the image job");
    int r = landlock(store, source, target);
    if (r < 0)
        return zl_fail(err, r, "confine the image job to the store (Landlock)");
    r = drop_capabilities();
    if (r < 0)
        return zl_fail(err, r, "drop the image job's capabilities");
    r = filter_calls();
    return r < 0 ? zl_fail(err, r, "filter the image job's system calls") : 0;
}

int zl_confine(const struct zl_store *store, const char *source, struct zl_err *err)
{
    return confine(store, source, -EBADF, err);
}

int zl_confine_writing(const struct zl_store *store, int target, struct zl_err *err)
{
    return confine(store, NULL, target, err);
}
