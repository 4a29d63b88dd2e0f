#include "../testing.h"

#include "base/clock.h"
#include "base/fd.h"
#include "blocked.h"
#include "sys/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void starts_are_told_apart(void **state)
{
    uint64_t mine = 0, again = 0, child = 0;
    assert_int_equal(zl_process_start_time(getpid(), &mine), 0);
    assert_int_equal(zl_process_start_time(getpid(), &again), 0);
    assert_true(mine > 0 && mine == again);
    pid_t pid = fork();
    if (pid == 0) {
        /* A name that looks like the fields that follow it must not shift them. */
        prctl(PR_SET_NAME, "a) R 1 2 (b");
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_int_equal(zl_process_start_time(pid, &child), 0);
    assert_true(child >= mine);
    (void)kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(zl_process_start_time(pid, &child), -ENOENT);
}

static void a_boot_has_an_id(void **state)
{
    char a[ZL_BOOT_ID_SIZE], b[ZL_BOOT_ID_SIZE];
    assert_int_equal(zl_boot_id(a), 0);
    assert_int_equal(zl_boot_id(b), 0);
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), 36);
}

static void the_dying_are_recognised(void **state)
{
    assert_false(zl_process_dying(getpid()));
    pid_t pid = fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    zl_auto_close int fd = zl_pidfd_open(pid);
    assert_true(fd >= 0);
    assert_false(zl_process_dying(pid));
    (void)kill(pid, SIGKILL);
    /* From here on it is: the signal pends, then it is a zombie, then it is gone. */
    assert_true(zl_process_dying(pid));
    struct pollfd p = { .fd = fd, .events = POLLIN };
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_true(zl_process_dying(pid));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(zl_process_dying(pid));
    assert_int_equal(zl_pidfd_open(pid), -ESRCH);
}

static int limited(void)
{
    const uint64_t keep = UINT64_C(1) << CAP_NET_BIND_SERVICE | UINT64_C(1) << CAP_CHOWN;
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    if (zl_caps_drop_bounding(keep) < 0 || zl_caps_limit(keep) < 0 || syscall(SYS_capget, &head, data) < 0)
        return 1;
    if (data[0].effective != keep || data[0].permitted != keep || data[1].effective || data[0].inheritable)
        return 2;
    for (int cap = 0; cap < 64; cap++) {
        int have = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (have >= 0 && have != (int)(keep >> cap & 1))
            return 3;
    }
    return 0;
}

static void capabilities_are_limited(void **state)
{
    if (geteuid() != 0) {
        fprintf(stderr, "skip: capabilities need root\n");
        skip();
    }
    pid_t pid = fork();
    if (pid == 0)
        _exit(limited());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void signals_have_names(void **state)
{
    static const struct {
        const char *name;
        int number;
    } cases[] = {
        { "SIGTERM", SIGTERM },
        { "term", SIGTERM },
        { "SIGQUIT", SIGQUIT },
        { "3", 3 },
        { "64", 64 },
        { "sigwinch", SIGWINCH },
        { "SIGRTMIN", 34 },
        { "RTMIN+3", 37 },
        { "SIGRTMAX-1", 63 },
        { "RTMAX", 64 },
        { "", 0 },
        { "0", 0 },
        { "65", 0 },
        { "-9", 0 },
        { "SIG", 0 },
        { "SIGTER", 0 },
        { "SIGTERMX", 0 },
        { "SIGSIGTERM", 0 },
        { "RTM", 0 },
        { "RTMIN+", 0 },
        { "RTMIN-1", 0 },
        { "RTMIN+31", 0 },
        { "RTMAX+1", 0 },
        { "RTMIN+1x", 0 },
        { "RTMID", 0 },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++)
        if (zl_signal_number(zl_str(cases[i].name)) != cases[i].number)
            fail_msg("'%s' is %d", cases[i].name, zl_signal_number(zl_str(cases[i].name)));
}

static int by_spawn(void)
{
    static const char *const cat[] = { "cat", NULL }, *const env[] = { NULL }, *const none[] = { "zl-none", NULL };
    int in[2], out[2], status;
    char text[8] = "";
    pid_t pid = 0, unchanged = 0;
    if (pipe(in) < 0 || pipe(out) < 0 || fcntl(in[1], F_SETFD, FD_CLOEXEC) < 0 || write(in[1], "fed", 3) != 3)
        return 1;
    if (zl_spawn("cat", cat, env, in[0], out[1], &pid) < 0)
        return 2;
    close(in[1]);
    if (waitpid(pid, &status, 0) != pid || status != 0 || read(out[0], text, sizeof text - 1) != 3)
        return 3;
    if (strcmp(text, "fed") != 0 || zl_spawn("/none", none, env, -EBADF, -EBADF, &unchanged) != -ENOENT)
        return 4;
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : 5;
}

static void programs_are_run_without_clone3_too(void **state)
{
    static const long calls[] = { SYS_clone3 };
    (void)state;
    assert_int_equal(by_spawn(), 0);
    assert_int_equal(blocked_run(by_spawn, calls, 1, EPERM), 0);
    assert_int_equal(blocked_run(by_spawn, calls, 1, ENOSYS), 0);
}

static int by_private(void)
{
    struct rlimit core;
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1 || zl_process_private() < 0)
        return 1;
    if (!ZL_SANITIZED && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return 2;
    return getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0 ? 0 : 3;
}

static void a_private_process_leaves_no_core(void **state)
{
    (void)state;
    assert_int_equal(blocked_run(by_private, NULL, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_private_process_leaves_no_core),
        cmocka_unit_test(starts_are_told_apart),
        cmocka_unit_test(a_boot_has_an_id),
        cmocka_unit_test(the_dying_are_recognised),
        cmocka_unit_test(capabilities_are_limited),
        cmocka_unit_test(signals_have_names),
        cmocka_unit_test(programs_are_run_without_clone3_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
