/*
 * A connection to one shim's `shim.sock`: a request sent, then every frame of the answer handed over.
 * Thread: the control loop's. Owns: the caller, until zl_rt_conn_free; the callback may free it.
 * Fails: zl_rt_conn_open gives -errno (-ECONNREFUSED, -ENOENT: no shim there, -EAGAIN: it is busy).
 */
#pragma once

#include "aio/loop.h"
#include "base/frame.h"

struct zl_rt_conn;

/* frame NULL: the connection is over (error: 0 at its end, or -errno). It is to be freed then. */
typedef void (*zl_rt_conn_fn)(void *arg, const struct zl_frame *frame, int error);

/* `request`: whole frames, taken (emptied) on success. */
int zl_rt_conn_open(struct zl_loop *loop, int containers, const char *id, struct zl_buf *request, zl_rt_conn_fn fn,
                    void *arg, struct zl_rt_conn **ret) ZL_MUST;
/* More frames behind the request. */
void zl_rt_conn_send(struct zl_rt_conn *c, const struct zl_buf *frames);
/* Bytes that are not sent yet; `fn` is called (with the arg of open) whenever there is none any more. */
size_t zl_rt_conn_queued(const struct zl_rt_conn *c);
void zl_rt_conn_on_drained(struct zl_rt_conn *c, void (*fn)(void *arg));
/* Nothing is read and nothing handed over until it is taken off. */
void zl_rt_conn_hold(struct zl_rt_conn *c, bool on);
struct zl_rt_conn *zl_rt_conn_free(struct zl_rt_conn *c);

/* Fills an address that names a socket in a folder, however long the folder's own path is. */
struct sockaddr_un;
void zl_rt_socket_address(int dir, struct sockaddr_un *ret);
