#include "runtime/native/native_priv.h"

#include "base/fd.h"
#include "runtime/native/protocol.h"

void native_take_error(struct zl_str body, int fallback, struct zl_err *err)
{
    struct zl_record r;
    struct zl_str text = ZL_STR("do what was asked");
    uint64_t code = 0;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_CODE && zl_record_u64(&r, &code) < 0)
            code = 0;
        if (r.type == ZL_SH_R_TEXT)
            text = zl_str_n(r.bytes.p, ZL_MIN(r.bytes.n, (size_t)200));
    }
    int c = (int)(int64_t)code;
    if (c == -ENOSPC || c == -EDQUOT)
        (void)zl_fail_errno(err, ZL_E_DISK_FULL, c, "could not %.*s", ZL_STR_FMT(text));
    else if (c < 0 && c > -4096)
        (void)zl_fail_errno(err, fallback, c, "could not %.*s", ZL_STR_FMT(text));
    else
        (void)zl_fail(err, c < -4096 ? c : fallback, "could not %.*s", ZL_STR_FMT(text));
}

void native_take_outcome(struct zl_str body, struct zl_rt_outcome *ret)
{
    struct zl_record r;
    uint64_t v;
    *ret = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR, .code = 255 };
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_REASON) {
            for (int k = ZL_RT_REASON_EXITED; k <= (int)ZL_RT_REASON_RUNTIME_ERROR; k++)
                if (zl_str_is(r.bytes, zl_rt_reason_name((enum zl_rt_reason)k)))
                    ret->reason = (enum zl_rt_reason)k;
            continue;
        }
        if (zl_record_u64(&r, &v) < 0)
            continue;
        if (r.type == ZL_SH_R_CODE)
            ret->code = (int)v;
        else if (r.type == ZL_SH_R_SIGNAL)
            ret->signal = (int)v;
        else if (r.type == ZL_SH_R_OOM_KILLS)
            ret->oom_kills = v;
        else if (r.type == ZL_SH_R_FINISHED_MS)
            ret->finished_at_ms = v;
    }
}

static void take_stats(struct zl_str body, struct zl_rt_stats *s)
{
    struct zl_record r;
    uint64_t v;
    while (zl_record_next(&body, &r) > 0) {
        if (zl_record_u64(&r, &v) < 0)
            continue;
        if (r.type == ZL_SH_R_CPU_USEC)
            s->cpu_usec = v;
        else if (r.type == ZL_SH_R_MEMORY)
            s->memory_bytes = v;
        else if (r.type == ZL_SH_R_MEMORY_LIMIT)
            s->memory_limit = v;
        else if (r.type == ZL_SH_R_PIDS)
            s->pids = v;
        else if (r.type == ZL_SH_R_OOM_KILLS)
            s->oom_kills = v;
    }
}

static void take_output(struct call *c, struct zl_str body)
{
    struct zl_record r;
    uint64_t stream = 1;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_STREAM && zl_record_u64(&r, &stream) < 0)
            return;
        if (r.type != ZL_SH_R_DATA)
            continue;
        size_t room = (size_t)c->output_max - ZL_MIN((size_t)c->output_max, c->out.n + c->errs.n);
        size_t take = ZL_MIN(r.bytes.n, room);
        zl_buf_add(stream == 2 ? &c->errs : &c->out, r.bytes.p, take);
        c->reply.exec.truncated |= take < r.bytes.n;
    }
}

static void answered(void *arg, const struct zl_frame *f, int error)
{
    struct call *c = arg;
    uint64_t v;
    struct zl_record r;
    if (!f) {
        c->conn = zl_rt_conn_free(c->conn);
        (void)error;
        /* The shim is ending or lost: for kill that is what was wanted. */
        if (c->kind == ZL_RT_KILL)
            call_finish(c);
        else
            call_fail(c, ZL_E_CONFLICT, "instance %s has ended", c->id);
        return;
    }
    switch (f->type) {
    case ZL_SH_OUTPUT:
        take_output(c, f->body);
        return;
    case ZL_SH_ERROR:
        native_take_error(f->body, ZL_E_RUNTIME, &c->err);
        break;
    case ZL_SH_STATS:
        take_stats(f->body, &c->reply.stats);
        break;
    case ZL_SH_EXEC_EXIT:
        for (struct zl_str body = f->body; zl_record_next(&body, &r) > 0;) {
            if (zl_record_u64(&r, &v) < 0)
                continue;
            if (r.type == ZL_SH_R_CODE)
                c->reply.exec.code = (int)v;
            else if (r.type == ZL_SH_R_SIGNAL)
                c->reply.exec.signal = (int)v;
        }
        break;
    default:
        break;
    }
    c->conn = zl_rt_conn_free(c->conn);
    call_finish(c);
}

static void ask(struct native *n, struct call *c, struct zl_buf *request)
{
    int r = zl_rt_conn_open(n->loop, n->containers, c->id, request, answered, c, &c->conn);
    if (r >= 0)
        return;
    if ((r == -ECONNREFUSED || r == -ENOENT) && c->kind == ZL_RT_KILL)
        call_finish(c); /* its shim ended just now */
    else if (r == -ECONNREFUSED || r == -ENOENT)
        call_fail(c, ZL_E_CONFLICT, "instance %s has ended", c->id);
    else
        call_fail(c, r, "speak to the shim of instance %s", c->id);
}

/* The instance if it is known; with `running` also only if it runs. Finishes the call otherwise. */
static struct instance *usable(struct native *n, struct call *c, bool running)
{
    struct instance *i = instance_find(n, c->id);
    if (!i || i->removing)
        call_fail(c, ZL_E_NOT_FOUND, "there is no instance %s", c->id);
    else if (running && i->phase != I_RUNNING)
        call_fail(c, ZL_E_CONFLICT, "instance %s does not run", c->id);
    else
        return i;
    return NULL;
}

void native_kill(struct native *n, struct call *c, int signum, bool all)
{
    zl_auto_buf b = ZL_BUF_INIT;
    struct instance *i = usable(n, c, false);
    if (!i)
        return;
    if (signum < 1 || signum > 64) {
        call_fail(c, ZL_E_INVALID, "there is no signal %d", signum);
        return;
    }
    if (i->phase == I_EXITED) {
        call_finish(c);
        return;
    }
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_KILL);
    zl_record_add_u64(&b, ZL_SH_R_SIGNAL, (uint64_t)signum);
    zl_record_add_u64(&b, ZL_SH_R_ALL, all);
    zl_frame_end(&b, f);
    ask(n, c, &b);
}

void native_stats(struct native *n, struct call *c)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (!usable(n, c, true))
        return;
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_STATS));
    ask(n, c, &b);
}

void native_exec(struct native *n, struct call *c, const struct zl_rt_exec *exec)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (!usable(n, c, true))
        return;
    if (exec->nargv == 0) {
        call_fail(c, ZL_E_INVALID, "there is no command");
        return;
    }
    c->output_max = exec->output_max_bytes ? exec->output_max_bytes : 1 << 20;
    size_t f = zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC);
    for (unsigned k = 0; k < exec->nargv; k++)
        zl_record_add_str(&b, ZL_SH_R_ARG, zl_str(exec->argv[k]));
    for (unsigned k = 0; k < exec->nenv; k++)
        zl_record_add_str(&b, ZL_SH_R_ENV, zl_str(exec->env[k]));
    if (exec->cwd)
        zl_record_add_str(&b, ZL_SH_R_CWD, zl_str(exec->cwd));
    if (exec->user)
        zl_record_add_str(&b, ZL_SH_R_USER, zl_str(exec->user));
    zl_frame_end(&b, f);
    if (b.n > ZL_SH_REQUEST_MAX) {
        call_fail(c, ZL_E_LIMIT, "the command and its environment are over %d bytes", ZL_SH_REQUEST_MAX);
        return;
    }
    ask(n, c, &b);
}
