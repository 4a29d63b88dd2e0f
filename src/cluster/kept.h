/*
 * Copies of the open segments as a start found them, before libraft truncates and closes them: the evidence, and the
 * only repair, when entries turn out to be lost. At most a few sets are kept; those of a damaged start always.
 * Thread: any, blocking for a few ms. Owns: nothing. Fails: -errno; a failed copy leaves nothing behind.
 */
#pragma once

#include "base/macros.h"

enum { ZL_KEPT_SETS = 4, ZL_KEPT_NAME_SIZE = 48 };

/* The set's name ("kept/7") goes into ret, "" when there was nothing to keep. */
int zl_kept_save(int dir, char ret[ZL_KEPT_NAME_SIZE]) ZL_MUST;
/* Marks a set as of a damaged start; its new name replaces the old one. */
void zl_kept_damaged(int dir, char name[ZL_KEPT_NAME_SIZE]);
