/*
 * HTTP/1.1 heads, strictly (RFC 9110, 9112): what is ambiguous is refused, never repaired, because a proxy that repairs
 * a message and a server that reads it otherwise are how requests are smuggled. Pure: bytes in, views out.
 * Thread: any. Owns: every view points into the bytes given. Fails: -EBADMSG (400), -EMSGSIZE (431),
 * -EPROTONOSUPPORT (505: another version), -EOPNOTSUPP (501: a transfer coding that is not chunked).
 */
#pragma once

#include "base/macros.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    ZL_HTTP_HEAD_MAX = 64 * 1024, /* bytes of a head, its empty line included */
    ZL_HTTP_HEADERS_MAX = 100,
};

enum zl_http_body {
    ZL_HTTP_BODY_NONE,
    ZL_HTTP_BODY_LENGTH,  /* content_length bytes, which may be 0 */
    ZL_HTTP_BODY_CHUNKED, /* http/chunked.h */
    ZL_HTTP_BODY_CLOSE,   /* until the connection ends; responses only */
};

struct zl_http_header {
    struct zl_str name, value; /* the value without spaces around it */
};

struct zl_http_head {
    struct zl_str method, target; /* a request's */
    unsigned status;              /* a response's */
    struct zl_str reason;
    unsigned minor; /* HTTP/1.<minor>, 0 or 1 */
    struct zl_http_header headers[ZL_HTTP_HEADERS_MAX];
    unsigned nheaders;
    struct zl_str host; /* a request's Host, p == NULL when there is none */
    enum zl_http_body body;
    uint64_t content_length;
    bool has_length;       /* a Content-Length was there, whatever `body` is */
    bool keep_alive;       /* the connection may carry another message */
    bool expect_continue;  /* Expect: 100-continue */
    bool upgrade;          /* Connection names upgrade, and an Upgrade header is there */
    bool connection_extra; /* Connection names more than close, keep-alive, upgrade */
};

/*
 * The size of the head at the start of `in`, 0 when it is not all there yet. `*scanned` is how far an earlier call with
 * the same start got; 0 at first. The result is the same however the bytes come in.
 */
ssize_t zl_http_parse_request(struct zl_str in, size_t *scanned, struct zl_http_head *ret) ZL_MUST;
/* `request_is_head`: the request's method was HEAD, so that no body follows whatever the head says. */
ssize_t zl_http_parse_response(struct zl_str in, size_t *scanned, bool request_is_head,
                               struct zl_http_head *ret) ZL_MUST;

/* The first header of that name (any case), or NULL. */
const struct zl_http_header *zl_http_find(const struct zl_http_head *head, const char *name);
/* Takes one element off a comma-separated list: true, or false at the end. Empty elements are skipped. */
bool zl_http_list_next(struct zl_str *list, struct zl_str *ret);
/* A token (RFC 9110, 5.6.2): a method, a header's name. */
bool zl_http_is_token(struct zl_str s);
/* Safe in a header's value: no control bytes. */
bool zl_http_is_value(struct zl_str s);

/* "Not Found"; "Unknown" for a status without a name. Static storage. */
const char *zl_http_reason(unsigned status);
/* The status that answers a parse error of this file. */
unsigned zl_http_error_status(int code);
