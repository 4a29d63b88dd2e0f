#include "runtime/native/native_priv.h"

#include "base/fd.h"
#include "runtime/native/protocol.h"
#include "runtime/native/replies.h"

#include <signal.h>

static void take_output(struct call *c, struct zl_str body)
{
    struct zl_sh_output o;
    zl_sh_take_output(body, &o);
    size_t room = (size_t)c->output_max - ZL_MIN((size_t)c->output_max, c->out.n + c->errs.n);
    size_t take = ZL_MIN(o.data.n, room);
    zl_buf_add(o.is_stderr ? &c->errs : &c->out, o.data.p, take);
    c->reply.exec.truncated |= take < o.data.n;
}

/* The reply's views are of copies that the call owns. */
static void take_processes(struct call *c, struct zl_str body)
{
    zl_buf_add_str(&c->errs, body);
    zl_buf_reserve(&c->out, ZL_SH_PROCESSES_MAX * sizeof(struct zl_rt_process));
    struct zl_rt_process *v = (void *)c->out.p;
    struct zl_rt_processes *top = &c->reply.top;
    top->n = zl_sh_take_processes(zl_buf_view(&c->errs), v, ZL_SH_PROCESSES_MAX, &top->total);
    top->v = v;
}

static void done_well(struct call *c)
{
    struct instance *i = instance_find(c->n, c->id);
    if (i && i->phase == I_RUNNING && (c->kind == ZL_RT_PAUSE || c->kind == ZL_RT_RESUME))
        i->info.paused = c->kind == ZL_RT_PAUSE;
    else if (i && c->kind == ZL_RT_KILL && c->resumes)
        i->info.paused = false;
}

static void answered(void *arg, const struct zl_frame *f, int error)
{
    struct call *c = arg;
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
        zl_sh_take_error(f->body, ZL_E_RUNTIME, &c->err);
        break;
    case ZL_SH_STATS:
        zl_sh_take_stats(f->body, &c->reply.stats);
        break;
    case ZL_SH_EXEC_EXIT:
        zl_sh_take_end(f->body, &c->reply.exec.code, &c->reply.exec.signal);
        break;
    case ZL_SH_PROCESSES:
        take_processes(c, f->body);
        break;
    case ZL_SH_OK:
        done_well(c);
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
    c->resumes = signum == SIGKILL;
    ask(n, c, &b);
}

void native_ask(struct native *n, struct call *c, uint16_t request)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (!usable(n, c, true))
        return;
    zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, request));
    ask(n, c, &b);
}

static void add_texts(struct zl_buf *b, uint16_t type, const char *const *v, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        zl_record_add_str(b, type, zl_str(v[k]));
}

int native_exec_request(struct zl_buf *b, const struct zl_rt_exec *exec, const struct zl_rt_session_spec *session,
                        struct zl_err *err)
{
    const struct {
        uint16_t type;
        uint64_t value;
    } facts[] = { { ZL_SH_R_PRIVILEGED, exec->privileged },      { ZL_SH_R_SESSION, session != NULL },
                  { ZL_SH_R_TTY, session && session->tty },      { ZL_SH_R_STDIN, session && session->input },
                  { ZL_SH_R_ROWS, session ? session->rows : 0 }, { ZL_SH_R_COLUMNS, session ? session->columns : 0 } };
    if (exec->nargv == 0)
        return zl_fail(err, ZL_E_INVALID, "there is no command");
    if (exec->nargv > ZL_SH_ARGS_MAX || exec->nenv > ZL_SH_ENV_MAX)
        return zl_fail(err, ZL_E_LIMIT, "a command takes at most %d arguments and %d variables", ZL_SH_ARGS_MAX,
                       ZL_SH_ENV_MAX);
    size_t f = zl_frame_begin(b, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_EXEC);
    add_texts(b, ZL_SH_R_ARG, exec->argv, exec->nargv);
    add_texts(b, ZL_SH_R_ENV, exec->env, exec->nenv);
    if (exec->cwd)
        zl_record_add_str(b, ZL_SH_R_CWD, zl_str(exec->cwd));
    if (exec->user)
        zl_record_add_str(b, ZL_SH_R_USER, zl_str(exec->user));
    for (size_t k = 0; k < ZL_ARRAY_LEN(facts); k++)
        if (facts[k].value)
            zl_record_add_u64(b, facts[k].type, facts[k].value);
    zl_frame_end(b, f);
    if (b->n > ZL_SH_REQUEST_MAX)
        return zl_fail(err, ZL_E_LIMIT, "the command and its environment are over %d bytes", ZL_SH_REQUEST_MAX);
    return 0;
}

void native_exec(struct native *n, struct call *c, const struct zl_rt_exec *exec)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (!usable(n, c, true))
        return;
    c->output_max = exec->output_max_bytes ? exec->output_max_bytes : 1 << 20;
    if (native_exec_request(&b, exec, NULL, &c->err) < 0)
        call_finish(c);
    else
        ask(n, c, &b);
}
