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

int zl_reference_parse(struct zl_str text, struct zl_reference *ret, const char **why) ZL_MUST;
enum { ZL_REFERENCE_TEXT_SIZE = 800 };
/* The canonical form; returns ret. */
char *zl_reference_print(const struct zl_reference *ref, char ret[ZL_REFERENCE_TEXT_SIZE]);
/* alg:hex of a known algorithm and its exact length. */
bool zl_digest_valid(struct zl_str digest);
