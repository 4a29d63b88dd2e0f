#include "proxyd/control_priv.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "net/proxy/wire.h"
#include "proxyd/probe_priv.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    /* A proxy that was given nothing to serve and that no agent speaks to has lost its agent at birth. */
    ORPHAN_MS = 30 * 1000,
    EVENTS = 32,
};

struct held {
    uint32_t id;
    int fd;
};

/* A listener that was dropped; closed once no worker knows it. */
struct dropped {
    int fd;
    uint64_t epoch;
};

struct control {
    struct shared *shared;
    int epoll, listen_fd, agent;
    int board_fd, snapshot_fd;
    struct held *listeners;
    unsigned nlisteners, listeners_cap;
    struct dropped *dropped;
    unsigned ndropped, dropped_cap;
    uint64_t epoch;
    uint64_t told_number; /* the last snapshot that the agent was told of as applied */
    bool news, quit;
    uint64_t orphan_ms;
    struct prober *prober;
    char tag_listen, tag_agent, tag_wake; /* their addresses tell events apart */
};

static int watch(struct control *c, int fd, void *tag)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = tag };
    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void drop_agent(struct control *c)
{
    c->agent = zl_close(c->agent);
    c->orphan_ms = c->nlisteners ? 0 : zl_clock_mono_ms() + ORPHAN_MS;
}

static void health_changed(void *arg)
{
    struct control *c = arg;
    c->news = true;
}

static void refuse(struct control *c, const char *what, int r)
{
    char text[200];
    snprintf(text, sizeof text, "%s: %s", what, zl_error_text(r));
    zl_log_error("refused %s", text);
    if (c->agent >= 0 && zl_px_send(c->agent, ZL_PX_REFUSED, 0, 0, text, -EBADF) < 0)
        drop_agent(c);
}

/* ---- tables ---- */

/* What the board says of a slot that has a new owner; and who drains. */
static void prepare_slots(struct control *c, const struct table *t)
{
    const struct table *old = atomic_load_explicit(&c->shared->table, memory_order_relaxed);
    for (unsigned i = 0; old && i < old->nbackends; i++)
        if (!table_backend(t, old->backends[i].slot, old->backends[i].id))
            atomic_store(&old->backends[i].state->draining, 1);
    for (unsigned s = 0; s < t->nservices; s++) {
        for (unsigned i = 0; i < t->services[s].nbackends; i++) {
            const struct backend *b = &t->services[s].backends[i];
            const struct zl_px_backend *def = &t->view.backends[t->services[s].def->first_backend + i];
            struct zl_px_slot *slot = b->counters;
            if (atomic_load(&slot->backend) != b->id) {
                atomic_store(&slot->requests, 0);
                atomic_store(&slot->failures, 0);
                atomic_store(&slot->in_flight, 0);
                atomic_store(&slot->consecutive, 0);
                atomic_store(&slot->health, ZL_PX_HEALTH_UNKNOWN);
                atomic_store(&slot->changed_ms, zl_clock_wall_ms());
                atomic_store(&b->state->avoid_until_ms, 0);
                atomic_store(&slot->backend, b->id);
            }
            if (t->services[s].def->probe_kind == ZL_PX_PROBE_NONE || (def->flags & ZL_PX_BACKEND_TRUSTED))
                atomic_store(&slot->health, ZL_PX_HEALTH_OK);
            atomic_store(&b->state->draining, b->draining);
        }
    }
}

/* Makes what is known now into the table that all work by. */
static int publish(struct control *c, int snapshot_fd)
{
    struct table *t;
    int r = table_new(snapshot_fd, c->shared->board, c->shared->states, &t);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < c->nlisteners; i++)
        table_listen(t, c->listeners[i].id, c->listeners[i].fd);
    t->epoch = ++c->epoch;
    prepare_slots(c, t);
    prober_update(c->prober, t, zl_clock_mono_ms());
    struct table *old = atomic_exchange_explicit(&c->shared->table, t, memory_order_acq_rel);
    t->older = old;
    for (unsigned i = 0; i < c->shared->nworkers; i++)
        worker_wake(&c->shared->workers[i]);
    return 0;
}

/* Frees what every worker is past, and tells the agent what it waits for. */
static void settle(struct control *c)
{
    struct table *now = atomic_load_explicit(&c->shared->table, memory_order_relaxed);
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < c->shared->nworkers; i++)
        least = ZL_MIN(least, atomic_load_explicit(&c->shared->workers[i].epoch, memory_order_acquire));
    if (!now)
        return;
    struct table **link = &now->older;
    while (*link) {
        struct table *t = *link;
        if (t->epoch < least) {
            *link = t->older;
            table_free(t);
        } else {
            link = &t->older;
        }
    }
    for (unsigned i = c->ndropped; i-- > 0;) {
        if (c->dropped[i].epoch > least)
            continue;
        (void)zl_close(c->dropped[i].fd);
        c->dropped[i] = c->dropped[--c->ndropped];
    }
    if (least >= now->epoch && now->number > c->told_number) {
        c->told_number = now->number;
        c->news = true;
    }
}

static void republish(struct control *c)
{
    if (c->snapshot_fd < 0 || !c->shared->board)
        return;
    int r = publish(c, c->snapshot_fd);
    if (r < 0)
        refuse(c, "listeners", r);
}

/* ---- messages ---- */

static void on_board(struct control *c, int fd_take)
{
    if (c->shared->board) { /* the workers count there: it is one for life */
        (void)zl_close(fd_take);
        return;
    }
    struct zl_px_board *b = NULL;
    int r = fd_take < 0 ? -EBADF : zl_px_board_map(fd_take, &b);
    if (r < 0) {
        (void)zl_close(fd_take);
        refuse(c, "board", r);
        return;
    }
    c->board_fd = fd_take;
    c->shared->board = b;
    atomic_store(&b->threads, c->shared->nworkers);
}

static void drop_listener(struct control *c, unsigned i)
{
    (void)shutdown(c->listeners[i].fd, SHUT_RD); /* the port is free at once, whoever still knows the socket */
    ZL_GROW(c->dropped, c->ndropped, c->dropped_cap);
    c->dropped[c->ndropped++] = (struct dropped){ c->listeners[i].fd, c->epoch + 1 };
    c->listeners[i] = c->listeners[--c->nlisteners];
}

static void on_listener(struct control *c, uint64_t id, int fd_take)
{
    int on = 0;
    socklen_t n = sizeof on;
    if (fd_take < 0 || getsockopt(fd_take, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) < 0 || !on ||
        zl_set_nonblock(fd_take, true) < 0) {
        (void)zl_close(fd_take);
        refuse(c, "listener", -EBADF);
        return;
    }
    for (unsigned i = 0; i < c->nlisteners; i++) {
        if (c->listeners[i].id != id)
            continue;
        /* The same one again, from an agent that sends everything anew: what is open stays. */
        (void)zl_close(fd_take);
        return;
    }
    ZL_GROW(c->listeners, c->nlisteners, c->listeners_cap);
    c->listeners[c->nlisteners++] = (struct held){ (uint32_t)id, fd_take };
    c->orphan_ms = 0;
    /* A snapshot that names it may be here already, or on its way. */
    const struct table *t = atomic_load_explicit(&c->shared->table, memory_order_relaxed);
    for (unsigned i = 0; t && i < t->nlisteners; i++)
        if (t->listeners[i].id == id) {
            republish(c);
            return;
        }
}

static void on_drop(struct control *c, uint64_t id)
{
    for (unsigned i = 0; i < c->nlisteners; i++)
        if (c->listeners[i].id == id) {
            drop_listener(c, i);
            republish(c);
            return;
        }
}

static void on_snapshot(struct control *c, int fd_take)
{
    int r = fd_take < 0 ? -EBADF : !c->shared->board ? -EINVAL : publish(c, fd_take);
    if (r < 0) {
        (void)zl_close(fd_take);
        refuse(c, "snapshot", r);
        return;
    }
    (void)zl_close(c->snapshot_fd);
    c->snapshot_fd = fd_take;
}

static void on_fetch(struct control *c)
{
    int r = c->board_fd >= 0 ? zl_px_send(c->agent, ZL_PX_BOARD, 0, 0, NULL, c->board_fd) : 0;
    for (unsigned i = 0; r == 0 && i < c->nlisteners; i++)
        r = zl_px_send(c->agent, ZL_PX_LISTENER, ZL_PX_R_ID, c->listeners[i].id, NULL, c->listeners[i].fd);
    if (r == 0 && c->snapshot_fd >= 0)
        r = zl_px_send(c->agent, ZL_PX_SNAPSHOT, 0, 0, NULL, c->snapshot_fd);
    if (r == 0)
        r = zl_px_send(c->agent, ZL_PX_FETCHED, 0, 0, NULL, -EBADF);
    if (r < 0)
        drop_agent(c);
}

static void on_agent(struct control *c)
{
    struct zl_px_in in;
    int r = zl_px_receive(c->agent, &in);
    if (r == -EAGAIN)
        return;
    if (r < 0) {
        if (r != -ECONNRESET)
            zl_log_warn("the agent's connection is given up: %s", zl_error_text(r));
        drop_agent(c);
        return;
    }
    switch (in.type) {
    case ZL_PX_BOARD:
        on_board(c, ZL_TAKE_FD(in.fd));
        break;
    case ZL_PX_LISTENER:
        on_listener(c, in.id, ZL_TAKE_FD(in.fd));
        break;
    case ZL_PX_DROP:
        on_drop(c, in.id);
        break;
    case ZL_PX_SNAPSHOT:
        on_snapshot(c, ZL_TAKE_FD(in.fd));
        break;
    case ZL_PX_FETCH:
        on_fetch(c);
        break;
    case ZL_PX_QUIT:
        c->quit = true;
        break;
    default: /* HELLO, and what a later agent may say */
        break;
    }
    (void)zl_close(in.fd);
}

/* One agent at a time; the latest is the right one. Who may connect is a matter of the socket's folder and mode. */
static void on_connect(struct control *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    (void)zl_close(c->agent);
    c->agent = fd;
    c->orphan_ms = 0;
    const struct table *t = atomic_load_explicit(&c->shared->table, memory_order_relaxed);
    int r = watch(c, fd, &c->tag_agent);
    if (r == 0)
        r = zl_px_send_hello(fd, (uint64_t)getpid(), c->shared->nworkers, t ? t->number : 0);
    if (r < 0)
        drop_agent(c);
}

static void on_wake(struct control *c)
{
    uint64_t n;
    (void)!read(c->shared->control_wake, &n, sizeof n); /* only empties it */
    settle(c);
    c->news = true;
}

static void handle(struct control *c, const struct epoll_event *e)
{
    if (e->data.ptr == &c->tag_listen)
        on_connect(c);
    else if (e->data.ptr == &c->tag_agent)
        on_agent(c);
    else if (e->data.ptr == &c->tag_wake)
        on_wake(c);
    else
        prober_event(c->prober, e->data.ptr, e->events, zl_clock_mono_ms());
}

static void tell_news(struct control *c)
{
    if (!c->news)
        return;
    c->news = false;
    if (c->agent >= 0 && zl_px_send(c->agent, ZL_PX_EVENT, 0, 0, NULL, -EBADF) < 0)
        drop_agent(c);
}

int control_run(struct shared *shared, int listen_fd)
{
    struct control *c = zl_xcalloc(1, sizeof *c);
    c->shared = shared;
    c->listen_fd = listen_fd;
    c->agent = c->board_fd = c->snapshot_fd = -EBADF;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->orphan_ms = zl_clock_mono_ms() + ORPHAN_MS;
    c->prober = prober_new(c->epoll, health_changed, c);
    if (c->epoll < 0 || watch(c, listen_fd, &c->tag_listen) < 0 || watch(c, shared->control_wake, &c->tag_wake) < 0) {
        zl_log_error("can't watch the control socket: %s", zl_error_text(-errno));
        return 1;
    }
    while (!c->quit) {
        struct epoll_event events[EVENTS];
        uint64_t now = zl_clock_mono_ms();
        uint64_t next = prober_run(c->prober, now);
        tell_news(c);
        if (c->orphan_ms)
            next = ZL_MIN(next, c->orphan_ms);
        int wait = next == UINT64_MAX ? -1 : next <= now ? 0 : (int)ZL_MIN(next - now, (uint64_t)60000);
        int n = epoll_wait(c->epoll, events, EVENTS, wait);
        for (int i = 0; i < n; i++)
            handle(c, &events[i]);
        if (c->orphan_ms && zl_clock_mono_ms() >= c->orphan_ms) {
            zl_log_warn("no agent and nothing to serve, ending");
            return 0;
        }
    }
    return 0;
}
