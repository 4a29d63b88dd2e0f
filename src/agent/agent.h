/*
 * One node's agent: it makes what runs what the store wants, and survives its own death. Everything that a successor
 * needs is on disk (instance folders, the store), in the kernel (the node's namespace), or in the proxy.
 *
 *   open ─► (loop runs) … ─► close          Containers and the proxy outlive it.
 *
 * Thread: the control loop's. Owns: the caller owns the agent. Fails: zl_err; calls that end later complete by a
 * callback, exactly once, never from within.
 */
#pragma once

#include "agent/home.h"
#include "aio/loop.h"
#include "aio/pool.h"
#include "cluster/cluster.h"
#include "codec/value.h"
#include "image/store.h"
#include "runtime/runtime.h"
#include "spec/spec.h"

struct zl_agent;

struct zl_agent_options {
    struct zl_loop *loop;
    struct zl_pool *pool;
    const struct zl_home *home;
    const char *shim, *proxy, *image; /* the other programs, absolute */
    const char *inside;               /* zl-inside, of an ordinary user's agent; NULL: root's */
    /* Once: the store is open and what ran was adopted; err NULL or why the agent can't work. */
    void (*ready)(void *arg, const struct zl_err *err);
    /* There is nothing left to do, or there is again. */
    void (*idle)(void *arg, bool idle);
    void *arg;
};

/* Whether an ordinary user can have the namespaces that containers need; the error says why not. `inside`: zl-inside.
 */
int zl_agent_check_user(const char *inside, struct zl_err *err) ZL_MUST;
int zl_agent_open(const struct zl_agent_options *options, struct zl_agent **ret, struct zl_err *err) ZL_MUST;
/* Lets go of everything; containers and proxy go on. `closed` is called from the loop. */
void zl_agent_close(struct zl_agent *a, void (*closed)(void *arg), void *arg);

typedef void (*zl_agent_done)(void *arg, const struct zl_err *err);

/* A checked document becomes desired state. Public ports are bound first, so that a taken one changes nothing. */
struct zl_agent_deploy {
    const struct zl_spec *spec; /* borrowed for the call */
    const char *owner;          /* "" or a lease id */
};
void zl_agent_deploy(struct zl_agent *a, const struct zl_agent_deploy *d, zl_agent_done done, void *arg);
/* What deploying it would do: [{service, action, replicas, reason?}]. */
struct zl_value *zl_agent_plan(struct zl_agent *a, struct zl_arena *arena, const struct zl_spec *spec);
/* The deployment ends: in reverse order, or at once. ZL_E_NOT_FOUND. */
void zl_agent_stop(struct zl_agent *a, const char *deployment, bool force, uint64_t grace_ms, zl_agent_done done,
                   void *arg);
/* Replicas of a service ("" for all) to zero; the deployment stays. */
void zl_agent_scale_down(struct zl_agent *a, const char *deployment, const char *service, uint64_t grace_ms,
                         zl_agent_done done, void *arg);

/* What there is, as the API shows it. NULL when there is no such deployment. */
struct zl_value *zl_agent_show_deployment(struct zl_agent *a, struct zl_arena *arena, const char *name);
bool zl_agent_has_deployment(struct zl_agent *a, const char *name);
struct zl_value *zl_agent_show_deployments(struct zl_agent *a, struct zl_arena *arena);
struct zl_value *zl_agent_show_containers(struct zl_agent *a, struct zl_arena *arena);
struct zl_value *zl_agent_show_store(struct zl_agent *a, struct zl_arena *arena);
/* Each instance of a deployment, oldest first: fn(arg, id, service, slot, running). */
void zl_agent_each_instance(struct zl_agent *a, const char *deployment,
                            void (*fn)(void *arg, const char *id, const char *service, unsigned slot, bool running),
                            void *arg);

/* Events of a deployment: what was, then what comes, until a last one. `name` is the event's, `data` its JSON. */
struct zl_agent_watch;
typedef void (*zl_agent_event)(void *arg, const char *name, struct zl_str data, bool last);
struct zl_agent_watch *zl_agent_watch_new(struct zl_agent *a, const char *deployment, zl_agent_event fn, void *arg);
struct zl_agent_watch *zl_agent_watch_free(struct zl_agent_watch *w);

/* The owner of a deployment is there (held) or its connection is gone (not held). ZL_E_CONFLICT for a wrong id. */
int zl_agent_lease(struct zl_agent *a, const char *deployment, const char *owner, bool held,
                   struct zl_err *err) ZL_MUST;

struct zl_runtime *zl_agent_runtime(struct zl_agent *a);
const struct zl_store *zl_agent_store(struct zl_agent *a);
struct zl_loop *zl_agent_loop(struct zl_agent *a);
const struct zl_home *zl_agent_home(struct zl_agent *a);
/* How an image job is started: the program, absolute, and its words; the strings are the agent's. */
enum { ZL_AGENT_IMAGE_WORDS = 7 };
const char *zl_agent_image_job(struct zl_agent *a, const char *argv[ZL_AGENT_IMAGE_WORDS]);
bool zl_agent_idle(const struct zl_agent *a);
