#include "runtime/fake/fake.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <signal.h>
#include <stdio.h>

struct program {
    bool forever;      /* until SIGTERM */
    uint64_t lasts_ms; /* else */
    struct zl_rt_outcome outcome;
    struct zl_buf out, err;
};

struct instance {
    struct instance *next;
    struct zl_arena arena;
    struct zl_rt_instance info;
    struct program program;
    uint64_t memory_limit;
    uint64_t ends_ms; /* UINT64_MAX: not by itself */
};

struct call {
    struct call *next;
    uint64_t number, due_ms;
    enum zl_rt_kind kind;
    char id[ZL_ID_HEX_SIZE];
    zl_rt_done done;
    void *arg;
    int forced; /* a failure that was asked for */
    struct instance *create;
    struct program exec;
    int signal;
};

struct fake {
    struct zl_runtime base;
    uint64_t now_ms, last_number;
    uint64_t delay_ms[ZL_RT_KIND_COUNT];
    unsigned fail_in[ZL_RT_KIND_COUNT];
    int fail_code[ZL_RT_KIND_COUNT];
    struct instance *instances;
    struct call *calls; /* in the order of their submission */
    zl_rt_watch watch;
    void *watch_arg;
};

static struct fake *fake_of(struct zl_runtime *rt)
{
    return ZL_CONTAINER_OF(rt, struct fake, base);
}

static void instance_free(struct instance *i)
{
    if (!i)
        return;
    zl_buf_done(&i->program.out);
    zl_buf_done(&i->program.err);
    zl_arena_done(&i->arena);
    free(i);
}

static struct instance *find(const struct fake *f, const char *id)
{
    struct instance *i = f->instances;
    while (i && !zl_streq(i->info.id, id))
        i = i->next;
    return i;
}

static uint64_t number(const char *s)
{
    uint64_t v = 0;
    return zl_parse_u64(zl_str(s), 0, UINT32_MAX, &v) < 0 ? 0 : v;
}

static void killed_for_memory(struct program *p)
{
    p->outcome = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_OOM_KILLED, .code = 137, .signal = SIGKILL };
    p->outcome.oom_kills = 1;
}

/* What the program `workload` (tests/programs) would do with these arguments; 0, or the error of a missing program. */
static int interpret(const char *const *argv, unsigned n, uint64_t memory_limit, struct program *p)
{
    *p = (struct program){ .outcome = { .reason = ZL_RT_REASON_EXITED } };
    if (n == 0 || (!zl_streq(argv[0], "/workload") && !zl_streq(argv[0], "workload")))
        return n && zl_streq(argv[0], "/not-executable") ? ZL_E_NOT_EXECUTABLE : ZL_E_NO_COMMAND;
    for (unsigned i = 1; i < n; i++) {
        const char *verb = argv[i], *arg = i + 1 < n ? argv[i + 1] : "";
        if (zl_streq(verb, "forever") || zl_streq(verb, "serve")) {
            p->forever = true;
            return 0;
        }
        i++;
        if (zl_streq(verb, "say"))
            zl_buf_printf(&p->out, "%s\n", arg);
        else if (zl_streq(verb, "err"))
            zl_buf_printf(&p->err, "%s\n", arg);
        else if (zl_streq(verb, "sleep") || zl_streq(verb, "burn"))
            p->lasts_ms += number(arg);
        else if (zl_streq(verb, "child-alloc"))
            p->outcome.oom_kills += memory_limit && number(arg) << 20 > memory_limit;
        else if (zl_streq(verb, "alloc") && memory_limit && number(arg) << 20 > memory_limit) {
            killed_for_memory(p);
            return 0;
        } else if (zl_streq(verb, "exit")) {
            p->outcome.code = (int)number(arg);
            return 0;
        } else if (zl_streq(verb, "signal")) {
            p->outcome.signal = (int)number(arg);
            p->outcome.code = 128 + p->outcome.signal;
            p->outcome.reason = ZL_RT_REASON_SIGNAL;
            return 0;
        }
    }
    return 0;
}

static void ended(struct fake *f, struct instance *i, struct zl_rt_outcome o)
{
    i->info.state = ZL_RT_EXITED;
    i->info.pid = 0;
    i->info.paused = false;
    i->ends_ms = UINT64_MAX;
    o.finished_at_ms = f->now_ms;
    i->info.outcome = o;
    struct zl_rt_event e = { i->info.id, o };
    if (f->watch)
        f->watch(f->watch_arg, &e);
}

static void end_by_signal(struct fake *f, struct instance *i, int signum)
{
    struct zl_rt_outcome o = { .reason = ZL_RT_REASON_SIGNAL, .code = 128 + signum, .signal = signum };
    if (signum == 0)
        o = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR, .code = 255 };
    else
        o.oom_kills = i->program.outcome.reason == ZL_RT_REASON_OOM_KILLED ? 0 : i->program.outcome.oom_kills;
    ended(f, i, o);
}

static void deliver(struct fake *f, struct instance *i, int signum)
{
    if (i->info.state == ZL_RT_EXITED)
        return;
    if (signum == SIGKILL)
        end_by_signal(f, i, i->info.state == ZL_RT_CREATED ? 0 : SIGKILL);
    else if (signum == SIGTERM && i->info.state == ZL_RT_RUNNING)
        i->ends_ms = f->now_ms; /* its handler is there; any other signal is ignored by a first process */
}

static void remove_instance(struct fake *f, const char *id)
{
    struct instance **at = &f->instances;
    while (*at && !zl_streq((*at)->info.id, id))
        at = &(*at)->next;
    if (!*at)
        return;
    if ((*at)->info.state != ZL_RT_EXITED)
        end_by_signal(f, *at, (*at)->info.state == ZL_RT_CREATED ? 0 : SIGKILL);
    struct instance *i = *at;
    *at = i->next;
    instance_free(i);
}

static int do_create(struct fake *f, struct call *c, struct zl_err *err)
{
    if (find(f, c->id))
        return zl_fail(err, ZL_E_EXISTS, "there is an instance %s already", c->id);
    c->create->info.created_at_ms = f->now_ms;
    c->create->next = f->instances;
    f->instances = ZL_TAKE(c->create);
    return 0;
}

static int do_start(struct fake *f, struct call *c, struct instance *i, struct zl_err *err)
{
    if (i->info.state != ZL_RT_CREATED)
        return zl_fail(err, ZL_E_CONFLICT, "instance %s does not wait to be started", c->id);
    i->info.state = ZL_RT_RUNNING;
    i->ends_ms = i->program.forever ? UINT64_MAX : f->now_ms + i->program.lasts_ms;
    return 0;
}

/* The effect of a call, when it is due. */
static int run_call(struct fake *f, struct call *c, struct zl_rt_reply *reply, struct zl_rt_process *process,
                    struct zl_err *err)
{
    struct instance *i = find(f, c->id);
    if (c->forced)
        return zl_fail(err, c->forced, "failed as it was told to");
    bool running = c->kind == ZL_RT_EXEC || c->kind == ZL_RT_STATS || c->kind == ZL_RT_PAUSE ||
                   c->kind == ZL_RT_RESUME || c->kind == ZL_RT_TOP;
    if (!i && (c->kind == ZL_RT_START || c->kind == ZL_RT_KILL || running))
        return zl_fail(err, ZL_E_NOT_FOUND, "there is no instance %s", c->id);
    if (i && i->info.state != ZL_RT_RUNNING && running)
        return zl_fail(err, ZL_E_CONFLICT, "instance %s does not run", c->id);
    switch (c->kind) {
    case ZL_RT_LIST:
    case ZL_RT_SESSION:
    case ZL_RT_KIND_COUNT:
        break;
    case ZL_RT_PAUSE:
    case ZL_RT_RESUME:
        if (i->info.paused == (c->kind == ZL_RT_PAUSE))
            return zl_fail(err, ZL_E_CONFLICT, "instance %s is%s paused", c->id, i->info.paused ? "" : " not");
        i->info.paused = c->kind == ZL_RT_PAUSE;
        break;
    case ZL_RT_TOP:
        *process = (struct zl_rt_process){ .pid = i->info.pid, .command = ZL_STR("/workload") };
        reply->top = (struct zl_rt_processes){ .v = process, .n = 1, .total = 1 };
        break;
    case ZL_RT_CREATE:
        return do_create(f, c, err);
    case ZL_RT_START:
        return do_start(f, c, i, err);
    case ZL_RT_KILL:
        if (c->signal < 1 || c->signal > 64)
            return zl_fail(err, ZL_E_INVALID, "there is no signal %d", c->signal);
        deliver(f, i, c->signal);
        break;
    case ZL_RT_REMOVE:
        remove_instance(f, c->id);
        break;
    case ZL_RT_EXEC:
        if (c->signal)
            return zl_fail(err, c->signal, "find the program in the image");
        reply->exec.code = c->exec.outcome.code;
        reply->exec.signal = c->exec.outcome.signal;
        reply->exec.out = zl_buf_view(&c->exec.out);
        reply->exec.err = zl_buf_view(&c->exec.err);
        break;
    case ZL_RT_STATS:
        reply->stats.pids = 1;
        reply->stats.memory_bytes = 1 << 20;
        reply->stats.pids_limit = UINT64_MAX;
        reply->stats.memory_limit = i->memory_limit ? i->memory_limit : UINT64_MAX;
        break;
    }
    return 0;
}

static void call_free(struct call *c)
{
    instance_free(c->create);
    zl_buf_done(&c->exec.out);
    zl_buf_done(&c->exec.err);
    free(c);
}

static void complete(struct fake *f, struct call *c)
{
    struct zl_rt_reply reply = { 0 };
    struct zl_rt_process process;
    struct zl_err err = { 0 };
    unsigned n = 0;
    int r = run_call(f, c, &reply, &process, &err);
    for (struct instance *i = f->instances; i; i = i->next)
        n++;
    zl_auto_free struct zl_rt_instance *list = zl_xcalloc(n + 1, sizeof *list);
    if (r == 0 && c->kind == ZL_RT_LIST) {
        n = 0;
        for (struct instance *i = f->instances; i; i = i->next)
            list[n++] = i->info;
        reply.list = (struct zl_rt_list){ list, n };
    }
    c->done(c->arg, &err, r < 0 ? NULL : &reply);
    call_free(c);
}

static struct call *take_call(struct fake *f, struct call *c)
{
    struct call **at = &f->calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    return c;
}

uint64_t zl_rt_fake_next_ms(const struct zl_runtime *rt)
{
    const struct fake *f = ZL_CONTAINER_OF((struct zl_runtime *)(uintptr_t)rt, struct fake, base);
    uint64_t next = UINT64_MAX;
    for (const struct call *c = f->calls; c; c = c->next)
        next = ZL_MIN(next, c->due_ms);
    for (const struct instance *i = f->instances; i; i = i->next)
        next = ZL_MIN(next, i->ends_ms);
    return next;
}

/* One thing at a time, the earliest first; at one instant calls come before ends, each in the order they came up. */
void zl_rt_fake_run(struct zl_runtime *rt, uint64_t now_ms)
{
    struct fake *f = fake_of(rt);
    uint64_t due;
    zl_assert(now_ms >= f->now_ms);
    while ((due = zl_rt_fake_next_ms(rt)) <= now_ms) {
        f->now_ms = ZL_MAX(f->now_ms, due);
        struct call *c = f->calls;
        while (c && c->due_ms > due)
            c = c->next;
        if (c) {
            complete(f, take_call(f, c));
            continue;
        }
        struct instance *i = f->instances;
        while (i && i->ends_ms > due)
            i = i->next;
        if (i)
            ended(f, i, i->program.outcome);
    }
    f->now_ms = now_ms;
}

static struct instance *new_instance(const struct zl_rt_spec *spec)
{
    struct instance *i = zl_xcalloc(1, sizeof *i);
    zl_arena_init(&i->arena);
    i->ends_ms = UINT64_MAX;
    i->memory_limit = spec->limits.memory_bytes;
    i->info = (struct zl_rt_instance){
        .deployment = zl_arena_strdup(&i->arena, spec->deployment ? spec->deployment : ""),
        .service = zl_arena_strdup(&i->arena, spec->service ? spec->service : ""),
        .image = zl_arena_strdup(&i->arena, spec->image ? spec->image : ""),
        .note = zl_arena_strdup(&i->arena, spec->note ? spec->note : ""),
        .slot = spec->slot,
        .generation = spec->generation,
        .address = spec->address,
        .state = ZL_RT_CREATED,
        .pid = 1,
    };
    snprintf(i->info.id, sizeof i->info.id, "%s", spec->id);
    return i;
}

static unsigned fake_caps(const struct zl_runtime *rt)
{
    (void)rt;
    return ((1u << ZL_RT_KIND_COUNT) - 1) & ~(1u << ZL_RT_SESSION);
}

static uint64_t fake_submit(struct zl_runtime *rt, const struct zl_rt_req *req, zl_rt_done done, void *arg)
{
    struct fake *f = fake_of(rt);
    struct call *c = zl_xcalloc(1, sizeof *c), **at = &f->calls;
    c->number = ++f->last_number;
    c->due_ms = f->now_ms + f->delay_ms[req->kind];
    c->kind = req->kind;
    c->done = done;
    c->arg = arg;
    snprintf(c->id, sizeof c->id, "%s", req->id ? req->id : "");
    if (f->fail_in[req->kind] && --f->fail_in[req->kind] == 0)
        c->forced = f->fail_code[req->kind];
    if (req->kind != ZL_RT_LIST && (!req->id || !zl_id_valid(req->id)))
        c->forced = ZL_E_INVALID;
    else if (req->kind == ZL_RT_CREATE) {
        c->create = new_instance(req->create);
        int r = interpret(req->create->argv, req->create->nargv, c->create->memory_limit, &c->create->program);
        c->forced = c->forced ? c->forced : r;
    } else if (req->kind == ZL_RT_EXEC) {
        c->signal = interpret(req->exec->argv, req->exec->nargv, 0, &c->exec);
    } else if (req->kind == ZL_RT_KILL) {
        c->signal = req->kill.signal;
    }
    while (*at)
        at = &(*at)->next;
    *at = c;
    return c->number;
}

static void fake_cancel(struct zl_runtime *rt, uint64_t call)
{
    struct fake *f = fake_of(rt);
    for (struct call *c = f->calls; c; c = c->next) {
        if (c->number == call) {
            c->forced = ZL_E_CANCELLED;
            c->due_ms = f->now_ms;
            return;
        }
    }
}

static void fake_watch(struct zl_runtime *rt, zl_rt_watch fn, void *arg)
{
    struct fake *f = fake_of(rt);
    f->watch = fn;
    f->watch_arg = arg;
}

static void fake_close(struct zl_runtime *rt)
{
    struct fake *f = fake_of(rt);
    f->watch = NULL;
    while (f->calls) {
        struct call *c = take_call(f, f->calls);
        c->forced = ZL_E_CANCELLED;
        complete(f, c);
    }
    while (f->instances) {
        struct instance *i = f->instances;
        f->instances = i->next;
        instance_free(i);
    }
    free(f);
}

static const struct zl_runtime_ops fake_ops = {
    .name = "fake",
    .caps = fake_caps,
    .submit = fake_submit,
    .cancel = fake_cancel,
    .watch = fake_watch,
    .close = fake_close,
};

struct zl_runtime *zl_rt_fake_new(void)
{
    struct fake *f = zl_xcalloc(1, sizeof *f);
    f->base.ops = &fake_ops;
    return &f->base;
}

void zl_rt_fake_delay(struct zl_runtime *rt, enum zl_rt_kind kind, uint64_t ms)
{
    fake_of(rt)->delay_ms[kind] = ms;
}

void zl_rt_fake_fail(struct zl_runtime *rt, enum zl_rt_kind kind, unsigned nth, int code)
{
    fake_of(rt)->fail_in[kind] = nth;
    fake_of(rt)->fail_code[kind] = code;
}

void zl_rt_fake_crash(struct zl_runtime *rt, const char *id, int signal)
{
    struct fake *f = fake_of(rt);
    struct instance *i = find(f, id);
    if (i && i->info.state != ZL_RT_EXITED)
        end_by_signal(f, i, signal);
}
