/*
 * A small blocking HTTP/1.1 client over a unix socket, which the server's tests talk through. One connection carries
 * one request after the other; a program that waits for several things at once polls zl_http_client_fd.
 *
 * Thread: one at a time. Owns: the caller owns the client and what it puts into a reply. Fails, with a hint:
 *   ZL_E_NO_AGENT   nothing listens (cause -ENOENT, -ECONNREFUSED), or the connection ended before a byte of the reply
 *                   (cause -ECONNRESET): the request may be sent again, with its request id
 *   ZL_E_PERMISSION the socket may not be opened (cause -EACCES)
 *   ZL_E_CLOSED     the connection ended in the middle of a reply
 *   ZL_E_TIMEOUT    no byte within timeout_ms
 *   ZL_E_PROTOCOL   what came is no HTTP
 *   -EINTR          a signal came while `interruptible`; zl_http_client_read may be called again
 */
#pragma once

#include "base/error.h"
#include "http/message.h"

#include <stdbool.h>

struct zl_http_client;

struct zl_http_call {
    const char *method;
    const char *target;                   /* path and query, encoded by the caller (zl_http_percent_encode) */
    const struct zl_http_header *headers; /* additional ones */
    unsigned nheaders;
    const char *content_type; /* NULL: application/json when there is a body */
    struct zl_str body;
};

struct zl_http_client_options {
    const char *socket_path; /* may be longer than a socket address is */
    int timeout_ms;          /* for each wait for bytes; 0: for ever */
    bool interruptible;      /* a signal ends a wait with -EINTR */
};

int zl_http_client_open(const struct zl_http_client_options *options, struct zl_http_client **ret,
                        struct zl_err *err) ZL_MUST;
struct zl_http_client *zl_http_client_free(struct zl_http_client *c); /* takes NULL, returns NULL */
ZL_DEFINE_AUTO(zl_http_client, zl_http_client_free)

/* Sends the request and reads the reply's head; returns the status. */
int zl_http_client_send(struct zl_http_client *c, const struct zl_http_call *call, struct zl_err *err) ZL_MUST;
/* The next piece of the body, a view until the next call: its size, 0 at the end. */
ssize_t zl_http_client_read(struct zl_http_client *c, struct zl_str *ret, struct zl_err *err) ZL_MUST;
/* The next line of the body without its newline (an unended last line counts): 1, 0 at the end. */
int zl_http_client_line(struct zl_http_client *c, struct zl_str *ret, struct zl_err *err) ZL_MUST;
/* The rest of the body, of at most `limit` bytes, appended. */
int zl_http_client_body(struct zl_http_client *c, size_t limit, struct zl_buf *ret, struct zl_err *err) ZL_MUST;

/* To poll for reading. Ready at once when zl_http_client_buffered says so. */
int zl_http_client_fd(const struct zl_http_client *c);
/* Bytes of the body, or its end, are here already. */
bool zl_http_client_buffered(const struct zl_http_client *c);
/* A header of the reply, any case; p == NULL when there is none. Valid until the next send. */
struct zl_str zl_http_client_header(const struct zl_http_client *c, const char *name);

/* Open, send, whole body (limit 64 MiB), close. Returns the status; body is cleared first. */
int zl_http_call(const struct zl_http_client_options *options, const struct zl_http_call *call, struct zl_buf *ret_body,
                 struct zl_err *err) ZL_MUST;
/* Appends `in` encoded as one part of a path or of a query's value. */
void zl_http_percent_encode(struct zl_buf *b, struct zl_str in);
