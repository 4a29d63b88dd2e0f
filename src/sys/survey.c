#include "sys/survey_priv.h"

#include "base/fd.h"
#include "base/str.h"
#include "sys/cgroup.h"
#include "sys/netlink.h"
#include "sys/nft.h"
#include "sys/ns.h"
#include "sys/overlay.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

struct zl_survey_row *survey_row(struct survey *s, const char *name, enum zl_survey_level level, const char *found, ...)
{
    struct zl_survey_row *r = &s->rows[s->n++];
    *r = (struct zl_survey_row){ .name = name, .level = level };
    va_list ap;
    va_start(ap, found);
    vsnprintf(r->found, sizeof r->found, found, ap);
    va_end(ap);
    return r;
}

void survey_fix(struct zl_survey_row *r, const char *text)
{
    snprintf(r->fix, sizeof r->fix, "%s", text);
}

int survey_in_child(int (*fn)(const struct survey *s), const struct survey *s)
{
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        int r = fn(s);
        _exit(r < 0 && r > -255 ? -r : r < 0 ? 255 : 0);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static void survey_kernel(struct survey *s)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2) {
        survey_row(s, "kernel", ZL_SURVEY_WARN, "its version is unknown");
        return;
    }
    bool old = major < 5 || (major == 5 && minor < 4);
    struct zl_survey_row *r =
        survey_row(s, "kernel", old ? ZL_SURVEY_FAIL : ZL_SURVEY_OK, "Linux %s, %s", u.release, u.machine);
    if (old)
        survey_fix(r, "zlayer needs Linux 5.4 or later");
}

static uint64_t effective_caps(void)
{
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &head, data) < 0)
        return 0;
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

static bool survey_rights(struct survey *s)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {
        { CAP_CHOWN, "CHOWN" },           { CAP_DAC_OVERRIDE, "DAC_OVERRIDE" },
        { CAP_FOWNER, "FOWNER" },         { CAP_KILL, "KILL" },
        { CAP_SETGID, "SETGID" },         { CAP_SETUID, "SETUID" },
        { CAP_SETPCAP, "SETPCAP" },       { CAP_NET_ADMIN, "NET_ADMIN" },
        { CAP_SYS_CHROOT, "SYS_CHROOT" }, { CAP_SYS_ADMIN, "SYS_ADMIN" },
        { CAP_MKNOD, "MKNOD" },           { CAP_SETFCAP, "SETFCAP" },
    };
    uint64_t have = effective_caps();
    char missing[128] = "";
    for (size_t i = 0; i < ZL_ARRAY_LEN(needed); i++) {
        size_t n = strlen(missing);
        if (!(have >> needed[i].cap & 1))
            snprintf(missing + n, sizeof missing - n, "%s%s", n ? " " : "", needed[i].name);
    }
    if (!missing[0]) {
        survey_row(s, "rights", ZL_SURVEY_OK, "user %u with every capability that is needed", (unsigned)geteuid());
        return true;
    }
    survey_fix(survey_row(s, "rights", ZL_SURVEY_FAIL, "root without %s", missing),
               "containers can't be started; give this environment the missing capabilities");
    return false;
}

static void survey_cgroups(struct survey *s)
{
    static const char *const layouts[] = { "none", "v1", "hybrid", "v2" };
    struct zl_cgroup g;
    int r = zl_cgroup_find("zlayer-doctor", "x", &g);
    if (r < 0 || g.layout == ZL_CGROUP_NONE) {
        survey_fix(survey_row(s, "cgroups", ZL_SURVEY_FAIL, "no hierarchy is mounted"),
                   "limits and clean-up need one: mount -t cgroup2 none /sys/fs/cgroup");
        return;
    }
    bool memory = g.dir[ZL_CONTROLLER_MEMORY][0], cpu = g.dir[ZL_CONTROLLER_CPU][0],
         pids = g.dir[ZL_CONTROLLER_PIDS][0];
    char path[256];
    const char *any = g.dir[ZL_CONTROLLER_MEMORY][0] ? g.dir[ZL_CONTROLLER_MEMORY] : g.dir[ZL_CONTROLLER_UNIFIED];
    const char *tail = strstr(any, "/zlayer-doctor");
    snprintf(path, sizeof path, "%.*s", tail ? (int)(tail - any) : 0, any);
    if (g.layout == ZL_CGROUP_V2) {
        zl_auto_buf b = ZL_BUF_INIT;
        char file[300];
        snprintf(file, sizeof file, "%s/cgroup.controllers", path);
        if (zl_read_file(AT_FDCWD, file, 4096, &b) == 0) {
            for (struct zl_str rest = zl_str_trim(zl_str_n(b.p, strcspn(b.p, "\n"))); rest.p;) {
                struct zl_str name = zl_str_cut(rest, ' ', &rest);
                memory |= zl_str_is(name, "memory");
                cpu |= zl_str_is(name, "cpu");
                pids |= zl_str_is(name, "pids");
            }
        }
    }
    bool writable = access(path, W_OK) == 0;
    bool whole = memory && cpu && pids;
    struct zl_survey_row *out =
        survey_row(s, "cgroups",
                   !writable ? ZL_SURVEY_FAIL
                   : whole   ? ZL_SURVEY_OK
                             : ZL_SURVEY_WARN,
                   "%s%s; memory %s, cpu %s, pids %s", layouts[g.layout], writable ? "" : ", not writable",
                   memory ? "yes" : "no", cpu ? "yes" : "no", pids ? "yes" : "no");
    if (!writable)
        survey_fix(out, "groups can't be made: run as root, or where /sys/fs/cgroup is mounted read-write");
    else if (!whole)
        survey_fix(out, "limits of the missing kind are refused; enable the controller (kernel command line, "
                        "cgroup.subtree_control)");
}

static int try_namespaces(const struct survey *s)
{
    (void)s;
    int all = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP;
    return unshare(all) < 0 ? -errno : 0;
}

static int try_overlay(const struct survey *s)
{
    (void)s;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/tmp", "tmpfs", 0, "size=64k") < 0 || chdir("/tmp") < 0 || mkdir("lower", 0755) < 0 ||
        mkdir("upper", 0755) < 0 || mkdir("work", 0755) < 0 || mkdir("merged", 0755) < 0)
        return -errno;
    return mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work") < 0 ? -errno : 0;
}

int survey_try_veth(const struct survey *s)
{
    (void)s;
    if (unshare(CLONE_NEWNET) < 0)
        return -errno;
    zl_auto_close int nl = zl_netlink_open();
    struct zl_link_end a = { "a", -1 }, b = { "b", -1 };
    return nl < 0 ? nl : zl_link_add_veth(nl, &a, &b);
}

int survey_try_nft(const struct survey *s)
{
    (void)s;
    return zl_nft_probe();
}

static void survey_tries(struct survey *s, bool rights)
{
    static const struct {
        const char *name;
        int (*fn)(const struct survey *s);
        const char *good, *fix;
    } tries[] = {
        { "namespaces", try_namespaces, "mount, uts, ipc, net, pid, cgroup",
          "containers need all of them; a container around this one must allow them" },
        { "overlayfs", try_overlay, "mounts", "images are stacked with it: modprobe overlay" },
        { "veth", survey_try_veth, "can be made", "replicas are joined with it: modprobe veth" },
        { "nftables", survey_try_nft, "answers", "isolation and outward traffic need it: modprobe nf_tables" },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(tries); i++) {
        int r = survey_in_child(tries[i].fn, s);
        if (r == 0)
            survey_row(s, tries[i].name, ZL_SURVEY_OK, "%s", tries[i].good);
        else if (!rights && (r == -EPERM || r == -EACCES))
            survey_row(s, tries[i].name, ZL_SURVEY_WARN, "can't be tried without rights");
        else
            survey_fix(survey_row(s, tries[i].name, ZL_SURVEY_FAIL, "%s",
                                  strerrordesc_np(-r) ? strerrordesc_np(-r) : "refused"),
                       tries[i].fix);
    }
}

static void survey_programs(struct survey *s)
{
    const char *nft = zl_nft_program();
    if (nft)
        survey_row(s, "nft", ZL_SURVEY_OK, "%s", nft);
    else
        survey_fix(survey_row(s, "nft", ZL_SURVEY_FAIL, "the program is not there"),
                   "firewall rules are set with it: install nftables");
}

static void survey_confinement(struct survey *s)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
        survey_row(s, "seccomp", ZL_SURVEY_OK, "filters");
    else
        survey_fix(survey_row(s, "seccomp", ZL_SURVEY_FAIL, "the kernel has no filters"),
                   "needs CONFIG_SECCOMP_FILTER");
    /* landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION): number 444 on every architecture. */
    long abi = syscall(444, NULL, 0, 1u);
    if (abi >= 2)
        survey_row(s, "landlock", ZL_SURVEY_OK, "ABI %ld", abi);
    else
        survey_fix(
            abi < 0 ? survey_row(s, "landlock", ZL_SURVEY_WARN, "not there")
                    : survey_row(s, "landlock", ZL_SURVEY_WARN, "ABI %ld", abi),
            "image jobs are confined by capabilities and seccomp alone; Linux 5.19 with lsm=landlock adds file rules");
}

static bool has_call(long r)
{
    return r >= 0 || errno != ENOSYS;
}

static void survey_calls(struct survey *s)
{
    struct open_how how = { .flags = O_PATH | O_CLOEXEC };
    long fd = syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how);
    bool openat2 = has_call(fd);
    (void)zl_close((int)fd);
    bool clone3 = has_call(syscall(SYS_clone3, NULL, 0));
    bool mounts = has_call(syscall(SYS_fsopen, NULL, 0));
    bool all = openat2 && clone3 && mounts;
    struct zl_survey_row *r = survey_row(s, "system calls", ZL_SURVEY_OK, "openat2 %s, clone3 %s, new mount API %s",
                                         openat2 ? "yes" : "no", clone3 ? "yes" : "no", mounts ? "yes" : "no");
    if (!all)
        survey_fix(r, "older ones are used in place of the missing; images of very many layers may be refused");
}

static void survey_forwarding(struct survey *s)
{
    char value[8] = "?", drops[100];
    int r = zl_sysctl_read("net/ipv4/ip_forward", value, sizeof value);
    int n = zl_nft_forward_chains(drops, sizeof drops) > 0 && drops[0];
    bool on = r == 0 && zl_streq(value, "1");
    if (n > 0)
        survey_fix(
            survey_row(s, "forwarding", ZL_SURVEY_WARN, "ip_forward %s; dropped by %s", on ? "on" : "off", drops),
            "containers would not reach outward; zlayer adds a tagged accept for its link there while it runs");
    else
        survey_row(s, "forwarding", ZL_SURVEY_OK, "ip_forward %s%s", on ? "on" : "off",
                   on ? "" : ", switched on while a deployment runs");
}

static void survey_disk(struct survey *s)
{
    char path[4096];
    struct statvfs v;
    struct statfs f;
    snprintf(path, sizeof path, "%s", s->data_dir);
    while (statvfs(path, &v) < 0 || statfs(path, &f) < 0) { /* the nearest folder that is there */
        char *slash = strrchr(path, '/');
        if (errno != ENOENT || !slash || slash == path) {
            survey_row(s, "disk", ZL_SURVEY_WARN, "%s can't be looked at", s->data_dir);
            return;
        }
        *slash = 0;
    }
    uint64_t free_mib = (uint64_t)v.f_bavail * v.f_frsize >> 20;
    /* overlayfs refuses its upper folder on these: overlay itself, NFS, FUSE as a rule. linux/magic.h */
    bool other = geteuid() != 0 && zl_overlay_program(); /* which takes what overlayfs does not */
    bool unfit = !other && (f.f_type == 0x794c7630 || f.f_type == 0x6969 || f.f_type == 0x65735546);
    struct zl_survey_row *r = survey_row(s, "disk",
                                         unfit || free_mib < 64 ? ZL_SURVEY_FAIL
                                         : free_mib < 1024      ? ZL_SURVEY_WARN
                                                                : ZL_SURVEY_OK,
                                         "%llu MiB free for %.100s", (unsigned long long)free_mib, s->data_dir);
    if (unfit)
        survey_fix(r,
                   "containers can't keep their upper layers on this file system: name a --data-dir on a local disk");
    else if (free_mib < 1024)
        survey_fix(r, "images may not fit: free some space, or name another --data-dir");
}

static void survey_limits(struct survey *s)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return;
    struct zl_survey_row *r = survey_row(s, "open files", l.rlim_max < 4096 ? ZL_SURVEY_WARN : ZL_SURVEY_OK,
                                         "at most %llu", (unsigned long long)l.rlim_max);
    if (l.rlim_max < 4096)
        survey_fix(r, "the proxy serves few connections at once: raise the hard limit (ulimit -Hn, LimitNOFILE)");
}

size_t zl_survey(const char *data_dir, struct zl_survey_row rows[ZL_SURVEY_ROWS])
{
    struct survey s = { rows, 0, data_dir };
    survey_kernel(&s);
    if (geteuid() == 0) {
        bool rights = survey_rights(&s);
        survey_cgroups(&s);
        survey_tries(&s, rights);
    } else {
        survey_user(&s);
    }
    survey_programs(&s);
    survey_confinement(&s);
    survey_calls(&s);
    if (geteuid() == 0)
        survey_forwarding(&s);
    survey_disk(&s);
    survey_limits(&s);
    return s.n;
}

const char *zl_survey_level_text(enum zl_survey_level level)
{
    static const char *const texts[] = { "ok", "warn", "fail" };
    return texts[level];
}
