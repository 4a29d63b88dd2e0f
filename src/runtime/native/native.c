#include "runtime/native/native_priv.h"

#include "base/fd.h"
#include "base/phase.h"
#include "runtime/native/protocol.h"
#include "runtime/native/seccomp.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REMOVE_MS = 30000, SHIM_SIZE_MAX = 64 << 20, RETRY_MS = 20 };

/* Calls. */

struct call *call_new(struct native *n, enum zl_rt_kind kind, const char *id, zl_rt_done done, void *arg)
{
    struct call *c = zl_xcalloc(1, sizeof *c);
    c->n = n;
    c->number = ++n->last_number;
    c->kind = kind;
    snprintf(c->id, sizeof c->id, "%s", id ? id : "");
    c->done = done;
    c->arg = arg;
    c->next = n->calls;
    n->calls = c;
    return c;
}

static void reply_list(struct call *c)
{
    struct native *n = c->n;
    zl_auto_free struct zl_rt_instance *v = zl_xcalloc(n->ninstances + 1, sizeof *v);
    for (unsigned i = 0; i < n->ninstances; i++) {
        const struct instance *in = n->instances[i];
        if (in->removing || in->phase == I_CREATING)
            continue;
        v[c->reply.list.n] = in->info;
        v[c->reply.list.n++].state = in->phase == I_EXITED                               ? ZL_RT_EXITED
                                     : in->phase == I_RUNNING || in->phase == I_STARTING ? ZL_RT_RUNNING
                                                                                         : ZL_RT_CREATED;
    }
    c->reply.list.v = v;
    c->done(c->arg, &c->err, &c->reply);
}

static void call_done(struct call *c)
{
    zl_rt_done done = c->done;
    if (!done)
        return;
    if (c->kind == ZL_RT_LIST && c->err.code == 0) {
        reply_list(c);
        c->done = NULL;
        return;
    }
    c->done = NULL;
    if (c->kind == ZL_RT_EXEC) {
        c->reply.exec.out = zl_buf_view(&c->out);
        c->reply.exec.err = zl_buf_view(&c->errs);
    }
    done(c->arg, &c->err, c->err.code ? NULL : &c->reply);
}

static void complete(void *arg)
{
    struct call *c = arg, **at = &c->n->calls;
    struct native *n = c->n;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    call_done(c);
    zl_rt_conn_free(c->conn);
    zl_buf_done(&c->out);
    zl_buf_done(&c->errs);
    free(c);
    native_unref(n);
}

void call_finish(struct call *c)
{
    if (c->finished)
        return;
    c->finished = true;
    c->n->refs++;
    zl_loop_defer(c->n->loop, complete, c);
}

void call_fail(struct call *c, int code, const char *fmt, ...)
{
    char text[sizeof c->err.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)zl_fail(&c->err, code, "%s", text);
    call_finish(c);
}

/* Jobs on the pool. */

struct job *job_new(struct native *n, enum job_kind kind, const char *id, struct call *c)
{
    struct job *j = zl_xcalloc(1, sizeof *j);
    j->n = n;
    j->kind = kind;
    j->disk = (struct zl_rt_disk){ n->containers, n->cgroup_parent, n->inside ? n->inside->program : NULL };
    snprintf(j->id, sizeof j->id, "%s", id ? id : "");
    j->call = c;
    n->refs++;
    return j;
}

static void scan(struct job *j)
{
    unsigned cap = 0;
    int fd = zl_openat(j->disk.containers, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        (void)zl_fail(&j->err, fd < 0 ? fd : -errno, "read the folder of containers");
        zl_close(fd);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        if (!zl_id_valid(e->d_name)) {
            zl_rt_disk_sweep(&j->disk, e->d_name);
            continue;
        }
        struct instance *i = instance_new(j->n);
        bool alive = false;
        struct zl_err err = { 0 };
        if (zl_rt_disk_load(&j->disk, e->d_name, &i->arena, &i->info, &alive, &err) < 0) {
            /* Something of it would not die: it stays listed as running, and is looked after until it has. */
            snprintf(i->info.id, sizeof i->info.id, "%.32s", e->d_name);
            i->info.state = ZL_RT_RUNNING;
            i->info.deployment = i->info.service = i->info.image = i->info.note = "";
            alive = true;
        }
        i->phase = !alive ? I_EXITED : i->info.state == ZL_RT_RUNNING ? I_RUNNING : I_CREATED;
        i->reported = !alive;
        ZL_GROW(j->found, j->nfound, cap);
        j->found[j->nfound++] = i;
    }
    closedir(d);
}

static void job_work(void *arg)
{
    struct job *j = arg;
    struct zl_arena arena;
    struct zl_rt_instance info;
    switch (j->kind) {
    case JOB_SCAN:
        scan(j);
        break;
    case JOB_SETTLE:
        zl_arena_init(&arena);
        if (zl_rt_disk_load(&j->disk, j->id, &arena, &info, &j->alive, &j->err) == 0)
            j->outcome = info.outcome;
        zl_arena_done(&arena);
        break;
    case JOB_REMOVE:
        j->outcome = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR, .code = 255 };
        if (zl_rt_disk_remove(&j->disk, j->id, REMOVE_MS, &j->outcome, &j->err) < 0)
            break;
        break;
    }
}

static void scanned(struct native *n, struct job *j)
{
    for (unsigned k = 0; k < j->nfound; k++) {
        struct instance *i = j->found[k];
        if (n->closed || instance_find(n, i->info.id)) {
            instance_free(i);
            continue;
        }
        instance_add(i);
        if (i->phase != I_EXITED)
            instance_wait(i);
    }
    n->scanned |= j->err.code == 0;
    free(j->found);
}

static void settled(struct native *n, struct job *j)
{
    struct instance *i = instance_find(n, j->id);
    if (!i)
        return;
    i->settling = false;
    if (j->err.code || j->alive)
        instance_lost(i); /* looked at again later */
    else
        instance_ended(i, &j->outcome);
}

static void removed(struct native *n, struct job *j)
{
    struct instance *i = instance_find(n, j->id);
    if (!i)
        return;
    if (j->err.code) {
        i->removing = false;
        return;
    }
    instance_ended(i, &j->outcome);
    instance_drop(i);
}

static void job_done(void *arg, bool cancelled)
{
    struct job *j = arg;
    struct native *n = j->n;
    if (cancelled)
        (void)zl_fail(&j->err, ZL_E_CANCELLED, "the runtime is closing");
    if (j->kind == JOB_SCAN)
        scanned(n, j);
    else if (!n->closed && j->kind == JOB_SETTLE)
        settled(n, j);
    else if (!n->closed && j->kind == JOB_REMOVE)
        removed(n, j);
    if (j->call && !n->closed) {
        if (!j->call->err.code) /* a failed create keeps its own */
            j->call->err = j->err;
        call_finish(j->call);
    }
    free(j);
    native_unref(n);
}

static void retry(void *arg)
{
    struct native *n = arg;
    struct job *j = n->stalled;
    n->stalled = NULL;
    while (j) {
        struct job *next = j->next;
        job_submit(j);
        j = next;
    }
}

void job_submit(struct job *j)
{
    struct native *n = j->n;
    if (zl_pool_submit(n->pool, job_work, job_done, j) == 0)
        return;
    j->next = n->stalled;
    n->stalled = j;
    zl_timer_set(n->retry, RETRY_MS);
}

/* The interface. */

static unsigned native_caps(const struct zl_runtime *rt)
{
    (void)rt;
    return (1u << ZL_RT_KIND_COUNT) - 1;
}

static uint64_t native_submit(struct zl_runtime *rt, const struct zl_rt_req *req, zl_rt_done done, void *arg)
{
    struct native *n = ZL_CONTAINER_OF(rt, struct native, base);
    struct call *c = call_new(n, req->kind, req->id, done, arg);
    if (req->kind != ZL_RT_LIST && (!req->id || !zl_id_valid(req->id))) {
        call_fail(c, ZL_E_INVALID, "'%.40s' is no instance id", req->id ? req->id : "");
        return c->number;
    }
    switch (req->kind) {
    case ZL_RT_LIST:
        if (n->scanned)
            call_finish(c);
        else
            job_submit(job_new(n, JOB_SCAN, NULL, c));
        break;
    case ZL_RT_CREATE:
        native_create(n, req->create, c);
        break;
    case ZL_RT_START:
        native_start(n, c);
        break;
    case ZL_RT_KILL:
        native_kill(n, c, req->kill.signal, req->kill.all);
        break;
    case ZL_RT_REMOVE:
        instance_remove(n, req->id, c);
        break;
    case ZL_RT_EXEC:
        native_exec(n, c, req->exec);
        break;
    case ZL_RT_STATS:
        native_ask(n, c, ZL_SH_STATS);
        break;
    case ZL_RT_PAUSE:
        native_ask(n, c, ZL_SH_PAUSE);
        break;
    case ZL_RT_RESUME:
        native_ask(n, c, ZL_SH_RESUME);
        break;
    case ZL_RT_TOP:
        native_ask(n, c, ZL_SH_TOP);
        break;
    case ZL_RT_SESSION:
    case ZL_RT_KIND_COUNT:
        call_fail(c, ZL_E_UNSUPPORTED, "no such call");
        break;
    }
    return c->number;
}

static void native_cancel(struct zl_runtime *rt, uint64_t number)
{
    struct native *n = ZL_CONTAINER_OF(rt, struct native, base);
    struct call *c = n->calls;
    while (c && c->number != number)
        c = c->next;
    if (!c || c->finished || !c->done)
        return;
    (void)zl_fail(&c->err, ZL_E_CANCELLED, "the call was cancelled");
    struct instance *i = instance_find(n, c->id);
    if (i && i->start == c)
        i->start = NULL;
    if (i && i->create == c) {
        i->create = NULL;
        instance_remove(n, c->id, NULL);
    }
    if (c->conn) {
        c->conn = zl_rt_conn_free(c->conn);
        call_finish(c);
    } else if (c->kind == ZL_RT_START || c->kind == ZL_RT_CREATE) {
        call_finish(c);
    } /* a job on the pool finishes its call itself, soon, and the error is there already */
}

static void native_watch(struct zl_runtime *rt, zl_rt_watch fn, void *arg)
{
    struct native *n = ZL_CONTAINER_OF(rt, struct native, base);
    n->watch = fn;
    n->watch_arg = arg;
}

static void *compile_filter(void *arg)
{
    struct native *n = arg;
    ZL_IGNORE(zl_seccomp_default(&n->seccomp, &n->seccomp_err)); /* native_filter reports it */
    return NULL;
}

static void start_compiler(struct native *n)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's thread's */
    n->compiling = pthread_create(&n->compiler, NULL, compile_filter, n) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!n->compiling)
        (void)compile_filter(n);
}

static void join_compiler(struct native *n)
{
    if (n->compiling)
        (void)pthread_join(n->compiler, NULL);
    n->compiling = false;
}

int native_filter(struct native *n, struct zl_err *err)
{
    join_compiler(n);
    if (n->seccomp_err.code)
        *err = n->seccomp_err;
    return n->seccomp_err.code;
}

void native_unref(struct native *n)
{
    if (--n->refs > 0)
        return;
    join_compiler(n);
    zl_close(n->containers);
    zl_close(n->shim);
    zl_buf_done(&n->seccomp);
    free(n->instances);
    free(n->cgroup_parent);
    free(n);
}

static void native_close(struct zl_runtime *rt)
{
    struct native *n = ZL_CONTAINER_OF(rt, struct native, base);
    n->watch = NULL;
    for (struct call *c = n->calls; c; c = c->next) {
        if (!c->finished)
            (void)zl_fail(&c->err, ZL_E_CANCELLED, "the runtime is closing");
        if (!c->finished || c->kind == ZL_RT_LIST)
            c->err.code = ZL_E_CANCELLED;
        call_done(c);
        call_finish(c);
    }
    n->closed = true;
    while (n->shims)
        shim_ref_drop(n->shims);
    while (n->ninstances)
        instance_drop(n->instances[n->ninstances - 1]);
    for (struct job *j = n->stalled; j;) {
        struct job *next = j->next;
        job_done(j, true);
        j = next;
    }
    n->stalled = NULL;
    n->retry = zl_timer_free(n->retry);
    native_unref(n);
}

static const struct zl_runtime_ops native_ops = {
    .name = "native",
    .caps = native_caps,
    .submit = native_submit,
    .cancel = native_cancel,
    .session = native_session,
    .watch = native_watch,
    .close = native_close,
};

/* The shim's binary, sealed, at a number that no shim's own descriptors (3 to 6) take the place of. */
static int seal_shim(const char *path)
{
    zl_auto_buf bytes = ZL_BUF_INIT;
    int r = zl_read_file(AT_FDCWD, path, SHIM_SIZE_MAX, &bytes);
    if (r < 0)
        return r;
    zl_auto_close int fd = zl_sealed_memfd("zl-shim", bytes.p, bytes.n);
    if (fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    return high < 0 ? -errno : high;
}

static uint64_t open_files_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return 1024;
    return ZL_MIN((uint64_t)l.rlim_max, UINT64_C(1048576));
}

int zl_rt_native_open(const struct zl_rt_native_config *config, struct zl_runtime **ret, struct zl_err *err)
{
    struct native *n = zl_xcalloc(1, sizeof *n);
    n->base.ops = &native_ops;
    n->loop = config->loop;
    n->pool = config->pool;
    n->cgroup_parent = zl_xstrdup(config->cgroup_parent);
    n->inside = config->inside;
    n->shim = n->containers = -EBADF;
    n->nofile = open_files_limit();
    n->refs = 1;
    /* For nobody else: what containers write may be set-user-ID. */
    int r = zl_mkdir_p(config->containers, 0700);
    if (r == 0)
        r = n->containers = zl_openat(AT_FDCWD, config->containers, O_RDONLY | O_DIRECTORY, 0);
    if (r >= 0 && fchmod(n->containers, 0700) < 0)
        r = -errno;
    if (r < 0) {
        (void)zl_fail(err, r, "open the folder of containers '%s'", config->containers);
        native_unref(n);
        return r;
    }
    r = n->shim = seal_shim(config->shim);
    if (r < 0) {
        (void)zl_fail(err, r, "load the shim '%s'", config->shim);
        native_unref(n);
        return r;
    }
    start_compiler(n);
    n->retry = zl_timer_new(n->loop, retry, n);
    *ret = &n->base;
    return 0;
}
