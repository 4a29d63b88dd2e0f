#include "../testing.h"

#include "base/frame.h"
#include "runtime/native/job.h"

#include <arpa/inet.h>
#include <errno.h>

static struct zl_job sample(void)
{
    static const char *argv[] = { "/bin/web", "", "x", NULL }, *env[] = { "A=b", NULL }, *none[] = { NULL };
    static const char *lowers[] = { "/l/2", "/l/1", NULL };
    static struct zl_job_pair files[] = { { "/etc/hosts", "127.0.0.1 localhost\n" } };
    static struct zl_job_mount mounts[] = { { "/proc", "proc", "proc", "", 14, 0 }, { "/m", "/src", "", "a=b", 1, 2 } };
    static struct zl_job_rlimit rlimits[] = { { 7, 1024, 4096 } };
    return (struct zl_job){ .id = "0123",
                            .hostname = "web-1",
                            .argv = argv,
                            .env = env,
                            .lowers = lowers,
                            .nlowers = 2,
                            .masked = none,
                            .readonly = none,
                            .files = files,
                            .nfiles = 1,
                            .cwd = "/",
                            .user = "web",
                            .cgroup_parent = "zlayer-x",
                            .memory_bytes = 1 << 20,
                            .cpu_quota_us = 50000,
                            .pids = 10,
                            .caps = { 0x800405fb, 1, 2, 3, UINT64_MAX },
                            .mounts = mounts,
                            .nmounts = 2,
                            .rlimits = rlimits,
                            .nrlimits = 1,
                            .seccomp = ZL_STR("12345678"),
                            .netns = "/run/netns",
                            .link = "zr0",
                            .addr = htonl(0x0ac80001),
                            .log_max_bytes = 5,
                            .log_files = 3 };
}

static void a_job_comes_back_as_it_was(void **state)
{
    struct zl_arena arena;
    struct zl_job in = sample(), out;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_arena_init(&arena);
    zl_job_encode(&b, &in);
    assert_int_equal(zl_job_decode(&arena, zl_buf_view(&b), &out), 0);
    assert_string_equal(out.id, "0123");
    assert_string_equal(out.argv[1], "");
    assert_string_equal(out.argv[2], "x");
    assert_null(out.argv[3]);
    assert_int_equal(out.nlowers, 2);
    assert_string_equal(out.lowers[1], "/l/1");
    assert_null(out.masked[0]);
    assert_string_equal(out.files[0].value, "127.0.0.1 localhost\n");
    assert_int_equal(out.nmounts, 2);
    assert_string_equal(out.mounts[0].target, "/proc");
    assert_string_equal(out.mounts[1].data, "a=b");
    assert_int_equal(out.mounts[1].propagation, 2);
    assert_int_equal(out.ndevices, 0);
    assert_int_equal(out.caps.bounding, 0x800405fb);
    assert_true(out.caps.ambient == UINT64_MAX);
    assert_int_equal(out.rlimits[0].hard, 4096);
    assert_int_equal(out.seccomp.n, 8);
    assert_int_equal(out.addr, htonl(0x0ac80001));
    zl_arena_done(&arena);
}

static void every_cut_and_every_flipped_header_byte_is_refused_or_harmless(void **state)
{
    struct zl_job in = sample(), out;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_job_encode(&b, &in);
    for (size_t n = 0; n < b.n; n++) {
        struct zl_arena arena;
        zl_arena_init(&arena);
        assert_true(zl_job_decode(&arena, zl_str_n(b.p, n), &out) < 0);
        zl_arena_done(&arena);
    }
    for (size_t i = 0; i < b.n; i++) {
        struct zl_arena arena;
        zl_arena_init(&arena);
        b.p[i] ^= 0x55;
        int r = zl_job_decode(&arena, zl_buf_view(&b), &out);
        assert_true(r == 0 || r == -EPROTO || r == -EMSGSIZE);
        b.p[i] ^= 0x55;
        zl_arena_done(&arena);
    }
}

static void what_it_does_not_know_or_is_told_twice_is_refused(void **state)
{
    struct zl_arena arena;
    struct zl_job in = sample(), out;
    static const uint16_t bad[] = { 0, 1 /* the id again */, 999 };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        zl_auto_buf b = ZL_BUF_INIT;
        zl_arena_init(&arena);
        zl_job_encode(&b, &in);
        zl_record_add_str(&b, bad[i], ZL_STR("x"));
        zl_frame_end(&b, 0);
        assert_int_equal(zl_job_decode(&arena, zl_buf_view(&b), &out), -EPROTO);
        zl_arena_done(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_comes_back_as_it_was),
        cmocka_unit_test(every_cut_and_every_flipped_header_byte_is_refused_or_harmless),
        cmocka_unit_test(what_it_does_not_know_or_is_told_twice_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
