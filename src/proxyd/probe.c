#include "proxyd/probe_priv.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { FIRST_PAUSE_MS = 5, EAGER_PAUSE_MAX_MS = 1000, GRID_MS = 50, STATUS_SIZE = 13 };

struct probe {
    uint64_t backend_id;
    uint32_t slot;
    struct zl_px_slot *counters;
    struct slot_state *state;
    struct zl_px_service def;
    struct sockaddr_storage address;
    socklen_t address_len;
    char *request; /* http */
    uint64_t since_ms, next_ms, deadline_ms;
    uint32_t pause_ms;
    int fd; /* while one runs */
    bool sent;
    char status[STATUS_SIZE];
    uint32_t nstatus;
    bool seen; /* by the update that is going on */
};

struct prober {
    int epoll;
    void (*changed)(void *arg);
    void *arg;
    struct probe **probes;
    unsigned n, cap;
};

struct prober *prober_new(int epoll, void (*changed)(void *arg), void *arg)
{
    struct prober *p = zl_xcalloc(1, sizeof *p);
    p->epoll = epoll;
    p->changed = changed;
    p->arg = arg;
    return p;
}

/* ---- what is probed ---- */

static void probe_free(struct probe *q)
{
    (void)zl_close(q->fd);
    free(q->request);
    free(q);
}

static void set_target(struct probe *q, const struct table *t, const struct service *s, const struct zl_px_backend *b)
{
    uint16_t port = (uint16_t)(s->def->probe_port ? s->def->probe_port : b->port);
    q->def = *s->def;
    q->address_len = zl_px_sockaddr(b->address, port, &q->address);
    free(ZL_TAKE(q->request));
    if (q->def.probe_kind == ZL_PX_PROBE_HTTP) {
        struct zl_str path = zl_px_str(&t->view, s->def->probe_path);
        q->request = zl_xasprintf("GET %.*s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: zlayer-probe\r\n"
                                  "Accept: */*\r\nConnection: close\r\n\r\n",
                                  ZL_STR_FMT(path));
    }
}

static struct probe *find(struct prober *p, uint32_t slot, uint64_t id)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->probes[i]->slot == slot && p->probes[i]->backend_id == id)
            return p->probes[i];
    return NULL;
}

static void update_service(struct prober *p, const struct table *t, const struct service *s, uint64_t now_ms)
{
    for (unsigned i = 0; i < s->nbackends; i++) {
        const struct zl_px_backend *b = &t->view.backends[s->def->first_backend + i];
        if (b->flags & (ZL_PX_BACKEND_DRAINING | ZL_PX_BACKEND_TRUSTED))
            continue;
        struct probe *q = find(p, b->slot, b->id);
        if (!q) {
            q = zl_xcalloc(1, sizeof *q);
            q->backend_id = b->id;
            q->slot = b->slot;
            q->counters = s->backends[i].counters;
            q->state = s->backends[i].state;
            q->fd = -EBADF;
            q->since_ms = q->next_ms = now_ms;
            q->pause_ms = FIRST_PAUSE_MS;
            ZL_GROW(p->probes, p->n, p->cap);
            p->probes[p->n++] = q;
        }
        set_target(q, t, s, b);
        q->seen = true;
    }
}

void prober_update(struct prober *p, const struct table *t, uint64_t now_ms)
{
    for (unsigned i = 0; i < p->n; i++)
        p->probes[i]->seen = false;
    for (unsigned i = 0; i < t->nservices; i++)
        if (t->services[i].def->probe_kind != ZL_PX_PROBE_NONE)
            update_service(p, t, &t->services[i], now_ms);
    for (unsigned i = p->n; i-- > 0;) {
        if (p->probes[i]->seen)
            continue;
        probe_free(p->probes[i]);
        p->probes[i] = p->probes[--p->n];
    }
}

/* ---- results ---- */

static void set_health(struct prober *p, struct probe *q, enum zl_px_health health)
{
    atomic_store(&q->counters->changed_ms, zl_clock_wall_ms());
    atomic_store(&q->counters->health, (uint32_t)health);
    zl_log_info("backend health=%s slot=%u id=%016llx", health == ZL_PX_HEALTH_OK ? "ok" : "bad", q->slot,
                (unsigned long long)q->backend_id);
    p->changed(p->arg);
}

/* Long intervals meet on a grid, so that many probes cost few wake-ups. */
static uint64_t after(uint64_t now_ms, uint64_t pause_ms)
{
    uint64_t t = now_ms + pause_ms;
    return pause_ms < EAGER_PAUSE_MAX_MS ? t : (t + GRID_MS - 1) / GRID_MS * GRID_MS;
}

static void ended(struct prober *p, struct probe *q, bool good, uint64_t now_ms)
{
    q->fd = zl_close(q->fd);
    uint32_t health = atomic_load(&q->counters->health);
    uint64_t pause = q->def.interval_ms;
    if (good) {
        atomic_store(&q->counters->consecutive, 0);
        atomic_store(&q->state->avoid_until_ms, 0);
        if (health != ZL_PX_HEALTH_OK)
            set_health(p, q, ZL_PX_HEALTH_OK);
    } else {
        bool in_grace = health == ZL_PX_HEALTH_UNKNOWN && now_ms - q->since_ms < q->def.start_grace_ms;
        uint32_t n = atomic_load(&q->counters->consecutive) + !in_grace;
        atomic_store(&q->counters->consecutive, n);
        if (health == ZL_PX_HEALTH_UNKNOWN) {
            pause = ZL_MIN(pause, (uint64_t)q->pause_ms);
            q->pause_ms = ZL_MIN(q->pause_ms * 2, (uint32_t)EAGER_PAUSE_MAX_MS);
        }
        /* Eager probes are more than `retries` within an interval: the time that they would have taken counts. */
        bool due = health != ZL_PX_HEALTH_UNKNOWN ||
                   now_ms - q->since_ms >= q->def.start_grace_ms + (uint64_t)(q->def.retries - 1) * q->def.interval_ms;
        if (n >= q->def.retries && due && health != ZL_PX_HEALTH_BAD)
            set_health(p, q, ZL_PX_HEALTH_BAD);
    }
    q->next_ms = after(now_ms, pause);
}

/* ---- one probe ---- */

static void start(struct prober *p, struct probe *q, uint64_t now_ms)
{
    q->deadline_ms = now_ms + q->def.timeout_ms;
    q->sent = false;
    q->nstatus = 0;
    q->fd = socket(q->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = q };
    if (q->fd < 0 || (connect(q->fd, (struct sockaddr *)&q->address, q->address_len) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(p->epoll, EPOLL_CTL_ADD, q->fd, &e) < 0)
        ended(p, q, false, now_ms);
}

/* Reads as far as the status: 1 good, 0 not there yet, -1 bad. */
static int read_status(struct probe *q)
{
    while (q->nstatus < STATUS_SIZE - 1) {
        ssize_t n = recv(q->fd, q->status + q->nstatus, STATUS_SIZE - 1 - q->nstatus, 0);
        if (n > 0)
            q->nstatus += (uint32_t)n;
        else if (n == 0 || errno != EAGAIN)
            return -1;
        else
            return 0;
    }
    /* "HTTP/1.1 200" */
    bool good =
        memcmp(q->status, "HTTP/1.", 7) == 0 && q->status[8] == ' ' && (q->status[9] == '2' || q->status[9] == '3');
    return good ? 1 : -1;
}

void prober_event(struct prober *p, void *ptr, uint32_t events, uint64_t now_ms)
{
    struct probe *q = NULL;
    for (unsigned i = 0; i < p->n && !q; i++) /* an update in the same batch may have freed it */
        if (p->probes[i] == ptr)
            q = ptr;
    if (!q || q->fd < 0)
        return;
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(q->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
        ended(p, q, false, now_ms);
        return;
    }
    if (!q->sent && !(events & EPOLLOUT))
        return;
    if (q->def.probe_kind == ZL_PX_PROBE_TCP) {
        ended(p, q, true, now_ms);
        return;
    }
    if (!q->sent) {
        size_t len = strlen(q->request);
        q->sent = send(q->fd, q->request, len, MSG_NOSIGNAL) == (ssize_t)len;
        if (!q->sent) {
            ended(p, q, false, now_ms);
            return;
        }
    }
    int r = read_status(q);
    if (r)
        ended(p, q, r > 0, now_ms);
}

uint64_t prober_run(struct prober *p, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < p->n; i++) {
        struct probe *q = p->probes[i];
        if (q->fd >= 0 && q->deadline_ms <= now_ms)
            ended(p, q, false, now_ms);
        bool soon = atomic_exchange(&q->state->probe_soon, 0);
        if (q->fd < 0 && (soon || q->next_ms <= now_ms))
            start(p, q, now_ms);
        next = ZL_MIN(next, q->fd >= 0 ? q->deadline_ms : q->next_ms);
    }
    return next;
}
