/*
 * What a container's life costs the kernel alone: namespaces, an overlay root with proc and a tmpfs, pivot_root, a new
 * folder entered and removed in each cgroup hierarchy, exec of a static program that ends, wait. It checks nothing,
 * reads no document, limits nothing, and is no program of its own that is executed first: a runtime can't be faster.
 *
 *   floor ROOTFS SCRATCH N [cgroups]     prints for each of N lives, a line each: microseconds by the clock, and of
 *                                        processor time in it and all that it waited for
 *   floor --spawn N PROGRAM ARGS…        the same of N runs of a program ("%" in an argument: the run's number), which
 *                                        is how runtimes are measured: no interpreter lies between
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char groups[16][256];
static volatile sig_atomic_t asked_to_end;
static int ngroups, unified = -1, cpuset = -1;
static char cpus[256], mems[256]; /* of the machine: a cpuset takes no process before it has some */

static void die(const char *what)
{
    perror(what);
    _exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double cpu_us(void)
{
    double sum = 0;
    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
        struct rusage r;
        getrusage(who, &r);
        sum +=
            (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
    }
    return sum;
}

static void get(const char *dir, const char *file, char *ret, size_t size)
{
    char path[320];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
    ret[n < 0 ? 0 : n] = 0;
    close(fd);
}

/* A folder for us in every hierarchy that is mounted. */
static void find_groups(void)
{
    char line[4096], dir[200], type[64];
    FILE *f = fopen("/proc/self/mounts", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%*s %199s %63s", dir, type) == 2 && strncmp(type, "cgroup", 6) == 0 && ngroups < 16) {
            if (strcmp(type, "cgroup2") == 0)
                unified = ngroups;
            if (cpuset < 0 && strcmp(type, "cgroup") == 0)
                get(dir, "cpuset.cpus", cpus, sizeof cpus);
            if (cpuset < 0 && cpus[0]) {
                cpuset = ngroups;
                get(dir, "cpuset.mems", mems, sizeof mems);
            }
            snprintf(groups[ngroups++], sizeof groups[0], "%s/zl-floor", dir);
        }
    if (f)
        fclose(f);
}

static void put(const char *dir, const char *file, const char *value)
{
    char path[320];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        die(path);
    close(fd);
}

static void child(const char *lower, const char *scratch, int with_groups)
{
    char o[1024];
    for (int i = 0; with_groups && i < ngroups; i++)
        if (i != unified)
            put(groups[i], "tasks", "0");
    if (unshare(CLONE_NEWCGROUP) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(scratch) < 0)
        die("unshare");
    snprintf(o, sizeof o, "lowerdir=%s,upperdir=upper,workdir=work", lower);
    if (mount("overlay", "merged", "overlay", 0, o) < 0 || chdir("merged") < 0 ||
        mount("proc", "proc", "proc", 0, NULL) < 0 || mount("tmpfs", "dev", "tmpfs", 0, "mode=755") < 0)
        die("mount");
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        die("pivot_root");
    execl("/true", "/true", (char *)NULL);
    die("exec");
}

static void life(const char *lower, const char *scratch, int with_groups)
{
    struct clone_args a = { .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
                            .exit_signal = SIGCHLD };
    int status, dir = -1;
    for (int i = 0; with_groups && i < ngroups; i++)
        if (mkdir(groups[i], 0755) < 0 && errno != EEXIST)
            die(groups[i]);
    if (with_groups && cpuset >= 0) {
        put(groups[cpuset], "cpuset.cpus", cpus);
        put(groups[cpuset], "cpuset.mems", mems);
    }
    if (with_groups && unified >= 0 && (dir = open(groups[unified], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0) {
        a.flags |= CLONE_INTO_CGROUP;
        a.cgroup = (unsigned long long)dir;
    }
    long pid = syscall(SYS_clone3, &a, sizeof a);
    if (pid < 0)
        die("clone3");
    if (pid == 0)
        child(lower, scratch, with_groups);
    if (waitpid((pid_t)pid, &status, 0) < 0 || status != 0)
        die("wait");
    if (dir >= 0)
        close(dir);
    for (int i = 0; with_groups && i < ngroups; i++)
        while (rmdir(groups[i]) < 0 && errno == EBUSY) {
        }
}

static void spawn(char **words, int n)
{
    char *argv[64], numbered[64][64];
    int k = 0, status;
    pid_t pid;
    posix_spawn_file_actions_t f;
    posix_spawn_file_actions_init(&f); /* what stays must not hold our pipe */
    posix_spawn_file_actions_addopen(&f, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    for (; words[k] && k < 63; k++) {
        char *at = strchr(words[k], '%');
        argv[k] = words[k];
        if (at && strlen(words[k]) < 40) {
            snprintf(numbered[k], sizeof numbered[k], "%.*s%d%s", (int)(at - words[k]), words[k], n, at + 1);
            argv[k] = numbered[k];
        }
    }
    argv[k] = NULL;
    if (posix_spawnp(&pid, argv[0], &f, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) < 0 || status != 0)
        die(argv[0]);
    posix_spawn_file_actions_destroy(&f);
}

static void end_soon(int signum)
{
    asked_to_end = signum;
}

int main(int argc, char **argv)
{
    int spawns = argc > 3 && strcmp(argv[1], "--spawn") == 0;
    if (argc < 4)
        return 2;
    int n = atoi(argv[spawns ? 2 : 3]), with_groups = !spawns && argc > 4;
    if (with_groups)
        find_groups();
    signal(SIGTERM, end_soon); /* after this run: what a runtime has begun it should finish */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < n && !asked_to_end; i++) {
        double cpu = cpu_us(), begin = now_us();
        if (spawns)
            spawn(argv + 3, i);
        else
            life(argv[1], argv[2], with_groups);
        double end = now_us();
        printf("%.1f %.1f\n", end - begin, cpu_us() - cpu);
    }
    return asked_to_end != 0;
}
