/*
 * Structured logs: one line an event, `time level message key=value …`, to stderr. Only the layer that decides logs,
 * once, and says what happens next; libraries return errors instead. The sink and the level are process-wide.
 * Thread: any (one write(2) a line). Fails: never; a line that can't be written is lost.
 */
#pragma once

#include "base/macros.h"

enum zl_log_level { ZL_LOG_ERROR, ZL_LOG_WARN, ZL_LOG_INFO, ZL_LOG_DEBUG };

/* Default: WARN to descriptor 2. `ZLAYER_LOG` (error|warn|info|debug) overrides it where a program calls _from_env. */
void zl_log_set_level(enum zl_log_level level);
void zl_log_level_from_env(void);
void zl_log_set_fd(int fd);
int zl_log_enabled(enum zl_log_level level);
/* The message carries its pairs itself: zl_log_info("instance started instance=%s slot=%s", id, slot). */
void zl_log_write(enum zl_log_level level, const char *fmt, ...) ZL_PRINTF(2, 3);

#define zl_log_at(level, ...)                   \
    do {                                        \
        if (zl_log_enabled(level))              \
            zl_log_write((level), __VA_ARGS__); \
    } while (0)
#define zl_log_error(...) zl_log_at(ZL_LOG_ERROR, __VA_ARGS__)
#define zl_log_warn(...)  zl_log_at(ZL_LOG_WARN, __VA_ARGS__)
#define zl_log_info(...)  zl_log_at(ZL_LOG_INFO, __VA_ARGS__)
#define zl_log_debug(...) zl_log_at(ZL_LOG_DEBUG, __VA_ARGS__)
