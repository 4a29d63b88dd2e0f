/*
 * The control protocol between agent and proxy: frames of base/frame.h, magic ZLPX, one a message of a SOCK_SEQPACKET
 * socket, at most one descriptor beside each.
 *
 *   agent -> proxy   HELLO · BOARD fd · LISTENER id fd · DROP id · SNAPSHOT fd · FETCH · QUIT
 *   proxy -> agent   HELLO pid threads number · EVENT · REFUSED text
 *                    and for FETCH: BOARD fd, LISTENER id fd …, SNAPSHOT fd, FETCHED
 *
 * Thread: any. Owns: a received descriptor is the caller's. Fails: -errno; -EPROTO for bytes that are no frame;
 * -ECONNRESET at the end of the connection.
 */
#pragma once

#include "base/frame.h"
#include "base/macros.h"

#include <stdint.h>

enum zl_px_message {
    ZL_PX_HELLO = 1,
    ZL_PX_BOARD = 2,
    ZL_PX_LISTENER = 3,
    ZL_PX_DROP = 4,
    ZL_PX_SNAPSHOT = 5,
    ZL_PX_FETCH = 6,
    ZL_PX_QUIT = 7,
    ZL_PX_EVENT = 8,
    ZL_PX_REFUSED = 9,
    ZL_PX_FETCHED = 10,
};

enum zl_px_record { ZL_PX_R_ID = 1, ZL_PX_R_NUMBER = 2, ZL_PX_R_PID = 3, ZL_PX_R_THREADS = 4, ZL_PX_R_TEXT = 5 };

enum { ZL_PX_WIRE_MAX = 4096 };

struct zl_px_in {
    uint16_t type, version;
    uint64_t id, number, pid, threads;
    char text[256];
    int fd; /* -EBADF when none came */
};

/* One message with up to one number (record 0: none), a text or NULL, a descriptor or a negative number.
 * Waits for up to two seconds when the other end does not read; -ETIMEDOUT then. */
int zl_px_send(int sock, uint16_t type, uint16_t record, uint64_t value, const char *text, int fd) ZL_MUST;
int zl_px_send_hello(int sock, uint64_t pid, uint64_t threads, uint64_t number) ZL_MUST;
/* -EAGAIN on a non-blocking socket with nothing there. */
int zl_px_receive(int sock, struct zl_px_in *ret) ZL_MUST;
