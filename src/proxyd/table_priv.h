/*
 * The table: what a snapshot and the listeners handed over so far come to, ready for use by the workers. Immutable; the
 * control thread builds it, publishes it by pointer, and frees it when every worker works by a later one.
 * Thread: made and freed by the control thread, read by all. Owns: the mapped snapshot; listeners' descriptors are the
 * control thread's. Fails: table_new.
 */
#pragma once

#include "net/proxy/board.h"
#include "net/proxy/snapshot.h"

#include <netinet/in.h>
#include <stdatomic.h>

/* What the proxy itself remembers of a slot, beside the board. */
struct slot_state {
    _Atomic uint64_t avoid_until_ms; /* a connect has failed: others are tried first until then */
    _Atomic uint32_t draining;       /* the end of its last request is news for the agent */
    _Atomic uint32_t probe_soon;     /* a connect has failed: the prober should look now */
};

struct backend {
    uint64_t id;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
    socklen_t address_len;
    uint32_t slot;
    bool draining;
    struct zl_px_slot *counters;
    struct slot_state *state;
};

struct service {
    uint64_t id;
    struct zl_str name;
    const struct zl_px_service *def;
    struct backend *backends;
    unsigned nbackends;
};

struct route {
    struct zl_str host, path; /* empty: any */
    const struct service *service;
};

struct listener {
    uint32_t id;
    int fd;
    enum zl_px_protocol protocol;
    struct route *routes;
    unsigned nroutes;
    const struct zl_px_allow *allows;
    unsigned nallows;
};

struct table {
    uint64_t epoch;  /* of publications */
    uint64_t number; /* of the snapshot; 0: none yet */
    void *map;
    size_t map_size;
    struct zl_px_view view;
    struct listener *listeners;
    unsigned nlisteners;
    struct service *services;
    unsigned nservices;
    struct backend *backends;
    unsigned nbackends;
    struct route *routes;
    struct backend **by_slot; /* nslots of them */
    uint32_t nslots;
    struct table *older; /* the control thread's list of tables that a worker may still read */
};

/* Checks and maps a snapshot's memfd: it must be sealed. -errno. */
int table_new(int snapshot_fd, struct zl_px_board *board, struct slot_state *states, struct table **ret) ZL_MUST;
struct table *table_free(struct table *t);
/* Gives a listener of the snapshot its descriptor; without one it does not accept. */
void table_listen(struct table *t, uint32_t id, int fd);

const struct listener *table_listener(const struct table *t, uint32_t id);
const struct service *table_service(const struct table *t, uint64_t id);
/* The backend with that id in that slot, or NULL. */
const struct backend *table_backend(const struct table *t, uint32_t slot, uint64_t id);
bool listener_allows(const struct listener *l, const struct sockaddr_storage *peer);
/* Exact host before wildcard (longest first) before any; then the longest path. NULL: no route. */
const struct route *listener_route(const struct listener *l, struct zl_str host, struct zl_str path);
/*
 * The healthy backend with the fewest requests in flight, round robin among equals; one whose connect failed a moment
 * ago only if there is no other. NULL: none. `tried` are slots that are not to be chosen. `*ret_more`: there is another
 * one to try after it.
 */
const struct backend *service_choose(const struct service *s, const uint32_t *tried, unsigned ntried, uint32_t turn,
                                     uint64_t now_ms, bool *ret_more);
