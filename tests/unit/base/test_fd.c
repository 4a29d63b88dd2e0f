#include "../testing.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static int dir;

static int setup(void **state)
{
    (void)snprintf(folder, sizeof folder, "/tmp/zl-fd-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    dir = zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    return dir < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    dir = zl_close(dir);
    return zl_remove_tree(AT_FDCWD, folder);
}

static void an_atomic_write_replaces_and_leaves_nothing_else(void **state)
{
    assert_int_equal(zl_write_file_atomic(dir, "f", "one", 3, 0600, ZL_KILL_PROOF), 0);
    assert_int_equal(zl_write_file_atomic(dir, "f", "second", 6, 0600, ZL_POWER_PROOF), 0);
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(dir, "f", 100, &b), 0);
    assert_string_equal(b.p, "second");
    assert_int_equal(zl_read_file(dir, "f", 5, &b), -EFBIG);
    assert_string_equal(b.p, "second"); /* untouched on failure */
    assert_int_equal(unlinkat(dir, "f", 0), 0);
    assert_int_equal(rmdir(folder), 0); /* so nothing else was left */
    assert_int_equal(mkdir(folder, 0700), 0);
    dir = zl_close(dir);
    dir = zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
}

static void a_tree_is_removed_without_following_links(void **state)
{
    assert_int_equal(zl_write_file_atomic(dir, "keep", "x", 1, 0600, ZL_KILL_PROOF), 0);
    zl_auto_free char *deep = NULL;
    assert_true(asprintf(&deep, "%s/t/a/b/c", folder) > 0);
    assert_int_equal(zl_mkdir_p(deep, 0700), 0);
    assert_int_equal(zl_mkdir_p(deep, 0700), 0);
    assert_int_equal(symlinkat("../../keep", dir, "t/a/link"), 0);
    assert_int_equal(symlinkat("..", dir, "t/up"), 0);
    assert_int_equal(zl_remove_tree(dir, "t"), 0);
    assert_int_equal(faccessat(dir, "t", F_OK, 0), -1);
    assert_int_equal(faccessat(dir, "keep", F_OK, 0), 0);
    assert_int_equal(zl_remove_tree(dir, "t"), 0);
}

static void a_sealed_memfd_cannot_change(void **state)
{
    zl_auto_close int fd = zl_sealed_memfd("t", "abc", 3);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    char got[4] = "";
    assert_int_equal(pread(fd, got, 3, 0), 3);
    assert_string_equal(got, "abc");
}

static void *unmap_soon(void *p)
{
    (void)poll(NULL, 0, 20);
    (void)munmap(p, 4096);
    return NULL;
}

static void a_seal_waits_for_who_holds_a_page(void **state)
{
    zl_auto_close int fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 4096), 0);
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(zl_seal(fd), -EBUSY); /* for good */
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, unmap_soon, p), 0);
    assert_int_equal(zl_seal(fd), 0); /* for a moment */
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    zl_auto_close int file = zl_openat(dir, "keep", O_RDONLY, 0); /* not open for writing */
    assert_int_equal(zl_seal(file), -EPERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_atomic_write_replaces_and_leaves_nothing_else),
        cmocka_unit_test(a_tree_is_removed_without_following_links),
        cmocka_unit_test(a_sealed_memfd_cannot_change),
        cmocka_unit_test(a_seal_waits_for_who_holds_a_page),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
