#include "aio/loop.h"

#include "aio/loop_priv.h"
#include "base/alloc.h"
#include "base/assert.h"

#include <errno.h>

struct deferred {
    struct deferred *next;
    void (*fn)(void *arg);
    void *arg;
};

struct zl_timer {
    uv_timer_t uv;
    void (*fn)(void *arg);
    void *arg;
};

struct zl_watch {
    uv_poll_t uv;
    void (*fn)(void *arg, int events);
    void *arg;
};

struct zl_signal {
    uv_signal_t uv;
    void (*fn)(void *arg, int signum);
    void *arg;
};

static void release(uv_handle_t *h)
{
    free(h->data);
}

static void run_deferred(uv_check_t *check)
{
    struct zl_loop *loop = check->data;
    struct deferred *list = loop->deferred;
    loop->deferred = NULL;
    loop->deferred_tail = &loop->deferred;
    while (list) {
        struct deferred *d = list;
        list = d->next;
        d->fn(d->arg);
        free(d);
    }
    if (!loop->deferred)
        uv_idle_stop(&loop->idle);
}

static void nothing(uv_idle_t *idle)
{
    (void)idle; /* an active idle handle only keeps the loop from sleeping */
}

struct zl_loop *zl_loop_new(void)
{
    struct zl_loop *loop = zl_xcalloc(1, sizeof *loop);
    zl_assert(uv_loop_init(&loop->uv) == 0);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    loop->check.data = loop->idle.data = loop;
    uv_check_start(&loop->check, run_deferred);
    uv_unref((uv_handle_t *)&loop->check);
    loop->deferred_tail = &loop->deferred;
    return loop;
}

struct zl_loop *zl_loop_free(struct zl_loop *loop)
{
    if (!loop)
        return NULL;
    while (loop->deferred)
        run_deferred(&loop->check);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    zl_assert(uv_loop_close(&loop->uv) == 0);
    free(loop);
    return NULL;
}

void zl_loop_run(struct zl_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void zl_loop_stop(struct zl_loop *loop)
{
    uv_stop(&loop->uv);
}

uint64_t zl_loop_now_ms(struct zl_loop *loop)
{
    return uv_now(&loop->uv);
}

void *zl_loop_uv(struct zl_loop *loop)
{
    return &loop->uv;
}

void zl_loop_defer(struct zl_loop *loop, void (*fn)(void *arg), void *arg)
{
    struct deferred *d = zl_xcalloc(1, sizeof *d);
    d->fn = fn;
    d->arg = arg;
    *loop->deferred_tail = d;
    loop->deferred_tail = &d->next;
    uv_idle_start(&loop->idle, nothing);
}

static void timer_fired(uv_timer_t *uv)
{
    struct zl_timer *t = uv->data;
    t->fn(t->arg);
}

struct zl_timer *zl_timer_new(struct zl_loop *loop, void (*fn)(void *arg), void *arg)
{
    struct zl_timer *t = zl_xcalloc(1, sizeof *t);
    uv_timer_init(&loop->uv, &t->uv);
    t->uv.data = t;
    t->fn = fn;
    t->arg = arg;
    return t;
}

void zl_timer_set(struct zl_timer *t, uint64_t delay_ms)
{
    uv_update_time(t->uv.loop);
    uv_timer_start(&t->uv, timer_fired, delay_ms, 0);
}

void zl_timer_stop(struct zl_timer *t)
{
    uv_timer_stop(&t->uv);
}

struct zl_timer *zl_timer_free(struct zl_timer *t)
{
    if (t)
        uv_close((uv_handle_t *)&t->uv, release);
    return NULL;
}

static int to_uv(int events)
{
    return (events & ZL_READABLE ? UV_READABLE | UV_DISCONNECT : 0) | (events & ZL_WRITABLE ? UV_WRITABLE : 0);
}

static void watch_fired(uv_poll_t *uv, int status, int events)
{
    struct zl_watch *w = uv->data;
    int seen = (events & (UV_READABLE | UV_DISCONNECT) ? ZL_READABLE : 0) | (events & UV_WRITABLE ? ZL_WRITABLE : 0);
    w->fn(w->arg, status < 0 ? ZL_READABLE | ZL_WRITABLE : seen);
}

int zl_watch_new(struct zl_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg,
                 struct zl_watch **ret)
{
    struct zl_watch *w = zl_xcalloc(1, sizeof *w);
    int r = uv_poll_init(&loop->uv, &w->uv, fd);
    if (r < 0) {
        free(w);
        return r;
    }
    w->uv.data = w;
    w->fn = fn;
    w->arg = arg;
    zl_watch_set(w, events);
    *ret = w;
    return 0;
}

void zl_watch_set(struct zl_watch *w, int events)
{
    if (events)
        uv_poll_start(&w->uv, to_uv(events), watch_fired);
    else
        uv_poll_stop(&w->uv);
}

struct zl_watch *zl_watch_free(struct zl_watch *w)
{
    if (w)
        uv_close((uv_handle_t *)&w->uv, release);
    return NULL;
}

static void signal_fired(uv_signal_t *uv, int signum)
{
    struct zl_signal *s = uv->data;
    s->fn(s->arg, signum);
}

struct zl_signal *zl_signal_new(struct zl_loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg)
{
    struct zl_signal *s = zl_xcalloc(1, sizeof *s);
    uv_signal_init(&loop->uv, &s->uv);
    s->uv.data = s;
    s->fn = fn;
    s->arg = arg;
    uv_signal_start(&s->uv, signal_fired, signum);
    uv_unref((uv_handle_t *)&s->uv);
    return s;
}

struct zl_signal *zl_signal_free(struct zl_signal *s)
{
    if (s)
        uv_close((uv_handle_t *)&s->uv, release);
    return NULL;
}
