/*
 * A small rtnetlink client (rtnetlink(7)): one socket, one request at a time, each acknowledged. The socket belongs to
 * the network namespace in which it was opened and may be used from outside it.
 * Thread: one at a time a socket. Owns: the caller closes it. Fails: -errno as the kernel reports it.
 */
#pragma once

#include "base/macros.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

int zl_netlink_open(void) ZL_MUST;

struct zl_link_end {
    const char *name;
    int netns; /* a namespace's descriptor, or -1: the socket's own */
};
int zl_link_add_veth(int nl, const struct zl_link_end *a, const struct zl_link_end *b) ZL_MUST;
int zl_link_delete(int nl, const char *name) ZL_MUST;
/* The index of a link, or -ENODEV. */
int zl_link_index(int nl, const char *name) ZL_MUST;
/* The index of a veth's other end, in whichever namespace that is; 0: it has none, or -ENODEV. */
int zl_link_peer(int nl, const char *name) ZL_MUST;
int zl_link_up(int nl, unsigned index) ZL_MUST;
/* 6 bytes; the hardware address of a link. */
int zl_link_address(int nl, unsigned index, unsigned char ret[6]) ZL_MUST;

/* Moves a link into the namespace in which the socket `there` was opened and `netns` is, under that name, with its
 * permanent addresses of global scope, and up. At most 32 addresses. */
int zl_link_move(int nl, const char *name, int there, int netns, const char *to) ZL_MUST;

int zl_addr_add(int nl, unsigned index, struct in_addr addr, unsigned prefix) ZL_MUST;
int zl_addr_delete(int nl, unsigned index, struct in_addr addr, unsigned prefix) ZL_MUST;
/* Calls fn for each IPv4 address; stops when it returns other than 0 and returns that. */
int zl_addr_each(int nl, int (*fn)(void *arg, unsigned index, struct in_addr addr, unsigned prefix), void *arg);

struct zl_route {
    struct in_addr dst;
    unsigned prefix;
    struct in_addr via; /* 0: directly */
    struct in_addr src; /* 0: the kernel's choice */
    unsigned index;     /* the link; 0 only where it is unreachable */
    bool onlink;
    bool unreachable; /* packets are refused with an ICMP error, local ones with EHOSTUNREACH */
};
/* Adds or replaces. */
int zl_route_add(int nl, const struct zl_route *r) ZL_MUST;
/* Calls fn for each IPv4 route of the main table; stops when it returns other than 0 and returns that. */
int zl_route_each(int nl, int (*fn)(void *arg, const struct zl_route *r), void *arg) ZL_MUST;
/* A permanent neighbour entry. */
int zl_neigh_add(int nl, unsigned index, struct in_addr addr, const unsigned char mac[6]) ZL_MUST;
