/*
 * Listening sockets for the proxy, bound by the agent without SO_REUSEPORT so that a taken port is seen.
 * Thread: any; the socket belongs to the calling thread's network namespace (sys/ns.h zl_netns_run for another one).
 * Owns: the caller closes. Fails: ZL_E_PORT_TAKEN, ZL_E_PERMISSION with hints, -errno.
 */
#pragma once

#include "base/error.h"

#include <stdint.h>

/* The wildcard address, IPv6 and IPv4 in one socket where the kernel has IPv6. */
int zl_px_bind_public(uint16_t port, struct zl_err *err) ZL_MUST;
int zl_px_bind_at(const char *address, uint16_t port, struct zl_err *err) ZL_MUST;
