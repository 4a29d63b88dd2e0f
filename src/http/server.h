/*
 * The engine of an HTTP/1.1 server on the control loop: it accepts on a given listening socket, reads whole requests
 * (bodies up to a limit), hands each to one handler, and writes the reply, at once or later, whole or as a stream.
 * Connections are kept alive; an idle one costs no wake-up. It knows no routes: that is the API's.
 *
 * An exchange (one request and its reply) is valid from the handler's call until zl_http_reply, zl_http_reply_end, or
 * the `gone` callback has returned, whichever comes first; after that nobody may touch it. A handler that replies later
 * must therefore set `gone`. No callback is called from inside a zl_http_* call of this file, but from the loop.
 *
 * Thread: the loop's. Owns: the server owns connections and exchanges; views of a request live as long as its exchange.
 * Fails: zl_http_server_new. A reply to a client that has gone is dropped silently.
 */
#pragma once

#include "aio/loop.h"
#include "base/error.h"
#include "http/message.h"

#include <sys/types.h>

struct zl_http_server;
struct zl_http_exchange;

enum { ZL_HTTP_SERVER_BODY_MAX = 2 * 1024 * 1024 };

struct zl_http_request {
    struct zl_str method;
    struct zl_str path;  /* up to '?', still percent-encoded; always starts with '/' */
    struct zl_str query; /* behind '?', still percent-encoded; may be empty */
    struct zl_str body;
    const struct zl_http_header *headers;
    unsigned nheaders;
    pid_t pid; /* the peer's credentials as of connect(2); pid 0, uid and gid -1 on a socket without */
    uid_t uid;
    gid_t gid;
};

struct zl_http_server_options {
    struct zl_loop *loop;
    int listen_fd;   /* listening, non-blocking is set here; stays the caller's and outlives the server */
    size_t body_max; /* 0: ZL_HTTP_SERVER_BODY_MAX */
    void (*handler)(void *arg, struct zl_http_exchange *x);
    void *arg;
};

int zl_http_server_new(const struct zl_http_server_options *options, struct zl_http_server **ret,
                       struct zl_err *err) ZL_MUST;
/* Closes every connection; exchanges in progress get their `gone`. Returns NULL. */
struct zl_http_server *zl_http_server_free(struct zl_http_server *s);
/* Open connections, idle ones included: the idle end asks. */
unsigned zl_http_server_connections(const struct zl_http_server *s);
/* Accepts what stands in the queue now, without waiting for the loop. Returns how many. */
unsigned zl_http_server_accept_now(struct zl_http_server *s);
/* No more accepts; connections close after the reply that they are at. */
void zl_http_server_quiesce(struct zl_http_server *s);

const struct zl_http_request *zl_http_request(const struct zl_http_exchange *x);
/* A header of the request, any case; p == NULL when there is none. */
struct zl_str zl_http_request_header(const struct zl_http_exchange *x, const char *name);
/* A query parameter, percent-decoded into `ret` (cleared first): 1, 0 when there is none, -EINVAL for a bad escape. */
int zl_http_query(const struct zl_http_request *r, const char *name, struct zl_buf *ret) ZL_MUST;
/* Percent-decodes one part of a path or query ('+' is a space in a query only). -EINVAL for bad escapes and NUL. */
int zl_http_percent_decode(struct zl_str in, bool is_query, struct zl_buf *ret) ZL_MUST;

/* An additional header of the reply; before zl_http_reply or zl_http_reply_begin. Bytes unfit for one are dropped. */
void zl_http_reply_header(struct zl_http_exchange *x, const char *name, struct zl_str value);
/* The whole reply. content_type may be NULL when the body is empty. Ends the exchange. */
void zl_http_reply(struct zl_http_exchange *x, unsigned status, const char *content_type, struct zl_str body);

/* A streamed reply (chunked): begin, any number of writes, end. Each write is sent as soon as the socket takes it. */
void zl_http_reply_begin(struct zl_http_exchange *x, unsigned status, const char *content_type);
/* Returns the bytes that now wait in memory: a writer stops above a bound of its own and goes on from `drained`. */
size_t zl_http_reply_write(struct zl_http_exchange *x, struct zl_str data);
/* Ends the exchange. */
void zl_http_reply_end(struct zl_http_exchange *x);
size_t zl_http_reply_pending(const struct zl_http_exchange *x);

/* The client has gone before the reply's end; the exchange ends with this call. */
void zl_http_on_gone(struct zl_http_exchange *x, void (*gone)(void *arg), void *arg);
/* All that was written has been taken by the socket. */
void zl_http_on_drained(struct zl_http_exchange *x, void (*drained)(void *arg), void *arg);
