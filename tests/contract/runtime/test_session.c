/* Sessions of the native back end: commands with live streams and terminals, attaching, and what misbehaves. Root. */
#include "world.h"

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

/* One session and all that it said. */
struct talk {
    struct world *w;
    struct zl_rt_session *s;
    struct zl_buf out, errs;
    uint64_t lost;
    bool opened, over, writable;
    struct zl_err err;
    struct zl_rt_session_end end;
    bool checks; /* output is workload's `fill`: looked at, not kept */
    uint64_t n;
};

static void opened(void *arg)
{
    struct talk *t = arg;
    assert_false(t->opened || t->over);
    t->opened = true;
    zl_loop_stop(t->w->loop);
}

static void output(void *arg, bool is_stderr, struct zl_str bytes)
{
    struct talk *t = arg;
    assert_false(t->over);
    if (t->checks)
        for (size_t i = 0; i < bytes.n; i++)
            assert_int_equal((unsigned char)bytes.p[i], (t->n + i) % 251);
    else
        zl_buf_add_str(is_stderr ? &t->errs : &t->out, bytes);
    t->n += bytes.n;
    zl_loop_stop(t->w->loop);
}

static void lost(void *arg, bool is_stderr, uint64_t bytes)
{
    struct talk *t = arg;
    (void)is_stderr;
    t->lost += bytes;
}

static void writable(void *arg)
{
    struct talk *t = arg;
    t->writable = true;
    zl_loop_stop(t->w->loop);
}

static void ended(void *arg, const struct zl_err *err, const struct zl_rt_session_end *end)
{
    struct talk *t = arg;
    assert_false(t->over);
    t->over = true;
    t->err = *err;
    if (end)
        t->end = *end;
    zl_loop_stop(t->w->loop);
}

static const struct zl_rt_session_events events = { opened, output, lost, writable, ended };

static void begin(struct world *w, struct talk *t, const char *id, const struct zl_rt_session_spec *spec)
{
    *t = (struct talk){ .w = w };
    t->s = zl_runtime_session(w->rt, id, spec, &events, t);
    assert_false(t->opened || t->over);
}

static void run(struct world *w, struct talk *t, const char *id, const char *const *argv,
                struct zl_rt_session_spec spec)
{
    struct zl_rt_exec exec = { .argv = argv };
    while (argv[exec.nargv])
        exec.nargv++;
    spec.exec = &exec;
    begin(w, t, id, &spec);
}

static void done(struct talk *t)
{
    t->s = zl_rt_session_close(t->s);
    zl_buf_done(&t->out);
    zl_buf_done(&t->errs);
}

static void until_over(struct talk *t)
{
    for (uint64_t end = zl_clock_mono_ms() + 20000; !t->over; world_pass(t->w, 2))
        if (zl_clock_mono_ms() > end)
            fail_msg("the session does not end; it said '%s'", t->out.p ? t->out.p : "");
}

static void until_says(struct talk *t, const char *text)
{
    uint64_t end = zl_clock_mono_ms() + 10000;
    while (!t->out.p || !memmem(t->out.p, t->out.n, text, strlen(text))) {
        if (zl_clock_mono_ms() > end || t->over)
            fail_msg("no '%s' in '%s' (%s)", text, t->out.p ? t->out.p : "", t->err.text);
        world_pass(t->w, 2);
    }
}

static void write_text(struct talk *t, const char *text)
{
    assert_int_equal(zl_rt_session_write(t->s, zl_str(text)), 0);
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

static void forever(struct world *w, struct zl_rt_spec *spec)
{
    world_spec(w, spec, ARGV("say", "ready", "forever"));
    world_run(w, spec);
    world_says(w, spec->id, "ready");
}

/* Of smaps_rollup: "Pss" counts what is shared in part, "Anonymous" is a process's own alone. */
static long memory_kib(pid_t pid, const char *what)
{
    char path[64];
    zl_auto_buf b = ZL_BUF_INIT;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    assert_int_equal(zl_read_file(AT_FDCWD, path, 65536, &b), 0);
    zl_auto_free char *line = zl_xasprintf("\n%s:", what);
    const char *at = strstr(b.p, line);
    assert_non_null(at);
    return strtol(at + strlen(line), NULL, 10);
}

static long own_kib(pid_t pid)
{
    return memory_kib(pid, "Anonymous");
}

/* A sanitizer's own memory is not looked at. */
static void assert_at_most(long kib, long max)
{
#if defined(__SANITIZE_ADDRESS__)
    max *= 1000;
#endif
    assert_in_range(kib, 1, max);
}

static pid_t shim_of(struct world *w, const char *id)
{
    zl_auto_free char *path = zl_xasprintf("%s/%s/state", w->containers, id);
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, path, 4096, &b), 0);
    const char *at = strstr(b.p, "\"shim_pid\":");
    assert_non_null(at);
    return (pid_t)strtol(at + 11, NULL, 10);
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
    assert_at_most(own_kib(pid), before + 64);
    zl_rt_session_hold(slow.s, false);
    until_over(&slow);
    assert_int_equal(slow.n, 20000 * 1024);
    assert_int_equal(slow.end.code, 5);
    done(&slow);
    world_pass(w, 50);
    assert_at_most(own_kib(pid), before + 64);
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

static unsigned processes(struct world *w, const char *id, struct answer *a)
{
    assert_int_equal(world_top(w, id, a), 0);
    return (unsigned)a->reply.top.total;
}

static void until_processes(struct world *w, const char *id, unsigned n)
{
    static struct answer a;
    for (uint64_t end = zl_clock_mono_ms() + 10000; processes(w, id, &a) != n; world_pass(w, 5))
        if (zl_clock_mono_ms() > end)
            fail_msg("%u processes, not %u:\n%s", processes(w, id, &a), n, a.out);
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

static void many_attach_a_slow_one_loses_and_all_hear_the_end(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk one, two, slow;
    static struct answer a;
    world_spec(w, &spec, ARGV("echo", "err", "finished", "exit", "6"));
    spec.open_stdin = true;
    spec.log_max_bytes = 16 << 20;
    assert_int_equal(world_create(w, &spec, &a), 0);
    struct zl_rt_session_spec plain = { 0 }, input = { .input = true };
    begin(w, &one, spec.id, &input); /* before the start: nothing is missed */
    begin(w, &two, spec.id, &plain);
    begin(w, &slow, spec.id, &plain);
    world_until(w, &one.opened, 5000);
    world_until(w, &two.opened, 5000);
    world_until(w, &slow.opened, 5000);
    assert_int_equal(world_start(w, spec.id, &a), 0);
    zl_rt_session_hold(slow.s, true);
    write_text(&one, "hello\n");
    until_says(&one, "hello\n");
    until_says(&two, "hello\n");
    enum { BLOCK = 32768, BLOCKS = 100 };
    static char block[BLOCK];
    memset(block, 'b', BLOCK);
    for (int i = 0; i < BLOCKS; i++) {
        while (zl_rt_session_write(one.s, zl_str_n(block, BLOCK)) < 0)
            world_pass(w, 1);
        world_pass(w, 1);
    }
    for (uint64_t end = zl_clock_mono_ms() + 10000; one.n + one.lost < 6 + BLOCK * BLOCKS && zl_clock_mono_ms() < end;)
        world_pass(w, 5);
    assert_int_equal(one.n + one.lost, 6 + BLOCK * BLOCKS);
    assert_at_most(own_kib(shim_of(w, spec.id)), 640);
    zl_rt_session_hold(slow.s, false);
    write_text(&one, "last\n");
    zl_rt_session_end_input(one.s);
    until_over(&one);
    until_over(&two);
    until_over(&slow);
    const struct talk *all[] = { &one, &two, &slow };
    for (size_t i = 0; i < ZL_ARRAY_LEN(all); i++) {
        assert_string_equal(all[i]->err.text, "");
        assert_int_equal(all[i]->end.code, 6);
        assert_non_null(strstr(all[i]->errs.p, "finished\n"));
        assert_int_equal(all[i]->out.n + all[i]->errs.n + all[i]->lost, 6 + BLOCK * BLOCKS + 5 + 4 + 9);
    }
    assert_true(slow.lost > 0);
    done(&one);
    done(&two);
    done(&slow);
    /* The log has everything. */
    zl_auto_buf log = ZL_BUF_INIT;
    world_log(w, spec.id, &log);
    size_t bs = 0;
    for (size_t i = 0; i < log.n; i++)
        bs += log.p[i] == 'b';
    assert_int_equal(bs, BLOCK * BLOCKS);
}

static void detaching_changes_nothing_and_input_must_be_open(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    world_spec(w, &spec, ARGV("say", "ready", "echo", "exit", "0"));
    spec.open_stdin = true;
    world_run(w, &spec);
    for (int i = 0; i < 3; i++) {
        begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
        world_until(w, &t.opened, 5000);
        write_text(&t, "ping\n");
        until_says(&t, "ping\n");
        done(&t);
    }
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    assert_int_equal(world_outcome(w, spec.id)->signal, SIGKILL);
    forever(w, &spec);
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_CONFLICT);
    done(&t);
}

static void a_container_may_have_a_terminal(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static struct answer a;
    world_spec(w, &spec, ARGV("tty", "say", "logged", "echo", "size"));
    spec.tty = spec.open_stdin = true;
    spec.rows = 10;
    spec.columns = 20;
    assert_int_equal(world_create(w, &spec, &a), 0);
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
    world_until(w, &t.opened, 5000);
    assert_int_equal(world_start(w, spec.id, &a), 0);
    until_says(&t, "tty 1 1 1 controlling yes leader yes owner 0\r\n");
    until_says(&t, "size 0 10 20\r\n");
    world_says(w, spec.id, "logged");
    write_text(&t, "keys\n\004"); /* its end-of-file character ends the echo, not the input */
    until_says(&t, "keys\r\nkeys\r\nend\r\n");
    zl_rt_session_resize(t.s, 33, 44);
    until_says(&t, "size 0 33 44\r\n");
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    until_over(&t);
    assert_int_equal(t.end.signal, SIGKILL);
    done(&t);
}

static void a_paused_container_stands_still_and_can_be_killed(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static struct answer a;
    const char *const argv[] = { "/workload", "exit", "0" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 3 };
    world_spec(w, &spec, ARGV("burn", "60000"));
    world_run(w, &spec);
    run(w, &t, spec.id, ARGV("say", "in", "forever"), (struct zl_rt_session_spec){ 0 });
    until_says(&t, "in");
    assert_int_equal(world_pause(w, spec.id, true), 0);
    assert_int_equal(world_pause(w, spec.id, true), ZL_E_CONFLICT);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    uint64_t used = a.reply.stats.cpu_total_ns;
    world_pass(w, 200);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_in_range(a.reply.stats.cpu_total_ns - used, 0, 20000000);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_CONFLICT);
    assert_int_equal(processes(w, spec.id, &a), 2);
    done(&t); /* the shim must not wait for a frozen command */
    world_reopen(w);
    world_list(w, &a);
    world_pass(w, 50);
    world_list(w, &a);
    assert_true(a.list[0].paused);
    assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
    assert_int_equal(world_pause(w, spec.id, false), 0);
    assert_int_equal(world_pause(w, spec.id, false), ZL_E_CONFLICT);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(world_pause(w, spec.id, true), 0);
    assert_int_equal(world_kill(w, spec.id, SIGTERM, false), 0); /* waits */
    world_pass(w, 50);
    world_list(w, &a);
    assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, false), 0);
    assert_int_equal(world_outcome(w, spec.id)->reason, ZL_RT_REASON_SIGNAL);
}

static void a_shim_with_a_container_is_small(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    for (int i = 0; i < 20; i++) {
        const char *const argv[] = { "/workload", "fill", "200" };
        struct zl_rt_exec exec = { .argv = argv, .nargv = 3 };
        assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
        assert_int_equal(world_top(w, spec.id, &a), 0);
        assert_int_equal(world_stats(w, spec.id, &a), 0);
    }
    world_pass(w, 50);
    long own = own_kib(pid), sum = 0;
    pid_t shims[8];
    for (size_t i = 0; i < ZL_ARRAY_LEN(shims); i++) {
        forever(w, &spec);
        shims[i] = shim_of(w, spec.id);
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(shims); i++)
        sum += memory_kib(shims[i], "Pss");
    print_message("a shim: %ld KiB of its own after use, proportional set size %ld KiB beside %zu others\n", own,
                  sum / (long)ZL_ARRAY_LEN(shims), ZL_ARRAY_LEN(shims));
    assert_at_most(own, 320);
    assert_at_most(sum / (long)ZL_ARRAY_LEN(shims), 384);
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
        T(what_is_no_frame_gets_one_error_and_half_a_frame_harms_nobody),
        T(many_attach_a_slow_one_loses_and_all_hear_the_end),
        T(detaching_changes_nothing_and_input_must_be_open),
        T(a_container_may_have_a_terminal),
        T(a_paused_container_stands_still_and_can_be_killed),
        T(a_shim_with_a_container_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
