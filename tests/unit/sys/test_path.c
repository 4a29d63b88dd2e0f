#include "../testing.h"

#include "base/fd.h"
#include "blocked.h"
#include "sys/path.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *path;
    int flags;
    const char *content; /* of the file, "folder", or NULL: fails with `error` */
    int error;
} opens[] = {
    { "file", O_RDONLY, "top", 0 },
    { "/file", O_RDONLY, "top", 0 },
    { "//a/./b//file", O_RDONLY, "deep", 0 },
    { "", O_PATH | O_DIRECTORY, "folder", 0 },
    { "/", O_PATH | O_DIRECTORY, "folder", 0 },
    { "a/b/", O_PATH, "folder", 0 },
    { "file/", O_PATH, NULL, -ENOTDIR },
    { "none", O_RDONLY, NULL, -ENOENT },
    { "none/file", O_RDONLY, NULL, -ENOENT },
    { "file/file", O_RDONLY, NULL, -ENOTDIR },
    { "link", O_RDONLY, NULL, -ELOOP },
    { "link", O_PATH, NULL, -ELOOP },
    { "out", O_PATH | O_DIRECTORY, NULL, -ELOOP },
    { "out/passwd", O_RDONLY, NULL, -ELOOP },
    { "a/up/file", O_RDONLY, NULL, -ELOOP },
    { "absolute/passwd", O_RDONLY, NULL, -ELOOP },
    { "..", O_PATH, NULL, -EXDEV },
    { "../tree/file", O_RDONLY, NULL, -EXDEV },
    { "a/../file", O_RDONLY, NULL, -EXDEV },
    { "a/b/../../../x", O_RDONLY, NULL, -EXDEV },
};

static char top[64];
static int tree;

static int make_tree(void **state)
{
    snprintf(top, sizeof top, "/tmp/zl-path-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    zl_auto_close int dir = zl_openat(AT_FDCWD, top, O_RDONLY | O_DIRECTORY, 0);
    if (mkdirat(dir, "tree", 0755) < 0 || mkdirat(dir, "tree/a", 0755) < 0 || mkdirat(dir, "tree/a/b", 0755) < 0 ||
        symlinkat("file", dir, "tree/link") < 0 || symlinkat("../../../etc", dir, "tree/out") < 0 ||
        symlinkat("..", dir, "tree/a/up") < 0 || symlinkat("/etc", dir, "tree/absolute") < 0)
        return -1;
    tree = zl_openat(dir, "tree", O_PATH | O_DIRECTORY, 0);
    zl_auto_close int f = zl_openat(dir, "tree/file", O_WRONLY | O_CREAT, 0644);
    zl_auto_close int g = zl_openat(dir, "tree/a/b/file", O_WRONLY | O_CREAT, 0644);
    return zl_write_full(f, "top", 3) < 0 || zl_write_full(g, "deep", 4) < 0 ? -1 : 0;
}

static int remove_test_tree(void **state)
{
    zl_close(tree);
    return zl_remove_tree(AT_FDCWD, top);
}

/* 0, or a row's number from 1, counted so that a child can say it by its exit code. */
static int check_opens(void)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(opens); i++) {
        char content[16] = "";
        struct stat st;
        zl_auto_close int fd = zl_open_beneath(tree, opens[i].path, opens[i].flags);
        bool ok;
        if (!opens[i].content)
            ok = fd == opens[i].error;
        else if (zl_streq(opens[i].content, "folder"))
            ok = fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
        else
            ok = fd >= 0 && zl_read_full(fd, content, sizeof content - 1) > 0 && zl_streq(content, opens[i].content);
        if (!ok) {
            fprintf(stderr, "'%s' gave %d\n", opens[i].path, fd);
            return (int)i + 1;
        }
    }
    return 0;
}

static int check_folders(void)
{
    struct stat st;
    zl_auto_close int made = zl_open_folder_beneath(tree, "/new/er/est");
    zl_auto_close int again = zl_open_folder_beneath(tree, "new/er/est/");
    zl_auto_close int beside = zl_open_folder_beneath(tree, "a/up/x"), out = zl_open_folder_beneath(tree, "out/zl-x");
    zl_auto_close int file = zl_open_folder_beneath(tree, "file/x"), up = zl_open_folder_beneath(tree, "../x");
    if (made < 0 || again < 0 || fstatat(tree, "new/er/est", &st, 0) < 0 || !S_ISDIR(st.st_mode))
        return 1;
    if (zl_remove_tree(tree, "new") < 0)
        return 2;
    return beside == -ELOOP && out == -ELOOP && file == -ENOTDIR && up == -EXDEV ? 0 : 3;
}

static void opens_below_only(void **state)
{
    assert_int_equal(check_opens(), 0);
    assert_int_equal(check_folders(), 0);
}

static void the_same_without_openat2(void **state)
{
    static const long calls[] = { SYS_openat2 };
    assert_int_equal(blocked_run(check_opens, calls, 1, ENOSYS), 0);
    assert_int_equal(blocked_run(check_folders, calls, 1, ENOSYS), 0);
}

/* Links are followed and stay inside; what is missing is made where they lead. */
static int in_root(void)
{
    static const struct {
        const char *path, *made; /* where it then is, below top/ */
        bool file;
    } makes[] = {
        { "/new/deep/folder", "tree/new/deep/folder", false },
        { "absolute/made", "tree/etc/made", false }, /* -> /etc, which is ours, not the machine's */
        { "out/passwd", "tree/etc/passwd", true },   /* -> ../../../etc */
        { "a/up/a/b/more", "tree/a/b/more", false },
        { "dangling/x/y", "tree/a/nowhere/x/y", false }, /* -> a/./up/a/nowhere */
        { "file", "tree/file", true },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(makes); i++) {
        char where[200];
        struct stat want, have;
        zl_auto_close int fd = zl_make_in_root(tree, makes[i].path, makes[i].file);
        zl_auto_close int again = zl_open_in_root(tree, makes[i].path, O_PATH);
        snprintf(where, sizeof where, "%s/%s", top, makes[i].made);
        if (fd < 0 || again < 0 || fstat(fd, &have) < 0 || lstat(where, &want) < 0 || have.st_ino != want.st_ino ||
            S_ISREG(have.st_mode) != makes[i].file)
            return (int)i + 1;
    }
    static const struct {
        const char *path;
        int error;
    } refused[] = { { "../x", -EXDEV }, { "a/../x", -EXDEV }, { "file/x", -ENOTDIR }, { "loop/x", -ELOOP } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(refused); i++)
        if (zl_make_in_root(tree, refused[i].path, false) != refused[i].error)
            return 100 + (int)i;
    return 0;
}

/* What RESOLVE_IN_ROOT gives, by either way. */
static int opens_in_root(void)
{
    static const struct {
        const char *path;
        int flags;
        const char *content; /* "folder", or NULL: fails with `error` */
        int error;
    } rows[] = {
        { "link", O_RDONLY, "top", 0 },
        { "/link", O_RDONLY, "top", 0 },
        { "a/up/link", O_RDONLY, "top", 0 },
        { "a/up/a/b/file", O_RDONLY, "deep", 0 },
        { "a/up", O_PATH | O_DIRECTORY, "folder", 0 },
        { "a/up/", O_PATH, "folder", 0 },
        { "", O_PATH, "folder", 0 },
        { "../../..", O_PATH, "folder", 0 },
        { "a/../../link", O_RDONLY, "top", 0 },
        { "link", O_PATH | O_NOFOLLOW, "link", 0 },
        { "link", O_RDONLY | O_NOFOLLOW, NULL, -ELOOP },
        { "link/", O_PATH, NULL, -ENOTDIR },
        { "link/x", O_PATH, NULL, -ENOTDIR },
        { "file", O_PATH | O_DIRECTORY, NULL, -ENOTDIR },
        { "nothing", O_PATH, NULL, -ENOENT },
        { "dead", O_PATH, NULL, -ENOENT },
        { "dead/x", O_PATH, NULL, -ENOENT },
        { "loop", O_PATH, NULL, -ELOOP },
        { "loop/x", O_PATH, NULL, -ELOOP },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        char content[16] = "";
        struct stat st;
        zl_auto_close int fd = zl_open_in_root(tree, rows[i].path, rows[i].flags);
        bool ok;
        if (!rows[i].content)
            ok = fd == rows[i].error;
        else if (rows[i].flags & O_PATH)
            ok = fd >= 0 && fstat(fd, &st) == 0 && zl_streq(S_ISLNK(st.st_mode) ? "link" : "folder", rows[i].content);
        else
            ok = fd >= 0 && zl_read_full(fd, content, sizeof content - 1) > 0 && zl_streq(content, rows[i].content);
        if (!ok) {
            fprintf(stderr, "'%s' gave %d\n", rows[i].path, fd);
            return (int)i + 1;
        }
    }
    zl_auto_close int proc = zl_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0);
    zl_auto_close int self = zl_open_in_root(proc, "self/status", O_RDONLY);
    zl_auto_close int mounts = zl_open_in_root(proc, "mounts", O_RDONLY);
    return self < 0 || mounts < 0 || zl_open_in_root(proc, "self/cwd", O_PATH) != -ELOOP ||
                   zl_open_in_root(proc, "self/root/etc", O_PATH) != -ELOOP ||
                   zl_open_in_root(proc, "self/ns/mnt", O_PATH) != -ELOOP
               ? 80
               : 0;
}

static int everything_in_root(void)
{
    int r = in_root();
    return r ? r : opens_in_root();
}

static int make_links(void)
{
    zl_auto_close int dir = zl_openat(AT_FDCWD, top, O_RDONLY | O_DIRECTORY, 0);
    ZL_IGNORE(zl_remove_tree(tree, "etc"));
    ZL_IGNORE(zl_remove_tree(tree, "new"));
    ZL_IGNORE(zl_remove_tree(tree, "a/nowhere"));
    ZL_IGNORE(zl_remove_tree(tree, "a/b/more"));
    return (symlinkat("a/./up/a/nowhere", dir, "tree/dangling") < 0 || symlinkat("loop", dir, "tree/loop") < 0 ||
            symlinkat("a/none/x", dir, "tree/dead") < 0) &&
                   errno != EEXIST
               ? -errno
               : 0;
}

static void paths_in_a_root(void **state)
{
    (void)state;
    assert_int_equal(make_links(), 0);
    assert_int_equal(everything_in_root(), 0);
}

static void paths_in_a_root_without_openat2(void **state)
{
    static const long calls[] = { SYS_openat2 };
    (void)state;
    assert_int_equal(make_links(), 0);
    assert_int_equal(blocked_run(everything_in_root, calls, 1, ENOSYS), 0);
    assert_int_equal(make_links(), 0);
    assert_int_equal(blocked_run(everything_in_root, calls, 1, EPERM), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(opens_below_only), cmocka_unit_test(the_same_without_openat2),
                                        cmocka_unit_test(paths_in_a_root),
                                        cmocka_unit_test(paths_in_a_root_without_openat2) };
    return cmocka_run_group_tests(tests, make_tree, remove_test_tree);
}
