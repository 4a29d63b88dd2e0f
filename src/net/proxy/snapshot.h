/*
 * The snapshot: what the proxy serves, as one flat, versioned, immutable blob in a sealed memfd. The agent describes it
 * with the structs of the first half and writes it; the proxy checks it whole and then reads it in place.
 *
 *   header · listeners · routes · allows · services · backends · strings       native byte order, every array 8-aligned
 *
 * Thread: any. Owns: the description is the caller's; a view points into the blob. Fails: -EBADMSG (not a snapshot, or
 * one that contradicts itself), -EPROTONOSUPPORT (another version), -E2BIG (over the limits below).
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    ZL_PX_VERSION = 1,
    ZL_PX_SNAPSHOT_MAX = 16 * 1024 * 1024,
    ZL_PX_SLOTS = 4096, /* backends at a time, on the board */
    ZL_PX_LISTENERS_MAX = 1024,
};

enum zl_px_protocol { ZL_PX_HTTP = 1, ZL_PX_TCP = 2 };
enum zl_px_probe_kind { ZL_PX_PROBE_NONE = 0, ZL_PX_PROBE_TCP = 1, ZL_PX_PROBE_HTTP = 2 };
enum { ZL_PX_BACKEND_DRAINING = 1u << 0, ZL_PX_BACKEND_TRUSTED = 1u << 1 };

/* ---- what the agent describes ---- */

struct zl_px_backend_def {
    uint64_t id;         /* unique for ever, not 0: the low 64 bits of the instance's id, say */
    const char *address; /* numeric, IPv4 or IPv6 */
    uint16_t port;
    bool draining; /* takes no new request; finishes those that it has */
    bool trusted;  /* counts as healthy without a probe */
};

struct zl_px_probe_def {
    enum zl_px_probe_kind kind; /* NONE: backends are healthy at once */
    uint32_t interval_ms, timeout_ms;
    uint32_t retries;        /* failures in a row that eject */
    uint32_t start_grace_ms; /* failures before the first success count only after this */
    uint16_t port;           /* 0: the backend's */
    const char *path;        /* http: answered with 200..399 is a success; NULL: "/" */
};

/* One endpoint of one service: backends that are equal to each other. */
struct zl_px_service_def {
    uint64_t id;      /* stable while the endpoint exists, not 0, unique within the snapshot */
    const char *name; /* "shop.web.http", for error bodies and logs */
    struct zl_px_probe_def probe;
    const struct zl_px_backend_def *backends;
    unsigned nbackends;
};

struct zl_px_route_def {
    const char *host; /* exact, or "*.suffix"; NULL: any */
    const char *path; /* a prefix that ends at a '/'; NULL: any */
    unsigned service; /* index */
};

struct zl_px_allow_def {
    const char *address; /* numeric */
    uint8_t prefix;
};

struct zl_px_listener_def {
    uint32_t id; /* the id under which the descriptor was handed over */
    enum zl_px_protocol protocol;
    const struct zl_px_route_def *routes; /* tcp: exactly one */
    unsigned nroutes;
    const struct zl_px_allow_def *allows; /* none: every source; else only these */
    unsigned nallows;
};

struct zl_px_def {
    const struct zl_px_listener_def *listeners;
    unsigned nlisteners;
    const struct zl_px_service_def *services;
    unsigned nservices;
};

/* ---- the blob ---- */

struct zl_px_text {
    uint32_t off, len; /* into strings */
};

struct zl_px_header {
    uint32_t magic;
    uint16_t version, zero;
    uint64_t number; /* rises with every snapshot */
    uint64_t size;   /* of the whole blob */
    uint32_t nlisteners, nroutes, nallows, nservices, nbackends, nstrings;
};

struct zl_px_listener {
    uint32_t id, protocol;
    uint32_t first_route, nroutes;
    uint32_t first_allow, nallows;
};

struct zl_px_route {
    struct zl_px_text host, path; /* host in lower case */
    uint32_t service, zero;
};

struct zl_px_allow {
    uint8_t address[16]; /* IPv4 mapped */
    uint32_t prefix;     /* of 128 */
    uint32_t zero;
};

struct zl_px_service {
    uint64_t id;
    struct zl_px_text name, probe_path;
    uint32_t first_backend, nbackends;
    uint32_t probe_kind, interval_ms, timeout_ms, retries, start_grace_ms, probe_port;
};

struct zl_px_backend {
    uint64_t id;
    uint8_t address[16]; /* IPv4 mapped */
    uint32_t port;
    uint32_t slot; /* on the board */
    uint32_t flags, zero;
};

struct zl_px_view {
    const struct zl_px_header *header;
    const struct zl_px_listener *listeners;
    const struct zl_px_route *routes;
    const struct zl_px_allow *allows;
    const struct zl_px_service *services;
    const struct zl_px_backend *backends;
    const char *strings;
};

/*
 * Writes a description; `slots` names the board slot of each backend in the order of services and their backends.
 * -EINVAL: the description is wrong (an address that is none, an index out of range, a tcp listener without its one
 * route, an id twice).
 */
int zl_px_write(const struct zl_px_def *def, uint64_t number, const uint32_t *slots, struct zl_buf *ret) ZL_MUST;
/* Checks all of it; the view points into `blob`, which must be 8-aligned. */
int zl_px_check(struct zl_str blob, struct zl_px_view *ret) ZL_MUST;

static inline struct zl_str zl_px_str(const struct zl_px_view *v, struct zl_px_text t)
{
    return zl_str_n(v->strings + t.off, t.len);
}
/* Numeric text to 16 bytes, IPv4 mapped. -EINVAL. */
int zl_px_address(const char *text, uint8_t ret[16]) ZL_MUST;
/* A socket address for 16 bytes and a port: AF_INET for mapped ones. Returns its length. */
socklen_t zl_px_sockaddr(const uint8_t address[16], uint16_t port, struct sockaddr_storage *ret);
