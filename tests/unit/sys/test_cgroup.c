/* Control groups for real, on whatever layout the machine has, under a parent of the test's own. Needs root. */
#include "../testing.h"

#include "base/clock.h"
#include "base/fd.h"
#include "sys/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char parent[64];

static void assert_ok_at(int r, int line)
{
    if (r < 0)
        fail_msg("line %d: %s", line, strerrorname_np(-r));
}
#define assert_ok(r) assert_ok_at((r), __LINE__)

static void pause_ms(long ms)
{
    struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&ts, NULL);
}

static struct zl_cgroup make(const char *id, const struct zl_cgroup_limits *limits)
{
    struct zl_cgroup g;
    assert_ok(zl_cgroup_find(parent, id, &g));
    assert_ok(zl_cgroup_create(&g, limits));
    return g;
}

/* A child that waits to be put into the group before it runs `body`. */
static pid_t start_in(const struct zl_cgroup *g, void (*body)(void))
{
    int gate[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char go;
        zl_close(gate[1]);
        if (zl_cgroup_enter(g, true) < 0 || zl_write_full(gate[0], "i", 1) < 0 || zl_read_full(gate[0], &go, 1) != 1)
            _exit(1);
        body();
        _exit(0);
    }
    zl_close(gate[0]);
    char inside;
    assert_int_equal(zl_read_full(gate[1], &inside, 1), 1);
    assert_ok(zl_write_full(gate[1], "x", 1));
    zl_close(gate[1]);
    return pid;
}

static int reap(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

static void take_64_mib(void)
{
    size_t n = 64 << 20;
    char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < n; i += 4096)
        ((volatile char *)p)[i] = 1;
}

static void burn(void)
{
    uint64_t end = zl_clock_mono_ms() + 400;
    while (zl_clock_mono_ms() < end) {
    }
}

/* Exits with how many children it could not make out of 20. */
static void fork_20(void)
{
    int failed = 0;
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0)
            wait_for_ever();
        failed += pid < 0;
    }
    _exit(failed);
}

/* Makes processes that make processes, as fast as it can. */
static void multiply(void)
{
    for (;;) {
        if (fork() < 0)
            pause_ms(1);
    }
}

static void has_limits_and_statistics(void **state)
{
    struct zl_cgroup_limits limits = { .memory_bytes = 32 << 20, .cpu_quota_us = 50000, .pids = 10 };
    struct zl_cgroup g = make("limits", &limits);
    struct zl_cgroup_stats s;
    pid_t pid = start_in(&g, wait_for_ever);
    assert_ok(zl_cgroup_stats(&g, &s));
    assert_int_equal(s.memory_limit, limits.memory_bytes);
    assert_int_equal(s.pids, 1);
    assert_int_equal(zl_cgroup_empty(&g), 0);
    assert_ok(zl_cgroup_kill(&g));
    assert_int_equal(WTERMSIG(reap(pid)), SIGKILL);
    assert_int_equal(zl_cgroup_empty(&g), 1);
    assert_int_equal(WEXITSTATUS(reap(start_in(&g, fork_20))) >= 11, 1);
    assert_ok(zl_cgroup_destroy(&g, 5000));
    assert_ok(zl_cgroup_destroy(&g, 0)); /* once more is no error */
}

static void the_quota_holds(void **state)
{
    struct zl_cgroup_limits limits = { .cpu_quota_us = 20000 };
    struct zl_cgroup g = make("quota", &limits);
    struct zl_cgroup_stats before, after;
    assert_ok(zl_cgroup_stats(&g, &before));
    (void)reap(start_in(&g, burn));
    assert_ok(zl_cgroup_stats(&g, &after));
    uint64_t used = after.cpu_usec - before.cpu_usec;
    /* A fifth of 400 ms, a period more or less. */
    assert_in_range(used, 10000, 200000);
    assert_ok(zl_cgroup_destroy(&g, 5000));
}

static void an_oom_kill_is_counted_and_told(void **state)
{
    struct zl_cgroup_limits limits = { .memory_bytes = 16 << 20 };
    struct zl_cgroup g = make("oom", &limits);
    uint64_t kills = 99;
    assert_ok(zl_cgroup_oom_kills(&g, &kills));
    assert_int_equal(kills, 0);
    int fd = zl_cgroup_oom_fd(&g);
    assert_ok(fd);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    assert_int_equal(poll(&p, 1, 0), 0);
    int status = reap(start_in(&g, take_64_mib));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_ok(zl_cgroup_oom_kills(&g, &kills));
    assert_int_equal(kills, 1);
    zl_close(fd);
    assert_ok(zl_cgroup_destroy(&g, 5000));
}

static void destroy_and_reap(struct zl_cgroup *g, const struct zl_cgroup *real)
{
    uint64_t start = zl_clock_mono_ms();
    pid_t first = start_in(real, multiply);
    struct zl_cgroup_stats s;
    do
        assert_ok(zl_cgroup_stats(real, &s));
    while (s.pids < 100 && zl_clock_mono_ms() < start + 5000);
    assert_true(s.pids >= 100);
    /* Zombies stay in the group until they are reaped: the first one by us, its children by init. */
    assert_ok(zl_cgroup_kill(g));
    (void)reap(first);
    assert_ok(zl_cgroup_destroy(g, 10000));
}

static void a_fork_bomb_ends(void **state)
{
    struct zl_cgroup_limits limits = { .pids = 200 };
    struct zl_cgroup g = make("bomb", &limits);
    destroy_and_reap(&g, &g);
    assert_ok(zl_cgroup_destroy(&g, 0));
}

/* As on a kernel without cgroup.kill: the group's other directories only, or a v2 tree by freezing. */
static void a_fork_bomb_ends_without_cgroup_kill(void **state)
{
    struct zl_cgroup_limits limits = { .pids = 200 };
    struct zl_cgroup g = make("bomb2", &limits), old = g;
    if (g.layout == ZL_CGROUP_V2) {
        fprintf(stderr, "skip: v2 only, cgroup.kill can't be hidden\n");
        assert_ok(zl_cgroup_destroy(&g, 0));
        skip();
    }
    old.dir[ZL_CONTROLLER_UNIFIED][0] = 0;
    destroy_and_reap(&old, &g);
    assert_ok(zl_cgroup_destroy(&g, 5000));
}

static void groups_below_go_too(void **state)
{
    struct zl_cgroup_limits limits = { 0 };
    struct zl_cgroup g = make("nested", &limits), deep = g;
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        if (!deep.dir[c][0])
            continue;
        snprintf(deep.dir[c], sizeof deep.dir[c], "%s/below/deep", g.dir[c]);
        assert_ok(zl_mkdir_p(deep.dir[c], 0755));
    }
    pid_t pid = start_in(&deep, wait_for_ever);
    assert_int_equal(zl_cgroup_empty(&g), 0);
    assert_ok(zl_cgroup_kill(&g));
    assert_int_equal(WTERMSIG(reap(pid)), SIGKILL);
    assert_ok(zl_cgroup_destroy(&g, 5000));
}

static void what_will_not_die_is_said(void **state)
{
    struct zl_cgroup_limits limits = { 0 };
    struct zl_cgroup g = make("zombie", &limits);
    pid_t pid = start_in(&g, wait_for_ever); /* killed, it stays until it is reaped */
    int r = zl_cgroup_destroy(&g, 50);
    (void)reap(pid);
    /* v2 lets a group of zombies go; v1 counts them. */
    assert_true(r == 0 || r == -EBUSY);
    assert_ok(zl_cgroup_destroy(&g, 5000));
}

static int start_parent(void **state)
{
    snprintf(parent, sizeof parent, "zlayer-test%d", (int)getpid());
    return 0;
}

static int no_parent_left(void **state)
{
    struct zl_cgroup g;
    struct stat st;
    zl_cgroup_remove_parent(parent);
    assert_ok(zl_cgroup_find(parent, "x", &g));
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++) {
        if (!g.dir[c][0])
            continue;
        g.dir[c][strlen(g.dir[c]) - 2] = 0;
        if (stat(g.dir[c], &st) == 0) {
            fprintf(stderr, "left behind: %s\n", g.dir[c]);
            return -1;
        }
    }
    return 0;
}

int main(void)
{
    struct zl_cgroup g;
    if (geteuid() != 0 || zl_cgroup_find("x", "x", &g) < 0 || g.layout == ZL_CGROUP_NONE) {
        fprintf(stderr, "skip: control groups need root and a mounted hierarchy\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_limits_and_statistics),
        cmocka_unit_test(the_quota_holds),
        cmocka_unit_test(an_oom_kill_is_counted_and_told),
        cmocka_unit_test(a_fork_bomb_ends),
        cmocka_unit_test(a_fork_bomb_ends_without_cgroup_kill),
        cmocka_unit_test(groups_below_go_too),
        cmocka_unit_test(what_will_not_die_is_said),
    };
    return cmocka_run_group_tests(tests, start_parent, no_parent_left);
}
