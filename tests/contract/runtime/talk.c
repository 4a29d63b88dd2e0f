#include "talk.h"

#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>

#define ARGV(...)                      \
    (const char *const[])              \
    {                                  \
        "/workload", __VA_ARGS__, NULL \
    }

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

void begin(struct world *w, struct talk *t, const char *id, const struct zl_rt_session_spec *spec)
{
    *t = (struct talk){ .w = w };
    t->s = zl_runtime_session(w->rt, id, spec, &events, t);
    assert_false(t->opened || t->over);
}

void run(struct world *w, struct talk *t, const char *id, const char *const *argv, struct zl_rt_session_spec spec)
{
    struct zl_rt_exec exec = { .argv = argv };
    while (argv[exec.nargv])
        exec.nargv++;
    spec.exec = &exec;
    begin(w, t, id, &spec);
}

void done(struct talk *t)
{
    t->s = zl_rt_session_close(t->s);
    zl_buf_done(&t->out);
    zl_buf_done(&t->errs);
}

void until_over(struct talk *t)
{
    for (uint64_t end = zl_clock_mono_ms() + 20000; !t->over; world_pass(t->w, 2))
        if (zl_clock_mono_ms() > end)
            fail_msg("the session does not end; it said '%s'", t->out.p ? t->out.p : "");
}

void until_says(struct talk *t, const char *text)
{
    uint64_t end = zl_clock_mono_ms() + 10000;
    while (!t->out.p || !memmem(t->out.p, t->out.n, text, strlen(text))) {
        if (zl_clock_mono_ms() > end || t->over)
            fail_msg("no '%s' in '%s' (%s)", text, t->out.p ? t->out.p : "", t->err.text);
        world_pass(t->w, 2);
    }
}

void write_text(struct talk *t, const char *text)
{
    assert_int_equal(zl_rt_session_write(t->s, zl_str(text)), 0);
}

void forever(struct world *w, struct zl_rt_spec *spec)
{
    world_spec(w, spec, ARGV("say", "ready", "forever"));
    world_run(w, spec);
    world_says(w, spec->id, "ready");
}

long memory_kib(pid_t pid, const char *what)
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

long own_kib(pid_t pid)
{
    return memory_kib(pid, "Anonymous");
}

void assert_at_most(long kib, long max)
{
#if defined(__SANITIZE_ADDRESS__)
    max *= 1000;
#endif
    assert_in_range(kib, 1, max);
}

pid_t shim_of(struct world *w, const char *id)
{
    zl_auto_free char *path = zl_xasprintf("%s/%s/state", w->containers, id);
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, path, 4096, &b), 0);
    const char *at = strstr(b.p, "\"shim_pid\":");
    assert_non_null(at);
    return (pid_t)strtol(at + 11, NULL, 10);
}

unsigned processes(struct world *w, const char *id, struct answer *a)
{
    assert_int_equal(world_top(w, id, a), 0);
    return (unsigned)a->reply.top.total;
}

void until_processes(struct world *w, const char *id, unsigned n)
{
    static struct answer a;
    for (uint64_t end = zl_clock_mono_ms() + 10000; processes(w, id, &a) != n; world_pass(w, 5))
        if (zl_clock_mono_ms() > end)
            fail_msg("%u processes, not %u:\n%s", processes(w, id, &a), n, a.out);
}
