/*
 * The agent's end of the proxy: it starts zl-proxy or adopts the running one, hands over listeners and snapshots, reads
 * the board, and starts a successor with the same listeners, snapshot and board when a proxy dies. A connection that
 * waits in a listener's queue waits; it is not refused, because the agent holds every listening socket itself too.
 *
 * Thread: the loop's. Owns: as each call says. Fails: zl_proxy_open, _listen, _publish; a proxy that can't be started
 * later is retried with growing pauses and told through `down`.
 */
#pragma once

#include "aio/loop.h"
#include "base/error.h"
#include "net/proxy/board.h"
#include "net/proxy/snapshot.h"
#include "sys/inside.h"

#include <stdbool.h>

struct zl_proxy;

struct zl_proxy_options {
    struct zl_loop *loop;
    int data_dir;        /* holds proxy.lock and proxy.sock; duplicated */
    const char *program; /* absolute path of zl-proxy */
    int netns;           /* the node's namespace, duplicated; -EBADF: our own (tests) */
    /* An ordinary user's: the proxy is led into the holder's namespaces, netns is not used. Borrowed; NULL for root. */
    const struct zl_inside *inside;
    /* The board has news: health changed, or all threads have applied a snapshot, or a drain ended. Coalesced. */
    void (*changed)(void *arg);
    /* The proxy has died and could not be started again at once; NULL text: it is up again. May be NULL. */
    void (*down)(void *arg, const char *text);
    void *arg;
};

/*
 * Adopts the proxy that runs on this data dir, listeners, board and snapshot included, or starts one. Blocks for at
 * most two seconds. `*ret_adopted` says which it was.
 */
int zl_proxy_open(const struct zl_proxy_options *options, struct zl_proxy **ret, bool *ret_adopted,
                  struct zl_err *err) ZL_MUST;
/* Is a proxy alive on this data dir? For an agent that has nothing to serve and only wants to end a left one. */
bool zl_proxy_running(int data_dir);
/* Lets the proxy run on and forgets it (the agent ends). Returns NULL; takes NULL. */
struct zl_proxy *zl_proxy_free(struct zl_proxy *p);
/* Tells the proxy to end, waits for it for up to timeout_ms, kills it then; frees. Returns NULL. */
struct zl_proxy *zl_proxy_quit(struct zl_proxy *p, unsigned timeout_ms);

/* Hands a listening socket over under an id of the caller's; the descriptor is taken, also on failure. */
int zl_proxy_listen(struct zl_proxy *p, uint32_t id, int fd_take, struct zl_err *err) ZL_MUST;
/* The agent's own duplicate of a listener, or -ENOENT; after an adoption: what the proxy had. Stays the proxy's. */
int zl_proxy_listener(const struct zl_proxy *p, uint32_t id);
/* Calls fn for each listener. */
void zl_proxy_each_listener(const struct zl_proxy *p, void (*fn)(void *arg, uint32_t id, int fd), void *arg);
/* Closes a listener at both ends: publish a snapshot without it first. */
void zl_proxy_unlisten(struct zl_proxy *p, uint32_t id);

/*
 * Publishes what is to be served; takes effect within milliseconds, without touching a request in progress. Slots of
 * the board are given to new backends here and taken back once they are drained; -ENOSPC when there is none.
 */
int zl_proxy_publish(struct zl_proxy *p, const struct zl_px_def *def, struct zl_err *err) ZL_MUST;
/* The number of the last published snapshot; 0: none yet. */
uint64_t zl_proxy_number(const struct zl_proxy *p);
/* All threads work by snapshot `number` or a later one. */
bool zl_proxy_applied(const struct zl_proxy *p, uint64_t number);
/*
 * A backend that the last snapshot marks as draining, or no longer has: true when every thread has applied that and
 * none of its requests is in flight. Only then may it be stopped and its address be used again. True for an unknown id.
 */
bool zl_proxy_drained(const struct zl_proxy *p, uint64_t backend);

struct zl_proxy_backend {
    uint64_t requests, failures, changed_ms;
    uint32_t in_flight, consecutive;
    enum zl_px_health health;
};
/* -ENOENT for an id without a slot. */
int zl_proxy_backend(const struct zl_proxy *p, uint64_t backend, struct zl_proxy_backend *ret) ZL_MUST;
/* 0 while none runs. */
pid_t zl_proxy_pid(const struct zl_proxy *p);
