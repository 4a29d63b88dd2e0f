/*
 * Errors. Every fallible function returns 0 or a count, or a negative number of one space: -1..-4095 are errno (and
 * libuv) codes, from -10000 down are ours, listed once below. base, sys and codec return the code alone; rooms above
 * take `struct zl_err *err` last and fill it, without allocating, where the facts are.
 * Thread: any. Owns: the caller owns the zl_err, a plain value that can be copied and sent.
 */
#pragma once

#include "base/macros.h"

/*        name             text (stable, in JSON)   HTTP retry exit */
/* clang-format off */
#define ZL_ERRORS(X)                                                   \
    X(INVALID,             "invalid_argument",       400, 0,   1)      \
    X(USAGE,               "usage",                  400, 0,   2)      \
    X(SPEC,                "invalid_spec",           400, 0,   1)      \
    X(UNSUPPORTED,         "unsupported",            501, 0,   1)      \
    X(NOT_FOUND,           "not_found",              404, 0,   3)      \
    X(EXISTS,              "already_exists",         409, 0,   1)      \
    X(CONFLICT,            "conflict",               409, 0,   1)      \
    X(NO_AGENT,            "agent_unreachable",      503, 1,   4)      \
    X(PERMISSION,          "permission_denied",      403, 0,   5)      \
    X(TIMEOUT,             "timeout",                504, 1, 124)      \
    X(INTERRUPTED,         "interrupted",            499, 0, 130)      \
    X(CANCELLED,           "cancelled",              499, 0,   1)      \
    X(IMAGE_NOT_FOUND,     "image_not_found",        404, 0,   3)      \
    X(PULL_FAILED,         "pull_failed",            502, 1,   1)      \
    X(REGISTRY,            "registry_error",         502, 1,   1)      \
    X(UNAUTHORIZED,        "unauthorized",           401, 0,   5)      \
    X(RATE_LIMITED,        "rate_limited",           429, 1,   1)      \
    X(DIGEST,              "digest_mismatch",        502, 0,   1)      \
    X(BAD_IMAGE,           "bad_image",              422, 0,   1)      \
    X(CREATE_FAILED,       "create_failed",          500, 0,   1)      \
    X(START_FAILED,        "start_failed",           500, 0,   1)      \
    X(NO_COMMAND,          "command_not_found",      422, 0, 127)      \
    X(NOT_EXECUTABLE,      "command_not_executable", 422, 0, 126)      \
    X(RUNTIME,             "runtime_error",          500, 0,   1)      \
    X(NETWORK,             "network_error",          500, 0,   1)      \
    X(PORT_TAKEN,          "port_taken",             409, 0,   1)      \
    X(STORE_DAMAGED,       "store_damaged",          503, 0,   1)      \
    X(STORE_NEWER,         "store_newer",            503, 0,   1)      \
    X(DISK_FULL,           "disk_full",              507, 1,   1)      \
    X(LOCKED,              "data_dir_in_use",        409, 1,   1)      \
    X(PROTOCOL,            "protocol_error",         502, 0,   1)      \
    X(LIMIT,               "limit_exceeded",         413, 0,   1)      \
    X(PARSE,               "parse_error",            400, 0,   1)      \
    X(CLOSED,              "connection_closed",      502, 1,   1)      \
    X(INTERNAL,            "internal",               500, 0,   1)
/* clang-format on */

enum zl_error_order {
#define X(name, text, http, retry, exit) ZL_E_ORDER_##name,
    ZL_ERRORS(X)
#undef X
};
enum zl_error {
#define X(name, text, http, retry, exit) ZL_E_##name = -10000 - ZL_E_ORDER_##name,
    ZL_ERRORS(X)
#undef X
};

struct zl_err {
    int code;           /* 0: no error */
    int cause;          /* a negative errno behind our own code, or 0 */
    const char *origin; /* file:line of the first report; static storage */
    char text[480];     /* what failed, on what, why */
    char hint[224];     /* what to do about it, or "" */
};

/* The stable text of a code: "not_found", "ENOENT" … Never NULL. */
const char *zl_error_name(int code);
/* The code of a stable text of ours, or 0 when there is none of that name. */
int zl_error_by_name(const char *name);
/* A sentence for people ("No such file or directory"). Never NULL; static or thread-local storage. */
const char *zl_error_text(int code);
int zl_error_http(int code);
int zl_error_exit(int code);
int zl_error_retryable(int code);

/*
 * Both return `code`, so that `return zl_fail(…)` reads well, and do nothing else when err is NULL.
 * zl_fail sets the error: "<message>" and, when code is an errno, ": <its text>".
 * zl_wrap prefixes an error that is there: "<message>: <old text>".
 * zl_fail_errno reports `-errno_value` under one of our codes: "<message>: <errno text>".
 */
#define zl_fail(err, code, ...)              zl_fail_at((err), (code), ZL_ORIGIN, __VA_ARGS__)
#define zl_fail_errno(err, code, cause, ...) zl_fail_errno_at((err), (code), (cause), ZL_ORIGIN, __VA_ARGS__)
int zl_fail_at(struct zl_err *err, int code, const char *origin, const char *fmt, ...) ZL_PRINTF(4, 5);
int zl_fail_errno_at(struct zl_err *err, int code, int cause, const char *origin, const char *fmt, ...) ZL_PRINTF(5, 6);
int zl_wrap(struct zl_err *err, int code, const char *fmt, ...) ZL_PRINTF(3, 4);
/* Sets the hint unless a deeper layer, which knows more, has set one. Returns `code`. */
int zl_hint(struct zl_err *err, int code, const char *fmt, ...) ZL_PRINTF(3, 4);

#define ZL_STR2_(x) #x
#define ZL_STR1_(x) ZL_STR2_(x)
#define ZL_ORIGIN   __FILE__ ":" ZL_STR1_(__LINE__)
