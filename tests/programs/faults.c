/*
 * faults record FILE PROGRAM ARGUMENT…
 *     writes a line "PROCESS CALL" for each system call of the program and of what it makes, and "PROCESS exec" for
 * each program that one of them becomes. A process is named by its place: 0, its second child 0.2, that one's first
 * 0.2.1. faults inject PROCESS CALL N ERROR PROGRAM ARGUMENT… the N-th CALL of that process is not done and fails with
 * ERROR, a name ("EIO"); with KILL, the process is killed there.
 *
 * The exit code is the program's, 128 and the number for a signal, or 99: there was no such call. What the program
 * leaves running is let go when it ends. strace counts for each process, too, but can't be told in which one to fail.
 */
#include "base/macros.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TRACEES_MAX = 256, NAME_SIZE = 64, NOT_REACHED = 99, TROUBLE = 98 };
#define OPTIONS \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)

struct tracee {
    pid_t pid;
    char name[NAME_SIZE]; /* "": it has stopped, and its parent has not said yet that it made it */
    unsigned children;
    bool inside, failing;
};

static struct tracee tracees[TRACEES_MAX];
static FILE *record;
static const char *victim;
static int wanted_call, error_code;
static long occurrence;
static bool reached;

static ZL_NORETURN void die(const char *what)
{
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    exit(TROUBLE);
}

static struct tracee *find(pid_t pid)
{
    struct tracee *free_one = NULL;
    for (unsigned i = 0; i < TRACEES_MAX; i++) {
        if (tracees[i].pid == pid)
            return &tracees[i];
        if (!tracees[i].pid && !free_one)
            free_one = &tracees[i];
    }
    if (!free_one) {
        errno = EAGAIN;
        die("too many processes");
    }
    *free_one = (struct tracee){ .pid = pid };
    return free_one;
}

/* The call itself becomes none, on its way in; what it returned is set on its way out. */
static void skip_call(pid_t pid)
{
#if defined(__x86_64__)
    if (ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1L) < 0)
        die("skip the call");
#elif defined(__aarch64__)
    int none = -1;
    struct iovec v = { &none, sizeof none };
    if (ptrace(PTRACE_SETREGSET, pid, 0x404 /* NT_ARM_SYSTEM_CALL */, &v) < 0)
        die("skip the call");
#endif
}

static void set_result(pid_t pid, long result)
{
#if defined(__x86_64__)
    if (ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), result) < 0)
        die("set the result");
#elif defined(__aarch64__)
    struct user_regs_struct regs;
    struct iovec v = { &regs, sizeof regs };
    if (ptrace(PTRACE_GETREGSET, pid, 1 /* NT_PRSTATUS */, &v) < 0)
        die("read the registers");
    regs.regs[0] = (unsigned long long)result;
    if (ptrace(PTRACE_SETREGSET, pid, 1, &v) < 0)
        die("set the result");
#endif
}

static void at_call(struct tracee *t)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, sizeof info, &info) < 0)
        return; /* it is being killed */
    if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        if (t->failing)
            set_result(t->pid, -error_code);
        t->failing = false;
        return;
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    if (record) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)info.entry.nr);
        fprintf(record, "%s %s\n", t->name, name ? name : "unknown");
        free(name);
    }
    if (!victim || reached || strcmp(victim, t->name) != 0 || (int)info.entry.nr != wanted_call || --occurrence > 0)
        return;
    reached = true;
    if (!error_code) {
        (void)kill(t->pid, SIGKILL);
        return;
    }
    skip_call(t->pid);
    t->failing = true;
}

static void new_child(struct tracee *parent)
{
    unsigned long made;
    if (ptrace(PTRACE_GETEVENTMSG, parent->pid, 0, &made) < 0)
        return;
    struct tracee *child = find((pid_t)made);
    int n = snprintf(child->name, sizeof child->name, "%s.%u", parent->name, ++parent->children);
    if (n >= (int)sizeof child->name)
        child->name[sizeof child->name - 1] = 0;
    if (child->inside) /* it waits already */
        (void)ptrace(PTRACE_SYSCALL, child->pid, 0, 0);
}

static void stopped(struct tracee *t, int status)
{
    int signum = WSTOPSIG(status), event = status >> 16;
    if (signum == (SIGTRAP | 0x80)) {
        at_call(t);
        signum = 0;
    } else if (event == PTRACE_EVENT_STOP) {
        if (!t->name[0]) { /* a new one: it goes on when it has its name */
            t->inside = true;
            return;
        }
        bool group = signum == SIGSTOP || signum == SIGTSTP || signum == SIGTTIN || signum == SIGTTOU;
        (void)ptrace(group ? PTRACE_LISTEN : PTRACE_SYSCALL, t->pid, 0, 0);
        return;
    } else if (event == PTRACE_EVENT_EXEC) {
        if (record)
            fprintf(record, "%s exec\n", t->name);
        signum = 0;
    } else if (event) {
        new_child(t);
        signum = 0;
    }
    (void)ptrace(PTRACE_SYSCALL, t->pid, 0, signum);
}

static pid_t spawn(char **argv)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)raise(SIGSTOP);
        execvp(argv[0], argv);
        die(argv[0]);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, WUNTRACED) != pid || ptrace(PTRACE_SEIZE, pid, 0, OPTIONS) < 0)
        die("trace the program");
    struct tracee *t = find(pid);
    t->name[0] = '0';
    (void)kill(pid, SIGCONT);
    return pid;
}

static int error_number(const char *name)
{
    for (int e = 1; e < 134; e++) {
        const char *known = strerrorname_np(e);
        if (known && strcmp(known, name) == 0)
            return e;
    }
    return -1;
}

static char **parse(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "record") == 0) {
        record = fopen(argv[2], "we");
        if (!record)
            die(argv[2]);
        return argv + 3;
    }
    if (argc > 6 && strcmp(argv[1], "inject") == 0) {
        victim = argv[2];
        wanted_call = seccomp_syscall_resolve_name(argv[3]);
        occurrence = strtol(argv[4], NULL, 10);
        error_code = strcmp(argv[5], "KILL") == 0 ? 0 : error_number(argv[5]);
        if (wanted_call >= 0 && occurrence > 0 && error_code >= 0)
            return argv + 6;
    }
    fprintf(stderr, "usage: faults record FILE PROGRAM… | faults inject PROCESS CALL N ERROR|KILL PROGRAM…\n");
    exit(TROUBLE);
}

int main(int argc, char **argv)
{
    pid_t first = spawn(parse(argc, argv));
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            die("wait");
        struct tracee *t = find(pid);
        if (WIFSTOPPED(status)) {
            stopped(t, status);
            continue;
        }
        t->pid = 0;
        if (pid != first)
            continue;
        if (record)
            fclose(record);
        if (victim && !reached)
            return NOT_REACHED;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}
