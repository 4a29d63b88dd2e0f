/*
 * A folder as a tar file, in sorted order. Owners, modes, times and links are kept; sockets are left out.
 * Thread: one at a time. Owns: nothing. Fails: zl_err.
 */
#pragma once

#include "base/error.h"

int zl_folder_tar(int folder, int out, struct zl_err *err) ZL_MUST;
