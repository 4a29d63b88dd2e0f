/*
 * Who the files of a layer belong to, where the job is an ordinary user's: with ranges of ids, to the ids that the
 * layer says, in the job's user namespace; with the own id alone all of them to it. Thread: any, after zl_owners_look,
 * which comes first, as nothing below /proc is read once the job is confined. Owns: nothing. Fails: never.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

void zl_owners_look(void);
/* The ids that a file gets in place of these. */
void zl_owners_map(uid_t *uid, gid_t *gid);
/* What the user is to know when that was ever another one; else NULL. */
const char *zl_owners_warning(void);
