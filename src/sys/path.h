/*
 * Paths from outside, below a folder that is ours: opened without following any link and without leaving the folder,
 * by openat2 or, on kernels (below 5.6) and under filters without it, part by part. "/" at the start, "." and empty
 * parts are allowed; ".." is not. Thread: any. Owns: the caller closes descriptors. Fails: -errno; -ELOOP for a link
 * anywhere in the path, also as its last part.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>

/* An empty path is the folder itself. `flags` as open(2)'s, without O_CREAT. */
int zl_open_beneath(int dir, const char *path, int flags) ZL_MUST;
/* As if `dir` were the root: links are followed and stay inside, ".." ends there (openat2, RESOLVE_IN_ROOT; without it
 * step by step, each folder on the way held). Links of procfs that are no text are refused. */
int zl_open_in_root(int dir, const char *path, int flags) ZL_MUST;
/* Such a path with O_PATH, making what is missing of it: folders with mode 0755 and, when `file`, an empty file at its
 * end. */
int zl_make_in_root(int dir, const char *path, bool file) ZL_MUST;
/* Opens a folder with O_PATH, making what is missing of it with mode 0755. At most 64 parts. */
int zl_open_folder_beneath(int dir, const char *path) ZL_MUST;
