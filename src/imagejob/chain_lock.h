/*
 * One job at a time makes a layer: a lock file below images/locks for each ChainID. Thread: any. Owns: the caller frees
 * the lock. Fails: zl_err; ZL_E_CANCELLED when `stop` is set while waiting.
 */
#pragma once

#include "image/store.h"

#include <stdatomic.h>

/* Returns the lock, a descriptor. */
int zl_chain_lock(const struct zl_store *s, const char *chain_id, atomic_bool *stop, struct zl_err *err) ZL_MUST;
/* Removes the lock's file and lets go; -EBADF is allowed. Returns -EBADF. */
int zl_chain_unlock(const struct zl_store *s, const char *chain_id, int lock);
