/*
 * One HTTP exchange with its redirects. Thread: any, a handle one at a time. Owns: the reply's error body, freed by
 * zl_fetch_reply_done. Fails: ZL_E_PULL_FAILED (`transient` says whether it may go better), ZL_E_REGISTRY for where it
 * must not go, ZL_E_CANCELLED, or what the sink failed with.
 */
#pragma once

#include "base/error.h"
#include "imagejob/hosts.h"
#include "oci/challenge.h"

#include <curl/curl.h>
#include <stdatomic.h>

struct zl_fetch_reply {
    long status; /* 0: there was none */
    bool transient;
    bool has_start; /* of a 206: where its bytes begin */
    uint64_t start;
    bool has_range; /* of an upload: how many bytes are there */
    uint64_t range;
    uint64_t retry_after_s, chunk_min;
    bool subject; /* the registry lists it among the referrers itself */
    char content_type[160], digest[160];
    char location[4096]; /* absolute; "" when not said */
    char link[4096];     /* the next page, absolute; "" when there is none */
    char warning[200];   /* printable */
    char elsewhere[280]; /* host:port of who answered when that is not `home`; "" */
    struct zl_oci_challenge challenge;
    struct zl_buf error_body; /* of a reply that is no success; cut at 16 KiB */
};

struct zl_fetch {
    const char *method; /* NULL: GET */
    const char *url;
    const char *home;          /* NULL: the URL; credentials and a client's certificate are for this origin only */
    const char *led_by;        /* NULL: home; who led here, which decides whether plain HTTP is all right */
    const char *authorization; /* the header's value; NULL: none */
    const struct zl_strings *headers; /* "Name: value", for `home` only; NULL: none */
    const char *accept;               /* NULL: anything */
    uint64_t from;                    /* asks for the bytes from here on, when over 0 */
    unsigned stall_s, total_s;        /* total_s 0: as long as it moves */
    atomic_bool *stop;
    const struct zl_hosts *hosts;
    /* What is sent: `body` bytes from memory, or from the file `fd` from `at` on. */
    const char *content_type, *content_range;
    const void *memory;
    int fd;
    uint64_t at, body;
    bool sends;
    bool secret;                             /* of the body: nobody but `home` gets it */
    void (*sent)(void *arg, uint64_t bytes); /* of this exchange so far; may be NULL */
    /* Gets the body of a 2xx; a negative return ends the exchange with that error. */
    int (*sink)(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err);
    void *arg;
};

/* What handles share, DNS and TLS sessions; for all threads of a job. */
struct zl_fetch_share;
struct zl_fetch_share *zl_fetch_share_new(void);
struct zl_fetch_share *zl_fetch_share_free(struct zl_fetch_share *s);

int zl_fetch(CURL *easy, struct zl_fetch_share *share, const struct zl_fetch *f, struct zl_fetch_reply *reply,
             struct zl_err *err) ZL_MUST;
void zl_fetch_reply_done(struct zl_fetch_reply *reply);
