/* What the parts of the client share. Thread: one. Fails: as client.h. Owns: nothing. */
#pragma once

#include "client/client.h"
#include "client/exchange.h"

/* An error body's code, message and hint into err, its problems to c->problem; 0 when it is no error body. */
int zl_error_from_body(const struct zl_client *c, struct zl_arena *arena, struct zl_str body, int status,
                       struct zl_err *err);
/* Sends a request until an agent has begun to answer; a good status, or the error of the reply. */
int zl_client_exchange(struct zl_client *c, struct zl_exchange *x, const char *method, const char *path,
                       const struct zl_value *body, struct zl_err *err) ZL_MUST;
/* A stream of a reply whose head was read; takes the exchange over. */
struct zl_stream *zl_stream_of(const struct zl_exchange *x);
