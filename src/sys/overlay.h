/*
 * Whether layers can be stacked by the kernel in a user namespace (Linux 5.11, and a file system that is fit for it).
 * Thread: any; it mounts in the calling process's mount namespace, which must be its own. Fails: -errno.
 */
#pragma once

#include "base/macros.h"

/* Tries it in a folder of the file system in question; nothing stays. */
int zl_overlay_probe(const char *folder) ZL_MUST;
/* The program that does it where the kernel does not, or NULL. */
const char *zl_overlay_program(void);
