/* linux.intelRdt over a folder that does what resctrl does: a class is born with its files and goes with them. What a
 * kernel with the hardware makes of it is not shown here. */
#include "../testing.h"

#include "base/fd.h"
#include "ocirun/ocirun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int __real_mkdirat(int dir, const char *path, mode_t mode);
int __real_unlinkat(int dir, const char *path, int flags);
int __wrap_mkdirat(int dir, const char *path, mode_t mode);
int __wrap_unlinkat(int dir, const char *path, int flags);

static char folder[64];
static int root, fail_mkdir;
static struct ocirun r;

static void put(const char *path, const char *text)
{
    zl_auto_close int fd = zl_openat(root, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0 && zl_write_full(fd, text, strlen(text)) == 0);
}

static void born(const char *path)
{
    char file[300];
    snprintf(file, sizeof file, "%s/tasks", path);
    put(file, "");
    if (strstr(path, "mon_groups"))
        return;
    snprintf(file, sizeof file, "%s/schemata", path);
    put(file, "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n");
    snprintf(file, sizeof file, "%s/mon_groups", path);
    assert_int_equal(__real_mkdirat(root, file, 0755), 0);
}

int __wrap_mkdirat(int dir, const char *path, mode_t mode)
{
    if (dir == root && fail_mkdir) {
        errno = fail_mkdir;
        return -1;
    }
    int e = __real_mkdirat(dir, path, mode);
    if (e == 0 && dir == root)
        born(path);
    return e;
}

int __wrap_unlinkat(int dir, const char *path, int flags)
{
    struct stat st;
    if (dir != root || !(flags & AT_REMOVEDIR))
        return __real_unlinkat(dir, path, flags);
    if (fstatat(dir, path, &st, 0) < 0)
        return -1;
    char whole[400];
    snprintf(whole, sizeof whole, "%s/%s", folder, path);
    int kept = root;
    root = -1; /* what removes the files is not the runtime */
    errno = -zl_remove_tree(AT_FDCWD, whole);
    root = kept;
    return errno ? -1 : 0;
}

static int make_tree(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/zl-rdt-XXXXXX");
    root = mkdtemp(folder) ? zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0) : -1;
    memset(&r, 0, sizeof r);
    zl_arena_init(&r.arena);
    fail_mkdir = 0;
    if (root >= 0)
        born(".");
    return root < 0 ? -1 : 0;
}

static int remove_tree(void **state)
{
    (void)state;
    zl_arena_done(&r.arena);
    root = zl_close(root);
    return zl_remove_tree(AT_FDCWD, folder);
}

static bool there(const char *path)
{
    return faccessat(root, path, F_OK, 0) == 0;
}

static void reads(const char *path, const char *expected)
{
    zl_auto_buf text = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(root, path, 4096, &text), 0);
    assert_string_equal(text.p, expected);
}

static struct ocirun_state made(const struct zl_oci_rdt *want)
{
    struct ocirun_state s = { .id = "web" };
    assert_int_equal(ocirun_rdt_plan(&r, want, &s), 0);
    assert_int_equal(ocirun_rdt_make(&r, root, want, &s), 0);
    return s;
}

static void a_class_of_its_own_comes_and_goes_with_it(void **state)
{
    const struct zl_oci_rdt want = { .there = true, .monitoring = true };
    (void)state;
    struct ocirun_state s = made(&want);
    reads("web/schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"); /* none asked, none written */
    assert_int_equal(ocirun_rdt_enter(&r, root, &s, 1234), 0);
    reads("web/tasks", "1234\n");
    reads("web/mon_groups/web/tasks", "1234\n");
    struct ocirun_state again = { .id = "web" };
    assert_int_equal(ocirun_rdt_plan(&r, &want, &again), 0);
    assert_int_equal(ocirun_rdt_make(&r, root, &want, &again), ZL_E_EXISTS);
    assert_int_equal(ocirun_rdt_remove(&r, root, &s), 0);
    assert_false(there("web"));
    assert_int_equal(ocirun_rdt_remove(&r, root, &s), 0); /* gone is gone */
}

static void lines_are_written_one_by_one_in_their_order(void **state)
{
    const char *more[] = { "L2:0=f", "MB:0=50" };
    const struct zl_oci_rdt want = {
        .there = true, .class_name = "gold", .l3 = "L3:0=1f", .bandwidth = "MB:0=20;1=70", .schemata = { more, 2 }
    };
    (void)state;
    struct ocirun_state s = made(&want);
    /* A file keeps what was written last at its front; the kernel takes each line by itself. */
    reads("gold/schemata", "MB:0=50\n1=70\n1=100\n    L3:0=7ff;1=7ff\n");
    assert_int_equal(ocirun_rdt_enter(&r, root, &s, 7), 0);
    reads("gold/tasks", "7\n");
    assert_int_equal(ocirun_rdt_change(&r, root, &s, "L3:0=3;1=3", NULL), 0);
    assert_int_equal(ocirun_rdt_change(&r, root, &s, "MB:0=3", NULL), ZL_E_INVALID);
    assert_int_equal(ocirun_rdt_change(&r, root, &s, NULL, "MB:0=3\nL3:0=1"), ZL_E_INVALID);
    assert_int_equal(ocirun_rdt_remove(&r, root, &s), 0);
    assert_true(there("gold")); /* a class that has a name is not ours to remove */
}

static void a_class_that_is_there_is_compared(void **state)
{
    static const struct {
        const char *l3, *bandwidth;
        int e;
    } rows[] = {
        { "L3:0=7f0;1=1f", NULL, 0 },
        { "L3:0=07F0;1=001f", "MB:0=20;1=70", 0 },
        { "L3:1=1f", NULL, 0 },
        { "L3:0=7f0;1=1f", "MB:0=30;1=70", ZL_E_CONFLICT },
        { "L3:0=7f;1=1f", NULL, ZL_E_CONFLICT },
        { "L3:0=7f0;2=1f", NULL, ZL_E_CONFLICT },
        { "L3CODE:0=7f0", NULL, ZL_E_CONFLICT },
        { NULL, NULL, 0 },
    };
    (void)state;
    assert_int_equal(mkdirat(root, "gold", 0755), 0);
    put("gold/schemata", "    MB:0=  20;1=  70\n    L3:0=0007f0;1=00001f\n");
    for (size_t i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        const struct zl_oci_rdt want = {
            .there = true, .class_name = "gold", .l3 = rows[i].l3, .bandwidth = rows[i].bandwidth
        };
        struct ocirun_state s = { .id = "web" };
        assert_int_equal(ocirun_rdt_plan(&r, &want, &s), 0);
        if (ocirun_rdt_make(&r, root, &want, &s) != rows[i].e)
            fail_msg("row %zu: %s", i, r.err.text);
        reads("gold/schemata", "    MB:0=  20;1=  70\n    L3:0=0007f0;1=00001f\n");
    }
    assert_true(there("gold"));
}

static void what_can_not_be_is_refused_and_leaves_nothing(void **state)
{
    static const struct {
        struct zl_oci_rdt want;
        int plan, make;
        const char *why;
    } rows[] = {
        { { .class_name = "none" }, 0, -ENOENT, "find the class none" },
        { { .class_name = "a/b" }, ZL_E_INVALID, 0, "'a/b' is no name" },
        { { .class_name = ".." }, ZL_E_INVALID, 0, "no name of a class" },
        { { .class_name = "info" }, ZL_E_INVALID, 0, "no name of a class" },
        { { .l3 = "L2:0=f" }, ZL_E_INVALID, 0, "begins with 'L3'" },
        { { .l3 = "L3:0=f\nMB:0=1" }, ZL_E_INVALID, 0, "linux.intelRdt.l3CacheSchema" },
        { { .bandwidth = "L3:0=f" }, ZL_E_INVALID, 0, "begins with 'MB:'" },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        struct zl_oci_rdt want = rows[i].want;
        struct ocirun_state s = { .id = "web" };
        want.there = true;
        int plan = ocirun_rdt_plan(&r, &want, &s);
        assert_int_equal(plan, rows[i].plan);
        if (plan == 0)
            assert_int_equal(ocirun_rdt_make(&r, root, &want, &s), rows[i].make);
        if (!strstr(r.err.text, rows[i].why))
            fail_msg("row %zu: %s", i, r.err.text);
        assert_false(there("web"));
    }
    const struct zl_oci_rdt own = { .there = true, .l3 = "L3:0=f" };
    struct ocirun_state s = { .id = "web" };
    assert_int_equal(ocirun_rdt_plan(&r, &own, &s), 0);
    fail_mkdir = ENOSPC;
    assert_int_equal(ocirun_rdt_make(&r, root, &own, &s), -ENOSPC);
    assert_non_null(strstr(r.err.text, "no more of them"));
}

/* /dev/full refuses as the kernel refuses a schema; why is in another file. */
static void the_kernels_reason_is_told(void **state)
{
    const struct zl_oci_rdt want = { .there = true, .class_name = "/", .bandwidth = "", .monitoring = true };
    const char *lines[] = { "L3:0=0" };
    (void)state;
    struct ocirun_state s = made(&want);
    assert_string_equal(s.rdt_class, ".");
    assert_true(there("mon_groups/web/tasks"));
    assert_int_equal(ocirun_rdt_remove(&r, root, &s), 0);
    assert_false(there("mon_groups/web"));
    assert_int_equal(__real_mkdirat(root, "info", 0755), 0);
    put("info/last_cmd_status", "Mask out of range\n");
    assert_int_equal(__real_unlinkat(root, "schemata", 0), 0);
    assert_int_equal(mknodat(root, "schemata", S_IFCHR | 0600, makedev(1, 7)), 0);
    struct zl_oci_rdt more = { .there = true, .class_name = "/", .schemata = { lines, 1 } };
    assert_int_equal(ocirun_rdt_plan(&r, &more, &s), 0);
    assert_int_equal(ocirun_rdt_change(&r, root, &s, "L3:0=0", NULL), -ENOSPC);
    assert_non_null(strstr(r.err.text, "write 'L3:0=0' to ./schemata: Mask out of range"));
}

int main(void)
{
    if (geteuid() != 0) {
        fprintf(stderr, "skip: device nodes need root\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, make_tree, remove_tree)
    const struct CMUnitTest tests[] = {
        T(a_class_of_its_own_comes_and_goes_with_it),
        T(lines_are_written_one_by_one_in_their_order),
        T(a_class_that_is_there_is_compared),
        T(what_can_not_be_is_refused_and_leaves_nothing),
        T(the_kernels_reason_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
