/*
 * What shims answer, and the records that they and the agent leave in an instance's folder, taken in. Pure: bytes from
 * a shim are as hostile as its container might have made it; what makes no sense is left at its default.
 * Thread: any. Owns: views into the bytes given, or the arena. Fails: zl_err for an answer that is a failure.
 */
#pragma once

#include "base/alloc.h"
#include "runtime/runtime.h"

/* The error of a FAILED or ERROR frame. */
void zl_sh_take_error(struct zl_str body, int fallback, struct zl_err *err);
/* EXITED's outcome; runtime_error when it says none. */
void zl_sh_take_outcome(struct zl_str body, struct zl_rt_outcome *ret);
void zl_sh_take_stats(struct zl_str body, struct zl_rt_stats *ret);
struct zl_sh_info {
    pid_t pid; /* 0: not said */
    bool running, paused;
};
void zl_sh_take_info(struct zl_str body, struct zl_sh_info *ret);
/* OUTPUT's bytes (a view), LOST's count. */
struct zl_sh_output {
    bool is_stderr;
    struct zl_str data;
    uint64_t lost;
};
void zl_sh_take_output(struct zl_str body, struct zl_sh_output *ret);
void zl_sh_take_end(struct zl_str body, int *ret_code, int *ret_signal);
/* At most `max` into v; returns how many. *ret_total: how many there are. */
unsigned zl_sh_take_processes(struct zl_str body, struct zl_rt_process *v, unsigned max, uint64_t *ret_total);

/* The files of an instance's folder. Strings are in the arena; what is not there or damaged reads as empty. */
void zl_sh_take_meta(struct zl_str text, struct zl_arena *arena, struct zl_rt_instance *i);
/* Phase and pid of `state`. */
void zl_sh_take_state(struct zl_str text, struct zl_arena *arena, struct zl_rt_instance *i);
/* Which process `state` names; false: none. */
struct zl_sh_process {
    pid_t pid;
    uint64_t start_time;
    char boot_id[64];
};
bool zl_sh_take_process(struct zl_str text, struct zl_arena *arena, struct zl_sh_process *ret);
/* False: it is no exit record. */
bool zl_sh_take_exit(struct zl_str text, struct zl_arena *arena, struct zl_rt_outcome *ret);
