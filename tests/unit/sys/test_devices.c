/* Device rules: what they come to, and that the kernel does it, by the v2 program and by v1's files. */
#include "../testing.h"

#include "base/fd.h"
#include "sys/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { R = ZL_DEVICE_READ, W = ZL_DEVICE_WRITE, M = ZL_DEVICE_MKNOD, RWM = R | W | M };

static void policies(void **state)
{
    static const struct {
        struct zl_device_rule rules[6];
        unsigned n;
        const char *result;
    } cases[] = {
        { { { 0 } }, 0, "allow" },
        { { { false, 'a', -1, -1, RWM } }, 1, "deny" },
        { { { false, 'a', -1, -1, RWM }, { true, 'c', 1, 3, R }, { true, 'c', 1, 3, W } },
          3,
          "deny c1:3/6" }, /* they add up */
        { { { false, 'a', -1, -1, RWM }, { true, 'c', 1, 3, RWM }, { false, 'c', 1, 3, W } }, 3, "deny c1:3/3" },
        { { { false, 'a', -1, -1, RWM }, { true, 'c', 1, 3, R }, { false, 'c', 1, 3, RWM } }, 3, "deny" },
        { { { false, 'a', -1, -1, RWM }, { true, 'c', 1, 3, R }, { true, 'a', -1, -1, RWM } }, 3, "allow" },
        { { { false, 'c', 1, -1, M }, { false, 'b', 8, 0, RWM } }, 2, "allow c1:-1/1 b8:0/7" },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        struct zl_device_rule room[6];
        struct zl_device_policy p = { .exceptions = room };
        zl_auto_buf text = ZL_BUF_INIT;
        zl_device_policy_make(cases[i].rules, cases[i].n, &p);
        zl_buf_puts(&text, p.allow ? "allow" : "deny");
        for (unsigned k = 0; k < p.n; k++)
            zl_buf_printf(&text, " %c%lld:%lld/%u", room[k].type, (long long)room[k].major, (long long)room[k].minor,
                          room[k].access);
        assert_string_equal(text.p, cases[i].result);
    }
}

static const struct zl_device_rule some[] = {
    { false, 'a', -1, -1, RWM }, { true, 'c', 1, 3, RWM }, { true, 'c', 1, 9, R }, { true, 'c', 5, -1, RWM }
};

static int tries(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* In the group: what may be opened, and how. */
static int look(const struct zl_cgroup *g)
{
    if (zl_cgroup_enter(g, true) < 0)
        return 1;
    if (tries("/dev/null", O_RDWR) != 0)
        return 2;
    if (tries("/dev/zero", O_RDONLY) != EPERM)
        return 3;
    if (tries("/dev/urandom", O_RDONLY) != 0)
        return 4;
    if (tries("/dev/urandom", O_WRONLY) != EPERM)
        return 5;
    return 0;
}

static int looked_from(const struct zl_cgroup *g)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(look(g));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void the_kernel_does_it(void **state)
{
    static const struct zl_cgroup_limits none;
    char id[32];
    struct zl_cgroup g;
    (void)state;
    if (geteuid() != 0 || zl_cgroup_find_all("zl-test-devices", "x", 0, &g) < 0 || g.layout == ZL_CGROUP_NONE) {
        fprintf(stderr, "skip: needs root and a cgroup file system\n");
        skip();
    }
    snprintf(id, sizeof id, "d%d", (int)getpid());
    assert_int_equal(zl_cgroup_find_all("zl-test-devices", id, 0, &g), 0);
    assert_int_equal(zl_cgroup_create(&g, &none), 0);
    assert_int_equal(zl_cgroup_set_devices(&g, some, ZL_ARRAY_LEN(some)), 0);
    int r = looked_from(&g);
    assert_int_equal(zl_cgroup_destroy(&g, 2000), 0);
    assert_int_equal(r, 0);
    /* The v2 program is there on a hybrid layout, too. */
    if (g.dir[ZL_CONTROLLER_UNIFIED][0] && g.dir[ZL_CONTROLLER_DEVICES][0]) {
        g.dir[ZL_CONTROLLER_DEVICES][0] = 0;
        assert_int_equal(zl_cgroup_create(&g, &none), 0);
        assert_int_equal(zl_cgroup_set_devices(&g, some, ZL_ARRAY_LEN(some)), 0);
        r = looked_from(&g);
        assert_int_equal(zl_cgroup_destroy(&g, 2000), 0);
        assert_int_equal(r, 0);
    }
    zl_cgroup_remove_parent("zl-test-devices");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies),
        cmocka_unit_test(the_kernel_does_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
