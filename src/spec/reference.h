/*
 * Image references as Docker reads them: [host[:port]/]path[:tag][@alg:hex], docker.io and library/ filled in.
 * Thread: any. Owns: plain values. Fails: -EINVAL with a message.
 */
#pragma once

#include "base/str.h"

struct zl_reference {
    char registry[256];   /* "docker.io", "127.0.0.1:5000" */
    char repository[256]; /* "library/nginx" */
    char tag[129];        /* "" when only a digest names the image */
    char digest[140];     /* "sha256:…" or "" */
};

/* docker.io is filled in for a name without a registry, library/ for one of a single part, :latest for neither tag nor
 * digest; index.docker.io and registry-1.docker.io are docker.io; a host's letters become lower-case. With both a tag
 * and a digest the digest decides. */
int zl_reference_parse(struct zl_str text, struct zl_reference *ret, const char **why) ZL_MUST;
enum { ZL_REFERENCE_TEXT_SIZE = 800 };
/* The canonical form; returns ret. */
char *zl_reference_print(const struct zl_reference *ref, char ret[ZL_REFERENCE_TEXT_SIZE]);
/* alg:hex of a known algorithm and its exact length. */
bool zl_digest_valid(struct zl_str digest);
/* A host with an optional port, as a reference begins with it; and its one spelling. */
bool zl_reference_host_valid(struct zl_str host);
void zl_reference_host(struct zl_str host, char ret[256]);
