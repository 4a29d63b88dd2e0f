#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"
#include "runtime/native/native.h"
#include "sys/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

uint64_t agent_now(struct zl_agent *a)
{
    (void)a;
    return zl_clock_mono_ms();
}

struct inst *agent_instance(struct zl_agent *a, const char *id)
{
    for (struct inst *i = a->instances; i; i = i->next)
        if (zl_streq(i->id, id))
            return i;
    return NULL;
}

static bool nothing_left(struct zl_agent *a)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    return s->ndeployments == 0 && !a->instances && a->open_calls == 0;
}

static void tell_idle(struct zl_agent *a)
{
    bool idle = nothing_left(a) && !a->net && !a->proxy;
    for (struct pull *p = a->pulls; p; p = p->next)
        idle &= p->state != ZL_IMAGE_PULLING;
    if (a->idle_told && idle == a->idle)
        return;
    a->idle_told = true;
    a->idle = idle;
    if (a->o.idle)
        a->o.idle(a->o.arg, idle);
}

static void drop_ended(struct zl_agent *a)
{
    for (struct inst **at = &a->instances; *at;) {
        struct inst *i = *at;
        if (!i->dropped) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        a->members_dirty |= i->member;
        agent_inst_free(i);
    }
}

static void step(void *arg)
{
    struct zl_agent *a = arg;
    struct zl_reconcile_desired desired;
    struct zl_reconcile_actual actual;
    a->step_wanted = false;
    if (!a->ready || a->closing || a->stepping)
        return;
    a->stepping = true;
    drop_ended(a);
    zl_arena_done(&a->step_arena);
    agent_desired(a, &a->step_arena, &desired);
    if (desired.ndeployments && agent_now(a) >= a->trouble_until_ms && (!a->net || !a->proxy)) {
        struct zl_err err = { 0 };
        if (agent_net_up(a, &err) < 0) {
            zl_log_error("the node's network can't be had, trying again in 5 s: %s", err.text);
            a->trouble = err;
            a->trouble_until_ms = agent_now(a) + 5000;
        } else {
            a->trouble.code = 0;
        }
    }
    agent_actual(a, &a->step_arena, &actual);
    zl_reconcile_step(&a->step_arena, &desired, &actual, agent_now(a), &a->plan);
    agent_act(a, &a->plan);
    agent_events_step(a, &a->plan);
    agent_pulls_prune(a, false);
    if (a->members_dirty)
        agent_sync_members(a);
    if (nothing_left(a) && agent_net_left(a)) {
        agent_net_down(a);
        if (*agent_groups(a))
            zl_cgroup_remove_parent(agent_groups(a));
    }
    a->stepping = false;
    uint64_t now = agent_now(a), wake = a->plan.wake_ms;
    if (a->trouble.code && (wake == 0 || a->trouble_until_ms < wake))
        wake = a->trouble_until_ms;
    for (struct doc *d = a->docs; d; d = d->next) /* an owner that does not come back */
        if (d->lost_ms && (wake == 0 || d->lost_ms + OWNER_LOST_MS < wake))
            wake = d->lost_ms + OWNER_LOST_MS;
    if (wake)
        zl_timer_set(a->timer, wake > now ? wake - now : 1);
    else
        zl_timer_stop(a->timer);
    tell_idle(a);
}

void agent_step_soon(struct zl_agent *a)
{
    if (a->step_wanted || a->closing)
        return;
    a->step_wanted = true;
    zl_loop_defer(a->loop, step, a);
}

static void wake(void *arg)
{
    agent_step_soon(arg);
}

static void runtime_event(void *arg, const struct zl_rt_event *event)
{
    struct zl_agent *a = arg;
    struct inst *i = agent_instance(a, event->id);
    if (i)
        agent_inst_ended(i, &event->outcome);
    agent_step_soon(a);
}

static uint64_t mono_of(uint64_t wall_ms)
{
    uint64_t now = zl_clock_mono_ms(), ago = zl_clock_wall_ms();
    ago = ago > wall_ms ? ago - wall_ms : 0;
    return ago < now ? now - ago : 1;
}

static void adopt(struct zl_agent *a, const struct zl_rt_instance *r)
{
    struct inst *i = zl_xcalloc(1, sizeof *i);
    struct zl_arena arena;
    struct zl_value *note = NULL;
    struct zl_parse_error pe;
    i->agent = a;
    snprintf(i->id, sizeof i->id, "%s", r->id);
    i->deployment = zl_xstrdup(r->deployment);
    i->service = zl_xstrdup(r->service);
    i->image = zl_xstrdup(r->image ? r->image : "");
    i->slot = r->slot;
    i->generation = r->generation;
    i->address = r->address;
    i->pid = r->pid;
    i->created_wall_ms = i->started_wall_ms = r->created_at_ms;
    i->created_ms = i->started_ms = mono_of(r->created_at_ms);
    i->state = r->state == ZL_RT_CREATED   ? ZL_ACTUAL_CREATED
               : r->state == ZL_RT_RUNNING ? ZL_ACTUAL_RUNNING
                                           : ZL_ACTUAL_ENDED;
    zl_arena_init(&arena);
    if (r->note && zl_json_parse(&arena, zl_str(r->note), &zl_limits_document, &note, &pe) == 0)
        i->attempt = (unsigned)zl_value_u64(note, "attempt", 0);
    uint64_t signum = zl_value_u64(note, "stop_signal", SIGTERM);
    i->stop_signal = signum >= 1 && signum <= 64 ? (int)signum : SIGTERM;
    zl_arena_done(&arena);
    char stop[4200];
    snprintf(stop, sizeof stop, "%s/%s/stop", a->o.home->containers, i->id);
    i->stopped = access(stop, F_OK) == 0;
    i->member = i->address.s_addr != 0;
    i->next = a->instances;
    a->instances = i;
    if (i->state != ZL_ACTUAL_ENDED)
        agent_holder_learn(a, i->id);
    if (i->state == ZL_ACTUAL_ENDED) {
        i->outcome = r->outcome;
        i->ended_ms = mono_of(r->outcome.finished_at_ms);
    }
    /* Whether the signal was sent before our predecessor died is not known: it is sent again, which does no harm. */
    zl_log_info("instance adopted instance=%s slot=%s.%s.%u state=%s", i->id, i->deployment, i->service, i->slot,
                zl_rt_state_name(r->state));
}

/* What has no folder is no container: of those that can't be read the folder stays, and the lease with it. */
static bool has_folder(void *arg, const char *id)
{
    const struct zl_agent *a = arg;
    char path[4200];
    snprintf(path, sizeof path, "%s/%.60s", a->o.home->containers, id);
    return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

static void listed(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct zl_agent *a = arg;
    if (err->code) {
        a->o.ready(a->o.arg, err);
        return;
    }
    for (unsigned i = 0; i < reply->list.n; i++)
        adopt(a, &reply->list.v[i]);
    int r = zl_store_release_others(&a->store, has_folder, a); /* nothing is created yet */
    if (r < 0)
        zl_log_warn("leases of containers that are gone are not released: %s", zl_error_text(r));
    a->ready = true;
    a->members_dirty = true;
    a->opened_ms = agent_now(a);
    const struct zl_err *damage = zl_cluster_damage(a->cluster);
    if (damage && damage->code)
        zl_log_error("the store is damaged, nothing will be changed: %s", damage->text);
    a->o.ready(a->o.arg, NULL);
    agent_step_soon(a);
}

static void cluster_ready(void *arg, const struct zl_err *err)
{
    struct zl_agent *a = arg;
    if (err && err->code != ZL_E_STORE_DAMAGED) {
        a->o.ready(a->o.arg, err);
        return;
    }
    zl_runtime_watch(a->runtime, runtime_event, a);
    (void)zl_runtime_list(a->runtime, listed, a);
}

static void cluster_changed(void *arg)
{
    agent_step_soon(arg);
}

int zl_agent_open(const struct zl_agent_options *options, struct zl_agent **ret, struct zl_err *err)
{
    struct zl_agent *a = zl_xcalloc(1, sizeof *a);
    char dir[4120];
    a->o = *options;
    a->loop = options->loop;
    a->next_listener = 1;
    a->opened_ms = zl_clock_mono_ms();
    zl_arena_init(&a->step_arena);
    int r = zl_store_open(options->home->data, &a->store, err);
    if (r < 0) {
        free(a);
        return r;
    }
    if (options->inside)
        agent_holder_open(a);
    struct zl_rt_native_config native = { .loop = options->loop,
                                          .pool = options->pool,
                                          .containers = options->home->containers,
                                          .shim = options->shim,
                                          .cgroup_parent = agent_groups(a),
                                          .inside = a->holder ? &a->holder->inside : NULL };
    r = zl_rt_native_open(&native, &a->runtime, err);
    snprintf(dir, sizeof dir, "%s/cluster", options->home->data);
    struct zl_cluster_options co = { .dir = dir, .ready = cluster_ready, .changed = cluster_changed, .arg = a };
    r = r < 0 ? r : zl_cluster_open(options->loop, &co, &a->cluster, err);
    if (r < 0) {
        zl_runtime_close(a->runtime);
        zl_store_close(&a->store);
        agent_holder_close(a);
        free(a);
        return r;
    }
    a->timer = zl_timer_new(options->loop, wake, a);
    *ret = a;
    return 0;
}

static void cluster_closed(void *arg)
{
    struct zl_agent *a = arg;
    void (*closed)(void *) = a->closed;
    void *closed_arg = a->closed_arg;
    while (a->instances) {
        struct inst *i = a->instances;
        a->instances = i->next;
        agent_inst_free(i);
    }
    while (a->docs) {
        struct doc *d = a->docs;
        a->docs = d->next;
        while (d->leases) {
            struct lease *l = d->leases;
            d->leases = l->next;
            free(l);
        }
        zl_arena_done(&d->arena);
        free(d->deployment);
        free(d);
    }
    agent_pulls_prune(a, true);
    while (a->listeners) {
        struct listener *l = a->listeners;
        a->listeners = l->next;
        zl_close(l->fd);
        free(l);
    }
    agent_events_free(a);
    zl_store_close(&a->store);
    agent_holder_close(a);
    zl_arena_done(&a->step_arena);
    free(a);
    if (closed)
        closed(closed_arg);
}

void zl_agent_close(struct zl_agent *a, void (*closed)(void *arg), void *arg)
{
    a->closing = true;
    a->closed = closed;
    a->closed_arg = arg;
    a->timer = zl_timer_free(a->timer);
    a->runtime = zl_runtime_close(a->runtime);
    a->proxy = zl_proxy_free(a->proxy);
    a->net = zl_node_net_close(a->net);
    zl_cluster_close(a->cluster, cluster_closed, a);
}

struct zl_runtime *zl_agent_runtime(struct zl_agent *a)
{
    return a->runtime;
}

const struct zl_store *zl_agent_store(struct zl_agent *a)
{
    return &a->store;
}

struct zl_loop *zl_agent_loop(struct zl_agent *a)
{
    return a->loop;
}

const struct zl_home *zl_agent_home(struct zl_agent *a)
{
    return a->o.home;
}

const char *zl_agent_image_job(struct zl_agent *a, const char *argv[ZL_AGENT_IMAGE_WORDS])
{
    const char *const words[] = { "zl-inside", "map", a->o.image, "zl-image", "--data-dir", a->o.home->data, NULL };
    enum { LEADING = 3 };
    _Static_assert(ZL_ARRAY_LEN(words) == ZL_AGENT_IMAGE_WORDS, "as many as there are");
    const char *const *from = a->o.inside ? words : words + LEADING;
    memcpy(argv, from, (a->o.inside ? ZL_ARRAY_LEN(words) : ZL_ARRAY_LEN(words) - LEADING) * sizeof *argv);
    return a->o.inside ? a->o.inside : a->o.image;
}

bool zl_agent_idle(const struct zl_agent *a)
{
    return a->idle;
}
