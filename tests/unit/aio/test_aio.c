#include "../testing.h"

#include "aio/child.h"
#include "aio/loop.h"
#include "aio/pool.h"
#include "base/fd.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

struct world {
    struct zl_loop *loop;
    struct zl_timer *timer;
    struct zl_pool *pool;
    struct zl_watch *watch;
    int fd, count, status;
    char order[16];
};

static void note(void *arg)
{
    struct world *w = arg;
    w->order[w->count++] = 'd';
}

static void tick(void *arg)
{
    struct world *w = arg;
    w->order[w->count++] = 't';
    zl_loop_defer(w->loop, note, w);
    if (w->count < 6)
        zl_timer_set(w->timer, 1);
    else
        w->timer = zl_timer_free(w->timer); /* its own handle, from its own callback */
}

static void a_timer_rearms_and_frees_itself_and_deferred_calls_run_after(void **state)
{
    struct world w = { .loop = zl_loop_new() };
    w.timer = zl_timer_new(w.loop, tick, &w);
    zl_timer_set(w.timer, 0);
    zl_loop_run(w.loop);
    zl_loop_free(w.loop);
    assert_string_equal(w.order, "tdtdtdtd");
    assert_null(w.timer);
}

static void work(void *arg)
{
    __atomic_add_fetch(&((struct world *)arg)->count, 1, __ATOMIC_RELAXED);
}

static void done(void *arg, bool cancelled)
{
    struct world *w = arg;
    w->status += cancelled ? 100 : 1;
}

static void the_pool_completes_every_job_once_and_is_bounded(void **state)
{
    struct world w = { .loop = zl_loop_new() };
    w.pool = zl_pool_new(w.loop, 3, 50);
    int accepted = 0;
    for (int i = 0; i < 200; i++)
        accepted += zl_pool_submit(w.pool, work, done, &w) == 0;
    assert_in_range(accepted, 50, 200);
    zl_loop_run(w.loop);
    assert_int_equal(w.status, accepted);
    assert_int_equal(w.count, accepted);
    zl_pool_free(w.pool);
    zl_loop_free(w.loop);
}

static void exited(void *arg, int status)
{
    ((struct world *)arg)->status = status;
}

static void readable(void *arg, int events)
{
    struct world *w = arg;
    char buf[16];
    ssize_t n = read(w->fd, buf, sizeof w->order - 1);
    if (n <= 0) {
        w->watch = zl_watch_free(w->watch);
        return;
    }
    memcpy(w->order + w->count, buf, (size_t)n);
    w->count += (int)n;
}

static void a_child_gets_its_descriptors_and_is_reaped(void **state)
{
    struct world w = { .loop = zl_loop_new() };
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    const char *argv[] = { "sh", "-c", "echo hi >&7; test -e /proc/self/fd/9 && echo leak >&7; exit 5", NULL };
    struct zl_child_fd fds[] = { { p[1], 7 } };
    struct zl_child_options o = { .path = "/bin/sh", .argv = argv, .fds = fds, .nfds = 1, .exited = exited, .arg = &w };
    assert_int_equal(zl_child_spawn(w.loop, &o, NULL), 0);
    zl_close(p[1]);
    w.fd = p[0];
    assert_int_equal(zl_watch_new(w.loop, p[0], ZL_READABLE, readable, &w, &w.watch), 0);
    zl_loop_run(w.loop);
    assert_string_equal(w.order, "hi\n");
    assert_int_equal(WEXITSTATUS(w.status), 5);
    zl_close(p[0]);
    zl_loop_free(w.loop);
}

static void a_program_that_is_not_there_is_an_error_at_once(void **state)
{
    struct zl_loop *loop = zl_loop_new();
    const char *argv[] = { "x", NULL };
    struct zl_child_options o = { .path = "/no/such/program", .argv = argv };
    assert_int_equal(zl_child_spawn(loop, &o, NULL), -ENOENT);
    zl_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timer_rearms_and_frees_itself_and_deferred_calls_run_after),
        cmocka_unit_test(the_pool_completes_every_job_once_and_is_bounded),
        cmocka_unit_test(a_child_gets_its_descriptors_and_is_reaped),
        cmocka_unit_test(a_program_that_is_not_there_is_an_error_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
