/*
 * A world for the reconcile step: virtual clock, seeded random, instances that take time to start, to answer and to
 * end, a proxy that acknowledges late, an agent that can be killed. It carries plans out and checks after each step
 * that none breaks what the step promises. Failures abort with the seed and the recent trace.
 */
#pragma once

#include "agent/reconcile.h"
#include "base/str.h"

enum { W_DEPLOYMENTS = 3, W_SERVICES = 4, W_INSTANCES = 600, W_IMAGES = 400 };

struct w_faults {
    unsigned crash, create, pull, health, deaf; /* per mille: of instances that crash … that ignore TERM */
};

struct w_instance {
    struct zl_actual_instance a;
    char id[16], deployment[16], service[16];
    uint64_t created_at, healthy_at, crash_at, end_at, drained_at, busy_until;
    bool deaf, used, asked;
};

struct w_image {
    struct zl_actual_image a;
    char deployment[16], service[16];
    uint64_t done_at;
    bool fails;
};

struct w_deployment {
    bool exists;
    char name[16];
    struct zl_desired_deployment d;
    struct zl_desired_service services[W_SERVICES];
    struct zl_desired_depend depends[W_SERVICES][W_SERVICES];
    char names[W_SERVICES][16];
};

struct world {
    uint64_t seed, random, now, generation, next_id, applied_at;
    struct w_faults faults;
    uint64_t create_ms, healthy_ms, end_ms, ack_ms, pull_ms; /* how long things take at most, at least half of it */
    struct w_deployment deployments[W_DEPLOYMENTS];
    struct w_instance instances[W_INSTANCES];
    struct w_image images[W_IMAGES];
    unsigned nimages, steps, creates;
    struct zl_buf trace; /* one line for each time at which something was planned */
    bool exact;          /* everything takes its full time: for golden traces */
    bool idle;           /* the last step planned nothing and asked for no wake-up */
    uint64_t wake_ms;
};

void world_init(struct world *w, uint64_t seed);
void world_done(struct world *w);
uint64_t world_random(struct world *w, uint64_t below);

/* Adds a deployment `name` whose services are named "a", "b", …; returns it for further settings. */
struct w_deployment *world_deploy(struct world *w, const char *name, unsigned services, unsigned replicas);
void world_depend(struct w_deployment *d, unsigned from, unsigned on, enum zl_depend_condition condition,
                  enum zl_depend_timeout on_timeout, uint64_t timeout_ms);
/* The document was put again: these services need new instances. */
void world_put(struct world *w, struct w_deployment *d, unsigned changed_mask);
void world_kill_agent(struct world *w);
struct w_instance *world_instance(struct world *w, const char *service, unsigned slot);
void world_crash(struct world *w, struct w_instance *i);

/* One step at the present time, carried out. Then time goes on to the next thing that happens; false: nothing does. */
void world_step(struct world *w);
bool world_advance(struct world *w, uint64_t limit);
/* Steps until nothing moves; aborts when that takes longer than `limit_ms` or when what is there is not what is
 * wanted. */
void world_settle(struct world *w, uint64_t limit_ms);
void world_run(struct world *w, uint64_t ms);
