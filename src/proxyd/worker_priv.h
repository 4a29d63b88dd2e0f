/*
 * A worker: a thread with an epoll loop of its own, its connections, its idle backend connections, its buffers. Workers
 * share nothing but the table (read only), the board's counters (atomic), and an inbox each for connections that
 * another one accepted for them. Descriptors are registered once, edge-triggered: readiness is remembered in `struct
 * ev`, and no further epoll_ctl is made for a connection's life.
 *
 * Objects closed while a batch of events is handled are freed after it: a later event of the batch may still name them.
 * Thread: its own, except worker_new, worker_start, worker_wake, worker_give. Owns: as the structs say.
 */
#pragma once

#include "http/chunked.h"
#include "http/message.h"
#include "proxyd/buf_priv.h"
#include "proxyd/table_priv.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum ev_kind { EV_WAKE, EV_LISTENER, EV_CLIENT, EV_BACKEND, EV_DEAD };

struct ev {
    enum ev_kind kind;
    int fd;
    bool readable, writable; /* as far as is known: a call that gives EAGAIN clears it */
    bool hup;                /* the other end has finished writing */
    bool err;                /* reset, or finished both ways */
};

/* Each class of timers has one duration, so that a list in order of setting is in order of expiry. */
enum timer_class {
    TIMER_IDLE,         /* a client between two requests */
    TIMER_HEAD,         /* a request's head, from its first byte */
    TIMER_CONNECT_FAST, /* to a backend while there is another one to try */
    TIMER_CONNECT,
    TIMER_REPLY,  /* the first byte of a reply */
    TIMER_STREAM, /* no byte moves either way */
    TIMER_LINGER, /* what the client still sends after its last reply */
    TIMER_BACKEND_IDLE,
    TIMER_CLASSES,
    TIMER_NONE = TIMER_CLASSES,
};

struct timer {
    struct timer *prev, *next;
    uint64_t deadline_ms;
    enum timer_class class;
};

struct worker;
struct conn;

/* A connection to a backend: a conn's, or idle in the pool (conn == NULL). */
struct upstream {
    struct ev ev; /* first: epoll's pointer */
    struct timer timer;
    struct conn *conn;
    struct worker *owner;  /* while it is idle */
    struct upstream *next; /* in the pool, or in the list of the dead */
    struct upstream *prev;
    uint64_t backend_id;
    uint32_t slot;
    struct zl_px_slot *counters;
    struct slot_state *state;
    struct buf in;
    bool connected, reused, counted; /* counted: in the board's in_flight */
};

enum conn_state {
    CONN_HEAD,     /* idle, or a request's head is being read */
    CONN_CONNECT,  /* a backend's connection is being made */
    CONN_EXCHANGE, /* request and reply are being passed on */
    CONN_TUNNEL,   /* bytes both ways: tcp, or after 101 */
    CONN_REFUSE,   /* a reply of our own is being written, the last one */
    CONN_LINGER,   /* it is written; what the client still sends is read and dropped */
};

/* One direction of a body. Bytes at the start of its buffer: `sent` are written, `ready` are known to be of the body.
 */
struct flow {
    enum zl_http_body kind;
    uint64_t left;
    struct zl_chunked chunked;
    uint32_t ready, sent;
    bool done; /* the body's end is within `ready` */
};

enum { TRIES_MAX = 4 };

struct conn {
    struct ev ev; /* the client; first: epoll's pointer */
    struct timer timer;
    struct worker *worker;
    struct conn *next_dead;
    struct upstream *up;
    enum conn_state state;
    uint32_t listener;
    enum zl_px_protocol protocol;
    char peer[INET6_ADDRSTRLEN];

    struct buf in;   /* from the client */
    struct buf req;  /* the request's head as the backend gets it; kept until the reply begins */
    struct buf resp; /* a head, or a whole reply of our own, for the client */
    uint32_t req_sent;
    size_t scanned;
    struct flow body, reply;

    uint64_t service;
    uint32_t tried[TRIES_MAX];
    uint8_t ntried, replays;
    bool is_head, idempotent, keep_alive, http10, upgrade, half_close_ok;
    bool replayable;     /* all of the body that was sent is still in `in` */
    bool sent_something; /* to the present backend */
    bool fresh_only;     /* no pooled connection: the last one was dead */
    bool reply_begun, reply_keep;
    bool up_write_broken;
    bool in_shut, up_shut; /* a tunnel's directions that are finished */
};

struct handed {
    int fd;
    uint32_t listener;
    struct sockaddr_storage peer;
};

struct worker_listener {
    struct ev ev; /* first */
    uint32_t id;
    struct worker_listener *next_dead;
};

/* What all threads share. */
struct shared {
    struct zl_px_board *board;
    struct slot_state states[ZL_PX_SLOTS];
    _Atomic(struct table *) table;
    struct worker *workers;
    unsigned nworkers;
    int control_wake; /* eventfd: something for the control thread to look at */
};

struct worker {
    struct shared *shared;
    unsigned index;
    pthread_t thread;
    int epoll;
    struct ev wake;
    const struct table *table;
    uint64_t now_ms;
    uint32_t turn;
    struct timer timers[TIMER_CLASSES]; /* list heads */
    struct buf_pool bufs;
    struct upstream *pool[ZL_PX_SLOTS]; /* idle, the latest first */
    struct worker_listener **listeners;
    unsigned nlisteners;
    uint64_t accept_again_ms; /* 0: accepting */
    struct conn *dead_conns;
    struct upstream *dead_ups;
    struct worker_listener *dead_listeners;
    struct zl_http_head head; /* scratch */

    char pad[64];
    _Atomic uint32_t nconns; /* others look here to whom to give a connection */
    _Atomic uint64_t epoch;  /* of the table in use */
    pthread_mutex_t inbox_lock;
    struct handed *inbox;
    unsigned ninbox, inbox_cap;
};

/* worker.c */
int worker_init(struct worker *w, struct shared *shared, unsigned index) ZL_MUST;
int worker_start(struct worker *w) ZL_MUST;
void worker_wake(struct worker *w);
/* Registers a descriptor once, for both directions. */
int worker_watch(struct worker *w, struct ev *ev) ZL_MUST;
void timer_set(struct worker *w, struct timer *t, enum timer_class class);
void timer_stop(struct timer *t);
/* The control thread has news from us: an epoch applied, a drain ended, a probe wanted. */
void shared_notify(struct shared *s);
/* One read into the buffer's room: bytes, 0 at the end, -EAGAIN, or an error. */
ssize_t ev_read(struct ev *ev, struct buf *b) ZL_MUST;

/* conn.c */
void conn_open(struct worker *w, int fd, const struct listener *l, const struct sockaddr_storage *peer);
void conn_close(struct conn *c);
/* Goes on as far as it can; the connection may be closed afterwards. */
void conn_run(struct conn *c);
void conn_timeout(struct conn *c, enum timer_class class);
void conn_free(struct conn *c);
/* A backend for the conn, from the pool or by a connect in progress: 0; -EHOSTDOWN: none is left, -errno: none worked.
 */
int conn_connect(struct conn *c) ZL_MUST;
/* The connect under way has come to its end: 1 connected, 0 not yet, -errno. */
int conn_connected(struct conn *c) ZL_MUST;

/* http.c */
void http_run(struct conn *c);
void http_timeout(struct conn *c, enum timer_class class);

/* relay.c */
void relay_run(struct conn *c);

/* upstream.c */
/* A usable idle connection of the backend, or a new one that is being made. NULL: *ret_error says why. */
struct upstream *upstream_get(struct conn *c, const struct backend *b, bool fresh, bool check, int *ret_error);
/* The exchange is over: keeps the connection for the next one, or closes it. */
void upstream_put(struct upstream *u, bool reusable);
void upstream_close(struct upstream *u);
/* Its backend did not do what it should: counted, and avoided for a moment when `connecting`. */
void upstream_failed(struct upstream *u, bool connecting);
void upstream_idle_event(struct upstream *u);
void upstream_free(struct upstream *u);

/* rewrite.c */
/* The request's head as the backend gets it, into c->req. -errno: it does not fit. */
int rewrite_request(struct conn *c, const struct zl_http_head *h, struct zl_str host, struct zl_str target) ZL_MUST;
/* The reply's head as the client gets it, behind what stands in c->resp. */
int rewrite_reply(struct conn *c, const struct zl_http_head *h) ZL_MUST;
/* A whole reply of our own. */
int write_refusal(struct conn *c, unsigned status, const char *code, const char *text) ZL_MUST;
