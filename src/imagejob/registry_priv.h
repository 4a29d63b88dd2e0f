/*
 * What the files that speak to a registry share. Thread: any; `lock` guards what stands below it.
 * Owns: as registry.h. Fails: as registry.h.
 */
#pragma once

#include "imagejob/fetch_priv.h"
#include "imagejob/registry.h"

#include <pthread.h>

enum {
    ZL_REGISTRY_TRIES = 5, /* without a byte gained in between */
    ZL_REGISTRY_TRIES_ALTOGETHER = 40,
    ZL_REGISTRY_DOCUMENT_S = 600, /* a manifest or a token takes no longer, however slowly it comes */
    ZL_REGISTRY_IDLE_HANDLES = 8,
};

/* One place of the repository, the registry itself or a mirror. */
struct zl_endpoint {
    struct zl_registry *registry;
    const struct zl_place_at *place;
    char base[300], repository[512]; /* "https://host:5000"; with the mirror's prefix */
    bool last;                       /* the registry itself */
    pthread_mutex_t lock;
    char *authorization;  /* NULL until it is asked for */
    unsigned authorized;  /* how often it was made */
    uint64_t expires_ms;  /* of a token, by the monotonic clock; 0: never */
    uint64_t pause_until; /* 429 and 503: nobody asks before */
    bool down;            /* a mirror that was not reached, or gets no token, is not tried again */
    atomic_bool away;     /* the last exchange (with a token server, too) failed by no fault of what was asked */
    struct zl_oci_challenge challenge; /* the last one, for a token's renewal */
};

struct zl_registry {
    struct zl_registry_options o;
    char repository[256];
    struct zl_endpoint *endpoints;
    unsigned n;
    struct zl_fetch_share *share;
    pthread_mutex_t lock;
    CURL *idle[ZL_REGISTRY_IDLE_HANDLES]; /* handles with their open connections */
    unsigned nidle;
};

static inline struct zl_endpoint *zl_registry_itself(struct zl_registry *r)
{
    return &r->endpoints[r->n - 1];
}

CURL *zl_registry_take_handle(struct zl_registry *r);
void zl_registry_give_handle(struct zl_registry *r, CURL *e);

/* One request with what the endpoint wants as credentials, again after a 401 when there are newer ones to offer.
 * f->authorization, home, hosts, stop are filled in. The reply's status is the caller's to judge. */
int zl_endpoint_request(struct zl_endpoint *at, struct zl_fetch *f, struct zl_fetch_reply *reply,
                        struct zl_err *err) ZL_MUST;
/* Answers a 401: 1: there is another authorization than number `seen`; 0: there is nothing more to offer. */
int zl_endpoint_authorize(struct zl_endpoint *at, CURL *e, const struct zl_oci_challenge *c, unsigned seen,
                          struct zl_err *err) ZL_MUST;
/* One request to a server that an image names and that is none of the registry's: without credentials, and by plain
 * HTTP only where a redirect of the registry might lead, too. Sets reply->transient of what is worth another try. */
int zl_registry_outside(struct zl_registry *r, struct zl_fetch *f, struct zl_fetch_reply *reply,
                        struct zl_err *err) ZL_MUST;
/* A reply that is no success, as an error; sets reply->transient. */
int zl_endpoint_refuse(struct zl_endpoint *at, struct zl_fetch_reply *reply, struct zl_err *err);
/* Sleeps before try number `tried` + 1, as long as the reply asks for. Fails when that is too long, or when stopped:
 * *err is then what it was, or says so. */
int zl_endpoint_back_off(struct zl_endpoint *at, unsigned tried, const struct zl_fetch_reply *reply,
                         struct zl_err *err) ZL_MUST;
/* Notes how an exchange that was for the endpoint ended, for zl_registry_away. */
void zl_endpoint_note(struct zl_endpoint *at, int error, const struct zl_fetch_reply *reply);
/* Whether it is a mirror to be passed over; and that from now on it is, which means nothing to the registry itself. */
bool zl_endpoint_down(struct zl_endpoint *at);
void zl_endpoint_mark_down(struct zl_endpoint *at);
/* Adds what was wrong at the place asked before, as a mirror, to an error; returns its code. */
int zl_registry_add_mirrors(const struct zl_err *mirrors, struct zl_err *err);
/* Whether an error at one endpoint is a reason to ask the next. */
bool zl_registry_goes_on(int error);
/* As zl_endpoint_back_off, for another server than the endpoint: its other threads are not held up. */
int zl_registry_back_off(struct zl_registry *r, unsigned tried, const struct zl_fetch_reply *reply,
                         struct zl_err *err) ZL_MUST;

struct zl_text_sink {
    struct zl_buf *body;
    size_t limit;
};
/* A zl_fetch sink into a buffer. */
int zl_text_sink_add(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err);
