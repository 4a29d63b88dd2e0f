/*
 * What agents of one machine share: a lock, and ip_forward with its users counted. A user is a file
 * `forward.<namespace>.<tag>` under /run/zlayer-host and counts as long as its link `zl-<tag>` is there: the link, not
 * a process, is what needs forwarding, so a killed agent whose containers go on still counts, and one whose
 * network is gone does not. The value of before is kept in `forward.<namespace>.old`; the last user puts it back.
 * Thread: any; the lock is held by one at a time on the machine, for milliseconds. Fails: reported in err.
 */
#pragma once

#include "base/error.h"

/* Blocks until it is free; the descriptor is the lock. */
int zl_host_lock(struct zl_err *err) ZL_MUST;
/* Lets go of it and removes the folder when nothing is kept in it any more. */
void zl_host_unlock(int lock);
/* Both under the lock; `nl` is a netlink socket of the host. Counting twice is counting once. */
int zl_host_forward_acquire(int lock, int nl, const char *tag, struct zl_err *err) ZL_MUST;
int zl_host_forward_release(int lock, int nl, const char *tag, struct zl_err *err) ZL_MUST;
