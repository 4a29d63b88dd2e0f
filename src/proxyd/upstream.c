#include "proxyd/worker_priv.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fd.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

enum { AVOID_MS = 1000 };

static void pool_remove(struct worker *w, struct upstream *u)
{
    if (u->prev)
        u->prev->next = u->next;
    else
        w->pool[u->slot] = u->next;
    if (u->next)
        u->next->prev = u->prev;
    u->next = u->prev = NULL;
}

static struct worker *worker_of(struct upstream *u)
{
    return u->conn->worker;
}

/* The worker is passed on through the timer lists of idle ones; for those with a conn it is the conn's. */
static void count_begin(struct upstream *u)
{
    atomic_fetch_add_explicit(&u->counters->in_flight, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&u->counters->requests, 1, memory_order_relaxed);
    u->counted = true;
}

static void count_end(struct worker *w, struct upstream *u)
{
    if (!u->counted)
        return;
    u->counted = false;
    /* Release: who sees the drain's end sees everything that was done before it. */
    uint32_t before = atomic_fetch_sub_explicit(&u->counters->in_flight, 1, memory_order_release);
    if (before == 1 && atomic_load_explicit(&u->state->draining, memory_order_relaxed))
        shared_notify(w->shared);
}

/* A connection that has been idle is fine when it has nothing to say: bytes or an end mean that it is of no use. */
static bool is_quiet(struct upstream *u)
{
    char byte;
    return recv(u->ev.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static struct upstream *make(struct conn *c, const struct backend *b, int *ret_error)
{
    struct worker *w = c->worker;
    zl_auto_close int fd = socket(b->address.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *ret_error = -errno;
        return NULL;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (c->protocol == ZL_PX_TCP)
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    bool connected = connect(fd, &b->address.sa, b->address_len) == 0;
    if (!connected && errno != EINPROGRESS) {
        *ret_error = -errno;
        return NULL;
    }
    struct upstream *u = zl_xcalloc(1, sizeof *u);
    u->ev = (struct ev){ .kind = EV_BACKEND, .fd = ZL_TAKE_FD(fd), .writable = connected };
    u->timer.class = TIMER_NONE;
    u->backend_id = b->id;
    u->slot = b->slot;
    u->counters = b->counters;
    u->state = b->state;
    u->connected = connected;
    *ret_error = worker_watch(w, &u->ev);
    if (*ret_error < 0) {
        (void)zl_close(u->ev.fd);
        free(u);
        return NULL;
    }
    return u;
}

struct upstream *upstream_get(struct conn *c, const struct backend *b, bool fresh, bool check, int *ret_error)
{
    struct worker *w = c->worker;
    struct upstream *u;
    while (!fresh && (u = w->pool[b->slot]) != NULL) {
        timer_stop(&u->timer);
        pool_remove(w, u);
        u->conn = c;
        if (u->backend_id == b->id && !u->ev.hup && (!check || is_quiet(u))) {
            u->reused = true;
            count_begin(u);
            return u;
        }
        upstream_close(u);
    }
    u = make(c, b, ret_error);
    if (!u)
        return NULL;
    u->conn = c;
    count_begin(u);
    return u;
}

/* Ends it; `w` because an idle one has no conn to ask. */
static void close_in(struct worker *w, struct upstream *u)
{
    if (u->ev.kind == EV_DEAD)
        return;
    timer_stop(&u->timer);
    count_end(w, u);
    u->conn = NULL;
    u->ev.kind = EV_DEAD;
    u->ev.fd = zl_close(u->ev.fd);
    buf_put(&w->bufs, &u->in);
    u->next = w->dead_ups;
    w->dead_ups = u;
}

void upstream_close(struct upstream *u)
{
    zl_assert(u->conn || u->owner);
    struct worker *w = u->conn ? worker_of(u) : u->owner;
    if (!u->conn)
        pool_remove(w, u);
    close_in(w, u);
}

void upstream_put(struct upstream *u, bool reusable)
{
    struct worker *w = worker_of(u);
    const struct backend *b = table_backend(w->table, u->slot, u->backend_id);
    if (!reusable || u->ev.hup || buf_len(&u->in) || !b || b->draining) {
        close_in(w, u);
        return;
    }
    count_end(w, u);
    buf_put(&w->bufs, &u->in);
    u->conn = NULL;
    u->owner = w;
    u->prev = NULL;
    u->next = w->pool[u->slot];
    if (u->next)
        u->next->prev = u;
    w->pool[u->slot] = u;
    timer_set(w, &u->timer, TIMER_BACKEND_IDLE);
}

void upstream_failed(struct upstream *u, bool connecting)
{
    atomic_fetch_add_explicit(&u->counters->failures, 1, memory_order_relaxed);
    if (!connecting)
        return;
    struct worker *w = worker_of(u);
    atomic_store_explicit(&u->state->avoid_until_ms, w->now_ms + AVOID_MS, memory_order_relaxed);
    if (!atomic_exchange_explicit(&u->state->probe_soon, 1, memory_order_relaxed))
        shared_notify(w->shared);
}

void upstream_idle_event(struct upstream *u)
{
    /* Writable again is no news; bytes that nobody asked for, or the end, are. */
    if (u->ev.hup || (u->ev.readable && !is_quiet(u)))
        upstream_close(u);
    else
        u->ev.readable = false;
}

void upstream_free(struct upstream *u)
{
    free(u);
}
