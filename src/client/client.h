/*
 * Calls to the agent of a place: one request a connection over its unix socket, JSON in and out, and streams of lines
 * (NDJSON) or events (SSE). A missing agent is started unless that was forbidden; what the agent's
 * death left unanswered is sent again: every route but those of ZL_ROUTE_ONCE gives the same when it is done twice.
 * Thread: one. Owns: replies belong to the arena given. Fails: ZL_E_NO_AGENT when there is none and none may be
 * started (the text says which case); an error reply becomes its code, message and hint; ZL_E_CLOSED for a lost stream.
 */
#pragma once

#include "base/alloc.h"
#include "base/error.h"
#include "client/place.h"
#include "codec/value.h"

struct zl_client {
    struct zl_place place;
    bool may_start;                                             /* an agent may be started */
    void (*starting)(void *arg);                                /* told before one is started; may be NULL */
    void (*problem)(void *arg, const struct zl_value *problem); /* told each problem of an error reply; may be NULL */
    void *arg;
};

enum zl_agent_state {
    ZL_AGENT_REACHABLE,
    ZL_AGENT_NO_SOCKET,
    ZL_AGENT_REFUSED, /* a stale socket */
    ZL_AGENT_DENIED,
    ZL_AGENT_OTHER,
};

/* Whether somebody accepts connections there; err says why not. Starts nothing. */
enum zl_agent_state zl_client_probe(const struct zl_place *place, struct zl_err *err);
/* Starts an agent. ZL_E_LOCKED: one runs already; ZL_E_CLOSED: it was killed before it was ready. */
int zl_client_start_agent(struct zl_client *c, struct zl_err *err) ZL_MUST;

/* `body` NULL: none. *ret (may be NULL) is the reply's tree, or NULL for an empty reply. */
int zl_client_call(struct zl_client *c, struct zl_arena *arena, const char *method, const char *path,
                   const struct zl_value *body, struct zl_value **ret, struct zl_err *err) ZL_MUST;

struct zl_stream;
/* The reply's head has come and is good. The caller closes the stream. */
int zl_stream_open(struct zl_client *c, const char *method, const char *path, const struct zl_value *body,
                   struct zl_stream **ret, struct zl_err *err) ZL_MUST;
struct zl_stream *zl_stream_free(struct zl_stream *s);
ZL_DEFINE_AUTO(zl_stream, zl_stream_free)
/* For poll; what was read already is only seen by zl_stream_line. */
int zl_stream_fd(const struct zl_stream *s);
/*
 * The next line without its end, valid until the next call: 1; 0: the stream ended; -EAGAIN: none came in
 * timeout_ms (-1: wait for ever); -EINTR: a signal came first; ZL_E_CLOSED: the connection broke.
 */
int zl_stream_line(struct zl_stream *s, int timeout_ms, struct zl_str *ret, struct zl_err *err) ZL_MUST;
/* The next server-sent event, as zl_stream_line; its name is "message" when it has none; data lines are joined by LF.
 */
int zl_stream_event(struct zl_stream *s, int timeout_ms, struct zl_str *name, struct zl_str *data,
                    struct zl_err *err) ZL_MUST;

/* Appends one path segment, percent-encoded but for A-Za-z0-9-_.~ */
void zl_path_segment(struct zl_buf *path, const char *text);
