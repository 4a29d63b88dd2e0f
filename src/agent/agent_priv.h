/* What the agent's files share. Thread: the control loop's. Owns: the agent owns all of it. */
#pragma once

#include "agent/agent.h"
#include "agent/reconcile.h"
#include "net/overlay/node_net.h"
#include "net/proxy/control.h"

/* One instance: what the runtime says of it and what only the agent knows. */
struct inst {
    struct inst *next;
    struct zl_agent *agent;
    char id[ZL_ID_HEX_SIZE];
    char *deployment, *service, *image;
    unsigned slot, attempt;
    int stop_signal; /* what asks its first process to end */
    uint64_t generation;
    struct in_addr address;
    enum zl_actual_state state;
    struct zl_rt_outcome outcome;
    pid_t pid;
    bool draining, stopped, member;
    bool busy;          /* a runtime call that changes it is under way */
    bool routed;        /* in the snapshot sent last */
    uint64_t routed_in; /* the number of the first snapshot that it has been in since */
    bool dropped;       /* gone from the runtime; the entry goes at the end of the step */
    uint64_t draining_ms, term_ms, kill_ms, created_ms, started_ms, ended_ms; /* monotonic */
    uint64_t created_wall_ms, started_wall_ms;
    char failure[200]; /* why create or start failed */
};

enum { OWNER_LOST_MS = 30000 }; /* so long its owner may be away before a deployment is stopped */

/* A connection by which an owner shows that it is there. One of an earlier owner does no good. */
struct lease {
    struct lease *next;
    char owner[ZL_OWNER_SIZE];
};

/* A document of the store, parsed once a generation. */
struct doc {
    struct doc *next;
    char *deployment;
    uint64_t generation;
    struct zl_arena arena;
    struct zl_spec *spec;
    uint64_t grace_ms; /* of a stop that asked for another one */
    bool force;
    uint64_t lost_ms; /* when its owner was last there; 0: it is, or nobody owns it */
    struct lease *leases;
    bool used; /* by the deployments of this step */
};

/* The image of a service's generation. */
struct pull {
    struct pull *next;
    struct zl_agent *agent;
    char *deployment, *service, *reference;
    uint64_t generation, failed_ms;
    enum zl_image_state state;
    unsigned failures;
    bool permanent;
    struct zl_err err;
    struct pull_job *job; /* while PULLING */
};

/* A listening socket: the wildcard (address 0), the host's loopback, or a service address in the namespace. */
struct listener {
    struct listener *next;
    uint32_t id;
    struct in_addr address;
    uint16_t port;
    int fd; /* until it is handed over, else -EBADF */
    bool used;
};

struct event_log {
    struct event_log *next;
    char *deployment;
    uint64_t generation;
    struct zl_buf *names, *datas; /* parallel, n of each */
    unsigned n, cap;
    bool last;     /* the history ends with ready, failed or gone */
    bool terminal; /* gone: nothing can follow */
    char **phases; /* the last status event of each service, by document order */
    unsigned nphases;
};

struct zl_agent_watch {
    struct zl_agent_watch *next;
    struct zl_agent *agent;
    char *deployment;
    zl_agent_event fn;
    void *arg;
    unsigned sent;
    bool scheduled, freed;
};

/* The holder of an ordinary user's namespaces (sys/inside.h). */
struct holder {
    struct zl_inside inside;
    pid_t pid; /* 0: there is none */
    int pidfd;
    bool adopted; /* it was an earlier agent's */
    struct zl_watch *watch;
    uint64_t started_ms;
    unsigned failures;
    char groups[300]; /* below which cgroups are made; "": none is this user's */
    bool limits;      /* and limits can be set in them */
};

struct zl_agent {
    struct zl_agent_options o;
    struct holder *holder; /* NULL: root's agent */
    struct zl_loop *loop;
    struct zl_store store;
    struct zl_cluster *cluster;
    struct zl_runtime *runtime;
    struct zl_node_net *net;
    struct zl_proxy *proxy;
    struct inst *instances;
    struct doc *docs;
    struct pull *pulls;
    struct listener *listeners;
    struct event_log *logs;
    struct zl_agent_watch *watches;
    struct zl_timer *timer;
    uint64_t opened_ms;
    uint32_t next_listener, next_address;
    bool ready, stepping, step_wanted, idle_told, idle, closing, members_dirty, publish_wanted;
    unsigned open_calls; /* proposals and runtime calls that refer to us */
    void (*closed)(void *arg);
    void *closed_arg;
    struct zl_reconcile_plan plan; /* of the last step, for what is shown; in step_arena */
    struct zl_arena step_arena;
    struct zl_err trouble; /* why the network or the proxy can't be had, for what is shown */
    uint64_t trouble_until_ms;
};

uint64_t agent_now(struct zl_agent *a);
/* Asks for a step at the end of this turn. */
void agent_step_soon(struct zl_agent *a);
struct inst *agent_instance(struct zl_agent *a, const char *id);
struct doc *agent_doc(struct zl_agent *a, const char *deployment);
const struct zl_service *agent_service(struct zl_agent *a, const char *deployment, const char *service);

/* world.c: what the store wants and what there is, as the step takes it. */
void agent_desired(struct zl_agent *a, struct zl_arena *arena, struct zl_reconcile_desired *ret);
void agent_actual(struct zl_agent *a, struct zl_arena *arena, struct zl_reconcile_actual *ret);
struct doc *agent_doc_of(struct zl_agent *a, const struct zl_state_deployment *d);

/* deploy.c */
bool agent_owner_there(const struct doc *doc, const char *owner);

/* act.c: carrying a plan out. */
void agent_act(struct zl_agent *a, const struct zl_reconcile_plan *plan);
void agent_inst_ended(struct inst *i, const struct zl_rt_outcome *outcome);
void agent_inst_free(struct inst *i);

/* create.c: everything of an instance's zl_rt_spec. */
int agent_create(struct zl_agent *a, struct inst *i, const struct zl_service *s, struct zl_err *err) ZL_MUST;

/* pull.c */
struct pull *agent_pull_of(struct zl_agent *a, const char *deployment, const char *service, uint64_t generation,
                           bool make);
void agent_pull(struct zl_agent *a, const char *deployment, const struct zl_service *s, uint64_t generation);
/* The image that was there is not any more. */
void agent_pull_again(struct zl_agent *a, const char *deployment, const char *service, uint64_t generation);
/* Forgets those of generations that nobody wants any more; `all` at the end, then their jobs go on without us. */
void agent_pulls_prune(struct zl_agent *a, bool all);

/* holder.c: an ordinary user's namespaces. `open` finds a holder that an earlier agent has left, `up` makes one. */
void agent_holder_open(struct zl_agent *a);
int agent_holder_up(struct zl_agent *a, struct zl_err *err) ZL_MUST;
/* From an instance that runs, where both agent and holder were killed: its namespaces, for the next holder to join. */
void agent_holder_learn(struct zl_agent *a, const char *id);
void agent_holder_down(struct zl_agent *a);
/* Lets it go on. */
void agent_holder_close(struct zl_agent *a);
bool agent_holder_left(const struct zl_agent *a);
/* The parent of containers' groups; "": there are none. */
const char *agent_groups(const struct zl_agent *a);
/* What of a document is not kept here, as this user can't, a text each; the number. */
enum { AGENT_WARNINGS = 4 };
unsigned agent_warnings(const struct zl_agent *a, struct zl_arena *arena, const struct zl_spec *spec, bool owned,
                        const char *ret[AGENT_WARNINGS]);

/* net.c: the node's network, the proxy, listeners, routes. */
int agent_net_up(struct zl_agent *a, struct zl_err *err) ZL_MUST;
void agent_net_down(struct zl_agent *a);
bool agent_net_left(struct zl_agent *a);
/* Binds the public ports of a document that are not bound yet. What one call bound is let go by agent_unbind with the
 * number that a->next_listener had before it. */
int agent_bind(struct zl_agent *a, const struct zl_spec *spec, struct zl_err *err) ZL_MUST;
void agent_unbind(struct zl_agent *a, uint32_t first);
void agent_sync_members(struct zl_agent *a);
int agent_take_address(struct zl_agent *a, struct in_addr *ret, struct zl_err *err) ZL_MUST;
struct in_addr agent_local_address(struct zl_agent *a);
void agent_publish(struct zl_agent *a, const struct zl_reconcile_plan *plan);
uint64_t agent_backend_id(const char *instance, unsigned endpoint);
unsigned agent_backends(const struct zl_service *s);
bool agent_healthy(struct zl_agent *a, const struct inst *i, const struct zl_service *s);
bool agent_inst_drained(struct zl_agent *a, const struct inst *i, const struct zl_service *s);
/* The addresses at which an endpoint is served: a list of strings. */
struct zl_value *agent_listen_list(struct zl_agent *a, struct zl_arena *arena, const char *deployment,
                                   const char *service, const struct zl_endpoint *e);

/* events.c */
void agent_events_step(struct zl_agent *a, const struct zl_reconcile_plan *plan);
void agent_event(struct zl_agent *a, const char *deployment, const char *name, struct zl_str data, bool last);
void agent_event_gone(struct zl_agent *a, const char *deployment);
void agent_event_begin(struct zl_agent *a, const char *deployment, uint64_t generation);
void agent_events_free(struct zl_agent *a);
