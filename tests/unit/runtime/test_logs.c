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

/* CRI lines as a shim writes them, from a seed: both streams, long lines, parts of one between those of the other. */
static void append_random(struct place *p, const char *name, unsigned *seed, unsigned lines)
{
    zl_auto_buf b = ZL_BUF_INIT;
    for (unsigned i = 0; i < lines; i++) {
        *seed = *seed * 1103515245 + 12345;
        unsigned dice = *seed >> 16;
        size_t n = dice % 4 == 0 ? 16384 : dice % 97;
        zl_buf_printf(&b, "t%u %s %s ", i, dice & 64 ? "stdout" : "stderr", dice % 4 == 0 || dice % 7 == 0 ? "P" : "F");
        for (size_t k = 0; k < n; k++)
            zl_buf_putc(&b, (char)((k + dice) % 255 == 10 ? 0 : (k + dice) % 255));
        zl_buf_putc(&b, '\n');
    }
    zl_auto_close int fd = zl_openat(p->dir, name, O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_int_equal(zl_write_full(fd, b.p, b.n), 0);
}

static void every_cursor_goes_on_exactly_where_its_entry_ended(void **state)
{
    struct place *p = *state;
    enum { MAX = 2000 };
    static struct zl_log_cursor at[MAX];
    static uint64_t sums[MAX];
    struct zl_log_entry e;
    unsigned seed = 3, n = 0, partial = 0;
    append_random(p, "log.1", &seed, 120);
    append_random(p, "log.2", &seed, 3);
    append_random(p, "log.3", &seed, 60);
    append_random(p, "log", &seed, 40);
    append(p, "exit", "{}");
    for (; zl_log_reader_next(p->r, &e) > 0; n++) {
        assert_true(n < MAX);
        at[n] = e.cursor;
        sums[n] = e.text.n * 2 + e.is_stderr;
        for (size_t k = 0; k < e.text.n; k++)
            sums[n] = sums[n] * 31 + (unsigned char)e.text.p[k];
        partial += e.partial;
    }
    assert_true(n > 100 && partial > 3);
    for (unsigned i = 0; i + 1 < n; i++) {
        zl_log_reader_seek(p->r, at[i]);
        for (unsigned k = i + 1; k < n; k++) {
            assert_int_equal(zl_log_reader_next(p->r, &e), 1);
            uint64_t sum = e.text.n * 2 + e.is_stderr;
            for (size_t c = 0; c < e.text.n; c++)
                sum = sum * 31 + (unsigned char)e.text.p[c];
            if (sum != sums[k])
                fail_msg("behind entry %u (%llu, %llu), entry %u differs", i, (unsigned long long)at[i].generation,
                         (unsigned long long)at[i].offset, k);
        }
        expect_none(p);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(parts_of_both_streams_are_joined_also_behind_a_cursor_between_them),
        T(reading_goes_on_across_rotation_and_a_lost_place_moves_to_the_oldest),
        T(the_last_lines_are_found_across_files_and_count_whole_lines),
        T(every_cursor_goes_on_exactly_where_its_entry_ended),
        T(what_is_unfinished_is_given_once_the_instance_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
