#include "world.h"

#include "base/clock.h"
#include "base/fd.h"
#include "runtime/fake/fake.h"
#include "runtime/logs.h"
#include "runtime/native/native.h"
#include "sys/cgroup.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void event(void *arg, const struct zl_rt_event *e)
{
    struct world *w = arg;
    assert_true(w->nevents < WORLD_EVENTS);
    snprintf(w->event_ids[w->nevents], ZL_ID_HEX_SIZE, "%s", e->id);
    w->events[w->nevents] = (struct zl_rt_event){ w->event_ids[w->nevents], e->outcome };
    w->nevents++;
    if (w->loop)
        zl_loop_stop(w->loop);
}

static void open_native(struct world *w)
{
    struct zl_err err = { 0 };
    struct zl_rt_native_config c = { .loop = w->loop,
                                     .pool = w->pool,
                                     .containers = w->containers,
                                     .shim = w->shim,
                                     .cgroup_parent = w->cgroup_parent };
    if (zl_rt_native_open(&c, &w->rt, &err) < 0)
        fail_msg("open the native runtime: %s", err.text);
    zl_runtime_watch(w->rt, event, w);
}

static void copy_file(const char *from, int dir, const char *name, mode_t mode)
{
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, from, 16 << 20, &b), 0);
    zl_auto_close int fd = zl_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, mode);
    assert_true(fd >= 0);
    assert_int_equal(zl_write_full(fd, b.p, b.n), 0);
}

static void make_layer(struct world *w, const char *workload)
{
    static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/home/web:/bin/sh\n";
    static const char group[] = "root:x:0:\nweb:x:1001:\nextra:x:2000:web,other\n";
    assert_int_equal(zl_mkdir_p(w->layer, 0755), 0);
    zl_auto_close int dir = zl_openat(AT_FDCWD, w->layer, O_RDONLY | O_DIRECTORY, 0);
    assert_true(dir >= 0);
    copy_file(workload, dir, "workload", 0755);
    copy_file(workload, dir, "not-executable", 0644);
    assert_int_equal(zl_mkdirat(dir, "etc", 0755), 0);
    zl_auto_close int etc = zl_openat(dir, "etc", O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(zl_write_file_atomic(etc, "passwd", passwd, strlen(passwd), 0644, ZL_KILL_PROOF), 0);
    assert_int_equal(zl_write_file_atomic(etc, "group", group, strlen(group), 0644, ZL_KILL_PROOF), 0);
}

void world_open(struct world *w, bool native, const char *workload, const char *shim)
{
    *w = (struct world){ .native = native, .shim = shim };
    if (!native) {
        w->rt = zl_rt_fake_new();
        zl_runtime_watch(w->rt, event, w);
        return;
    }
    snprintf(w->dir, sizeof w->dir, "/tmp/zl-runtime-test-%d", (int)getpid());
    snprintf(w->containers, sizeof w->containers, "%s/containers", w->dir);
    snprintf(w->layer, sizeof w->layer, "%s/layer", w->dir);
    snprintf(w->cgroup_parent, sizeof w->cgroup_parent, "zlayer-test-%d", (int)getpid());
    make_layer(w, workload);
    w->loop = zl_loop_new();
    w->pool = zl_pool_new(w->loop, 2, 64);
    open_native(w);
}

void world_reopen(struct world *w)
{
    w->rt = zl_runtime_close(w->rt);
    w->pool = zl_pool_free(w->pool);
    w->loop = zl_loop_free(w->loop);
    w->loop = zl_loop_new();
    w->pool = zl_pool_new(w->loop, 2, 64);
    open_native(w);
}

void world_close(struct world *w)
{
    if (w->native) {
        static struct answer a;
        world_list(w, &a);
        for (unsigned i = 0; i < a.reply.list.n; i++)
            assert_int_equal(world_remove(w, a.list[i].id), 0);
    }
    w->rt = zl_runtime_close(w->rt);
    if (!w->native)
        return;
    zl_pool_free(w->pool);
    zl_loop_free(w->loop);
    zl_cgroup_remove_parent(w->cgroup_parent);
    assert_int_equal(zl_remove_tree(AT_FDCWD, w->dir), 0);
}

static void alarm_rang(void *arg)
{
    zl_loop_stop(arg);
}

void world_until(struct world *w, const bool *flag, unsigned ms)
{
    if (!w->native) {
        uint64_t end = w->now_ms + ms;
        while (!*flag) {
            uint64_t next = zl_rt_fake_next_ms(w->rt);
            if (next > end)
                fail_msg("not within %u ms of virtual time", ms);
            w->now_ms = ZL_MAX(w->now_ms, next);
            zl_rt_fake_run(w->rt, w->now_ms);
        }
        return;
    }
    uint64_t end = zl_clock_mono_ms() + ms;
    struct zl_timer *t = zl_timer_new(w->loop, alarm_rang, w->loop);
    while (!*flag) {
        uint64_t now = zl_clock_mono_ms();
        if (now >= end)
            fail_msg("not within %u ms", ms);
        zl_timer_set(t, end - now);
        zl_loop_run(w->loop);
    }
    zl_timer_free(t);
}

static void flag_set(void *arg)
{
    struct {
        bool *flag;
        struct zl_loop *loop;
    } *f = arg;
    *f->flag = true;
    zl_loop_stop(f->loop);
}

void world_pass(struct world *w, unsigned ms)
{
    if (!w->native) {
        w->now_ms += ms;
        zl_rt_fake_run(w->rt, w->now_ms);
        return;
    }
    bool over = false;
    struct {
        bool *flag;
        struct zl_loop *loop;
    } f = { &over, w->loop };
    struct zl_timer *t = zl_timer_new(w->loop, flag_set, &f);
    zl_timer_set(t, ms);
    world_until(w, &over, ms + 5000);
    zl_timer_free(t);
}

static void done(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct answer *a = arg;
    assert_false(a->done);
    a->done = true;
    a->err = *err;
    if (reply)
        a->reply = *reply;
    if (a->w->loop)
        zl_loop_stop(a->w->loop);
}

static void done_list(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct answer *a = arg;
    done(arg, err, reply);
    if (!reply)
        return;
    assert_true(reply->list.n <= ZL_ARRAY_LEN(a->list));
    for (unsigned i = 0; i < reply->list.n; i++)
        a->list[i] = reply->list.v[i];
}

static void done_exec(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct answer *a = arg;
    done(arg, err, reply);
    if (!reply)
        return;
    snprintf(a->out, sizeof a->out, "%.*s", ZL_STR_FMT(reply->exec.out));
    snprintf(a->errs, sizeof a->errs, "%.*s", ZL_STR_FMT(reply->exec.err));
}

static struct answer *fresh(struct world *w, struct answer *a)
{
    memset(a, 0, sizeof *a);
    a->w = w;
    return a;
}

static int finish(struct answer *a)
{
    assert_false(a->done); /* never from inside the call */
    world_until(a->w, &a->done, 20000);
    return a->err.code;
}

void world_spec(struct world *w, struct zl_rt_spec *spec, const char *const *argv)
{
    static const char *layers[1];
    layers[0] = w->layer;
    *spec = (struct zl_rt_spec){ .deployment = "shop",
                                 .service = "web",
                                 .slot = 1,
                                 .generation = 7,
                                 .image = "img:1",
                                 .note = "{\"mine\":true}",
                                 .layers = layers,
                                 .nlayers = 1,
                                 .argv = argv,
                                 .hostname = "web-1" };
    zl_id_make(spec->id);
    while (argv[spec->nargv])
        spec->nargv++;
}

void world_list(struct world *w, struct answer *a)
{
    (void)zl_runtime_list(w->rt, done_list, fresh(w, a));
    assert_int_equal(finish(a), 0);
}

int world_create(struct world *w, const struct zl_rt_spec *spec, struct answer *a)
{
    (void)zl_runtime_create(w->rt, spec, done, fresh(w, a));
    return finish(a);
}

int world_start(struct world *w, const char *id, struct answer *a)
{
    (void)zl_runtime_start(w->rt, id, done, fresh(w, a));
    return finish(a);
}

int world_kill(struct world *w, const char *id, int signal, bool all)
{
    static struct answer a;
    (void)zl_runtime_kill(w->rt, id, signal, all, done, fresh(w, &a));
    return finish(&a);
}

int world_remove(struct world *w, const char *id)
{
    static struct answer a;
    (void)zl_runtime_remove(w->rt, id, done, fresh(w, &a));
    return finish(&a);
}

int world_exec(struct world *w, const char *id, const struct zl_rt_exec *exec, struct answer *a)
{
    (void)zl_runtime_exec(w->rt, id, exec, done_exec, fresh(w, a));
    return finish(a);
}

int world_stats(struct world *w, const char *id, struct answer *a)
{
    (void)zl_runtime_stats(w->rt, id, done, fresh(w, a));
    return finish(a);
}

int world_pause(struct world *w, const char *id, bool on)
{
    static struct answer a;
    (void)(on ? zl_runtime_pause : zl_runtime_resume)(w->rt, id, done, fresh(w, &a));
    return finish(&a);
}

/* `out` has the commands, a line each. */
static void done_top(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct answer *a = arg;
    size_t n = 0;
    done(arg, err, reply);
    for (unsigned i = 0; reply && i < reply->top.n && n < sizeof a->out; i++)
        n += (size_t)snprintf(a->out + n, sizeof a->out - n, "%.*s\n", ZL_STR_FMT(reply->top.v[i].command));
}

int world_top(struct world *w, const char *id, struct answer *a)
{
    (void)zl_runtime_top(w->rt, id, done_top, fresh(w, a));
    return finish(a);
}

void world_run(struct world *w, const struct zl_rt_spec *spec)
{
    static struct answer a;
    if (world_create(w, spec, &a) < 0)
        fail_msg("create: %s", a.err.text);
    if (world_start(w, spec->id, &a) < 0)
        fail_msg("start: %s", a.err.text);
}

void world_log(struct world *w, const char *id, struct zl_buf *ret)
{
    struct zl_log_reader *r;
    struct zl_log_entry e;
    zl_auto_close int dir = zl_openat(AT_FDCWD, w->containers, O_RDONLY | O_DIRECTORY, 0);
    zl_buf_clear(ret);
    assert_int_equal(zl_log_reader_open(dir, id, &r), 0);
    while (zl_log_reader_next(r, &e) > 0)
        zl_buf_printf(ret, "%s%.*s%s\n", e.is_stderr ? "E:" : "", ZL_STR_FMT(e.text), e.partial ? "\\" : "");
    zl_log_reader_free(r);
}

void world_says(struct world *w, const char *id, const char *line)
{
    if (!w->native)
        return;
    zl_auto_buf log = ZL_BUF_INIT;
    uint64_t end = zl_clock_mono_ms() + 10000;
    for (;;) {
        world_log(w, id, &log);
        if (log.p && strstr(log.p, line))
            return;
        if (zl_clock_mono_ms() > end)
            fail_msg("instance %s did not say '%s' but: %s", id, line, log.p ? log.p : "");
        world_pass(w, 2);
    }
}

const struct zl_rt_outcome *world_outcome(struct world *w, const char *id)
{
    uint64_t end = zl_clock_mono_ms() + 20000;
    unsigned from = 0;
    for (;;) {
        for (; from < w->nevents; from++)
            if (zl_streq(w->events[from].id, id))
                return &w->events[from].outcome;
        if (zl_clock_mono_ms() > end)
            fail_msg("instance %s did not end", id);
        if (w->native) {
            world_pass(w, 5);
        } else {
            uint64_t next = zl_rt_fake_next_ms(w->rt);
            assert_true(next != UINT64_MAX);
            w->now_ms = ZL_MAX(w->now_ms, next);
            zl_rt_fake_run(w->rt, w->now_ms);
        }
    }
}
