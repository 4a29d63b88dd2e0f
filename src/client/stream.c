#include "client/client_priv.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>

enum { LINE_MAX_BYTES = 4 * 1024 * 1024 };

struct zl_stream {
    struct zl_exchange x;
    size_t taken;             /* of x.body: the line that was handed out last */
    size_t searched;          /* x.body holds no LF before this */
    struct zl_buf name, data; /* of the event that is being read, and then of the one handed out */
    bool given;               /* the event in name and data was handed out */
    bool any;                 /* a line of the event has come */
};

struct zl_stream *zl_stream_of(const struct zl_exchange *x)
{
    struct zl_stream *s = zl_xcalloc(1, sizeof *s);
    s->x = *x;
    return s;
}

int zl_stream_open(struct zl_client *c, const char *method, const char *path, const struct zl_value *body,
                   struct zl_stream **ret, struct zl_err *err)
{
    struct zl_exchange x = ZL_EXCHANGE_INIT;
    int e = zl_client_exchange(c, &x, method, path, body, err);
    if (e < 0)
        zl_exchange_done(&x);
    else
        *ret = zl_stream_of(&x);
    return e < 0 ? e : 0;
}

struct zl_stream *zl_stream_free(struct zl_stream *s)
{
    if (!s)
        return NULL;
    zl_exchange_done(&s->x);
    zl_buf_done(&s->name);
    zl_buf_done(&s->data);
    free(s);
    return NULL;
}

int zl_stream_fd(const struct zl_stream *s)
{
    return s->x.fd;
}

int zl_stream_line(struct zl_stream *s, int timeout_ms, struct zl_str *ret, struct zl_err *err)
{
    struct zl_buf *b = &s->x.body;
    if (s->taken) {
        zl_buf_drop(b, s->taken);
        s->taken = 0;
        s->searched = 0;
    }
    uint64_t deadline = zl_clock_mono_ms() + (uint64_t)ZL_MAX(timeout_ms, 0);
    for (;;) {
        const char *end = b->n > s->searched ? memchr(b->p + s->searched, '\n', b->n - s->searched) : NULL;
        if (end) {
            size_t n = (size_t)(end - b->p);
            s->taken = n + 1;
            *ret = zl_str_n(b->p, n && b->p[n - 1] == '\r' ? n - 1 : n);
            return 1;
        }
        s->searched = b->n;
        if (b->n > LINE_MAX_BYTES)
            return zl_fail(err, ZL_E_PROTOCOL, "a line of the agent's stream is too long");
        uint64_t now = zl_clock_mono_ms();
        int left = timeout_ms < 0 ? -1 : now >= deadline ? 0 : (int)(deadline - now);
        int e = zl_exchange_read(&s->x, left, err);
        if (e <= 0)
            return e;
    }
}

static void event_line(struct zl_stream *s, struct zl_str line)
{
    struct zl_str value, name = zl_str_cut(line, ':', &value);
    if (value.n && value.p[0] == ' ') {
        value.p++;
        value.n--;
    }
    if (zl_str_is(name, "event")) {
        zl_buf_clear(&s->name);
        zl_buf_add_str(&s->name, value);
    } else if (zl_str_is(name, "data")) {
        if (s->any)
            zl_buf_putc(&s->data, '\n');
        zl_buf_add_str(&s->data, value);
        s->any = true;
    }
}

int zl_stream_event(struct zl_stream *s, int timeout_ms, struct zl_str *name, struct zl_str *data, struct zl_err *err)
{
    if (s->given) {
        zl_buf_clear(&s->name);
        zl_buf_clear(&s->data);
        s->given = s->any = false;
    }
    uint64_t deadline = zl_clock_mono_ms() + (uint64_t)ZL_MAX(timeout_ms, 0);
    for (;;) {
        struct zl_str line;
        uint64_t now = zl_clock_mono_ms();
        int left = timeout_ms < 0 ? -1 : now >= deadline ? 0 : (int)(deadline - now);
        int e = zl_stream_line(s, left, &line, err);
        if (e <= 0)
            return e; /* an event that the end cut off is no event */
        if (line.n) {
            event_line(s, line);
        } else if (s->any) {
            *name = s->name.n ? zl_buf_view(&s->name) : ZL_STR("message");
            *data = zl_buf_view(&s->data);
            s->given = true;
            return 1;
        } else {
            zl_buf_clear(&s->name);
        }
    }
}
