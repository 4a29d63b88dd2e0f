#include "image/helper.h"

#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HELPER_MS = 30000, OUTPUT_MAX = 64 << 10 };

/* A file name, so that no folder and no option can be meant. */
static bool name_valid(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if (!((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || (s[n] >= '0' && s[n] <= '9') ||
              strchr("-_.", s[n])))
            return false;
    return n > 0 && n <= 64;
}

static int spawn(const char *program, const char *verb, int in, int out, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    char *argv[] = { (char *)(uintptr_t)program, (char *)(uintptr_t)verb, NULL };
    int e = posix_spawnp(ret, program, &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -e;
}

/* Waits until fd is readable; -ETIMEDOUT or -errno. */
static int readable(int fd, uint64_t end)
{
    for (;;) {
        uint64_t now = zl_clock_mono_ms();
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int r = now < end ? poll(&p, 1, (int)(end - now)) : 0;
        if (r > 0)
            return 0;
        if (r == 0 || errno != EINTR)
            return r == 0 ? -ETIMEDOUT : -errno;
    }
}

/* Until the end of the output: 0, -ETIMEDOUT, -EFBIG or -errno. */
static int collect(int fd, uint64_t end, struct zl_buf *output)
{
    for (;;) {
        int r = readable(fd, end);
        if (r < 0)
            return r;
        zl_buf_reserve(output, 4096);
        ssize_t n = read(fd, output->p + output->n, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        output->n += (size_t)n;
        output->p[output->n] = 0;
        if (output->n > OUTPUT_MAX)
            return -EFBIG;
    }
}

/* Output and end within the time: one that has closed its output may still hang. What takes longer is killed. Reaped
 * in any case. */
static int finish(pid_t pid, int fd, unsigned limit_ms, struct zl_buf *output, int *status)
{
    uint64_t end = zl_clock_mono_ms() + limit_ms;
    zl_auto_close int process = pidfd_open(pid, 0);
    int r = process < 0 ? -errno : collect(fd, end, output);
    r = r < 0 ? r : readable(process, end);
    if (r < 0)
        (void)kill(pid, SIGKILL); /* not waited for yet, so the number is still its own */
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    return r;
}

static int failed(const char *program, int r, struct zl_str output, struct zl_err *err)
{
    char text[120];
    if (r < 0)
        return zl_fail_errno(err, ZL_E_INVALID, r, "the credential helper %s", program);
    snprintf(text, sizeof text, "%.*s", (int)ZL_MIN(output.n, sizeof text - 1), output.p);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = ' ';
    /* The words that the protocol knows helpers by that have nothing. */
    if (strstr(text, "credentials not found") || strstr(text, "no credentials"))
        return zl_fail(err, ZL_E_NOT_FOUND, "the credential helper %s has no credentials", program);
    return zl_fail(err, ZL_E_INVALID, "the credential helper %s failed: %s", program, text);
}

int zl_helper_run(const char *name, const char *verb, struct zl_str input, struct zl_buf *output, struct zl_err *err)
{
    return zl_helper_run_for(HELPER_MS, name, verb, input, output, err);
}

int zl_helper_run_for(unsigned limit_ms, const char *name, const char *verb, struct zl_str input, struct zl_buf *output,
                      struct zl_err *err)
{
    char program[100];
    int ends[2], status = 0;
    pid_t pid;
    if (!name_valid(name))
        return zl_fail(err, ZL_E_INVALID, "'%.60s' is no name of a credential helper", name);
    snprintf(program, sizeof program, "docker-credential-%s", name);
    zl_auto_close int in = zl_sealed_memfd("helper", input.p, input.n);
    int r = in < 0 ? in : lseek(in, 0, SEEK_SET) < 0 || pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
    if (r < 0)
        return zl_fail(err, r, "start the credential helper %s", program);
    zl_auto_close int from = ends[0];
    zl_auto_close int to = ends[1];
    r = spawn(program, verb, in, to, &pid);
    to = zl_close(to);
    if (r < 0)
        return zl_hint(err, zl_fail_errno(err, ZL_E_INVALID, r, "start the credential helper %s", program),
                       "the file with the credentials names it as credsStore or in credHelpers");
    r = finish(pid, from, limit_ms, output, &status);
    return r < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0 ? failed(program, r, zl_buf_view(output), err) : 0;
}
