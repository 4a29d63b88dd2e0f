/*
 * The board: a memfd made by the agent, sealed against resizing and mapped by agent and proxy. The proxy's threads
 * write what they have applied and count; the agent reads, and hands slots out. A slot belongs to one backend id; it is
 * given to another only after every thread has applied a snapshot without the old one and nothing is in flight. The
 * agent never trusts what it reads further than a number: it indexes nothing by it.
 *
 * Thread: any; every field is atomic. Owns: the caller unmaps. Fails: -errno; -EBADMSG for a board that is none.
 */
#pragma once

#include "base/macros.h"
#include "net/proxy/snapshot.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { ZL_PX_THREADS_MAX = 16 };

enum zl_px_health {
    ZL_PX_HEALTH_UNKNOWN = 0, /* no probe has succeeded yet */
    ZL_PX_HEALTH_OK = 1,
    ZL_PX_HEALTH_BAD = 2, /* ejected: `retries` failures in a row */
};

struct zl_px_thread_line {
    _Atomic uint64_t applied; /* the number of the snapshot that this thread works by */
    char pad[56];
};

struct zl_px_slot {
    _Atomic uint64_t backend; /* its id; 0: free */
    _Atomic uint64_t requests, failures;
    _Atomic uint64_t changed_ms; /* wall clock of the last change of health */
    _Atomic uint32_t in_flight;
    _Atomic uint32_t health;
    _Atomic uint32_t consecutive; /* probe failures in a row */
    uint32_t zero;
    char pad[16];
};

struct zl_px_board {
    uint32_t magic, version;
    _Atomic uint32_t threads;    /* of the running proxy; 0: none has come up */
    _Atomic uint32_t slots_used; /* all slots from here on were never given out; their pages stay untouched */
    char pad[48];
    struct zl_px_thread_line thread[ZL_PX_THREADS_MAX];
    struct zl_px_slot slot[ZL_PX_SLOTS];
};

/* Makes the memfd and maps it. */
int zl_px_board_make(int *ret_fd, struct zl_px_board **ret) ZL_MUST;
int zl_px_board_map(int fd, struct zl_px_board **ret) ZL_MUST;
void zl_px_board_unmap(struct zl_px_board *b);
/* Before a new proxy comes up: nothing applied, nothing in flight. Health and totals stay what they were. */
void zl_px_board_reset(struct zl_px_board *b);
/* True when every thread works by `number` or a later one. */
bool zl_px_board_applied(const struct zl_px_board *b, uint64_t number);
