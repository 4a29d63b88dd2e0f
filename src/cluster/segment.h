/*
 * A look at libraft's segment files before libraft loads them: it frees memory twice over some of those that do not
 * check (0.15). Format: a word of version 1, then batches: CRC-32 of the header, CRC-32 of the data, header (a word:
 * the number of entries; for each: term, type, size), data padded to words; zeros where nothing was written yet.
 * Thread: any, blocking. Owns: nothing. Fails: -errno; -EBADMSG for a closed segment that does not check.
 */
#pragma once

#include "base/str.h"

/* How many bytes from the start check; *ret_rest: whether something other than zeros follows. */
size_t zl_segment_sound(struct zl_str bytes, bool *ret_rest);

/* Checks all closed segments; cuts what does not check off the open ones (a torn tail, or damage, which the mark tells
 * apart), unless they could not be `saved` before: then -ENOSPC. `bad` gets the name of the segment that failed. */
int zl_segments_prepare(int dir, bool saved, char *bad, size_t size) ZL_MUST;
