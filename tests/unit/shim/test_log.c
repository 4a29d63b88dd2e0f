/* The container's log as the shim writes it: lines, rotation by size and by count, and what a disk refuses. */
#include "../testing.h"

#include "base/fd.h"
#include "shim/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static int dir;
static struct shim_log l;

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/zl-log-XXXXXX");
    dir = mkdtemp(folder) ? zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0) : -1;
    memset(&l, 0, sizeof l);
    return dir < 0 ? -1 : 0;
}

static int remove_folder(void **state)
{
    (void)state;
    zl_close(dir);
    return zl_remove_tree(AT_FDCWD, folder);
}

static void say(unsigned stream, const char *text, size_t n)
{
    shim_log_feed(&l, stream, (struct zl_str){ text, n }, 1000);
}

static void read_log(const char *name, struct zl_buf *ret)
{
    assert_int_equal(zl_read_file(dir, name, 64 << 20, ret), 0);
}

static unsigned count_files(uint64_t *bytes)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    struct stat st;
    unsigned n = 0;
    *bytes = 0;
    while (d && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        assert_int_equal(fstatat(dir, e->d_name, &st, 0), 0);
        *bytes += (uint64_t)st.st_size;
    }
    closedir(d);
    return n;
}

static void it_never_takes_more_than_its_files_times_their_size(void **state)
{
    enum { LINES = 5000, SIZE = 8192, FILES = 3 };
    uint64_t bytes;
    char line[64], name[40];
    (void)state;
    assert_int_equal(shim_log_open(&l, dir, SIZE, FILES), 0);
    for (int i = 0; i < LINES; i++) {
        int n = snprintf(line, sizeof line, "line %d\n", i);
        say(i % 2, line, (size_t)n);
        assert_true(count_files(&bytes) <= FILES);
        assert_true(bytes <= FILES * SIZE);
    }
    assert_int_equal(count_files(&bytes), FILES);
    assert_true(bytes > (FILES - 1) * (SIZE - 100));
    /* The last ones, one after another, from the oldest file to the newest. */
    uint64_t last = l.generation;
    int next = -1;
    for (uint64_t g = last - FILES + 1; g <= last; g++) {
        zl_auto_buf text = ZL_BUF_INIT;
        snprintf(name, sizeof name, g == last ? "log" : "log.%llu", (unsigned long long)g);
        read_log(name, &text);
        for (char *save = NULL, *row = strtok_r(text.p, "\n", &save); row; row = strtok_r(NULL, "\n", &save)) {
            char time[40], stream[8], tag;
            int number;
            assert_int_equal(sscanf(row, "%39s %7s %c line %d", time, stream, &tag, &number), 4);
            assert_true(next < 0 || number == next);
            assert_string_equal(stream, number % 2 ? "stderr" : "stdout");
            assert_int_equal(tag, 'F');
            next = number + 1;
        }
    }
    assert_int_equal(next, LINES);
    shim_log_close(&l);
    /* The next shim of this folder goes on counting. */
    memset(&l, 0, sizeof l);
    assert_int_equal(shim_log_open(&l, dir, SIZE, FILES), 0);
    assert_true(l.generation == last);
    shim_log_close(&l);
}

static void what_is_not_said_has_defaults_and_what_is_too_small_a_least(void **state)
{
    (void)state;
    assert_int_equal(shim_log_open(&l, dir, 0, 0), 0);
    assert_true(l.max_bytes == 16 << 20 && l.max_files == 4);
    shim_log_close(&l);
    assert_int_equal(shim_log_open(&l, dir, 1, 1), 0);
    assert_true(l.max_bytes == 4096 && l.max_files == 2);
    shim_log_close(&l);
}

static void bytes_are_what_they_were(void **state)
{
    zl_auto_buf text = ZL_BUF_INIT, joined = ZL_BUF_INIT;
    char bytes[3 * SHIM_LOG_TEXT_MAX + 100];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7 % 256 == '\n' ? 0 : i * 7 % 256);
    assert_int_equal(shim_log_open(&l, dir, 0, 0), 0);
    for (size_t at = 0; at < sizeof bytes; at += 1000) /* as reads of a pipe come */
        say(0, bytes + at, ZL_MIN(sizeof bytes - at, (size_t)1000));
    say(0, "\n", 1);
    say(0, "\n", 1); /* an empty line is one */
    shim_log_close(&l);
    read_log("log", &text);
    unsigned parts = 0;
    const char *p = text.p, *end = text.p + text.n;
    for (; p < end; p = (const char *)memchr(p, '\n', (size_t)(end - p)) + 1) {
        const char *row = strchr(p, ' ') + 1, *newline = memchr(p, '\n', (size_t)(end - p));
        bool whole = memcmp(row, "stdout F ", 9) == 0;
        assert_true(whole || memcmp(row, "stdout P ", 9) == 0);
        assert_int_equal(whole, ++parts >= 4);
        zl_buf_add(&joined, row + 9, (size_t)(newline - row - 9));
    }
    assert_int_equal(parts, 5);
    assert_int_equal(joined.n, sizeof bytes);
    assert_memory_equal(joined.p, bytes, sizeof bytes);
}

static void a_line_that_does_not_end_is_shown_after_a_while(void **state)
{
    zl_auto_buf text = ZL_BUF_INIT;
    (void)state;
    assert_int_equal(shim_log_open(&l, dir, 0, 0), 0);
    say(0, "a prompt: ", 10);
    assert_int_equal(shim_log_tick(&l, 1000), SHIM_LOG_PART_MS);
    assert_int_equal(shim_log_tick(&l, 1000 + SHIM_LOG_PART_MS - 1), 1);
    assert_int_equal(l.size, 0);
    assert_int_equal(shim_log_tick(&l, 1000 + SHIM_LOG_PART_MS), -1);
    read_log("log", &text);
    assert_non_null(strstr(text.p, " stdout P a prompt: \n"));
    shim_log_close(&l);
}

/* A limit of the file's size stands for a full disk: writes take less than they are given, then nothing. */
static void lines_that_had_no_room_are_counted_and_told(void **state)
{
    struct rlimit before, small = { 5000, RLIM_INFINITY };
    zl_auto_buf text = ZL_BUF_INIT, again = ZL_BUF_INIT;
    char line[201];
    (void)state;
    memset(line, 'x', 200);
    line[200] = '\n';
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(shim_log_open(&l, dir, 0, 0), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 40; i++)
        say(1, line, sizeof line);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    read_log("log", &text);
    assert_true(text.n <= 5000 && text.p[text.n - 1] == '\n'); /* whole lines only */
    unsigned there = 0;
    for (const char *p = text.p; (p = strstr(p, "stderr F x")) != NULL; p++)
        there++;
    assert_true(there >= 15 && there < 40);
    say(1, "room\n", 5);
    shim_log_close(&l);
    read_log("log", &again);
    unsigned missing = 0, n;
    const char *last = again.p;
    for (const char *p = again.p; (p = strstr(p, "the disk was full, ")) != NULL; last = p++) {
        assert_int_equal(sscanf(p, "the disk was full, %u lines are missing here]", &n), 1);
        missing += n;
    }
    assert_int_equal(missing, 40 - there);
    assert_non_null(strstr(last, "stderr F room\n"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        T(it_never_takes_more_than_its_files_times_their_size),
        T(what_is_not_said_has_defaults_and_what_is_too_small_a_least),
        T(bytes_are_what_they_were),
        T(a_line_that_does_not_end_is_shown_after_a_while),
        T(lines_that_had_no_room_are_counted_and_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
