/*
 * Where in a layer's folder an entry goes. Thread: one at a time. Owns: nothing; descriptors belong to the unpack.
 * Fails: -errno; -ELOOP for links that lead nowhere in 40 steps.
 */
#pragma once

#include "imagejob/unpack.h"

/* Finds the folder that holds `path`, making what is missing: u->dir and u->at are that folder, *name is the last part
 * of path. What is neither a folder nor a link is replaced by a folder. */
int zl_place_parent(struct zl_unpack *u, const char *path, const char **name) ZL_MUST;
/* Removes what is there under the name, unless both it and what comes are folders: 1 then, else 0. */
int zl_place_make_way(int dir, const char *name, bool folder) ZL_MUST;
