/*
 * Credential helpers: docker-credential-<name>, a program that keeps secrets elsewhere (docker's credential helper
 * protocol: a verb as argument, the registry or a JSON object in, a JSON object out).
 * Thread: any. Owns: nothing. Fails: ZL_E_NOT_FOUND when the helper has nothing for the registry, else what is wrong
 * with it.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"

/* Gives it 30 seconds and takes 64 KiB of output. `name` is what stands in the file: letters, digits, '-', '_', '.'. */
int zl_helper_run(const char *name, const char *verb, struct zl_str input, struct zl_buf *output,
                  struct zl_err *err) ZL_MUST;
/* The same with another limit, in milliseconds. */
int zl_helper_run_for(unsigned limit_ms, const char *name, const char *verb, struct zl_str input, struct zl_buf *output,
                      struct zl_err *err) ZL_MUST;
