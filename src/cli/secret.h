/*
 * Secrets from people and pipes: never from the command line, which every process can read. Thread: one.
 * Owns: the caller's buffer, to be wiped. Fails: ZL_E_USAGE when there is nobody to ask.
 */
#pragma once

#include "base/error.h"

#include <stdbool.h>

/* The first line of standard input, or all of it when that has no end of line; without CR and LF. */
int zl_secret_from_stdin(char *ret, size_t size, struct zl_err *err) ZL_MUST;
/* Asks on the terminal; `hidden`: without showing what is typed, restored also when a signal ends the program. */
int zl_secret_ask(const char *prompt, bool hidden, char *ret, size_t size, struct zl_err *err) ZL_MUST;
