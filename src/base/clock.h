/*
 * Time. Loops read the monotonic clock for intervals and the wall clock only for what people see. Pure cores take
 * `now_ms` as an argument instead. Thread: any. Fails: never.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t zl_clock_mono_ms(void);
uint64_t zl_clock_mono_ns(void);
/* Since the epoch, UTC. */
uint64_t zl_clock_wall_ns(void);
uint64_t zl_clock_wall_ms(void);

enum { ZL_TIME_TEXT_SIZE = 32 };
/* RFC 3339 in UTC with nanoseconds, as in CRI logs: 2026-01-02T03:04:05.000000006Z. Returns ret. */
char *zl_time_text_ns(uint64_t wall_ns, char ret[ZL_TIME_TEXT_SIZE]);
/* The same with whole seconds: 2026-01-02T03:04:05Z. */
char *zl_time_text_s(uint64_t wall_ms, char ret[ZL_TIME_TEXT_SIZE]);
