/*
 * Processes: their start time (so that a reused pid is told apart), the boot's id, capabilities, rlimits.
 * Thread: any; the setters change the calling thread, so only single-threaded programs call them. Fails: -errno.
 */
#pragma once

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Clock ticks after boot, from /proc/<pid>/stat. */
int zl_process_start_time(pid_t pid, uint64_t *ret) ZL_MUST;
/* 0: it is not there, or its parent is in another pid namespace. */
pid_t zl_process_parent(pid_t pid);
enum { ZL_BOOT_ID_SIZE = 40 };
int zl_boot_id(char ret[ZL_BOOT_ID_SIZE]) ZL_MUST;
int zl_pidfd_open(pid_t pid) ZL_MUST;
/* 1: on its way out by SIGKILL, or gone, as /proc says; -errno when it can't be read. */
int zl_process_dying(pid_t pid);

/* posix_spawnp(3) with these as standard input and output (-EBADF: ours), also under a filter that forbids clone3,
 * which the C library then has no other way for. The caller waits for it. */
int zl_spawn(const char *program, const char *const *argv, const char *const *env, int in, int out, pid_t *ret) ZL_MUST;

/* What the calling program holds is nobody's: no core of it, no look into its memory or environment by other programs
 * of the same user. Ends at the next exec, but for the core's limit. */
int zl_process_private(void) ZL_MUST;

/* "SIGQUIT", "quit", "3", "SIGRTMIN+4": 1..64; 0 when it is none. */
int zl_signal_number(struct zl_str name);

/* Bits by capability number. */
struct zl_caps {
    uint64_t effective, permitted, inheritable, ambient;
};
int zl_caps_set(const struct zl_caps *caps) ZL_MUST;
/* Sets bounding, permitted, effective; inheritable and ambient are emptied. */
int zl_caps_limit(uint64_t caps) ZL_MUST;
/* Those that the caller may have. */
int zl_caps_permitted(uint64_t *ret) ZL_MUST;
int zl_caps_drop_bounding(uint64_t keep) ZL_MUST;
