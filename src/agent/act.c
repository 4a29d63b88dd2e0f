/* Carrying a plan out. An action repeats until its effect shows, so each looks first whether it is under way. */
#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

void agent_inst_free(struct inst *i)
{
    free(i->deployment);
    free(i->service);
    free(i->image);
    free(i);
}

void agent_inst_ended(struct inst *i, const struct zl_rt_outcome *outcome)
{
    if (i->state == ZL_ACTUAL_ENDED)
        return;
    i->state = ZL_ACTUAL_ENDED;
    i->outcome = *outcome;
    i->ended_ms = agent_now(i->agent);
    i->pid = 0;
    zl_phase("stop.exited");
    zl_log_info("instance ended instance=%s slot=%s.%s.%u reason=%s code=%d", i->id, i->deployment, i->service, i->slot,
                zl_rt_reason_name(outcome->reason), outcome->code);
}

/* What failed before the first process ran: an instance without a folder, which only we remember. */
static void failed(struct inst *i, const struct zl_err *err, const char *what)
{
    struct zl_rt_outcome outcome = { .reason = ZL_RT_REASON_RUNTIME_ERROR, .code = 255 };
    outcome.finished_at_ms = zl_clock_wall_ms();
    snprintf(i->failure, sizeof i->failure, "%.199s", err->text);
    zl_log_warn("%s failed instance=%s slot=%s.%s.%u: %s", what, i->id, i->deployment, i->service, i->slot, err->text);
    agent_inst_ended(i, &outcome);
}

static void created(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct inst *i = arg;
    (void)reply;
    i->busy = false;
    i->agent->open_calls--;
    if (err->code)
        failed(i, err, "create");
    else if (i->state == ZL_ACTUAL_CREATING)
        i->state = ZL_ACTUAL_CREATED;
    zl_phase("start.created");
    agent_step_soon(i->agent);
}

static void create(struct zl_agent *a, const struct zl_action *action)
{
    const struct zl_service *s = agent_service(a, action->deployment->name, action->service->name);
    if (!s || !a->net || !a->proxy)
        return; /* the network is tried again; nothing starts without it */
    struct zl_err err = { 0 };
    struct inst *i = zl_xcalloc(1, sizeof *i);
    i->agent = a;
    zl_id_make(i->id);
    i->deployment = zl_xstrdup(action->deployment->name);
    i->service = zl_xstrdup(s->name);
    i->image = zl_xstrdup(s->image.name);
    i->slot = action->slot;
    i->attempt = action->attempt;
    i->generation = action->generation;
    i->state = ZL_ACTUAL_CREATING;
    i->created_ms = agent_now(a);
    i->created_wall_ms = zl_clock_wall_ms();
    i->next = a->instances;
    a->instances = i;
    i->busy = true;
    a->open_calls++;
    int r = agent_create(a, i, s, &err);
    if (r < 0)
        created(i, &err, NULL);
}

/* agent_create hands this to the runtime. */
void agent_created(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply);
void agent_created(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    created(arg, err, reply);
}

/* Whether its slot has a living instance of another generation, which it replaces or is replaced by. */
static bool has_other(const struct inst *i)
{
    for (const struct inst *o = i->agent->instances; o; o = o->next)
        if (o->generation != i->generation && o->slot == i->slot && o->state != ZL_ACTUAL_ENDED &&
            zl_streq(o->deployment, i->deployment) && zl_streq(o->service, i->service))
            return true;
    return false;
}

static void started(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct inst *i = arg;
    (void)reply;
    i->busy = false;
    i->agent->open_calls--;
    if (err->code) {
        failed(i, err, "start");
    } else if (i->state == ZL_ACTUAL_CREATED) {
        i->state = ZL_ACTUAL_RUNNING;
        i->started_ms = agent_now(i->agent);
        i->started_wall_ms = zl_clock_wall_ms();
        zl_log_info("instance started instance=%s slot=%s.%s.%u", i->id, i->deployment, i->service, i->slot);
    }
    zl_phase(has_other(i) ? "replace.started" : "start.started");
    agent_step_soon(i->agent);
}

static void killed(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct inst *i = arg;
    (void)reply;
    i->agent->open_calls--;
    if (err->code)
        zl_log_warn("signal not sent instance=%s: %s", i->id, err->text);
    zl_phase("stop.signalled");
    agent_step_soon(i->agent);
}

/* On disk before the signal, so that a successor tells an end that was asked for from a crash. */
static void note_stop(struct inst *i)
{
    char path[4200];
    if (i->stopped)
        return;
    i->stopped = true;
    snprintf(path, sizeof path, "%s/%s/stop", i->agent->o.home->containers, i->id);
    int fd = zl_openat(AT_FDCWD, path, O_WRONLY | O_CREAT, 0600);
    zl_close(fd);
}

static void removed(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct inst *i = arg;
    (void)reply;
    i->busy = false;
    i->agent->open_calls--;
    if (err->code) {
        zl_log_warn("remove failed, trying again instance=%s: %s", i->id, err->text);
    } else {
        zl_store_release(&i->agent->store, i->id);
        i->dropped = true;
        zl_phase("stop.removed");
    }
    agent_step_soon(i->agent);
}

struct proposal {
    struct zl_agent *agent;
    enum zl_command_kind kind;
    char deployment[ZL_NAME_MAX + 1];
};

static void proposed(void *arg, const struct zl_state_result *result, const struct zl_err *err)
{
    struct proposal *p = arg;
    struct zl_agent *a = p->agent;
    (void)result;
    a->open_calls--;
    if (err && err->code && err->code != ZL_E_NOT_FOUND)
        zl_log_warn("the store refused a change, trying again: %s", err->text);
    else if (p->kind == ZL_COMMAND_DEPLOYMENT_REMOVE && !a->closing)
        agent_event_gone(a, p->deployment);
    if (!a->closing)
        agent_step_soon(a);
    free(p);
}

static void propose(struct zl_agent *a, enum zl_command_kind kind, const char *deployment)
{
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), deployment);
    struct zl_command c = { .kind = kind,
                            .deployment = deployment,
                            .service = "",
                            .generation = d ? d->generation : 0,
                            .now_ms = zl_clock_wall_ms() };
    struct proposal *p = zl_xcalloc(1, sizeof *p);
    p->agent = a;
    p->kind = kind;
    snprintf(p->deployment, sizeof p->deployment, "%s", deployment);
    a->open_calls++;
    zl_cluster_propose(a->cluster, &c, proposed, p);
}

static void on_instance(struct zl_agent *a, const struct zl_action *action)
{
    struct inst *i = agent_instance(a, action->instance->id);
    if (!i || i->dropped)
        return;
    uint64_t now = agent_now(a);
    switch (action->kind) {
    case ZL_ACTION_START:
        if (i->busy)
            return;
        i->busy = true;
        a->open_calls++;
        (void)zl_runtime_start(a->runtime, i->id, started, i);
        return;
    case ZL_ACTION_DRAIN:
        if (!i->draining)
            i->draining_ms = now;
        i->draining = true;
        zl_phase(has_other(i) ? "replace.switched" : "stop.draining");
        return;
    case ZL_ACTION_TERM:
    case ZL_ACTION_KILL: {
        bool kill = action->kind == ZL_ACTION_KILL;
        if (!kill)
            zl_phase("stop.drained");
        note_stop(i);
        if (kill)
            i->kill_ms = now;
        else
            i->term_ms = now;
        a->open_calls++;
        (void)zl_runtime_kill(a->runtime, i->id, kill ? SIGKILL : i->stop_signal, kill, killed, i);
        return;
    }
    case ZL_ACTION_REMOVE:
        if (i->busy)
            return;
        i->busy = true;
        a->open_calls++;
        (void)zl_runtime_remove(a->runtime, i->id, removed, i);
        return;
    case ZL_ACTION_PULL:
    case ZL_ACTION_CREATE:
    case ZL_ACTION_PUBLISH:
    case ZL_ACTION_EXPIRE:
    case ZL_ACTION_FORGET:
        return;
    }
}

static void one(struct zl_agent *a, const struct zl_action *action)
{
    const struct zl_service *s;
    switch (action->kind) {
    case ZL_ACTION_PULL:
        s = agent_service(a, action->deployment->name, action->service->name);
        if (s)
            agent_pull(a, action->deployment->name, s, action->generation);
        return;
    case ZL_ACTION_CREATE:
        create(a, action);
        return;
    case ZL_ACTION_PUBLISH:
        a->publish_wanted = true;
        return;
    case ZL_ACTION_EXPIRE:
        propose(a, ZL_COMMAND_DEPLOYMENT_STOP, action->deployment->name);
        return;
    case ZL_ACTION_FORGET:
        propose(a, ZL_COMMAND_DEPLOYMENT_REMOVE, action->deployment->name);
        return;
    case ZL_ACTION_START:
    case ZL_ACTION_DRAIN:
    case ZL_ACTION_TERM:
    case ZL_ACTION_KILL:
    case ZL_ACTION_REMOVE:
        on_instance(a, action);
        return;
    }
}

void agent_act(struct zl_agent *a, const struct zl_reconcile_plan *plan)
{
    for (unsigned i = 0; i < plan->nactions; i++)
        one(a, &plan->actions[i]);
    if (a->publish_wanted && a->proxy) {
        a->publish_wanted = false;
        agent_publish(a, plan);
    }
}
