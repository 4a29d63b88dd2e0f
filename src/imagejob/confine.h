/*
 * The job gives up what it does not need, before it reads a byte that comes from outside: capabilities but those for
 * placing files, the file system outside the store (Landlock, where the kernel has it), and dangerous system calls.
 * Thread: the only one; threads made later inherit it. Owns: nothing. Fails: zl_err.
 */
#pragma once

#include "image/store.h"

/* `source`: a file or folder that may be read too, or NULL. */
int zl_confine(const struct zl_store *store, const char *source, struct zl_err *err) ZL_MUST;
/* As zl_confine without a source; files may be made and renamed in the folder `target` (none when negative) too. */
int zl_confine_writing(const struct zl_store *store, int target, struct zl_err *err) ZL_MUST;
