/*
 * Desired against actual: one pure step. The driver builds both from the store, the parsed documents, the instances'
 * folders and the proxy's board, calls the step after every event and at `plan.wake_ms`, and carries the actions out.
 * A start, also of a restart, waits for its service's dependencies; a condition holds when one instance of the
 * dependency fulfils it. Everything the step must remember between calls is in its input (and there on disk, or
 * harmless to forget), so that a new agent goes on where a killed one was.
 *
 * Times are milliseconds of one monotonic clock; the driver turns wall times found on disk into it (clamped to 1..now;
 * 0 means never). Actions repeat until their effect shows in `actual`; carrying one out twice must do no harm.
 *
 * An instance's life, as the driver reports it:
 *   CREATING ──► CREATED ──► RUNNING ──► ENDED        (CREATING and CREATED may go to ENDED: create or start failed)
 * Thread: one at a time. Owns: the plan's arrays belong to the arena; its pointers point into the input.
 * Fails: never.
 */
#pragma once

#include "base/alloc.h"

#include <stdbool.h>
#include <stdint.h>

enum zl_depend_condition { ZL_DEPEND_STARTED, ZL_DEPEND_HEALTHY, ZL_DEPEND_READY };
enum zl_depend_timeout { ZL_DEPEND_FAIL, ZL_DEPEND_WARN, ZL_DEPEND_CONTINUE };

struct zl_desired_depend {
    unsigned service; /* index into the deployment's services */
    enum zl_depend_condition condition;
    enum zl_depend_timeout on_timeout;
    uint64_t timeout_ms;
};

struct zl_desired_service {
    const char *name;
    uint64_t generation;
    unsigned replicas;
    bool has_health;   /* there is a probe; without one a running instance is healthy */
    bool has_routes;   /* it has endpoints: instances are published to the proxy */
    uint64_t grace_ms; /* from TERM to KILL */
    const struct zl_desired_depend *depends;
    unsigned ndepends;
};

struct zl_desired_deployment {
    const char *name;
    bool stopping;     /* everything goes, in reverse order of dependency, then FORGET */
    bool force;        /* with stopping: KILL at once, no order, no draining */
    bool owner_gone;   /* its lease is over: EXPIRE is planned until `stopping` is set */
    uint64_t since_ms; /* when this generation was put, or the agent's start: dependency timeouts count from here */
    const struct zl_desired_service *services; /* document order */
    unsigned nservices;
};

struct zl_reconcile_desired {
    const struct zl_desired_deployment *deployments;
    unsigned ndeployments;
};

enum zl_actual_state { ZL_ACTUAL_CREATING, ZL_ACTUAL_CREATED, ZL_ACTUAL_RUNNING, ZL_ACTUAL_ENDED };

struct zl_actual_instance {
    const char *id, *deployment, *service;
    unsigned slot; /* from 1 */
    uint64_t generation;
    unsigned attempt; /* as the CREATE action said; kept in meta.json */
    enum zl_actual_state state;
    bool healthy;  /* the proxy's probe passes (meaningless without has_health) */
    bool routed;   /* it is in the snapshot that was last sent to the proxy */
    bool applied;  /* … and the proxy has acknowledged a snapshot that it is in */
    bool draining; /* a DRAIN was carried out; memory only */
    bool
        drained; /* the proxy acknowledged routes without it and has no request of it in flight, or there is no proxy */
    bool stopped; /* it was asked to end (TERM or KILL was sent), as recorded on disk when it ended */
    uint64_t draining_ms, term_ms, kill_ms; /* when DRAIN, TERM, KILL were carried out; 0: not yet */
    uint64_t created_ms, started_ms, ended_ms;
};

enum zl_image_state { ZL_IMAGE_ABSENT, ZL_IMAGE_PULLING, ZL_IMAGE_PRESENT, ZL_IMAGE_FAILED };

/* The image of a service's generation. Without an entry it is taken for absent. */
struct zl_actual_image {
    const char *deployment, *service;
    uint64_t generation;
    enum zl_image_state state;
    unsigned failures; /* in a row, at least 1 when FAILED */
    uint64_t failed_ms;
    bool permanent; /* trying again can't help until the document changes (policy never, bad image) */
};

struct zl_reconcile_actual {
    const struct zl_actual_instance *instances;
    unsigned ninstances;
    const struct zl_actual_image *images;
    unsigned nimages;
};

enum zl_action_kind {
    ZL_ACTION_PULL,    /* deployment, service, generation */
    ZL_ACTION_CREATE,  /* deployment, service, generation, slot, attempt: a new instance, up to CREATED */
    ZL_ACTION_START,   /* instance: from CREATED to RUNNING */
    ZL_ACTION_PUBLISH, /* routes are not what `plan.routes` says */
    ZL_ACTION_DRAIN,   /* instance: note that it drains (a PUBLISH without it is planned beside) */
    ZL_ACTION_TERM,    /* instance: its first process is asked to end */
    ZL_ACTION_KILL,    /* instance: SIGKILL to all of it, in CREATED too */
    ZL_ACTION_REMOVE,  /* instance: an ended one; its folder goes */
    ZL_ACTION_EXPIRE,  /* deployment: propose deployment_stop */
    ZL_ACTION_FORGET,  /* deployment: it is stopping and nothing is left: propose deployment_remove */
};

struct zl_action {
    enum zl_action_kind kind;
    const struct zl_desired_deployment *deployment; /* NULL for an instance of no deployment */
    const struct zl_desired_service *service;
    const struct zl_actual_instance *instance;
    uint64_t generation;
    unsigned slot, attempt;
};

/* How a service stands; the driver makes an event of each change. */
enum zl_service_phase {
    ZL_PHASE_READY,         /* all replicas are ready, none of an older generation is left */
    ZL_PHASE_STARTING,      /* on the way, nothing is wrong */
    ZL_PHASE_PULLING,       /* its image */
    ZL_PHASE_PULL_FAILED,   /* to be tried again at retry_ms, or never (0) */
    ZL_PHASE_WAITING,       /* for a dependency, named in `depend` */
    ZL_PHASE_DEPEND_FAILED, /* … whose time is over and on_timeout is fail */
    ZL_PHASE_BACKOFF,       /* a slot ended by itself and waits until retry_ms */
    ZL_PHASE_STOPPING,
    ZL_PHASE_STOPPED, /* no replicas wanted, none there */
};

struct zl_service_status {
    const struct zl_desired_deployment *deployment;
    const struct zl_desired_service *service;
    enum zl_service_phase phase;
    unsigned running, ready, old; /* instances; running and ready of this generation, old of others and alive */
    const char *depend;
    bool depend_overdue; /* on_timeout warn: it was started although `depend` is not there yet */
    uint64_t retry_ms;
};

struct zl_reconcile_plan {
    struct zl_action *actions;
    unsigned nactions;
    const struct zl_actual_instance **routes; /* the instances that belong into the proxy's snapshot, slot order */
    unsigned nroutes;
    struct zl_service_status *services; /* one for each desired service, document order */
    unsigned nservices;
    uint64_t wake_ms; /* the earliest time at which something changes by itself; 0: never */
};

enum {
    ZL_DRAIN_TIMEOUT_MS = 10000,
    ZL_BACKOFF_FIRST_MS = 1000,
    ZL_BACKOFF_MAX_MS = 60000,
    ZL_BACKOFF_RESET_MS = 60000,
    ZL_KILL_AGAIN_MS = 5000,
    ZL_ENDED_KEPT = 3,   /* a slot */
    ZL_GRACE_MS = 30000, /* of instances that no document knows */
};

void zl_reconcile_step(struct zl_arena *arena, const struct zl_reconcile_desired *desired,
                       const struct zl_reconcile_actual *actual, uint64_t now_ms, struct zl_reconcile_plan *ret);

const char *zl_action_name(enum zl_action_kind kind);
const char *zl_service_phase_name(enum zl_service_phase phase);
/* The wait before try number `attempt` (0: none). */
uint64_t zl_backoff_ms(unsigned attempt);
