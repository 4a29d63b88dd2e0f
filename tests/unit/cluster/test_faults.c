/*
 * What must not lose or misread desired state: a process killed at any moment, segments cut or changed byte by byte, a
 * full disk.
 */
#include "store.h"

#include "base/clock.h"
#include "base/id.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void copy_folder(const char *from, const char *to)
{
    assert_int_equal(mkdir(to, 0700), 0);
    DIR *d = opendir(from);
    for (struct dirent *e; (e = readdir(d));) {
        zl_auto_buf b = ZL_BUF_INIT;
        if (e->d_name[0] == '.' || zl_read_file(dirfd(d), e->d_name, 64 << 20, &b) < 0)
            continue;
        char path[400];
        snprintf(path, sizeof path, "%s/%s", to, e->d_name);
        zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(zl_write_full(fd, b.p ? b.p : "", b.n), 0);
    }
    closedir(d);
}

/* A child that proposes for ever and says after each acknowledgement how many there were. */
static void proposer(const char *dir, int out, unsigned from)
{
    struct store s;
    if (store_open(&s, dir) != 0)
        _exit(3);
    for (unsigned i = from;; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%u", i % 50);
        char spec[1024];
        memset(spec, 'x', sizeof spec);
        spec[100 + i * 37 % 900] = 0;
        if (store_put(&s, name, spec) != 0)
            _exit(4);
        unsigned n = i + 1;
        if (write(out, &n, sizeof n) != sizeof n)
            _exit(5);
    }
}

static void nothing_acknowledged_is_lost_by_kill_9(void **state)
{
    char dir[64];
    make_folder(dir);
    unsigned acknowledged = 0;
    for (unsigned round = 0; round < 15; round++) {
        int p[2];
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        pid_t child = fork();
        if (child == 0) {
            proposer(dir, p[1], acknowledged);
        }
        zl_close(p[1]);
        /* Some are killed while they open, most a moment after one of their first writes. */
        unsigned n;
        for (uint64_t acks = round % 3 ? 1 + zl_random_u64() % 8 : 0; acks; acks--)
            if (read(p[0], &n, sizeof n) == sizeof n)
                acknowledged = n;
        usleep((unsigned)(zl_random_u64() % (round % 3 ? 3000 : 45000)));
        kill(child, SIGKILL);
        while (read(p[0], &n, sizeof n) == sizeof n)
            acknowledged = n;
        zl_close(p[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        struct store s;
        int r = store_open(&s, dir);
        if (r)
            print_message("round %u: %s\n", round, s.ready.text);
        assert_int_equal(r, 0);
        uint64_t applied = zl_cluster_state(s.cluster)->applied;
        assert_in_range(applied, acknowledged, acknowledged + 1);
        acknowledged = (unsigned)applied;
        store_close(&s);
    }
    print_message("%u commands survived 15 kills\n", acknowledged);
    assert_in_range(acknowledged, 10, 1000000);
    drop_folder(dir);
}

/* Leaves `dir` as a killed agent would: open segments and no clean end. */
static void make_killed_store(const char *dir, unsigned commands)
{
    pid_t child = fork();
    if (child == 0) {
        struct store s;
        if (store_open(&s, dir) != 0)
            _exit(1);
        for (unsigned i = 0; i < commands; i++) {
            char name[16];
            snprintf(name, sizeof name, "d%u", i);
            if (store_put(&s, name, "{\"some\":\"document\"}") != 0)
                _exit(1);
        }
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

static bool open_segment(const char *dir, char path[400])
{
    DIR *d = opendir(dir);
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        zl_auto_buf b = ZL_BUF_INIT;
        if (strncmp(e->d_name, "open-", 5) != 0 || zl_read_file(dirfd(d), e->d_name, 1 << 20, &b) < 0)
            continue;
        for (size_t i = 0; i < b.n; i++)
            found |= b.p[i] != 0;
        snprintf(path, 400, "%s/%s", dir, e->d_name);
    }
    closedir(d);
    return found;
}

static int opens_as(const char *dir, uint64_t *applied, unsigned *deployments, struct zl_err *why)
{
    struct store s;
    int r = store_open(&s, dir);
    *why = s.ready;
    if (s.cluster && zl_cluster_state(s.cluster)) {
        *applied = zl_cluster_state(s.cluster)->applied;
        *deployments = zl_cluster_state(s.cluster)->ndeployments;
        if (r == ZL_E_STORE_DAMAGED) { /* reads work, writes say why not */
            assert_int_equal(store_put(&s, "new", "{}"), ZL_E_STORE_DAMAGED);
            assert_string_equal(s.last.text, zl_cluster_damage(s.cluster)->text);
            assert_true(s.last.hint[0]);
        }
    }
    store_close(&s);
    return r;
}

static void a_damaged_open_segment_is_noticed_wherever_it_is_hit(void **state)
{
    enum { COMMANDS = 12 };
    char dir[64], good[80], bad[80], segment[400];
    make_folder(dir);
    snprintf(good, sizeof good, "%s/good", dir);
    snprintf(bad, sizeof bad, "%s/bad", dir);
    make_killed_store(good, COMMANDS);
    assert_true(open_segment(good, segment));
    zl_auto_buf bytes = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, segment, 1 << 20, &bytes), 0);
    size_t used = bytes.n;
    while (used && bytes.p[used - 1] == 0)
        used--;
    unsigned damaged = 0, whole = 0, tries = 0;
    for (size_t at = 0; at < used; at += used / 16 + 1) {
        for (int cut = 0; cut < 2; cut++, tries++) {
            uint64_t applied = 0;
            unsigned deployments = 0;
            struct zl_err why;
            copy_folder(good, bad);
            char path[512];
            snprintf(path, sizeof path, "%s%s", bad, segment + strlen(good));
            zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_RDWR, 0);
            char byte = (char)(bytes.p[at] ^ 0x40);
            if (cut)
                assert_int_equal(ftruncate(fd, (off_t)at), 0);
            else
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
            int r = opens_as(bad, &applied, &deployments, &why);
            if (r == 0) {
                /* Only what no entry depends on may be changed unnoticed. */
                assert_int_equal(applied, COMMANDS);
                assert_int_equal(deployments, COMMANDS);
                whole++;
            } else {
                assert_int_equal(r, ZL_E_STORE_DAMAGED);
                assert_true(applied < COMMANDS);
                assert_int_equal(deployments, applied);
                damaged++;
                /* It stays damaged, and the evidence stays: the segments as they were are among what is kept. */
                assert_int_equal(opens_as(bad, &applied, &deployments, &why), ZL_E_STORE_DAMAGED);
                if (at) {
                    snprintf(path, sizeof path, "%s/kept/damaged-1%s", bad, segment + strlen(good));
                    struct stat st;
                    assert_int_equal(stat(path, &st), 0);
                }
            }
            drop_folder(bad);
        }
    }
    print_message("%u of %u places: damage was noticed; %u made no difference\n", damaged, tries, whole);
    assert_in_range(damaged, tries * 3 / 4, tries);
    drop_folder(dir);
}

static void closed_segments_and_snapshots_are_checked_too(void **state)
{
    char dir[64], good[80], bad[80];
    make_folder(dir);
    snprintf(good, sizeof good, "%s/good", dir);
    snprintf(bad, sizeof bad, "%s/bad", dir);
    struct store s;
    assert_int_equal(store_open(&s, good), 0);
    for (unsigned i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%u", i % 9);
        assert_int_equal(store_put(&s, name, "{\"some\":\"document\"}"), 0);
    }
    store_close(&s);
    DIR *d = opendir(good);
    unsigned hit = 0;
    for (struct dirent *e; (e = readdir(d));) {
        bool segment = e->d_name[0] >= '0' && e->d_name[0] <= '9', snapshot = strncmp(e->d_name, "snap", 4) == 0;
        if (!segment && !snapshot)
            continue;
        uint64_t applied = 0;
        unsigned deployments = 0;
        struct zl_err why;
        char path[400];
        copy_folder(good, bad);
        snprintf(path, sizeof path, "%s/%s", bad, e->d_name);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size / 2), 0);
        int r = opens_as(bad, &applied, &deployments, &why);
        print_message("%s cut in half: %s\n", e->d_name, r ? why.text : "whole");
        assert_true(r == ZL_E_STORE_DAMAGED || (r == 0 && applied == 300));
        if (r == ZL_E_STORE_DAMAGED && segment)
            assert_int_equal(deployments, 9); /* the snapshot can be read still */
        hit += r != 0;
        drop_folder(bad);
    }
    closedir(d);
    assert_in_range(hit, 2, 100);
    drop_folder(dir);
}

static void a_log_that_is_gone_is_not_an_empty_one(void **state)
{
    char dir[64];
    make_folder(dir);
    make_killed_store(dir, 3);
    zl_auto_close int fd = zl_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, "mark") != 0 && strcmp(e->d_name, "node") != 0)
            assert_int_equal(zl_remove_tree(fd, e->d_name), 0);
    closedir(d);
    uint64_t applied;
    unsigned deployments;
    struct zl_err why;
    assert_int_equal(opens_as(dir, &applied, &deployments, &why), ZL_E_STORE_DAMAGED);
    assert_non_null(strstr(why.text, dir));
    assert_non_null(strstr(why.text, "3 commands"));
    /* The repair that the hint names: accept what is left. */
    assert_int_equal(unlinkat(fd, "mark", 0), 0);
    assert_int_equal(opens_as(dir, &applied, &deployments, &why), 0);
    assert_int_equal(applied, 0);
    drop_folder(dir);
}

static void another_history_of_the_same_length_is_noticed(void **state)
{
    char a[64], b[64], path[100];
    make_folder(a);
    make_folder(b);
    struct store s;
    assert_int_equal(store_open(&s, a), 0);
    assert_int_equal(store_put(&s, "one", "{}"), 0);
    store_close(&s);
    assert_int_equal(store_open(&s, b), 0);
    assert_int_equal(store_put(&s, "two", "{}"), 0);
    store_close(&s);
    zl_auto_buf mark = ZL_BUF_INIT;
    snprintf(path, sizeof path, "%s/mark", b);
    assert_int_equal(zl_read_file(AT_FDCWD, path, 100, &mark), 0);
    zl_auto_close int fd = zl_openat(AT_FDCWD, a, O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(zl_write_file_atomic(fd, "mark", mark.p, mark.n, 0600, ZL_KILL_PROOF), 0);
    uint64_t applied;
    unsigned deployments;
    struct zl_err why;
    assert_int_equal(opens_as(a, &applied, &deployments, &why), ZL_E_STORE_DAMAGED);
    assert_int_equal(deployments, 1);
    drop_folder(a);
    drop_folder(b);
}

static void only_a_few_sets_of_segments_are_kept(void **state)
{
    char dir[64], kept[80];
    make_folder(dir);
    for (unsigned i = 0; i < 7; i++)
        make_killed_store(dir, 2);
    snprintf(kept, sizeof kept, "%s/kept", dir);
    DIR *d = opendir(kept);
    assert_non_null(d);
    unsigned sets = 0;
    for (struct dirent *e; (e = readdir(d));)
        sets += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(sets, 4);
    drop_folder(dir);
}

static void fill(const char *dir)
{
    char path[100], block[65536];
    memset(block, 'f', sizeof block);
    snprintf(path, sizeof path, "%s/filler", dir);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (size_t n = sizeof block; n;)
        if (write(fd, block, n) < (ssize_t)n)
            n /= 2;
}

static void a_full_disk_refuses_writes_and_nothing_else(void **state)
{
    char dir[64], sub[80];
    make_folder(dir);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=12m") < 0) {
        fprintf(stderr, "SKIP: a small file system needs root rights\n");
        rmdir(dir);
        skip();
    }
    snprintf(sub, sizeof sub, "%s/cluster", dir);
    struct store s;
    assert_int_equal(store_open(&s, sub), 0);
    assert_int_equal(store_put(&s, "before", "{}"), 0);
    fill(dir);
    assert_int_equal(store_put(&s, "during", "{}"), ZL_E_DISK_FULL);
    assert_int_equal(zl_cluster_state(s.cluster)->ndeployments, 1);
    char filler[100];
    snprintf(filler, sizeof filler, "%s/filler", dir);
    assert_int_equal(unlink(filler), 0);
    assert_int_equal(store_put(&s, "after", "{}"), 0);

    /* Full in the middle: what libraft itself runs into. The state stays readable, the next write opens it anew. */
    char *spec = malloc(120 << 10);
    memset(spec, 'x', 120 << 10);
    spec[(120 << 10) - 1] = 0;
    unsigned stored = 0, refused = 0;
    for (unsigned i = 0; i < 120; i++) {
        char name[16];
        snprintf(name, sizeof name, "big%u", i);
        int r = store_put(&s, name, spec);
        assert_true(r == 0 || r == ZL_E_DISK_FULL);
        stored += r == 0;
        refused += r != 0;
    }
    free(spec);
    print_message("%u large writes stored, %u refused\n", stored, refused);
    assert_in_range(stored, 2, 100);
    assert_in_range(refused, 2, 120);
    assert_non_null(zl_state_deployment(zl_cluster_state(s.cluster), "after"));
    uint64_t applied = zl_cluster_state(s.cluster)->applied;
    store_close(&s);
    assert_int_equal(store_open(&s, sub), 0); /* also a start on the full disk reads */
    assert_in_range(zl_cluster_state(s.cluster)->applied, applied, applied + 1);
    store_close(&s);
    assert_int_equal(umount(dir), 0);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First: libuv's threads stay in the mount namespace in which they were made. */
        cmocka_unit_test(a_full_disk_refuses_writes_and_nothing_else),
        cmocka_unit_test(nothing_acknowledged_is_lost_by_kill_9),
        cmocka_unit_test(a_damaged_open_segment_is_noticed_wherever_it_is_hit),
        cmocka_unit_test(closed_segments_and_snapshots_are_checked_too),
        cmocka_unit_test(a_log_that_is_gone_is_not_an_empty_one),
        cmocka_unit_test(another_history_of_the_same_length_is_noticed),
        cmocka_unit_test(only_a_few_sets_of_segments_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
