/*
 * What a registry and its token server answer beside documents: tokens, error bodies, headers that carry positions
 * (OCI distribution-spec; Docker's token protocol). Thread: any. Owns: what is parsed belongs to the arena.
 * Fails: -EINVAL.
 */
#pragma once

#include "base/alloc.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum { ZL_OCI_TOKEN_MAX = 64 << 10 };

struct zl_oci_token {
    const char *token;   /* printable, without spaces */
    uint64_t expires_s;  /* from when it was given out; 60 when not said */
    const char *refresh; /* "": there is none */
};
int zl_oci_token_parse(struct zl_arena *arena, struct zl_str body, struct zl_oci_token *ret) ZL_MUST;

/* Whether a 400 is what common servers say to plain HTTP on a port for HTTPS. */
bool zl_oci_wants_https(struct zl_str body);
/* The first error of an error body as "message", or its code; printable ASCII only, "" when there is none. */
char *zl_oci_error_text(struct zl_str body, char *ret, size_t size);

/* An upload's `Range: 0-1023` (some say bytes=0-1023): how many bytes are there. "0-0" stands for none, as registries
 * say of an upload that has just begun. */
int zl_oci_upload_range(struct zl_str header, uint64_t *ret_bytes) ZL_MUST;
/* `Content-Range: bytes 5-9/10` of a 206: where it begins. */
int zl_oci_content_range(struct zl_str header, uint64_t *ret_start) ZL_MUST;
/* The target of rel="next" of a Link header. */
int zl_oci_link_next(struct zl_str header, struct zl_str *ret) ZL_MUST;
