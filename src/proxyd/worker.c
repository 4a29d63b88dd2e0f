#include "proxyd/worker_priv.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS = 128,
    ACCEPTS_A_TURN = 16,
    ACCEPT_PAUSE_MS = 100, /* when descriptors are short */
    STACK_BYTES = 256 * 1024,
};

static const uint32_t timer_ms[TIMER_CLASSES] = {
    [TIMER_IDLE] = 75 * 1000,   [TIMER_HEAD] = 20 * 1000,         [TIMER_CONNECT_FAST] = 300,
    [TIMER_CONNECT] = 5 * 1000, [TIMER_REPLY] = 60 * 1000,        [TIMER_STREAM] = 300 * 1000,
    [TIMER_LINGER] = 2 * 1000,  [TIMER_BACKEND_IDLE] = 30 * 1000,
};

/* ---- timers ---- */

void timer_stop(struct timer *t)
{
    if (t->class == TIMER_NONE)
        return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->class = TIMER_NONE;
}

void timer_set(struct worker *w, struct timer *t, enum timer_class class)
{
    timer_stop(t);
    struct timer *head = &w->timers[class];
    t->class = class;
    t->deadline_ms = w->now_ms + timer_ms[class];
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
}

static void expire(struct worker *w)
{
    for (unsigned class = 0; class < TIMER_CLASSES; class ++) {
        struct timer *head = &w->timers[class];
        while (head->next != head && head->next->deadline_ms <= w->now_ms) {
            struct timer *t = head->next;
            timer_stop(t);
            if (class == TIMER_BACKEND_IDLE)
                upstream_close(ZL_CONTAINER_OF(t, struct upstream, timer));
            else
                conn_timeout(ZL_CONTAINER_OF(t, struct conn, timer), (enum timer_class) class);
        }
    }
}

static int next_timeout(struct worker *w)
{
    uint64_t next = w->accept_again_ms ? w->accept_again_ms : UINT64_MAX;
    for (unsigned class = 0; class < TIMER_CLASSES; class ++)
        if (w->timers[class].next != &w->timers[class])
            next = ZL_MIN(next, w->timers[class].next->deadline_ms);
    if (next == UINT64_MAX)
        return -1;
    return next <= w->now_ms ? 0 : (int)ZL_MIN(next - w->now_ms, (uint64_t)60000);
}

/* ---- descriptors ---- */

int worker_watch(struct worker *w, struct ev *ev)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = ev };
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, ev->fd, &e) < 0 ? -errno : 0;
}

ssize_t ev_read(struct ev *ev, struct buf *b)
{
    uint32_t room = buf_room(b);
    for (;;) {
        ssize_t n = recv(ev->fd, b->p + b->end, room, 0);
        if (n > 0) {
            b->end += (uint32_t)n;
            /* A short read emptied the socket: the next bytes are a new event. Only an end that was seen is still
             * there. */
            if ((uint32_t)n < room && !ev->hup)
                ev->readable = false;
            return n;
        }
        if (n == 0)
            return 0;
        if (errno == EAGAIN) {
            ev->readable = false;
            return -EAGAIN;
        }
        if (errno != EINTR)
            return -errno;
    }
}

void shared_notify(struct shared *s)
{
    uint64_t one = 1;
    if (write(s->control_wake, &one, sizeof one) < 0 && errno != EAGAIN) /* EAGAIN: it is awake already */
        zl_log_error("eventfd: %s", zl_error_text(-errno));
}

void worker_wake(struct worker *w)
{
    uint64_t one = 1;
    if (write(w->wake.fd, &one, sizeof one) < 0 && errno != EAGAIN)
        zl_log_error("eventfd: %s", zl_error_text(-errno));
}

/* ---- accepting ---- */

static int watch_listener(struct worker *w, struct worker_listener *l)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &l->ev };
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, l->ev.fd, &e) < 0 ? -errno : 0;
}

static void pause_accepting(struct worker *w)
{
    for (unsigned i = 0; i < w->nlisteners; i++)
        (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->listeners[i]->ev.fd, NULL);
    w->accept_again_ms = w->now_ms + ACCEPT_PAUSE_MS;
}

static void resume_accepting(struct worker *w)
{
    w->accept_again_ms = 0;
    for (unsigned i = 0; i < w->nlisteners; i++)
        if (watch_listener(w, w->listeners[i]) < 0)
            w->accept_again_ms = w->now_ms + ACCEPT_PAUSE_MS;
}

static struct worker *least_loaded(struct worker *w)
{
    struct worker *best = w;
    /* One connection more or less is not worth a wake-up of another thread. */
    uint32_t least = atomic_load_explicit(&w->nconns, memory_order_relaxed);
    least = least ? least - 1 : 0;
    for (unsigned i = 0; i < w->shared->nworkers; i++) {
        struct worker *o = &w->shared->workers[i];
        uint32_t n = atomic_load_explicit(&o->nconns, memory_order_relaxed);
        if (n < least) {
            best = o;
            least = n;
        }
    }
    return best;
}

static void give(struct worker *to, const struct handed *h)
{
    pthread_mutex_lock(&to->inbox_lock);
    ZL_GROW(to->inbox, to->ninbox, to->inbox_cap);
    to->inbox[to->ninbox++] = *h;
    pthread_mutex_unlock(&to->inbox_lock);
    worker_wake(to);
}

static void apply_table(struct worker *w);

static void take_inbox(struct worker *w)
{
    for (;;) {
        struct handed h;
        pthread_mutex_lock(&w->inbox_lock);
        bool any = w->ninbox > 0;
        if (any)
            h = w->inbox[--w->ninbox];
        pthread_mutex_unlock(&w->inbox_lock);
        if (!any)
            return;
        atomic_fetch_sub_explicit(&w->nconns, 1, memory_order_relaxed);
        /* Whoever gave it may work by a later table than we did a moment ago. */
        const struct listener *l = table_listener(w->table, h.listener);
        if (!l) {
            apply_table(w);
            l = table_listener(w->table, h.listener);
        }
        if (l)
            conn_open(w, h.fd, l, &h.peer);
        else
            (void)zl_close(h.fd);
    }
}

static void accept_some(struct worker *w, struct worker_listener *wl)
{
    const struct listener *l = table_listener(w->table, wl->id);
    for (unsigned i = 0; l && i < ACCEPTS_A_TURN; i++) {
        struct handed h = { .listener = wl->id };
        socklen_t n = sizeof h.peer;
        h.fd = accept4(wl->ev.fd, (struct sockaddr *)&h.peer, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (h.fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                pause_accepting(w);
            else if (errno == ECONNABORTED || errno == EINTR)
                continue;
            return;
        }
        if (!listener_allows(l, &h.peer)) {
            (void)zl_close(h.fd);
            continue;
        }
        int on = 1;
        (void)setsockopt(h.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without it, no more */
        struct worker *to = least_loaded(w);
        if (to == w) {
            conn_open(w, h.fd, l, &h.peer);
        } else {
            /* Counted at once, so that a burst does not all go to the same one. */
            atomic_fetch_add_explicit(&to->nconns, 1, memory_order_relaxed);
            give(to, &h);
        }
    }
}

/* ---- tables ---- */

static void drop_listener(struct worker *w, unsigned i)
{
    struct worker_listener *l = w->listeners[i];
    if (!w->accept_again_ms)
        (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, l->ev.fd, NULL);
    l->ev.kind = EV_DEAD;
    l->next_dead = w->dead_listeners;
    w->dead_listeners = l;
    w->listeners[i] = w->listeners[--w->nlisteners];
}

static void add_listener(struct worker *w, const struct listener *l)
{
    for (unsigned i = 0; i < w->nlisteners; i++)
        if (w->listeners[i]->id == l->id)
            return;
    struct worker_listener *n = zl_xcalloc(1, sizeof *n);
    n->ev = (struct ev){ .kind = EV_LISTENER, .fd = l->fd };
    n->id = l->id;
    w->listeners = zl_xrealloc(w->listeners, w->nlisteners + 1, sizeof(struct worker_listener *));
    w->listeners[w->nlisteners++] = n;
    int r = w->accept_again_ms ? 0 : watch_listener(w, n);
    if (r < 0)
        zl_log_error("listen: %s listener=%u", zl_error_text(r), l->id);
}

/* Idle connections to backends that take no requests any more, and of clients whose listener is gone. */
static void drop_idle(struct worker *w)
{
    struct timer *t, *next;
    for (t = w->timers[TIMER_BACKEND_IDLE].next; t != &w->timers[TIMER_BACKEND_IDLE]; t = next) {
        struct upstream *u = ZL_CONTAINER_OF(t, struct upstream, timer);
        next = t->next;
        const struct backend *b = table_backend(w->table, u->slot, u->backend_id);
        if (!b || b->draining)
            upstream_close(u);
    }
    for (t = w->timers[TIMER_IDLE].next; t != &w->timers[TIMER_IDLE]; t = next) {
        struct conn *c = ZL_CONTAINER_OF(t, struct conn, timer);
        next = t->next;
        if (!table_listener(w->table, c->listener))
            conn_close(c);
    }
}

static void apply_table(struct worker *w)
{
    struct table *t = atomic_load_explicit(&w->shared->table, memory_order_acquire);
    if (!t || t == w->table)
        return;
    w->table = t;
    for (unsigned i = w->nlisteners; i-- > 0;) {
        const struct listener *l = table_listener(t, w->listeners[i]->id);
        if (!l || l->fd != w->listeners[i]->ev.fd)
            drop_listener(w, i);
    }
    for (unsigned i = 0; i < t->nlisteners; i++)
        if (t->listeners[i].fd >= 0)
            add_listener(w, &t->listeners[i]);
    drop_idle(w);
    atomic_store_explicit(&w->shared->board->thread[w->index].applied, t->number, memory_order_release);
    atomic_store_explicit(&w->epoch, t->epoch, memory_order_release);
    shared_notify(w->shared);
}

/* ---- the loop ---- */

static void free_dead(struct worker *w)
{
    while (w->dead_conns) {
        struct conn *c = w->dead_conns;
        w->dead_conns = c->next_dead;
        conn_free(c);
    }
    while (w->dead_ups) {
        struct upstream *u = w->dead_ups;
        w->dead_ups = u->next;
        upstream_free(u);
    }
    while (w->dead_listeners) {
        struct worker_listener *l = w->dead_listeners;
        w->dead_listeners = l->next_dead;
        free(l);
    }
}

static void dispatch(struct worker *w, const struct epoll_event *e)
{
    struct ev *ev = e->data.ptr;
    ev->readable = ev->readable || (e->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    ev->writable = ev->writable || (e->events & (EPOLLOUT | EPOLLHUP | EPOLLERR));
    ev->hup = ev->hup || (e->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    ev->err = ev->err || (e->events & (EPOLLHUP | EPOLLERR));
    switch (ev->kind) {
    case EV_WAKE: {
        uint64_t n;
        (void)!read(ev->fd, &n, sizeof n); /* only empties it */
        apply_table(w);
        take_inbox(w);
        return;
    }
    case EV_LISTENER:
        accept_some(w, (struct worker_listener *)(void *)ev);
        return;
    case EV_CLIENT:
        conn_run((struct conn *)(void *)ev);
        return;
    case EV_BACKEND: {
        struct upstream *u = (struct upstream *)(void *)ev;
        if (u->conn)
            conn_run(u->conn);
        else
            upstream_idle_event(u);
        return;
    }
    case EV_DEAD:
        return;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(w->epoll, events, EVENTS, next_timeout(w));
        w->now_ms = zl_clock_mono_ms();
        for (int i = 0; i < n; i++)
            dispatch(w, &events[i]);
        expire(w);
        if (w->accept_again_ms && w->accept_again_ms <= w->now_ms)
            resume_accepting(w);
        free_dead(w);
    }
    return NULL;
}

int worker_init(struct worker *w, struct shared *shared, unsigned index)
{
    w->shared = shared;
    w->index = index;
    w->now_ms = zl_clock_mono_ms();
    w->turn = index;
    for (unsigned i = 0; i < TIMER_CLASSES; i++)
        w->timers[i].prev = w->timers[i].next = &w->timers[i];
    pthread_mutex_init(&w->inbox_lock, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0)
        return -errno;
    w->wake = (struct ev){ .kind = EV_WAKE, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
    if (w->wake.fd < 0)
        return -errno;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = &w->wake };
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake.fd, &e) < 0 ? -errno : 0;
}

int worker_start(struct worker *w)
{
    pthread_attr_t attr;
    char name[16];
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int r = pthread_create(&w->thread, &attr, worker_main, w);
    pthread_attr_destroy(&attr);
    if (r)
        return -r;
    snprintf(name, sizeof name, "proxy-%u", w->index);
    (void)pthread_setname_np(w->thread, name);
    return 0;
}
