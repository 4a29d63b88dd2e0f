/* The node's network and the proxy as this agent uses them: addresses, listeners, what the proxy is told to serve. */
#include "agent/agent_priv.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

static const struct in_addr wildcard = { 0 };

static struct in_addr loopback(void)
{
    return (struct in_addr){ htonl(INADDR_LOOPBACK) };
}

static uint32_t block_base(struct zl_agent *a, unsigned index)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    unsigned seen = 0;
    for (unsigned i = 0; i < s->nblocks; i++)
        if (s->blocks[i].node == zl_cluster_node(a->cluster) && seen++ == index)
            return s->blocks[i].base;
    return 0;
}

struct in_addr agent_local_address(struct zl_agent *a)
{
    uint32_t base = block_base(a, 0);
    return (struct in_addr){ base ? htonl(base + 1) : 0 };
}

static bool address_used(struct zl_agent *a, struct in_addr addr)
{
    for (const struct inst *i = a->instances; i; i = i->next)
        if (i->address.s_addr == addr.s_addr && !i->dropped)
            return true;
    return false;
}

static void block_taken(void *arg, const struct zl_state_result *result, const struct zl_err *err)
{
    struct zl_agent *a = arg;
    (void)result;
    (void)err;
    a->open_calls--;
}

/* Round-robin over the node's blocks, so that an address rests before it is used again. */
int agent_take_address(struct zl_agent *a, struct in_addr *ret, struct zl_err *err)
{
    unsigned blocks = 0;
    while (block_base(a, blocks))
        blocks++;
    for (uint32_t tries = 0; tries < blocks * 253; tries++) {
        uint32_t at = a->next_address++ % (blocks * 253);
        struct in_addr addr = { htonl(block_base(a, at / 253) + 2 + at % 253) };
        if (!address_used(a, addr)) {
            *ret = addr;
            return 0;
        }
    }
    struct zl_command c = { .kind = ZL_COMMAND_BLOCK_TAKE,
                            .deployment = "",
                            .service = "",
                            .node = zl_cluster_node(a->cluster),
                            .now_ms = zl_clock_wall_ms() };
    a->open_calls++;
    zl_cluster_propose(a->cluster, &c, block_taken, a);
    return zl_fail(err, ZL_E_NETWORK, "all addresses of this node are in use; another block is being taken");
}

static void proxy_changed(void *arg)
{
    agent_step_soon(arg);
}

static void proxy_down(void *arg, const char *text)
{
    (void)arg;
    if (text)
        zl_log_error("the proxy has died and is being started again: %s", text);
    else
        zl_log_info("the proxy runs again");
}

static void learn_listener(void *arg, uint32_t id, int fd)
{
    struct zl_agent *a = arg;
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    struct listener *l = zl_xcalloc(1, sizeof *l);
    if (getsockname(fd, (struct sockaddr *)&ss, &n) == 0 && ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&ss;
        l->address = in->sin_addr;
        l->port = ntohs(in->sin_port);
    } else if (ss.ss_family == AF_INET6) {
        l->port = ntohs(((const struct sockaddr_in6 *)(const void *)&ss)->sin6_port);
    }
    l->id = id;
    l->fd = -EBADF;
    l->next = a->listeners;
    a->listeners = l;
    a->next_listener = ZL_MAX(a->next_listener, id + 1);
}

static struct zl_net_ranges net_ranges(const struct zl_ranges *r)
{
    return (struct zl_net_ranges){ { htonl(r->replicas) }, { htonl(r->services) }, { htonl(r->uplinks) } };
}

int agent_net_up(struct zl_agent *a, struct zl_err *err)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    int r = agent_holder_up(a, err);
    if (r < 0)
        return r;
    const struct zl_inside *inside = a->holder ? &a->holder->inside : NULL;
    if (!a->net) {
        struct zl_node_net_config c = { .netns_path = a->o.home->netns,
                                        .tag = a->o.home->tag,
                                        .ranges = net_ranges(&s->ranges),
                                        .local = agent_local_address(a),
                                        .inside = inside,
                                        .adopted = a->holder && a->holder->adopted };
        if (!c.local.s_addr)
            return zl_fail(err, ZL_E_NETWORK, "this node has no block of addresses yet");
        r = zl_node_net_open(&c, &a->net, err);
        a->members_dirty = true;
    }
    if (r == 0 && !a->proxy) {
        bool adopted = false;
        struct zl_proxy_options po = { .loop = a->loop,
                                       .data_dir = a->o.home->data_dir,
                                       .program = a->o.proxy,
                                       .netns = zl_node_net_fd(a->net),
                                       .inside = inside,
                                       .changed = proxy_changed,
                                       .down = proxy_down,
                                       .arg = a };
        r = zl_proxy_open(&po, &a->proxy, &adopted, err);
        if (r == 0 && adopted)
            zl_proxy_each_listener(a->proxy, learn_listener, a);
        a->publish_wanted = true;
    }
    return r;
}

bool agent_net_left(struct zl_agent *a)
{
    return a->net || a->proxy || agent_holder_left(a) ||
           (!a->holder && zl_node_net_exists(a->o.home->netns, a->o.home->tag)) ||
           zl_proxy_running(a->o.home->data_dir);
}

void agent_net_down(struct zl_agent *a)
{
    struct zl_err err = { 0 };
    if (!a->proxy && zl_proxy_running(a->o.home->data_dir)) {
        bool adopted;
        struct zl_proxy_options po = { .loop = a->loop,
                                       .data_dir = a->o.home->data_dir,
                                       .program = a->o.proxy,
                                       .netns = -EBADF,
                                       .inside = a->holder ? &a->holder->inside : NULL,
                                       .changed = proxy_changed,
                                       .arg = a };
        if (zl_proxy_open(&po, &a->proxy, &adopted, &err) < 0)
            zl_log_warn("the proxy that was left can't be reached: %s", err.text);
    }
    if (a->proxy)
        a->proxy = zl_proxy_quit(a->proxy, 3000);
    a->net = zl_node_net_close(a->net);
    agent_holder_down(a);
    if (!a->holder && zl_node_net_drop(a->o.home->netns, a->o.home->tag, &err) < 0)
        zl_log_warn("the node's network was not removed whole: %s", err.text);
    while (a->listeners) {
        struct listener *l = a->listeners;
        a->listeners = l->next;
        zl_close(l->fd);
        free(l);
    }
    (void)unlink(a->o.home->netns);
}

/* --- members --- */

void agent_sync_members(struct zl_agent *a)
{
    const struct zl_state *s = zl_cluster_state(a->cluster);
    size_t n = 0, cap = 0;
    struct zl_net_member *m = NULL;
    struct zl_err err = { 0 };
    if (!a->net)
        return;
    a->members_dirty = false;
    for (unsigned i = 0; i < s->ndeployments; i++) {
        for (unsigned k = 0; k < s->deployments[i].nservices; k++) {
            if (!s->deployments[i].services[k].address)
                continue;
            ZL_GROW(m, n, cap);
            m[n] = (struct zl_net_member){ .addr = { htonl(s->deployments[i].services[k].address) } };
            snprintf(m[n++].deployment, sizeof m->deployment, "%s", s->deployments[i].name);
        }
    }
    for (const struct inst *i = a->instances; i; i = i->next) {
        if (!i->member || i->dropped)
            continue;
        ZL_GROW(m, n, cap);
        m[n] = (struct zl_net_member){ .addr = i->address };
        snprintf(m[n++].deployment, sizeof m->deployment, "%s", i->deployment);
    }
    if (zl_node_net_sync(a->net, m, n, &err) < 0) {
        zl_log_error("the members of the node's network can't be set: %s", err.text);
        a->members_dirty = true;
    }
    free(m);
}

/* --- listeners --- */

static struct listener *find_listener(struct zl_agent *a, struct in_addr addr, uint16_t port)
{
    for (struct listener *l = a->listeners; l; l = l->next)
        if (l->address.s_addr == addr.s_addr && l->port == port)
            return l;
    return NULL;
}

static struct listener *add_listener(struct zl_agent *a, struct in_addr addr, uint16_t port, int fd)
{
    struct listener *l = zl_xcalloc(1, sizeof *l);
    l->id = a->next_listener++;
    l->address = addr;
    l->port = port;
    l->fd = fd;
    l->next = a->listeners;
    a->listeners = l;
    return l;
}

/* Who has a public port already: another deployment of ours. */
static const char *public_owner(struct zl_agent *a, const char *except, int64_t port, const char **service)
{
    for (const struct doc *d = a->docs; d; d = d->next) {
        if (!d->spec || zl_streq(d->deployment, except))
            continue;
        for (unsigned i = 0; i < d->spec->services.n; i++) {
            const struct zl_service *s = d->spec->services.v[i];
            for (unsigned k = 0; k < s->endpoints.n; k++) {
                const struct zl_endpoint *e = s->endpoints.v[k];
                if (e->expose == ZL_EXPOSE_PUBLIC && e->port == port) {
                    *service = s->name;
                    return d->deployment;
                }
            }
        }
    }
    return NULL;
}

int agent_bind(struct zl_agent *a, const struct zl_spec *spec, struct zl_err *err)
{
    for (unsigned i = 0; i < spec->services.n; i++) {
        const struct zl_service *s = spec->services.v[i];
        for (unsigned k = 0; k < s->endpoints.n; k++) {
            const struct zl_endpoint *e = s->endpoints.v[k];
            const char *service,
                *other = e->expose == ZL_EXPOSE_PUBLIC ? public_owner(a, spec->deployment, e->port, &service) : NULL;
            if (other)
                return zl_hint(err,
                               zl_fail(err, ZL_E_PORT_TAKEN, "port %lld of %s.%s is served for %s.%s already",
                                       (long long)e->port, spec->deployment, s->name, other, service),
                               "choose another port, or `zlayer down %s`", other);
            if (e->expose != ZL_EXPOSE_PUBLIC || find_listener(a, wildcard, (uint16_t)e->port))
                continue;
            /* Our own loopback listener of an internal endpoint that becomes public would be in the way of itself. */
            int fd = zl_node_net_listen(NULL, ZL_NET_OUTSIDE, NULL, (uint16_t)e->port, err);
            if (fd < 0) {
                int code = fd == -EADDRINUSE ? ZL_E_PORT_TAKEN : fd == -EACCES ? ZL_E_PERMISSION : fd;
                zl_fail_errno(err, code, fd, "listen on port %lld for %s.%s", (long long)e->port, spec->deployment,
                              s->name);
                return zl_hint(err, code,
                               fd == -EACCES ? "ports below net.ipv4.ip_unprivileged_port_start need root"
                                             : "another program has the port: `ss -ltnp` shows which");
            }
            add_listener(a, wildcard, (uint16_t)e->port, fd);
        }
    }
    return 0;
}

void agent_unbind(struct zl_agent *a, uint32_t first)
{
    for (struct listener **at = &a->listeners; *at;) {
        struct listener *l = *at;
        if (l->id < first || l->fd < 0) { /* older, or the proxy serves it by now */
            at = &l->next;
            continue;
        }
        *at = l->next;
        zl_close(l->fd);
        free(l);
    }
}

static struct listener *want(struct zl_agent *a, bool inside, struct in_addr addr, uint16_t port)
{
    struct listener *l = find_listener(a, addr, port);
    struct zl_err err = { 0 };
    if (l && l->used)
        return NULL; /* two deployments' internal endpoints with one port: the loopback's is the first one's */
    if (!l) {
        int fd =
            zl_node_net_listen(a->net, inside ? ZL_NET_INSIDE : ZL_NET_OUTSIDE, addr.s_addr ? &addr : NULL, port, &err);
        if (fd < 0) {
            if (inside || !addr.s_addr)
                zl_log_error("can't listen port=%u: %s", port, err.text);
            return NULL; /* the loopback's port may belong to somebody else: status shows that it is not served */
        }
        l = add_listener(a, addr, port, fd);
    }
    if (l->fd >= 0 && zl_proxy_listen(a->proxy, l->id, ZL_TAKE_FD(l->fd), &err) < 0) {
        zl_log_error("the proxy did not take a listener port=%u: %s", port, err.text);
        return NULL;
    }
    l->used = true;
    return l;
}

/* --- what is served --- */

static uint64_t hash(const char *text, uint64_t salt)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ (salt * UINT64_C(0x9e3779b97f4a7c15));
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h ? h : 1;
}

uint64_t agent_backend_id(const char *instance, unsigned endpoint)
{
    return hash(instance, endpoint + 1);
}

/* Each endpoint is a set of backends; a service with a check and no endpoint has one, to be probed. */
unsigned agent_backends(const struct zl_service *s)
{
    return s->endpoints.n ? s->endpoints.n : s->health.check.type != ZL_CHECK_NONE;
}

bool agent_healthy(struct zl_agent *a, const struct inst *i, const struct zl_service *s)
{
    struct zl_proxy_backend b;
    if (s->health.check.type == ZL_CHECK_NONE)
        return i->state == ZL_ACTUAL_RUNNING;
    for (unsigned k = 0; k < agent_backends(s); k++)
        if (!a->proxy || zl_proxy_backend(a->proxy, agent_backend_id(i->id, k), &b) < 0 || b.health != ZL_PX_HEALTH_OK)
            return false;
    return true;
}

bool agent_inst_drained(struct zl_agent *a, const struct inst *i, const struct zl_service *s)
{
    if (!a->proxy)
        return true;
    for (unsigned k = 0; k < (s ? agent_backends(s) : 0); k++)
        if (!zl_proxy_drained(a->proxy, agent_backend_id(i->id, k)))
            return false;
    return true;
}

static struct zl_px_probe_def probe_of(const struct zl_service *s)
{
    struct zl_px_probe_def p = { .kind = ZL_PX_PROBE_NONE };
    if (s->health.check.type == ZL_CHECK_NONE)
        return p;
    p.kind = s->health.check.type == ZL_CHECK_HTTP ? ZL_PX_PROBE_HTTP : ZL_PX_PROBE_TCP;
    p.interval_ms = (uint32_t)ZL_MIN(s->health.interval_ms, (uint64_t)UINT32_MAX);
    p.timeout_ms = (uint32_t)ZL_MIN(s->health.timeout_ms, (uint64_t)UINT32_MAX);
    p.retries = (uint32_t)s->health.retries;
    p.start_grace_ms = (uint32_t)ZL_MIN(s->health.start_grace_ms, (uint64_t)UINT32_MAX);
    p.path = s->health.check.url;
    p.port = (uint16_t)s->health.check.port;
    for (unsigned k = 0; k < s->endpoints.n && p.port == 0; k++) {
        const struct zl_endpoint *e = s->endpoints.v[k];
        if (p.kind == ZL_PX_PROBE_TCP || e->protocol == ZL_PROTOCOL_HTTP)
            p.port = (uint16_t)e->target_port;
    }
    return p;
}

struct build {
    struct zl_arena arena;
    struct zl_px_listener_def *listeners;
    struct zl_px_service_def *services;
    unsigned nlisteners, nservices, cap_listeners, cap_services;
};

static void serve_at(struct build *b, const struct listener *l, const struct zl_endpoint *e, unsigned service)
{
    if (!l)
        return;
    struct zl_px_route_def *route = zl_arena_alloc(&b->arena, sizeof *route);
    route->service = service;
    ZL_GROW(b->listeners, b->nlisteners, b->cap_listeners);
    b->listeners[b->nlisteners++] = (struct zl_px_listener_def){
        .id = l->id, .protocol = e->protocol == ZL_PROTOCOL_HTTP ? ZL_PX_HTTP : ZL_PX_TCP, .routes = route, .nroutes = 1
    };
}

static bool in_plan(const struct zl_reconcile_plan *plan, const struct inst *i)
{
    for (unsigned k = 0; k < plan->nroutes; k++)
        if (plan->routes[k] && zl_streq(plan->routes[k]->id, i->id))
            return true;
    return false;
}

/* Instances that drain stay in the snapshot, marked, until they have ended: their requests are still counted. */
static void add_backends(struct zl_agent *a, struct build *b, const struct zl_reconcile_plan *plan, const char *dep,
                         const struct zl_service *s, unsigned endpoint, uint16_t port, struct zl_px_service_def *def)
{
    unsigned n = 0;
    for (const struct inst *i = a->instances; i; i = i->next)
        n++;
    struct zl_px_backend_def *v = zl_arena_alloc(&b->arena, (n + 1) * sizeof *v);
    for (struct inst *i = a->instances; i; i = i->next) {
        char text[INET_ADDRSTRLEN];
        bool routed = in_plan(plan, i);
        if (!zl_streq(i->deployment, dep) || !zl_streq(i->service, s->name) || i->state != ZL_ACTUAL_RUNNING ||
            !(routed || i->draining))
            continue;
        v[def->nbackends++] = (struct zl_px_backend_def){
            .id = agent_backend_id(i->id, endpoint),
            .address = zl_arena_strdup(&b->arena, inet_ntop(AF_INET, &i->address, text, sizeof text)),
            .port = port,
            .draining = !routed,
            .trusted = s->health.check.type == ZL_CHECK_NONE,
        };
    }
    def->backends = v;
}

static void add_service(struct zl_agent *a, struct build *b, const struct zl_reconcile_plan *plan, const char *dep,
                        const struct zl_service *s)
{
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), dep);
    const struct zl_state_service *state = d ? zl_state_service(d, s->name) : NULL;
    for (unsigned k = 0; k < agent_backends(s); k++) {
        const struct zl_endpoint *e = s->endpoints.n ? s->endpoints.v[k] : NULL;
        unsigned index = b->nservices;
        ZL_GROW(b->services, b->nservices, b->cap_services);
        struct zl_px_service_def *def = &b->services[b->nservices++];
        *def = (struct zl_px_service_def){ .probe = probe_of(s) };
        def->name = zl_arena_printf(&b->arena, "%s.%s.%s", dep, s->name, e ? e->name : "check");
        def->id = hash(def->name, 0);
        add_backends(a, b, plan, dep, s, k, e ? (uint16_t)e->target_port : def->probe.port, def);
        if (!e)
            continue;
        if (e->expose == ZL_EXPOSE_PUBLIC)
            serve_at(b, want(a, false, wildcard, (uint16_t)e->port), e, index);
        if (state && state->address)
            serve_at(b, want(a, true, (struct in_addr){ htonl(state->address) }, (uint16_t)e->port), e, index);
        if (e->expose == ZL_EXPOSE_INTERNAL && !find_listener(a, wildcard, (uint16_t)e->port))
            serve_at(b, want(a, false, loopback(), (uint16_t)e->port), e, index);
    }
}

static void drop_unused(struct zl_agent *a)
{
    for (struct listener **at = &a->listeners; *at;) {
        struct listener *l = *at;
        if (l->used || l->fd >= 0) { /* bound for a deployment that is just being put */
            at = &l->next;
            continue;
        }
        *at = l->next;
        zl_proxy_unlisten(a->proxy, l->id);
        free(l);
    }
}

void agent_publish(struct zl_agent *a, const struct zl_reconcile_plan *plan)
{
    struct build b = { 0 };
    struct zl_err err = { 0 };
    const struct zl_state *state = zl_cluster_state(a->cluster);
    if (a->members_dirty)
        agent_sync_members(a); /* a service address must be there to be listened on */
    zl_arena_init(&b.arena);
    for (struct listener *l = a->listeners; l; l = l->next)
        l->used = false;
    for (unsigned i = 0; i < state->ndeployments; i++) {
        const struct zl_state_deployment *d = &state->deployments[i];
        struct doc *doc = agent_doc(a, d->name);
        for (unsigned k = 0; doc && doc->spec && k < doc->spec->services.n; k++)
            add_service(a, &b, plan, d->name, doc->spec->services.v[k]);
    }
    struct zl_px_def def = { b.listeners, b.nlisteners, b.services, b.nservices };
    if (zl_proxy_publish(a->proxy, &def, &err) < 0) {
        zl_log_error("the proxy can't be told what to serve: %s", err.text);
        a->publish_wanted = true;
    } else {
        for (struct inst *i = a->instances; i; i = i->next) {
            bool routed = in_plan(plan, i) && i->state == ZL_ACTUAL_RUNNING;
            if (routed && !i->routed)
                i->routed_in = zl_proxy_number(a->proxy);
            i->routed = routed;
        }
        drop_unused(a);
        zl_phase("start.routed");
    }
    zl_arena_done(&b.arena);
    free(b.listeners);
    free(b.services);
}

struct zl_value *agent_listen_list(struct zl_agent *a, struct zl_arena *arena, const char *deployment,
                                   const char *service, const struct zl_endpoint *e)
{
    struct zl_value *list = zl_value_new(arena, ZL_LIST);
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), deployment);
    const struct zl_state_service *s = d ? zl_state_service(d, service) : NULL;
    struct in_addr at[] = { wildcard, loopback(), { s ? htonl(s->address) : 0 } };
    for (unsigned k = 0; k < ZL_ARRAY_LEN(at); k++) {
        char text[INET_ADDRSTRLEN];
        bool public = e->expose == ZL_EXPOSE_PUBLIC;
        if ((k == 0 && !public) || (k == 1 && public) || (k == 2 && !at[k].s_addr) ||
            !find_listener(a, at[k], (uint16_t)e->port))
            continue;
        zl_value_append(list,
                        zl_value_string(arena, zl_str(zl_arena_printf(arena, "%s:%lld",
                                                                      inet_ntop(AF_INET, &at[k], text, sizeof text),
                                                                      (long long)e->port))));
    }
    return list;
}
