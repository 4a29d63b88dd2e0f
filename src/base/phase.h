/*
 * Named points in long operations, where a crash must do no harm. `ZLAYER_CRASH_AT=start.spawned` (or
 * `start.spawned:3` for the third time) makes the process that reads it kill itself there with SIGKILL, so that tests
 * can crash it in every phase; without the variable a point costs one load. Thread: any. Fails: never.
 */
#pragma once

void zl_phase(const char *name);
