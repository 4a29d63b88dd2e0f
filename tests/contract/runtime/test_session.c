/* Sessions of the native back end: commands with live streams and terminals, and what misbehaves. Root. */
#include "talk.h"

#include "base/clock.h"
#include "base/fd.h"
#include "runtime/native/conn.h"
#include "runtime/native/protocol.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *workload, *shim;

#define ARGV(...)                      \
    (const char *const[])              \
    {                                  \
        "/workload", __VA_ARGS__, NULL \
    }

static int setup(void **state)
{
    static struct world w;
    world_open(&w, true, workload, shim);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

static void a_command_has_two_streams_input_with_an_end_and_an_exit_code(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    forever(w, &spec);
    run(w, &t, spec.id, ARGV("err", "to stderr", "echo", "exit", "3"), (struct zl_rt_session_spec){ .input = true });
    world_until(w, &t.opened, 5000);
    write_text(&t, "one\n");
    until_says(&t, "one\n");
    assert_false(t.over);
    write_text(&t, "two");
    zl_rt_session_end_input(t.s);
    until_over(&t);
    assert_string_equal(t.err.text, "");
    assert_string_equal(t.out.p, "one\ntwoend\n");
    assert_string_equal(t.errs.p, "to stderr\n");
    assert_int_equal(t.end.code, 3);
    assert_int_equal(t.end.signal, 0);
    done(&t);
    /* Without input there is none, and a signal is told as shells do. */
    run(w, &t, spec.id, ARGV("echo", "signal", "15"), (struct zl_rt_session_spec){ 0 });
    until_over(&t);
    assert_string_equal(t.out.p, "end\n");
    assert_int_equal(t.end.code, 128 + SIGTERM);
    assert_int_equal(t.end.signal, SIGTERM);
    done(&t);
    /* Input that nobody reads stops nobody. */
    run(w, &t, spec.id, ARGV("exit", "0"), (struct zl_rt_session_spec){ .input = true });
    for (int i = 0; i < 100 && !t.over; i++) {
        zl_auto_free char *big = zl_xcalloc(1, 60000);
        (void)!zl_rt_session_write(t.s, zl_str_n(big, 60000));
        world_pass(w, 1);
    }
    until_over(&t);
    assert_int_equal(t.end.code, 0);
    done(&t);
}

static void user_folder_variables_and_rights_are_as_asked(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static const char *const argv[] = { "/workload", "cat", "/proc/self/status", "cat", "/proc/self/environ" };
    static const char *const env[] = { "ADDED=yes", "GONE", "KEPT=changed" };
    static const char *const own[] = { "GONE=1", "KEPT=1" };
    struct zl_rt_exec exec = {
        .argv = argv, .nargv = 5, .env = env, .nenv = 3, .cwd = "/etc", .user = "web", .privileged = false
    };
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    spec.env = own;
    spec.nenv = 2;
    world_run(w, &spec);
    world_says(w, spec.id, "ready");
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .exec = &exec });
    until_over(&t);
    assert_string_equal(t.err.text, "");
    assert_non_null(strstr(t.out.p, "Uid:\t1000\t1000"));
    assert_non_null(strstr(t.out.p, "CapEff:\t0000000000000000"));
    assert_non_null(memmem(t.out.p, t.out.n, "ADDED=yes", 10));
    assert_non_null(memmem(t.out.p, t.out.n, "KEPT=changed", 13));
    assert_null(memmem(t.out.p, t.out.n, "GONE", 4));
    done(&t);
    exec.user = NULL;
    exec.privileged = true;
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .exec = &exec });
    until_over(&t);
    assert_string_equal(t.err.text, "");
    uint64_t caps = strtoull(strstr(t.out.p, "CapEff:\t") + 8, NULL, 16);
    assert_true(caps >> 21 & 1); /* SYS_ADMIN */
    assert_non_null(strstr(t.out.p, "Seccomp:\t2"));
    done(&t);
}

static void a_terminal_is_controlling_has_a_size_and_echoes(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static const char *const argv[] = { "/workload", "tty", "size" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 3, .user = "web" };
    forever(w, &spec);
    begin(w, &t, spec.id,
          &(struct zl_rt_session_spec){ .exec = &exec, .tty = true, .input = true, .rows = 24, .columns = 80 });
    until_says(&t, "tty 1 1 1 controlling yes leader yes owner 1000\r\n");
    until_says(&t, "size 0 24 80\r\n");
    zl_rt_session_resize(t.s, 50, 132);
    until_says(&t, "size 0 50 132\r\n");
    write_text(&t, "\003"); /* the terminal makes SIGINT of it */
    until_over(&t);
    assert_int_equal(t.end.signal, SIGINT);
    assert_int_equal(t.end.code, 130);
    done(&t);
    run(w, &t, spec.id, ARGV("echo", "exit", "7"), (struct zl_rt_session_spec){ .tty = true, .input = true });
    write_text(&t, "typed\n");
    until_says(&t, "typed\r\ntyped\r\n"); /* the terminal's echo, then the program's */
    zl_rt_session_end_input(t.s);
    until_over(&t);
    assert_non_null(strstr(t.out.p, "end\r\n"));
    assert_int_equal(t.end.code, 7);
    done(&t);
    /* Everything a program wrote before it ended has come. */
    for (int i = 0; i < 20; i++) {
        run(w, &t, spec.id, ARGV("fill", "40", "exit", "0"), (struct zl_rt_session_spec){ .tty = true });
        until_over(&t);
        assert_true(t.n >= 40 * 1024);
        done(&t);
    }
}

static void a_slow_reader_holds_up_its_own_command_only(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk slow, quick;
    static struct answer a;
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    run(w, &slow, spec.id, ARGV("fill", "20000", "exit", "5"), (struct zl_rt_session_spec){ 0 });
    slow.checks = true;
    world_until(w, &slow.opened, 5000);
    zl_rt_session_hold(slow.s, true);
    world_pass(w, 200);
    long before = own_kib(pid);
    uint64_t at = slow.n;
    assert_true(at < 5000 * 1024);
    for (int i = 0; i < 5; i++) {
        run(w, &quick, spec.id, ARGV("say", "quick", "exit", "0"), (struct zl_rt_session_spec){ 0 });
        until_over(&quick);
        assert_string_equal(quick.out.p, "quick\n");
        done(&quick);
        assert_int_equal(world_stats(w, spec.id, &a), 0);
    }
    assert_int_equal(slow.n, at);
    assert_at_most(own_kib(pid), before + 192);
    zl_rt_session_hold(slow.s, false);
    until_over(&slow);
    assert_int_equal(slow.n, 20000 * 1024);
    assert_int_equal(slow.end.code, 5);
    done(&slow);
    world_pass(w, 50);
    assert_at_most(own_kib(pid), before + 192);
}

static void input_waits_for_its_reader_without_bound_for_nobody(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    enum { BLOCK = 32768, BLOCKS = 64 };
    static char block[BLOCK];
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    memset(block, 'i', sizeof block);
    run(w, &t, spec.id, ARGV("slow-echo", "300"), (struct zl_rt_session_spec){ .input = true });
    int sent = 0, refused = 0;
    while (sent < BLOCKS) {
        t.writable = false;
        if (zl_rt_session_write(t.s, zl_str_n(block, BLOCK)) == 0) {
            sent++;
            continue;
        }
        refused++;
        world_until(w, &t.writable, 10000);
    }
    assert_true(refused > 0);
    assert_at_most(own_kib(pid), 512);
    zl_rt_session_end_input(t.s);
    until_over(&t);
    assert_int_equal(t.out.n, (size_t)BLOCK * BLOCKS + 4);
    done(&t);
}

static bool is_there(struct world *w, const char *id, const char *name)
{
    struct stat st;
    zl_auto_free char *path = zl_xasprintf("%s/%s/upper/%s", w->containers, id, name);
    return stat(path, &st) == 0;
}

static void until_there(struct world *w, const char *id, const char *name)
{
    for (uint64_t end = zl_clock_mono_ms() + 10000; !is_there(w, id, name); world_pass(w, 5))
        if (zl_clock_mono_ms() > end)
            fail_msg("no file %s", name);
}

static void cancelled(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    (void)arg;
    assert_null(reply);
    assert_int_equal(err->code, ZL_E_CANCELLED);
}

static void a_command_outlives_its_client_and_one_with_a_terminal_is_hung_up_on(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    forever(w, &spec);
    run(w, &t, spec.id, ARGV("echo", "fill", "1000", "touch", "/went-on", "exit", "0"),
        (struct zl_rt_session_spec){ .input = true });
    world_until(w, &t.opened, 5000);
    done(&t);
    until_there(w, spec.id, "went-on");
    until_processes(w, spec.id, 1);
    run(w, &t, spec.id, ARGV("say", "up", "forever"), (struct zl_rt_session_spec){ .tty = true });
    until_says(&t, "up");
    until_processes(w, spec.id, 2);
    done(&t);
    until_processes(w, spec.id, 1);
    /* A buffered one that nobody waits for any more is ended. */
    const char *const argv[] = { "/workload", "forever" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 2 };
    uint64_t call = zl_runtime_exec(w->rt, spec.id, &exec, cancelled, NULL);
    until_processes(w, spec.id, 2);
    zl_runtime_cancel(w->rt, call);
    until_processes(w, spec.id, 1);
}

static void sessions_survive_the_agents_death_as_documented(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static struct answer a;
    forever(w, &spec);
    run(w, &t, spec.id, ARGV("sleep", "300", "touch", "/later", "exit", "0"), (struct zl_rt_session_spec){ 0 });
    world_until(w, &t.opened, 5000);
    done(&t);
    world_reopen(w);
    world_list(w, &a);
    until_there(w, spec.id, "later");
    until_processes(w, spec.id, 1);
}

static void limits_and_errors_are_told_and_the_shim_goes_on(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t, many[24];
    static const char *words[5000];
    forever(w, &spec);
    for (size_t i = 0; i < ZL_ARRAY_LEN(words); i++)
        words[i] = "x";
    struct zl_rt_exec exec = { .argv = words, .nargv = 5000 };
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .exec = &exec });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_LIMIT);
    done(&t);
    run(w, &t, spec.id, (const char *const[]){ "/no-such", NULL }, (struct zl_rt_session_spec){ .tty = true });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_NO_COMMAND);
    assert_false(t.opened);
    done(&t);
    for (size_t i = 0; i < ZL_ARRAY_LEN(many); i++) {
        run(w, &many[i], spec.id, ARGV("echo"), (struct zl_rt_session_spec){ .input = true });
        world_until(w, &many[i].opened, 5000);
    }
    run(w, &t, spec.id, ARGV("exit", "0"), (struct zl_rt_session_spec){ 0 });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_LIMIT);
    done(&t);
    for (size_t i = 0; i < ZL_ARRAY_LEN(many); i++) {
        zl_rt_session_end_input(many[i].s);
        until_over(&many[i]);
        assert_int_equal(many[i].end.code, 0);
        done(&many[i]);
    }
    run(w, &t, spec.id, ARGV("say", "again"), (struct zl_rt_session_spec){ 0 });
    until_over(&t);
    assert_string_equal(t.out.p, "again\n");
    done(&t);
    begin(w, &t, "00000000000000000000000000000000", &(struct zl_rt_session_spec){ .exec = &exec });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_NOT_FOUND);
    done(&t);
}

/* A client that speaks for itself. */
static int connect_raw(struct world *w, const char *id)
{
    struct sockaddr_un a;
    struct timeval tv = { .tv_sec = 5 };
    zl_auto_free char *path = zl_xasprintf("%s/%s", w->containers, id);
    zl_auto_close int dir = zl_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    zl_rt_socket_address(dir, &a);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

/* Reads frames until the connection's end; returns how many, *ret_last: the last one's type. */
static unsigned read_frames(int fd, uint16_t *ret_last)
{
    char piece[4096];
    zl_auto_buf in = ZL_BUF_INIT;
    unsigned frames = 0;
    ssize_t n;
    while ((n = recv(fd, piece, sizeof piece, 0)) > 0)
        zl_buf_add(&in, piece, (size_t)n);
    if (n < 0 && errno != ECONNRESET)
        fail_msg("the shim does not close: %s", strerror(errno));
    struct zl_frame f;
    ssize_t size;
    while ((size = zl_frame_parse(zl_buf_view(&in), ZL_SH_MAGIC, ZL_SH_REPLY_MAX, &f)) > 0) {
        *ret_last = f.type;
        zl_buf_drop(&in, (size_t)size);
        frames++;
    }
    assert_int_equal(in.n, 0);
    return frames;
}

static void malformed(struct world *w, const char *id, const void *bytes, size_t n)
{
    zl_auto_close int fd = connect_raw(w, id);
    uint16_t last = 0;
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
    assert_int_equal(read_frames(fd, &last), 1);
    assert_int_equal(last, ZL_SH_ERROR);
}

static void what_is_no_frame_gets_one_error_and_half_a_frame_harms_nobody(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    static char noise[70000];
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    world_pass(w, 50);
    unsigned seed = 7;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(seed = seed * 1103515245 + 12345, seed >> 16);
    malformed(w, spec.id, noise, sizeof noise);
    malformed(w, spec.id, "GET / HTTP/1.1\r\n\r\n", 18);
    zl_auto_buf b = ZL_BUF_INIT;
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC);
    zl_buf_add(&b, "\1\0\0\0\377\377\377\177", 8); /* a record longer than its frame */
    zl_frame_end(&b, f);
    malformed(w, spec.id, b.p, b.n);
    zl_buf_clear(&b);
    f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_KILL);
    zl_record_add(&b, ZL_SH_R_SIGNAL, "abc", 3);
    zl_frame_end(&b, f);
    malformed(w, spec.id, b.p, b.n);
    /* A frame of over a megabyte is refused by its head. */
    zl_buf_clear(&b);
    f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC);
    zl_frame_end(&b, f);
    memcpy(b.p + 8, "\0\0\0\100", 4);
    malformed(w, spec.id, b.p, b.n);
    /* A request that has no place in a session ends it, and not the container. */
    zl_buf_clear(&b);
    f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_ATTACH);
    zl_frame_end(&b, f);
    f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_WAIT);
    zl_frame_end(&b, f);
    zl_auto_close int fd = connect_raw(w, spec.id);
    uint16_t last = 0;
    assert_int_equal(send(fd, b.p, b.n, MSG_NOSIGNAL), (ssize_t)b.n);
    assert_int_equal(read_frames(fd, &last), 2);
    assert_int_equal(last, ZL_SH_ERROR);
    for (int i = 0; i < 200; i++) { /* gone in the middle of a frame */
        zl_auto_close int half = connect_raw(w, spec.id);
        assert_true(send(half, b.p, (size_t)i % b.n, MSG_NOSIGNAL) >= 0);
    }
    /* Those who come and say nothing are many; the others still get in once they are gone. */
    int idle[80];
    for (size_t i = 0; i < ZL_ARRAY_LEN(idle); i++) {
        idle[i] = i < 40 ? connect_raw(w, spec.id) : -EBADF;
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(idle); i++)
        zl_close(idle[i]);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(world_kill(w, spec.id, SIGTERM, false), 0);
    assert_int_equal(world_outcome(w, spec.id)->reason, ZL_RT_REASON_EXITED);
}

static void an_older_agents_requests_are_answered_as_ever(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    char piece[4096];
    static const char *const words[] = { "/workload", "say", "hi", "sleep", "50", "exit", "3" };
    zl_auto_buf b = ZL_BUF_INIT;
    zl_auto_buf in = ZL_BUF_INIT;
    forever(w, &spec);
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, 1, ZL_SH_EXEC);
    for (size_t i = 0; i < ZL_ARRAY_LEN(words); i++)
        zl_record_add_str(&b, ZL_SH_R_ARG, zl_str(words[i]));
    zl_frame_end(&b, f);
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, 1, ZL_SH_INFO));
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, 1, 999)); /* and what no version knows */
    zl_auto_close int fd = connect_raw(w, spec.id);
    assert_int_equal(send(fd, b.p, b.n, MSG_NOSIGNAL), (ssize_t)b.n); /* the others wait for the command's end */
    static const uint16_t expected[] = { ZL_SH_OUTPUT, ZL_SH_EXEC_EXIT, ZL_SH_INFO, ZL_SH_ERROR };
    for (size_t i = 0; i < ZL_ARRAY_LEN(expected);) {
        struct zl_frame frame;
        ssize_t size = zl_frame_parse(zl_buf_view(&in), ZL_SH_MAGIC, ZL_SH_REPLY_MAX, &frame);
        if (size > 0) {
            assert_int_equal(frame.type, expected[i++]);
            zl_buf_drop(&in, (size_t)size);
            continue;
        }
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        assert_true(n > 0);
        zl_buf_add(&in, piece, (size_t)n);
    }
}

int main(int argc, char **argv)
{
    workload = argc > 1 ? argv[1] : "";
    shim = argc > 2 ? argv[2] : "";
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    if (geteuid() != 0) {
        fprintf(stderr, "containers need root\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_command_has_two_streams_input_with_an_end_and_an_exit_code),
        T(user_folder_variables_and_rights_are_as_asked),
        T(a_terminal_is_controlling_has_a_size_and_echoes),
        T(a_slow_reader_holds_up_its_own_command_only),
        T(input_waits_for_its_reader_without_bound_for_nobody),
        T(a_command_outlives_its_client_and_one_with_a_terminal_is_hung_up_on),
        T(sessions_survive_the_agents_death_as_documented),
        T(limits_and_errors_are_told_and_the_shim_goes_on),
        T(an_older_agents_requests_are_answered_as_ever),
        T(what_is_no_frame_gets_one_error_and_half_a_frame_harms_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
