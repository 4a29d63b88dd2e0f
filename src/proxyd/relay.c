#include "proxyd/worker_priv.h"

#include <errno.h>
#include <sys/socket.h>

/*
 * One direction: what has come from `from` stands in `b` and goes to `to`; the end of the one is passed on as the end
 * of the other's writing. 1: more may follow, 0: this direction is over, -1: broken.
 */
static int pass(struct worker *w, struct ev *from, struct buf *b, struct ev *to, bool *shut)
{
    if (*shut)
        return 0;
    bool ended = false;
    for (;;) {
        while (buf_len(b) && to->writable) {
            ssize_t n = send(to->fd, b->p + b->start, buf_len(b), MSG_NOSIGNAL);
            if (n > 0)
                buf_drop(b, (uint32_t)n);
            else if (errno == EAGAIN)
                to->writable = false;
            else if (errno != EINTR)
                return -1;
        }
        if (buf_len(b) == 0 && ended) {
            buf_put(&w->bufs, b);
            *shut = true;
            return shutdown(to->fd, SHUT_WR) < 0 ? -1 : 0;
        }
        if (buf_len(b) || !from->readable)
            break;
        if (!buf_get(&w->bufs, b))
            return -1;
        ssize_t n = ev_read(from, b);
        if (n == -EAGAIN)
            break;
        if (n < 0)
            return -1;
        ended = n == 0;
    }
    if (buf_len(b) == 0)
        buf_put(&w->bufs, b);
    return 1;
}

static void tunnel(struct conn *c)
{
    struct worker *w = c->worker;
    int up = pass(w, &c->ev, &c->in, &c->up->ev, &c->in_shut);
    int down = pass(w, &c->up->ev, &c->up->in, &c->ev, &c->up_shut);
    if (up < 0 || down < 0 || (up == 0 && down == 0))
        conn_close(c);
}

void relay_run(struct conn *c)
{
    if (c->state == CONN_CONNECT) {
        int r = conn_connected(c);
        if (r == 0) {
            if (c->ev.err)
                conn_close(c);
            return;
        }
        if (r < 0) {
            uint32_t slot = c->up->slot;
            upstream_failed(c->up, true);
            upstream_close(ZL_TAKE(c->up));
            c->tried[c->ntried++] = slot;
            if (conn_connect(c) < 0) {
                conn_close(c);
                return;
            }
            /* Its own event brings us back here. */
            if (conn_connected(c) <= 0)
                return;
        }
        timer_stop(&c->timer);
        c->state = CONN_TUNNEL;
    }
    tunnel(c);
}
