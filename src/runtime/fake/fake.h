/*
 * A Runtime in memory and virtual time, for tests and simulations. Its containers act as the test program `workload`
 * would by their arguments: say, err, sleep MS, alloc MIB (against the memory limit), child-alloc MIB, exit CODE,
 * signal N, serve PORT and forever (until SIGTERM). argv[0] must be "/workload" or "workload", else ZL_E_NO_COMMAND.
 * Thread: one. Owns: the runtime, until zl_runtime_close. Fails: as the interface says, and where told to.
 */
#pragma once

#include "runtime/runtime.h"

struct zl_runtime *zl_rt_fake_new(void);

/* Runs everything that is due at `now_ms` (which never goes back): completions, exits, events. */
void zl_rt_fake_run(struct zl_runtime *rt, uint64_t now_ms);
/* When something is due next; UINT64_MAX: never. */
uint64_t zl_rt_fake_next_ms(const struct zl_runtime *rt);

/* How long each kind of call takes; default 0: due at once, still not from inside the call. */
void zl_rt_fake_delay(struct zl_runtime *rt, enum zl_rt_kind kind, uint64_t ms);
/* The n-th call of that kind from now on (1 = the next) fails with `code`. */
void zl_rt_fake_fail(struct zl_runtime *rt, enum zl_rt_kind kind, unsigned nth, int code);
/* As if the process ended by that signal, or the shim were lost (signal 0: runtime_error). */
void zl_rt_fake_crash(struct zl_runtime *rt, const char *id, int signal);
