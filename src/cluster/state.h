/*
 * The desired state: a pure state machine that only commands change. No clock, no I/O, no random.
 * Thread: one at a time. Owns: the state owns everything that hangs off it; views from it are valid until the next
 * apply. Fails: zl_state_apply never fails as a call; a command that can't be carried out leaves the state as it was
 * and says so in its result. zl_state_decode: ZL_E_PARSE, ZL_E_STORE_NEWER.
 */
#pragma once

#include "cluster/command.h"

enum { ZL_OWNER_SIZE = 33 };

struct zl_state_service {
    char *name;
    uint32_t address;     /* host byte order; 0: none. Kept as long as the service is in the document */
    uint64_t generation;  /* rises when new instances are needed */
    uint64_t fingerprint; /* what the generation stands for */
    unsigned replicas;
};

struct zl_state_deployment {
    char *name;
    char *spec;                /* canonical JSON, for zl_spec_parse */
    char owner[ZL_OWNER_SIZE]; /* "": nobody's lease */
    uint64_t generation;       /* rises with each put that changes something; never repeats, not even after a removal */
    bool stopping;
    uint64_t created_ms, updated_ms;   /* wall clock */
    struct zl_state_service *services; /* in document order */
    unsigned nservices;
};

struct zl_state_block {
    uint32_t base; /* of a /24, host byte order */
    uint64_t node;
};

struct zl_state {
    uint64_t applied; /* commands so far, failed ones too */
    uint64_t chain;   /* a hash over all their bytes in order */
    uint64_t node;    /* this cluster's first node; 0 before node_init */
    struct zl_ranges ranges;
    struct zl_state_block *blocks; /* in the order taken */
    unsigned nblocks;
    uint64_t last_generation;
    uint32_t
        next_service; /* where the search for a free service address goes on, so that addresses rest before reuse */
    struct zl_state_deployment *deployments; /* by name */
    unsigned ndeployments;
};

struct zl_state_result {
    int code;       /* 0, or ZL_E_NOT_FOUND, CONFLICT, LIMIT, INVALID … */
    uint64_t value; /* put: the deployment's generation; block_take: the block's base; node_init: the node */
    char text[160]; /* why it failed, or "" */
};

struct zl_state *zl_state_new(void);
struct zl_state *zl_state_free(struct zl_state *s);
ZL_DEFINE_AUTO(zl_state, zl_state_free)

/* `bytes` is the encoded command, which the chain is made of. */
void zl_state_apply(struct zl_state *s, const struct zl_command *c, struct zl_str bytes, struct zl_state_result *ret);
/* The chain's next link, for whoever must follow it without applying. */
uint64_t zl_state_chain(uint64_t chain, struct zl_str bytes);

/* A snapshot: one version byte and JSON. Equal states give equal bytes. */
void zl_state_encode(struct zl_buf *out, const struct zl_state *s);
int zl_state_decode(struct zl_str bytes, struct zl_state **ret, struct zl_err *err) ZL_MUST;

struct zl_state_deployment *zl_state_deployment(const struct zl_state *s, const char *name);
struct zl_state_service *zl_state_service(const struct zl_state_deployment *d, const char *name);
