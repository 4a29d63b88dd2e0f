/*
 * Runs a test's body in a child with system calls switched off (each then gives `error`), so that fallbacks are tested
 * on any kernel. The body returns 0, or the line that went wrong. Thread: single-threaded tests.
 */
#pragma once

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static inline int blocked_run(int (*body)(void), const long *calls, size_t n, unsigned error)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct sock_filter code[2 + 2 * 8];
        unsigned short len = 0;
        code[len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
        for (size_t i = 0; i < n && i < 8; i++) {
            code[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
            code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
        }
        code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog program = { len, code };
        if (n &&
            (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0))
            _exit(99);
        int line = body();
        _exit(line == 0 ? 0 : line < 90 ? line : 98);
    }
    int status;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
