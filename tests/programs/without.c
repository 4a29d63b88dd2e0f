/*
 * without ENOSYS|EPERM PROGRAM ARGUMENT…: the program on a kernel without the newer system calls, or under a filter
 * that forbids them. `without NAMESPACES …`: under one that forbids new user namespaces, as engines' do. A copy of it
 * that ends in a line "\nwithout ENOSYS|EPERM PROGRAM\n" stands for that program, for callers that give it other
 * arguments and can't run a script. Root only, so that no_new_privs stays as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned calls[] = { SYS_openat2,  SYS_clone3,     SYS_open_tree, SYS_mount_setattr, SYS_fsopen,
                                  SYS_fsconfig, SYS_move_mount, SYS_fsmount,   SYS_close_range };
enum { CALLS = sizeof calls / sizeof *calls };

/* What the last line of our own file says, or false. */
static int read_appended(char *error, char *program)
{
    char tail[PATH_MAX + 32];
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = pread(fd, tail, sizeof tail - 1, size > (off_t)sizeof tail - 1 ? size - ((off_t)sizeof tail - 1) : 0);
    close(fd);
    if (n < 2 || tail[n - 1] != '\n')
        return 0;
    tail[n - 1] = 0;
    const char *line = memrchr(tail, '\n', (size_t)n - 1);
    return line && sscanf(line, "\nwithout %15s %4095s", error, program) == 2;
}

#define REFUSE(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
static const struct sock_filter namespaces[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 5, 0), /* what it asks for can't be seen */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 2),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    REFUSE(EPERM),
    REFUSE(ENOSYS),
};

int main(int argc, char **argv)
{
    struct sock_filter f[CALLS + 3];
    unsigned n = 0;
    char error[16], program[PATH_MAX];
    int appended = read_appended(error, program);
    if (!appended && argc < 3) {
        fprintf(stderr, "usage: without ENOSYS|EPERM|NAMESPACES PROGRAM ARGUMENT…\n");
        return 2;
    }
    unsigned code = strcmp(appended ? error : argv[1], "EPERM") == 0 ? EPERM : ENOSYS;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < CALLS; i++)
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], (unsigned char)(CALLS - i), 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code);
    struct sock_fprog prog = { .len = (unsigned short)n, .filter = f };
    if (!appended && strcmp(argv[1], "NAMESPACES") == 0)
        prog = (struct sock_fprog){ sizeof namespaces / sizeof *namespaces, (struct sock_filter *)namespaces };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) < 0) {
        perror("without: load the filter");
        return 2;
    }
    execv(appended ? program : argv[2], appended ? argv : argv + 2);
    perror("without: execute the program");
    return 2;
}
