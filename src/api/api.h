/*
 * The API: an HTTP server on the agent's unix socket, its gate, and one handler a route of apidef.
 * Thread: the loop's. Owns: the caller owns it; the listening descriptor stays the caller's. Fails: zl_api_new.
 */
#pragma once

#include "agent/agent.h"

struct zl_api;

int zl_api_new(struct zl_agent *agent, int listen_fd, uint64_t started_ms, struct zl_api **ret,
               struct zl_err *err) ZL_MUST;
struct zl_api *zl_api_free(struct zl_api *api);
unsigned zl_api_connections(const struct zl_api *api);
/* Accepts what waits in the queue; how many. */
unsigned zl_api_accept_now(struct zl_api *api);
