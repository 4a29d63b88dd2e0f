#include "../testing.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "runtime/logs.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    char path[64];
    int top, dir;
    struct zl_log_reader *r;
};

static int setup(void **state)
{
    static struct place p;
    snprintf(p.path, sizeof p.path, "/tmp/zl-logs-XXXXXX");
    assert_non_null(mkdtemp(p.path));
    p.top = zl_openat(AT_FDCWD, p.path, O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(zl_mkdirat(p.top, "i", 0755), 0);
    p.dir = zl_openat(p.top, "i", O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(zl_log_reader_open(p.top, "i", &p.r), 0);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    zl_log_reader_free(p->r);
    zl_close(p->dir);
    zl_close(p->top);
    return zl_remove_tree(AT_FDCWD, p->path);
}

static void append(struct place *p, const char *name, const char *text)
{
    zl_auto_close int fd = zl_openat(p->dir, name, O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_true(fd >= 0);
    assert_int_equal(zl_write_full(fd, text, strlen(text)), 0);
}

static struct zl_log_cursor expect(struct place *p, const char *text, bool is_stderr, bool partial)
{
    struct zl_log_entry e;
    assert_int_equal(zl_log_reader_next(p->r, &e), 1);
    zl_auto_free char *got = zl_xstrndup(e.text.p, e.text.n);
    assert_string_equal(got, text);
    assert_int_equal(e.is_stderr, is_stderr);
    assert_int_equal(e.partial, partial);
    return e.cursor;
}

static void expect_none(struct place *p)
{
    struct zl_log_entry e;
    assert_int_equal(zl_log_reader_next(p->r, &e), 0);
}

static void parts_of_both_streams_are_joined_also_behind_a_cursor_between_them(void **state)
{
    struct place *p = *state;
    expect_none(p);
    append(p, "log", "t1 stdout P a\nt2 stderr P x\nt3 stdout F b\n");
    struct zl_log_cursor between = expect(p, "ab", false, false);
    expect_none(p);
    append(p, "log", "t4 stderr F y\n");
    expect(p, "xy", true, false);
    zl_log_reader_seek(p->r, between);
    expect(p, "xy", true, false);
    expect_none(p);
}

static void reading_goes_on_across_rotation_and_a_lost_place_moves_to_the_oldest(void **state)
{
    struct place *p = *state;
    append(p, "log", "t stdout F 1\nt stdout F 2\n");
    expect(p, "1", false, false);
    struct zl_log_cursor two = expect(p, "2", false, false);
    append(p, "log", "t stdout F 3\n");
    assert_int_equal(renameat(p->dir, "log", p->dir, "log.1"), 0);
    append(p, "log", "t stdout F 4\n");
    expect(p, "3", false, false);
    expect(p, "4", false, false);
    expect_none(p);
    zl_log_reader_seek(p->r, two);
    expect(p, "3", false, false);
    assert_int_equal(renameat(p->dir, "log", p->dir, "log.2"), 0);
    append(p, "log", "t stdout F 5\n");
    assert_int_equal(unlinkat(p->dir, "log.1", 0), 0);
    zl_log_reader_seek(p->r, two);
    expect(p, "4", false, false);
    expect(p, "5", false, false);
    expect_none(p);
}

static void the_last_lines_are_found_across_files_and_count_whole_lines(void **state)
{
    struct place *p = *state;
    append(p, "log.1", "t stdout F 1\nt stdout F 2\n");
    append(p, "log.2", "t stdout F 3\nt stdout P 4\nt stdout F 4\n");
    append(p, "log", "t stdout F 5\nt stdout F 6\nt stdout F unfini");
    assert_int_equal(zl_log_reader_seek_last(p->r, 0), 0);
    expect_none(p);
    assert_int_equal(zl_log_reader_seek_last(p->r, 2), 0);
    expect(p, "5", false, false);
    assert_int_equal(zl_log_reader_seek_last(p->r, 3), 0);
    expect(p, "44", false, false);
    expect(p, "5", false, false);
    assert_int_equal(zl_log_reader_seek_last(p->r, 5), 0);
    expect(p, "2", false, false);
    assert_int_equal(zl_log_reader_seek_last(p->r, 100), 0);
    expect(p, "1", false, false);
}

static void what_is_unfinished_is_given_once_the_instance_has_ended(void **state)
{
    struct place *p = *state;
    append(p, "log", "t stdout P half\nnonsense\n");
    expect(p, "halfnonsense", false, false);
    append(p, "log", "t stderr P end");
    expect_none(p);
    assert_false(zl_log_reader_ended(p->r));
    append(p, "exit", "{}");
    expect(p, "end", true, true);
    expect_none(p);
    assert_true(zl_log_reader_ended(p->r));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(parts_of_both_streams_are_joined_also_behind_a_cursor_between_them),
        T(reading_goes_on_across_rotation_and_a_lost_place_moves_to_the_oldest),
        T(the_last_lines_are_found_across_files_and_count_whole_lines),
        T(what_is_unfinished_is_given_once_the_instance_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
