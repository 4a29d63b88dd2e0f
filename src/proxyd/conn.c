#include "proxyd/worker_priv.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

static void peer_text(const struct sockaddr_storage *peer, char ret[INET6_ADDRSTRLEN])
{
    ret[0] = 0;
    if (peer->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)peer)->sin_addr, ret, INET6_ADDRSTRLEN);
    } else if (peer->ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)peer)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a))
            inet_ntop(AF_INET, (const char *)a + 12, ret, INET6_ADDRSTRLEN);
        else
            inet_ntop(AF_INET6, a, ret, INET6_ADDRSTRLEN);
    }
}

void conn_open(struct worker *w, int fd, const struct listener *l, const struct sockaddr_storage *peer)
{
    struct conn *c = zl_xcalloc(1, sizeof *c);
    /* A request's first bytes are often there already; if not, one call says so. */
    c->ev = (struct ev){ .kind = EV_CLIENT, .fd = fd, .readable = true, .writable = true };
    c->timer.class = TIMER_NONE;
    c->worker = w;
    c->listener = l->id;
    c->protocol = l->protocol;
    c->state = l->protocol == ZL_PX_HTTP ? CONN_HEAD : CONN_CONNECT;
    peer_text(peer, c->peer);
    if (worker_watch(w, &c->ev) < 0) {
        (void)zl_close(fd);
        free(c);
        return;
    }
    atomic_fetch_add_explicit(&w->nconns, 1, memory_order_relaxed);
    if (c->protocol == ZL_PX_TCP) {
        int on = 1;
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        c->service = l->routes[0].service->id;
        if (conn_connect(c) < 0) {
            conn_close(c);
            return;
        }
    } else {
        timer_set(w, &c->timer, TIMER_HEAD);
    }
    conn_run(c);
}

void conn_close(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->ev.kind == EV_DEAD)
        return;
    timer_stop(&c->timer);
    if (c->up)
        upstream_close(ZL_TAKE(c->up));
    c->ev.kind = EV_DEAD;
    c->ev.fd = zl_close(c->ev.fd);
    buf_put(&w->bufs, &c->in);
    buf_put(&w->bufs, &c->req);
    buf_put(&w->bufs, &c->resp);
    atomic_fetch_sub_explicit(&w->nconns, 1, memory_order_relaxed);
    c->next_dead = w->dead_conns;
    w->dead_conns = c;
}

void conn_free(struct conn *c)
{
    free(c);
}

int conn_connect(struct conn *c)
{
    struct worker *w = c->worker;
    while (c->ntried < TRIES_MAX) {
        const struct service *s = table_service(w->table, c->service);
        bool more;
        const struct backend *b = s ? service_choose(s, c->tried, c->ntried, w->turn++, w->now_ms, &more) : NULL;
        if (!b)
            return -EHOSTDOWN;
        int error = 0;
        bool fresh = c->fresh_only || c->protocol == ZL_PX_TCP;
        /* What can't be sent twice is not sent to a connection that may be dead. */
        struct upstream *u = upstream_get(c, b, fresh, !c->idempotent, &error);
        if (!u && (error == -EMFILE || error == -ENFILE || error == -ENOMEM))
            return error;
        if (!u) {
            atomic_fetch_add_explicit(&b->counters->failures, 1, memory_order_relaxed);
            atomic_store_explicit(&b->state->avoid_until_ms, w->now_ms + 1000, memory_order_relaxed);
            if (!atomic_exchange_explicit(&b->state->probe_soon, 1, memory_order_relaxed))
                shared_notify(w->shared);
            c->tried[c->ntried++] = b->slot;
            continue;
        }
        c->up = u;
        c->sent_something = c->up_write_broken = false;
        c->req_sent = 0;
        c->body.sent = 0;
        if (u->reused) {
            u->connected = true;
        } else {
            timer_set(w, &c->timer, more ? TIMER_CONNECT_FAST : TIMER_CONNECT);
        }
        c->state = CONN_CONNECT;
        return 0;
    }
    return -ECONNREFUSED;
}

int conn_connected(struct conn *c)
{
    struct upstream *u = c->up;
    if (u->connected)
        return 1;
    if (!u->ev.writable && !u->ev.err)
        return 0;
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(u->ev.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    if (error)
        return -error;
    u->connected = true;
    return 1;
}

void conn_run(struct conn *c)
{
    if (c->ev.kind == EV_DEAD)
        return;
    if (c->state == CONN_TUNNEL || c->protocol == ZL_PX_TCP)
        relay_run(c);
    else
        http_run(c);
}

void conn_timeout(struct conn *c, enum timer_class class)
{
    if (c->state == CONN_CONNECT && c->up) {
        uint32_t slot = c->up->slot;
        upstream_failed(c->up, true);
        upstream_close(ZL_TAKE(c->up));
        c->tried[c->ntried++] = slot;
        if (c->protocol == ZL_PX_TCP) {
            if (conn_connect(c) < 0)
                conn_close(c);
            else
                conn_run(c);
            return;
        }
    }
    if (c->protocol == ZL_PX_TCP || c->state == CONN_TUNNEL)
        conn_close(c);
    else
        http_timeout(c, class);
}
