/* Random schedules in bulk: `test_reconcile_random [first seed] [count]`. A failure prints its seed. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const names[W_DEPLOYMENTS] = { "x", "y", "z" };

static struct w_deployment *any_deployment(struct world *w)
{
    struct w_deployment *d = &w->deployments[world_random(w, W_DEPLOYMENTS)];
    return d->exists ? d : NULL;
}

static void deploy(struct world *w)
{
    unsigned used = 0;
    for (unsigned i = 0; i < W_DEPLOYMENTS; i++)
        used += w->deployments[i].exists;
    if (used == W_DEPLOYMENTS)
        return;
    const char *name = names[0];
    for (unsigned n = 0; n < W_DEPLOYMENTS; n++) {
        bool taken = false;
        for (unsigned i = 0; i < W_DEPLOYMENTS; i++)
            taken |= w->deployments[i].exists && zl_streq(w->deployments[i].name, names[n]);
        if (!taken)
            name = names[n];
    }
    struct w_deployment *d =
        world_deploy(w, name, 1 + (unsigned)world_random(w, W_SERVICES), 1 + (unsigned)world_random(w, 4));
    for (unsigned i = 1; i < d->d.nservices; i++)
        if (world_random(w, 2))
            world_depend(d, i, (unsigned)world_random(w, i), (enum zl_depend_condition)world_random(w, 3),
                         (enum zl_depend_timeout)world_random(w, 3), 1000 + world_random(w, 300000));
}

static void change(struct world *w)
{
    struct w_deployment *d = any_deployment(w);
    switch (world_random(w, 9)) {
    case 0:
        deploy(w);
        break;
    case 1:
    case 2:
        if (d && !d->d.stopping)
            world_put(w, d, (unsigned)world_random(w, 1u << d->d.nservices));
        break;
    case 3:
    case 4:
        if (d)
            d->services[world_random(w, d->d.nservices)].replicas = (unsigned)world_random(w, 6);
        break;
    case 5:
        if (d && world_random(w, 2))
            d->d.stopping = true;
        else if (d)
            d->d.owner_gone = true;
        if (d && world_random(w, 4) == 0)
            d->d.force = d->d.stopping;
        break;
    case 6:
        if (d && d->d.stopping)
            world_put(w, d, 0); /* put again while it ends */
        break;
    case 7:
        if (d && d->d.nservices > 1) { /* the last service leaves the document; nothing may depend on it any more */
            d->d.nservices--;
            d->d.since_ms = w->now;
        }
        break;
    default:
        world_kill_agent(w);
    }
}

static void run(struct world *w, uint64_t seed)
{
    world_init(w, seed);
    w->faults = (struct w_faults){ (unsigned)world_random(w, 500), (unsigned)world_random(w, 200),
                                   (unsigned)world_random(w, 500), (unsigned)world_random(w, 200),
                                   (unsigned)world_random(w, 300) };
    deploy(w);
    unsigned changes = 5 + (unsigned)world_random(w, 25);
    for (unsigned i = 0; i < changes && w->nimages < W_IMAGES - 40; i++) {
        world_run(w, world_random(w, world_random(w, 3) ? 400 : 120000));
        change(w);
    }
    /* The faults end: what would fail now works, what never answered does. */
    w->faults = (struct w_faults){ 0 };
    for (unsigned i = 0; i < W_INSTANCES; i++) {
        struct w_instance *k = &w->instances[i];
        if (k->used && k->a.state == ZL_ACTUAL_RUNNING && !k->a.healthy && !k->healthy_at)
            k->healthy_at = w->now + 1;
        k->crash_at = 0;
    }
    world_settle(w, 3600000);
    unsigned creates = w->creates;
    world_kill_agent(w); /* a new agent touches nothing of what is fine */
    world_settle(w, 3600000);
    if (w->creates != creates) {
        fprintf(stderr, "seed %llu: a new agent started something\n", (unsigned long long)seed);
        abort();
    }
    for (unsigned i = 0; i < W_DEPLOYMENTS; i++)
        w->deployments[i].d.stopping = true;
    world_settle(w, 3600000);
    for (unsigned i = 0; i < W_INSTANCES; i++)
        if (w->instances[i].used)
            abort();
    world_done(w);
}

int main(int argc, char **argv)
{
    static struct world w;
    uint64_t first = 1, count = 250;
    if ((argc > 1 && zl_parse_u64(zl_str(argv[1]), 0, UINT64_MAX, &first) < 0) ||
        (argc > 2 && zl_parse_u64(zl_str(argv[2]), 1, UINT64_MAX, &count) < 0))
        return 2;
    uint64_t steps = 0, creates = 0;
    for (uint64_t i = 0; i < count; i++) {
        run(&w, first + i);
        steps += w.steps;
        creates += w.creates;
    }
    printf("%llu schedules from seed %llu: %llu steps, %llu instances\n", (unsigned long long)count,
           (unsigned long long)first, (unsigned long long)steps, (unsigned long long)creates);
    return 0;
}
