/*
 * One HTTP exchange with its redirects. Thread: any, a handle one at a time. Owns: the reply's error body, freed by
 * zl_fetch_reply_done. Fails: ZL_E_PULL_FAILED (`transient` says whether it may go better), ZL_E_CANCELLED, or what the
 * sink failed with.
 */
#pragma once

#include "base/error.h"
#include "oci/challenge.h"

#include <curl/curl.h>
#include <stdatomic.h>

struct zl_fetch_reply {
    long status;
    bool transient;
    bool has_start; /* of a 206: where its bytes begin */
    uint64_t start;
    unsigned retry_after_s;
    char content_type[160], digest[160];
    struct zl_oci_challenge challenge;
    struct zl_buf error_body; /* of a reply that is no success; cut at 16 KiB */
};

struct zl_fetch {
    const char *url;
    const char *authorization; /* the header's value, sent to the URL's own origin only; NULL: none */
    const char *accept;        /* NULL: anything */
    bool head;
    uint64_t from;             /* asks for the bytes from here on, when over 0 */
    unsigned stall_s, total_s; /* total_s 0: as long as it moves */
    atomic_bool *stop;
    /* Gets the body of a 2xx; a negative return ends the exchange with that error. */
    int (*sink)(void *arg, const struct zl_fetch_reply *reply, const void *p, size_t n, struct zl_err *err);
    void *arg;
};

int zl_fetch(CURL *easy, const struct zl_fetch *f, struct zl_fetch_reply *reply, struct zl_err *err) ZL_MUST;
void zl_fetch_reply_done(struct zl_fetch_reply *reply);
/* 127.0.0.0/8, ::1, localhost: there plain HTTP is allowed. `host` without a port. */
bool zl_fetch_is_loopback(struct zl_str host);
