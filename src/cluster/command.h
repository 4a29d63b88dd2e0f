/*
 * Commands: the only way in which desired state changes. A command is one version byte (1) and JSON; it carries every
 * decision that needs a clock, a random number or the document's parser, so that applying it is pure and gives the
 * same result on every node and in every later release.
 * Thread: one at a time. Owns: strings of a decoded command belong to the arena.
 * Fails: ZL_E_PARSE for bytes that are no command, ZL_E_STORE_NEWER for a version or kind that a later release wrote.
 */
#pragma once

#include "base/alloc.h"
#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum { ZL_STORE_VERSION = 1, ZL_COMMAND_MAX = 3 << 20, ZL_NAME_MAX = 63 };

enum zl_command_kind {
    ZL_COMMAND_NODE_INIT,         /* node */
    ZL_COMMAND_RANGES_SET,        /* ranges; refused once an address of another range is in use */
    ZL_COMMAND_DEPLOYMENT_PUT,    /* deployment, spec, owner, services, now_ms */
    ZL_COMMAND_DEPLOYMENT_STOP,   /* deployment, now_ms: it ends, and nothing brings it back but a put */
    ZL_COMMAND_DEPLOYMENT_REMOVE, /* deployment, generation: of a stopping one that has nothing left */
    ZL_COMMAND_SERVICE_SCALE,     /* deployment, service ("" for all), replicas, now_ms */
    ZL_COMMAND_BLOCK_TAKE,        /* node: one more /24 of the replicas' range */
    ZL_COMMAND_KINDS
};

/* Networks of 16 bits' prefix, in host byte order: 10.200.0.0 is 0x0AC80000. */
struct zl_ranges {
    uint32_t replicas, services, uplinks;
};

struct zl_command_service {
    const char *name;
    uint64_t fingerprint; /* zl_service_fingerprint: a change needs new instances */
    unsigned replicas;
    bool keep_replicas; /* a count that is there already stays (manual scaling) */
    bool address;       /* it has endpoints: give it an address */
};

struct zl_command {
    enum zl_command_kind kind;
    const char *deployment, *service;
    const char *spec;  /* the document, canonical JSON */
    const char *owner; /* 32 hex digits, or "" */
    struct zl_command_service *services;
    unsigned nservices;
    uint64_t node, generation, now_ms;
    unsigned replicas;
    struct zl_ranges ranges;
};

void zl_command_encode(struct zl_buf *out, const struct zl_command *c);
int zl_command_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_command *ret, struct zl_err *err) ZL_MUST;
const char *zl_command_name(enum zl_command_kind kind);
