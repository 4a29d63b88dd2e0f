/*
 * A world for runtime tests: a back end, a root filesystem of one static program, and calls that run the loop (or the
 * fake's virtual time) until they are complete. Each call asserts that it completed exactly once and not at once.
 */
#pragma once

#include "../../unit/testing.h"

#include "aio/loop.h"
#include "aio/pool.h"
#include "base/alloc.h"
#include "runtime/runtime.h"

enum { WORLD_EVENTS = 64 };

struct world {
    bool native;
    struct zl_runtime *rt;
    struct zl_loop *loop;
    struct zl_pool *pool;
    uint64_t now_ms; /* the fake's */
    char dir[256], containers[300], layer[300], cgroup_parent[64];
    const char *shim;
    struct zl_rt_event events[WORLD_EVENTS];
    char event_ids[WORLD_EVENTS][ZL_ID_HEX_SIZE];
    unsigned nevents;
};

/* What a call completed with; strings and buffers are copies that the world's arena owns. */
struct answer {
    bool done;
    struct zl_err err;
    struct zl_rt_reply reply;
    struct zl_rt_instance list[64];
    struct world *w;
    char out[8192], errs[8192];
};

/* Makes it or skips the test (exit 77) with the reason. */
void world_open(struct world *w, bool native, const char *workload, const char *shim);
void world_close(struct world *w);
/* The runtime as another agent would find it: closed and opened anew. */
void world_reopen(struct world *w);
/* Runs loop or virtual time until *flag, or fails the test after `ms`. */
void world_until(struct world *w, const bool *flag, unsigned ms);
void world_pass(struct world *w, unsigned ms);

/* A spec with these words as argv (NULL at the end), a fresh id. */
void world_spec(struct world *w, struct zl_rt_spec *spec, const char *const *argv);
void world_list(struct world *w, struct answer *a);
int world_create(struct world *w, const struct zl_rt_spec *spec, struct answer *a);
int world_start(struct world *w, const char *id, struct answer *a);
int world_kill(struct world *w, const char *id, int signal, bool all);
int world_remove(struct world *w, const char *id);
int world_exec(struct world *w, const char *id, const struct zl_rt_exec *exec, struct answer *a);
int world_stats(struct world *w, const char *id, struct answer *a);
int world_pause(struct world *w, const char *id, bool on);
int world_top(struct world *w, const char *id, struct answer *a);
/* create and start, asserted. */
void world_run(struct world *w, const struct zl_rt_spec *spec);
/* Waits until the program has written this line (native; the fake's need no waiting). */
void world_says(struct world *w, const char *id, const char *line);
/* Everything it has written so far, a line each, stderr's with "E:" before; partial lines end with "\\". */
void world_log(struct world *w, const char *id, struct zl_buf *ret);
/* The event of an instance; waits for it. */
const struct zl_rt_outcome *world_outcome(struct world *w, const char *id);
