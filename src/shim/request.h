/*
 * The requests' bodies, pure. One pass tells what is asked and whether it is sound, without memory; a second one, in
 * the process that is to run the command, takes the strings.
 * Thread: any. Owns: the arena owns what shim_request_command gives. Fails: ZL_E_PROTOCOL, ZL_E_LIMIT, ZL_E_INVALID.
 */
#pragma once

#include "base/alloc.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

struct shim_request_exec {
    size_t argc, nenv; /* at least one argument; variables that the request sets */
    bool session, tty, input, privileged;
    unsigned rows, columns; /* 0: not said */
};
int shim_request_exec(struct zl_str body, struct shim_request_exec *ret) ZL_MUST;

struct shim_request_command {
    const char **argv, **env; /* NULL at the end */
    const char *cwd, *user;   /* NULL: not said */
};
/* Of a body that shim_request_exec has passed; env: the container's with what the request changes. */
void shim_request_command(struct zl_arena *arena, struct zl_str body, const struct shim_request_exec *exec,
                          const char *const *env, struct shim_request_command *ret);

struct shim_request_kill {
    int signal;
    bool all;
};
int shim_request_kill(struct zl_str body, struct shim_request_kill *ret) ZL_MUST;
int shim_request_resize(struct zl_str body, unsigned *ret_rows, unsigned *ret_columns) ZL_MUST;
/* One DATA record's bytes, a view. */
int shim_request_input(struct zl_str body, struct zl_str *ret) ZL_MUST;
/* Whether an ATTACH wants to send input. */
int shim_request_attach(struct zl_str body, bool *ret_input) ZL_MUST;
