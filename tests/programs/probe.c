/*
 * Says what a container's process may do and see: one line a fact, for the runtime's tests. Static, like workload.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void outcome(const char *what, long r)
{
    printf("%s %s\n", what, r >= 0 ? "ok" : strerrorname_np(errno));
}

static void lines_of(const char *path, const char *const *keys)
{
    char line[512];
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        for (const char *const *k = keys; *k; k++)
            if (strncmp(line, *k, strlen(*k)) == 0)
                fputs(line, stdout);
    if (f)
        fclose(f);
}

static void first_line(const char *path)
{
    char line[256] = "";
    FILE *f = fopen(path, "r");
    if (!f) {
        printf("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    if (!fgets(line, sizeof line, f))
        line[0] = 0;
    line[strcspn(line, "\n")] = 0;
    printf("%s: %s\n", path, line);
    fclose(f);
}

static void descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    printf("fds");
    while (d && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.' && (int)strtol(e->d_name, NULL, 10) != dirfd(d))
            printf(" %s", e->d_name);
    printf("\n");
    closedir(d);
}

int main(void)
{
    static const char *const status[] = { "CapInh",     "CapPrm",   "CapEff", "CapBnd", "CapAmb",
                                          "NoNewPrivs", "Seccomp:", "Groups", NULL };
    char text[512] = "", host[65] = "";
    gid_t groups[64];
    setvbuf(stdout, NULL, _IOFBF, 16384);
    lines_of("/proc/self/status", status);
    gethostname(host, sizeof host - 1);
    printf("host %s\npid %d\nuid %d\ngid %d\n", host, (int)getpid(), (int)getuid(), (int)getgid());
    int n = getgroups(64, groups);
    for (int i = 0; i < n; i++)
        printf("group %d\n", (int)groups[i]);
    printf("cwd %s\n", getcwd(text, sizeof text));
    printf("HOME %s\nPATH %s\nX %s\n", getenv("HOME"), getenv("PATH"), getenv("X") ? getenv("X") : "(unset)");
    descriptors();
    struct stat st;
    printf("/proc/interrupts %s\n",
           stat("/proc/interrupts", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) ? "null" : "seen");
    printf("/dev/null %s\n", stat("/dev/null", &st) == 0 && st.st_rdev == makedev(1, 3) ? "null" : "other");
    outcome("write /proc/sys", open("/proc/sys/kernel/hostname", O_WRONLY));
    outcome("write /proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY));
    outcome("write /sys", mkdir("/sys/fs/cgroup/x", 0755));
    outcome("mount", mount("none", "/mnt", "tmpfs", 0, NULL));
    outcome("unshare", unshare(CLONE_NEWUSER));
    outcome("setns", syscall(SYS_setns, 0, 0));
    outcome("clone3", syscall(SYS_clone3, NULL, 0));
    outcome("bpf", syscall(SYS_bpf, 0, NULL, 0));
    outcome("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    outcome("mknod", mknod("/disk", S_IFBLK | 0600, makedev(254, 0)));
    outcome("raw socket", socket(AF_INET, SOCK_RAW, 1));
    outcome("vsock", socket(40, SOCK_STREAM, 0));
    outcome("ping socket", socket(AF_INET, SOCK_DGRAM, 1));
    outcome("layer's device", open("/layer-device", O_RDONLY));
    outcome("write /", open("/written", O_WRONLY | O_CREAT, 0644));
    outcome("write /dev/shm", open("/dev/shm/x", O_WRONLY | O_CREAT, 0644));
    first_line("/etc/hosts");
    first_line("/etc/hostname");
    first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    first_line("/sys/fs/cgroup/memory.max");
    first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    first_line("/sys/fs/cgroup/cpu.max");
    first_line("/sys/fs/cgroup/pids/pids.max");
    first_line("/sys/fs/cgroup/pids.max");
    fflush(stdout);
    return 0;
}
