#include "store.h"

#include "base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static unsigned count(const char *dir, const char *prefix)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    if (d)
        closedir(d);
    return n;
}

static void a_first_open_makes_a_store_and_the_next_finds_all_of_it(void **state)
{
    char dir[64], sub[80];
    snprintf(sub, sizeof sub, "%s/cluster", make_folder(dir));
    struct store s;
    uint64_t start = zl_clock_mono_ms();
    assert_int_equal(store_open(&s, sub), 0);
    print_message("made and ready in %llu ms\n", (unsigned long long)(zl_clock_mono_ms() - start));
    uint64_t node = zl_cluster_node(s.cluster);
    assert_int_not_equal(node, 0);
    assert_int_equal(store_put(&s, "one", "{}"), 0);
    assert_int_equal(store_put(&s, "two", "{}"), 0);
    assert_int_equal(s.changed, 2);
    struct zl_command nobody = { .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "three" };
    assert_int_equal(store_do(&s, &nobody), ZL_E_NOT_FOUND);
    assert_int_equal(s.result.code, ZL_E_NOT_FOUND);
    store_close(&s);

    start = zl_clock_mono_ms();
    assert_int_equal(store_open(&s, sub), 0);
    print_message("loaded and ready in %llu ms\n", (unsigned long long)(zl_clock_mono_ms() - start));
    assert_int_equal(zl_cluster_node(s.cluster), node);
    assert_int_equal(zl_cluster_state(s.cluster)->ndeployments, 2);
    assert_int_equal(zl_cluster_state(s.cluster)->applied, 3);
    assert_int_equal(zl_cluster_damage(s.cluster)->code, 0);
    store_close(&s);
    assert_int_equal(count(sub, "kept"), 0); /* a clean end leaves no open segments */
    drop_folder(dir);
}

static void snapshots_replace_the_log_and_carry_the_chain(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s;
    assert_int_equal(store_open(&s, dir), 0);
    for (unsigned i = 0; i < 700; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%u", i % 7);
        assert_int_equal(store_put(&s, name, "{\"x\":\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\"}"), 0);
    }
    uint64_t chain = zl_cluster_state(s.cluster)->chain;
    store_close(&s);
    assert_in_range(count(dir, "snapshot-"), 2, 4); /* content and .meta of at most two */
    assert_int_equal(store_open(&s, dir), 0);
    assert_int_equal(zl_cluster_state(s.cluster)->applied, 700);
    assert_true(zl_cluster_state(s.cluster)->chain == chain);
    assert_int_equal(zl_cluster_state(s.cluster)->ndeployments, 7);
    store_close(&s);
    drop_folder(dir);
}

static void large_documents_fit_and_too_large_ones_are_refused(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s;
    assert_int_equal(store_open(&s, dir), 0);
    size_t sizes[] = { 100 << 10, 200 << 10, 300 << 10, 1 << 20 };
    for (unsigned i = 0; i < 4; i++) {
        char *spec = malloc(sizes[i] + 1);
        memset(spec, 'x', sizes[i]);
        spec[sizes[i]] = 0;
        int r = store_put(&s, "big", spec);
        print_message("%zu KiB: %s\n", sizes[i] >> 10, r ? s.last.text : "stored");
        assert_int_equal(r, 0);
        free(spec);
    }
    char *huge = malloc(4 << 20);
    memset(huge, 'x', 4 << 20);
    huge[(4 << 20) - 1] = 0;
    assert_int_equal(store_put(&s, "huge", huge), ZL_E_LIMIT);
    free(huge);
    assert_int_equal(store_put(&s, "small", "{}"), 0);
    store_close(&s);
    assert_int_equal(store_open(&s, dir), 0);
    assert_int_equal(strlen(zl_state_deployment(zl_cluster_state(s.cluster), "big")->spec), 1 << 20);
    store_close(&s);
    drop_folder(dir);
}

static void what_is_under_way_at_the_close_is_told_so(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s;
    assert_int_equal(store_open(&s, dir), 0);
    struct zl_command c = { .kind = ZL_COMMAND_NODE_INIT, .node = 5 };
    for (int i = 0; i < 5; i++)
        zl_cluster_propose(s.cluster, &c, store_done, &s);
    store_close(&s);
    assert_int_equal(s.done, 5);
    assert_int_equal(s.failed, 4); /* the first was on its way to the disk */
    drop_folder(dir);
}

static void closing_before_it_is_ready_is_fine(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s = { .loop = zl_loop_new() };
    struct zl_cluster_options o = { .dir = dir, .ready = store_ready, .arg = &s };
    assert_int_equal(zl_cluster_open(s.loop, &o, &s.cluster, &s.ready), 0);
    struct zl_command c = { .kind = ZL_COMMAND_NODE_INIT, .node = 5 };
    zl_cluster_propose(s.cluster, &c, store_done, &s);
    store_close(&s);
    assert_false(s.is_ready);
    assert_int_equal(s.done, 1);
    assert_int_equal(s.last.code, ZL_E_CANCELLED);
    drop_folder(dir);
}

static void a_store_of_a_newer_release_is_refused(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s;
    assert_int_equal(store_open(&s, dir), 0);
    assert_int_equal(store_put(&s, "one", "{}"), 0);
    store_close(&s);
    zl_auto_close int fd = zl_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    zl_auto_close int mark = zl_openat(fd, "mark", O_WRONLY, 0);
    assert_int_equal(pwrite(mark, "2", 1, 0), 1);
    assert_int_equal(store_open(&s, dir), ZL_E_STORE_NEWER);
    assert_non_null(strstr(s.ready.text, dir));
    zl_loop_free(s.loop);
    drop_folder(dir);
}

static void a_first_start_that_was_killed_half_way_is_begun_again(void **state)
{
    char dir[64];
    make_folder(dir);
    struct store s;
    assert_int_equal(store_open(&s, dir), 0);
    store_close(&s);
    zl_auto_close int fd = zl_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(unlinkat(fd, "0000000000000001-0000000000000001", 0), 0); /* the metadata is written before it */
    assert_int_equal(unlinkat(fd, "mark", 0), 0);
    assert_int_equal(store_open(&s, dir), 0);
    assert_int_equal(store_put(&s, "one", "{}"), 0);
    store_close(&s);
    drop_folder(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_open_makes_a_store_and_the_next_finds_all_of_it),
        cmocka_unit_test(a_first_start_that_was_killed_half_way_is_begun_again),
        cmocka_unit_test(snapshots_replace_the_log_and_carry_the_chain),
        cmocka_unit_test(large_documents_fit_and_too_large_ones_are_refused),
        cmocka_unit_test(what_is_under_way_at_the_close_is_told_so),
        cmocka_unit_test(closing_before_it_is_ready_is_fine),
        cmocka_unit_test(a_store_of_a_newer_release_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
