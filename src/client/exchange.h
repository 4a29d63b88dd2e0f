/*
 * One HTTP/1.1 request and its reply over the agent's unix socket, blocking with time limits; the body is handed on as
 * it comes, chunked or counted. Thread: one. Owns: the exchange owns the socket. Fails: -errno of connecting,
 * ZL_E_CLOSED when the agent went away, ZL_E_PROTOCOL for a reply that is none, -EAGAIN when time is up.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"
#include "http/chunked.h"
#include "http/message.h"

struct zl_exchange {
    int fd;
    int status;
    bool began; /* a byte of the reply has come */
    bool ended; /* all of the body has */
    enum zl_http_body framing;
    uint64_t left; /* of a counted body */
    struct zl_chunked chunked;
    struct zl_buf raw;  /* read and not yet decoded */
    struct zl_buf body; /* decoded and not yet taken */
};

#define ZL_EXCHANGE_INIT \
    {                    \
        .fd = -EBADF     \
    }

/* Connects to a unix socket at any path length. The descriptor or a negative errno. */
int zl_socket_connect(const char *path) ZL_MUST;
/* Sends the request and reads the reply's head; timeout_ms is for the head. */
int zl_exchange_start(struct zl_exchange *x, const char *socket, const char *method, const char *path,
                      struct zl_str body, int timeout_ms, struct zl_err *err) ZL_MUST;
/* The part of it behind the request: the head of the reply that x->fd gives. */
int zl_exchange_head(struct zl_exchange *x, int timeout_ms, struct zl_err *err) ZL_MUST;
/* Reads more of the body into x->body: 1; 0: it is complete; -EAGAIN, -EINTR, ZL_E_CLOSED, ZL_E_PROTOCOL. */
int zl_exchange_read(struct zl_exchange *x, int timeout_ms, struct zl_err *err) ZL_MUST;
void zl_exchange_done(struct zl_exchange *x);
