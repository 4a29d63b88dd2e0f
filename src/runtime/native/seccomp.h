/*
 * The default system-call filter: what ordinary programs need is allowed, what only an administrator of the host needs
 * is refused with EPERM, anything else (also calls that are newer than this list) with ENOSYS, so that libraries fall
 * back. Namespaces can't be made: clone3 is ENOSYS, as its flags can't be looked at.
 * Thread: any. Owns: the caller. Fails: zl_err.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"

/* Appends an array of struct sock_filter. */
int zl_seccomp_default(struct zl_buf *ret, struct zl_err *err) ZL_MUST;
