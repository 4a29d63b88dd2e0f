#include "runtime/native/native_priv.h"

#include "base/fd.h"
#include "base/phase.h"
#include "runtime/native/protocol.h"
#include "runtime/native/replies.h"

#include <stdio.h>

enum { PROBE_FIRST_MS = 2, PROBE_LAST_MS = 1000 };

struct instance *instance_new(struct native *n)
{
    struct instance *i = zl_xcalloc(1, sizeof *i);
    i->n = n;
    i->gate = -EBADF;
    zl_arena_init(&i->arena);
    return i;
}

void instance_close_gate(struct instance *i)
{
    i->gate_watch = zl_watch_free(i->gate_watch);
    i->gate = zl_close(i->gate);
    zl_buf_done(&i->gate_in);
}

void instance_free(struct instance *i)
{
    instance_close_gate(i);
    zl_rt_conn_free(i->wait);
    if (i->shim)
        i->shim->i = NULL;
    zl_timer_free(i->probe);
    zl_arena_done(&i->arena);
    free(i);
}

struct instance *instance_find(struct native *n, const char *id)
{
    for (unsigned i = 0; i < n->ninstances; i++)
        if (zl_streq(n->instances[i]->info.id, id))
            return n->instances[i];
    return NULL;
}

void instance_add(struct instance *i)
{
    struct native *n = i->n;
    ZL_GROW(n->instances, n->ninstances, n->cap);
    n->instances[n->ninstances++] = i;
}

void instance_drop(struct instance *i)
{
    struct native *n = i->n;
    for (unsigned k = 0; k < n->ninstances; k++) {
        if (n->instances[k] == i) {
            n->instances[k] = n->instances[--n->ninstances];
            break;
        }
    }
    if (i->start && !n->closed)
        call_fail(i->start, ZL_E_START_FAILED, "instance %s was removed", i->info.id);
    instance_free(i);
}

void instance_ended(struct instance *i, const struct zl_rt_outcome *o)
{
    struct native *n = i->n;
    native_read_gate(i);
    i->wait = zl_rt_conn_free(i->wait);
    i->probe = zl_timer_free(i->probe);
    instance_close_gate(i);
    i->phase = I_EXITED;
    i->info.pid = 0;
    i->info.paused = false;
    i->info.outcome = *o;
    if (i->start) {
        struct call *start = ZL_TAKE(i->start);
        call_fail(start, ZL_E_START_FAILED, "instance %s ended before it was started", i->info.id);
    }
    if (i->reported)
        return;
    i->reported = true;
    struct zl_rt_event e = { i->info.id, *o };
    if (n->watch)
        n->watch(n->watch_arg, &e);
}

static void take_info(struct instance *i, struct zl_str body)
{
    struct zl_sh_info info;
    zl_sh_take_info(body, &info);
    if (info.pid > 0)
        i->info.pid = info.pid;
    if (info.running && i->phase == I_CREATED)
        i->phase = I_RUNNING; /* `state` could not be written, on a full disk */
    i->info.paused = info.paused;
}

static void waited(void *arg, const struct zl_frame *f, int error)
{
    struct instance *i = arg;
    (void)error;
    if (!f) {
        i->wait = zl_rt_conn_free(i->wait);
        instance_lost(i);
    } else if (f->type == ZL_SH_INFO) {
        take_info(i, f->body);
    } else if (f->type == ZL_SH_EXITED) {
        struct zl_rt_outcome o;
        zl_sh_take_outcome(f->body, &o);
        instance_ended(i, &o);
    }
}

void instance_wait(struct instance *i)
{
    static const uint16_t requests[] = { ZL_SH_INFO, ZL_SH_WAIT };
    zl_auto_buf b = ZL_BUF_INIT;
    for (size_t k = 0; k < ZL_ARRAY_LEN(requests); k++)
        zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, requests[k]));
    if (zl_rt_conn_open(i->n->loop, i->n->containers, i->info.id, &b, waited, i, &i->wait) < 0)
        instance_lost(i);
    else
        i->probe_ms = 0;
}

/* Its shim does not answer: it is dead (its lock is free: what it left is ended), about to be, or only busy. */
static void probe(void *arg)
{
    struct instance *i = arg;
    struct zl_rt_disk d = { i->n->containers, i->n->cgroup_parent, NULL };
    if (i->settling || i->removing || i->phase == I_EXITED)
        return;
    if (zl_rt_disk_lock_free(&d, i->info.id) > 0) {
        i->settling = true;
        job_submit(job_new(i->n, JOB_SETTLE, i->info.id, NULL));
    } else {
        instance_wait(i);
    }
}

void instance_lost(struct instance *i)
{
    if (i->settling || i->removing || i->phase == I_EXITED)
        return;
    i->probe_ms = i->probe_ms ? ZL_MIN(i->probe_ms * 2, (unsigned)PROBE_LAST_MS) : (unsigned)PROBE_FIRST_MS;
    if (!i->probe)
        i->probe = zl_timer_new(i->n->loop, probe, i);
    zl_timer_set(i->probe, i->probe_ms);
}

void instance_remove(struct native *n, const char *id, struct call *c)
{
    struct instance *i = instance_find(n, id);
    if (i) {
        if (i->create) { /* the agent changed its mind: as if that call had been cancelled */
            struct call *create = ZL_TAKE(i->create);
            call_fail(create, ZL_E_CANCELLED, "instance %s is removed", id);
        }
        i->removing = true;
        if (i->phase == I_CREATING || i->phase == I_CREATED)
            instance_close_gate(i);
    }
    zl_phase("remove.begun");
    job_submit(job_new(n, JOB_REMOVE, id, c));
}
