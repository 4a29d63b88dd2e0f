/* Sessions through a shim: the agent's side of one connection. */
#include "runtime/native/native_priv.h"
#include "runtime/native/protocol.h"
#include "runtime/native/replies.h"

#include <errno.h>
#include <stdio.h>

enum { WAITING_MAX = 256 * 1024 };

struct session {
    struct zl_rt_session base;
    struct native *n;
    struct zl_rt_conn *conn; /* NULL: it has not come to one, or it is over */
    const struct zl_rt_session_events *events;
    void *arg;
    char id[ZL_ID_HEX_SIZE];
    bool opened, blocked, closed, failing;
    bool input_ended;
    struct zl_err err; /* of one that fails */
};

static void ended(struct session *s, const struct zl_err *err, const struct zl_rt_session_end *end)
{
    s->conn = zl_rt_conn_free(s->conn);
    s->events->ended(s->arg, err, end); /* the session may be gone now */
}

static void fail_later(void *arg)
{
    struct session *s = arg;
    struct native *n = s->n;
    s->failing = false;
    if (s->closed) {
        free(s);
    } else {
        struct zl_err err = s->err;
        ended(s, &err, NULL);
    }
    native_unref(n);
}

static void frame(void *arg, const struct zl_frame *f, int error)
{
    struct session *s = arg;
    struct zl_err err = { 0 };
    struct zl_sh_output o;
    struct zl_rt_session_end end;
    (void)error;
    if (!f) {
        (void)zl_fail(&err, ZL_E_CLOSED, "instance %s or its shim has ended", s->id);
        ended(s, &err, NULL);
        return;
    }
    bool of_session = f->type == ZL_SH_OUTPUT || f->type == ZL_SH_EXEC_EXIT || f->type == ZL_SH_EXITED;
    if (of_session && !s->opened) {
        (void)zl_fail(&err, ZL_E_UNSUPPORTED, "the shim of instance %s is from an older zlayer and has no sessions",
                      s->id);
        ended(s, &err, NULL);
        return;
    }
    switch (f->type) {
    case ZL_SH_SESSION:
        s->opened = true;
        if (s->events->opened)
            s->events->opened(s->arg);
        break;
    case ZL_SH_OUTPUT:
        zl_sh_take_output(f->body, &o);
        s->events->output(s->arg, o.is_stderr, o.data);
        break;
    case ZL_SH_LOST:
        zl_sh_take_output(f->body, &o);
        if (s->events->lost)
            s->events->lost(s->arg, o.is_stderr, o.lost);
        break;
    case ZL_SH_ERROR:
        zl_sh_take_error(f->body, ZL_E_RUNTIME, &err);
        ended(s, &err, NULL);
        break;
    case ZL_SH_EXEC_EXIT:
    case ZL_SH_EXITED:
        zl_sh_take_end(f->body, &end.code, &end.signal);
        ended(s, &err, &end);
        break;
    default:
        break; /* of a later version */
    }
}

static void drained(void *arg)
{
    struct session *s = arg;
    if (!s->blocked)
        return;
    s->blocked = false;
    if (s->events->writable)
        s->events->writable(s->arg);
}

static int session_write(struct zl_rt_session *base, struct zl_str bytes)
{
    struct session *s = ZL_CONTAINER_OF(base, struct session, base);
    zl_auto_buf b = ZL_BUF_INIT;
    if (!s->conn || s->input_ended)
        return 0; /* its end is known, or about to be told */
    if (zl_rt_conn_queued(s->conn) && zl_rt_conn_queued(s->conn) + bytes.n > WAITING_MAX) {
        s->blocked = true;
        return -EAGAIN;
    }
    while (bytes.n) {
        size_t n = ZL_MIN(bytes.n, (size_t)ZL_SH_INPUT_MAX), f;
        f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_INPUT);
        zl_record_add(&b, ZL_SH_R_DATA, bytes.p, n);
        zl_frame_end(&b, f);
        bytes = zl_str_n(bytes.p + n, bytes.n - n);
    }
    zl_rt_conn_send(s->conn, &b);
    return 0;
}

static void session_end_input(struct zl_rt_session *base)
{
    struct session *s = ZL_CONTAINER_OF(base, struct session, base);
    zl_auto_buf b = ZL_BUF_INIT;
    if (!s->conn || s->input_ended)
        return;
    s->input_ended = true;
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_INPUT_END));
    zl_rt_conn_send(s->conn, &b);
}

static void session_resize(struct zl_rt_session *base, unsigned rows, unsigned columns)
{
    struct session *s = ZL_CONTAINER_OF(base, struct session, base);
    zl_auto_buf b = ZL_BUF_INIT;
    if (!s->conn)
        return;
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_RESIZE);
    zl_record_add_u64(&b, ZL_SH_R_ROWS, ZL_MIN(rows, (unsigned)UINT16_MAX));
    zl_record_add_u64(&b, ZL_SH_R_COLUMNS, ZL_MIN(columns, (unsigned)UINT16_MAX));
    zl_frame_end(&b, f);
    zl_rt_conn_send(s->conn, &b);
}

static void session_hold(struct zl_rt_session *base, bool on)
{
    struct session *s = ZL_CONTAINER_OF(base, struct session, base);
    if (s->conn)
        zl_rt_conn_hold(s->conn, on);
}

static void session_close(struct zl_rt_session *base)
{
    struct session *s = ZL_CONTAINER_OF(base, struct session, base);
    s->conn = zl_rt_conn_free(s->conn);
    s->closed = true;
    if (!s->failing)
        free(s);
}

static const struct zl_rt_session_ops session_ops = {
    .write = session_write,
    .end_input = session_end_input,
    .resize = session_resize,
    .hold = session_hold,
    .close = session_close,
};

static int open_session(struct session *s, const char *id, const struct zl_rt_session_spec *spec)
{
    zl_auto_buf b = ZL_BUF_INIT;
    struct instance *i = id && zl_id_valid(id) ? instance_find(s->n, id) : NULL;
    if (!i || i->removing)
        return zl_fail(&s->err, ZL_E_NOT_FOUND, "there is no instance %.40s", id ? id : "");
    if (i->phase != I_RUNNING && !(i->phase == I_CREATED && !spec->exec))
        return zl_fail(&s->err, ZL_E_CONFLICT, "instance %s does not run", id);
    if (spec->rows > UINT16_MAX || spec->columns > UINT16_MAX)
        return zl_fail(&s->err, ZL_E_INVALID, "a terminal of %u rows and %u columns", spec->rows, spec->columns);
    if (spec->exec) {
        int r = native_exec_request(&b, spec->exec, spec, &s->err);
        if (r < 0)
            return r;
    } else {
        size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_ATTACH);
        zl_record_add_u64(&b, ZL_SH_R_STDIN, spec->input);
        zl_frame_end(&b, f);
    }
    int r = zl_rt_conn_open(s->n->loop, s->n->containers, id, &b, frame, s, &s->conn);
    if (r == -ECONNREFUSED || r == -ENOENT)
        return zl_fail(&s->err, ZL_E_CONFLICT, "instance %s has ended", id);
    if (r < 0)
        return zl_fail(&s->err, r, "speak to the shim of instance %s", id);
    zl_rt_conn_on_drained(s->conn, drained);
    return 0;
}

struct zl_rt_session *native_session(struct zl_runtime *rt, const char *id, const struct zl_rt_session_spec *spec,
                                     const struct zl_rt_session_events *events, void *arg)
{
    struct session *s = zl_xcalloc(1, sizeof *s);
    s->base.ops = &session_ops;
    s->n = ZL_CONTAINER_OF(rt, struct native, base);
    s->events = events;
    s->arg = arg;
    snprintf(s->id, sizeof s->id, "%.32s", id ? id : "");
    if (open_session(s, id, spec) < 0) {
        s->failing = true;
        s->n->refs++;
        zl_loop_defer(s->n->loop, fail_later, s);
    }
    return &s->base;
}
