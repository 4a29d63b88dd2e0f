/*
 * What a registry asks for in WWW-Authenticate (RFC 9110, 11.6.1; the distribution token protocol). Thread: any.
 * Owns: plain values. Fails: -EINVAL.
 */
#pragma once

#include "base/str.h"

enum zl_oci_auth { ZL_OCI_AUTH_NONE, ZL_OCI_AUTH_BASIC, ZL_OCI_AUTH_BEARER };

struct zl_oci_challenge {
    enum zl_oci_auth scheme;
    char realm[1024], service[256], scope[1024];
};

/* Reads one header value, which may hold several challenges, and keeps the best: bearer, then basic. -EINVAL:
 * malformed, or a parameter is too long; `ret` may already hold a better one of an earlier header and must be
 * initialised. */
int zl_oci_challenge_parse(struct zl_str header, struct zl_oci_challenge *ret) ZL_MUST;
