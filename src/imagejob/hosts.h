/*
 * The hosts that a job may speak to and how: settings, certificates and credentials, all read before the job confines
 * itself, as afterwards it sees neither those files nor runs a credential helper. Thread: made by the main one, read by
 * any. Owns: what it holds, secrets are wiped at the end. Fails: zl_err of registries.yml and of files that it names.
 */
#pragma once

#include "image/credentials.h"
#include "image/registries.h"
#include "spec/reference.h"

struct zl_host {
    const char *name; /* host[:port] as references write it */
    enum zl_registry_tls tls;
    struct zl_buf ca, certificate, key; /* PEM; empty: none */
};

/* A place to find a repository at: the registry itself, or a mirror. */
struct zl_place_at {
    const struct zl_host *host;
    const char *prefix; /* before the repository; "" */
    struct zl_credentials credentials;
};

struct zl_hosts {
    struct zl_arena arena;
    struct zl_host *v;
    unsigned n;
    struct zl_place_at *places; /* in the order in which they are asked; the registry itself is the last */
    unsigned nplaces;
    struct zl_strings headers; /* "Name: value" that go along to the places, and nowhere else */
};

/* `given`, when it holds any, stands for what the files say of the registry itself. Mirrors only without `direct`. */
int zl_hosts_load(struct zl_hosts *ret, const struct zl_reference *ref, const struct zl_credentials *given, bool direct,
                  struct zl_err *err) ZL_MUST;
void zl_hosts_done(struct zl_hosts *h);
/* Settings of a host and its port as a URL has them (the port may be the scheme's own); NULL: nothing is said. */
const struct zl_host *zl_hosts_find(const struct zl_hosts *h, const char *host, const char *port);
/* Whether plain HTTP may be spoken to it, when an exchange with `from` leads there: registries.yml says so, or both are
 * loopback. Hosts are without their port. */
bool zl_hosts_plain(const struct zl_hosts *h, const char *from, const char *host, const char *port);
/* 127.0.0.0/8, ::1, localhost; `host` without a port. */
bool zl_host_is_loopback(struct zl_str host);
