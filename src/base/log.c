#include "base/log.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static _Atomic int current_level = ZL_LOG_WARN;
static _Atomic int sink = 2;
static const char *const names[] = { "error", "warn", "info", "debug" };

void zl_log_set_level(enum zl_log_level level)
{
    atomic_store(&current_level, (int)level);
}

void zl_log_level_from_env(void)
{
    const char *s = getenv("ZLAYER_LOG");
    for (int i = 0; s && i < (int)ZL_ARRAY_LEN(names); i++)
        if (zl_streq(s, names[i]))
            zl_log_set_level((enum zl_log_level)i);
}

void zl_log_set_fd(int fd)
{
    atomic_store(&sink, fd);
}

int zl_log_enabled(enum zl_log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

void zl_log_write(enum zl_log_level level, const char *fmt, ...)
{
    char line[2048], when[ZL_TIME_TEXT_SIZE];
    int n = snprintf(line, sizeof line, "%s %s ", zl_time_text_ns(zl_clock_wall_ns(), when), names[level]);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    n += ZL_MIN(m < 0 ? 0 : m, (int)sizeof line - n - 2);
    for (int i = 0; i < n; i++) /* one event is one line, whatever an error text quotes */
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    line[n++] = '\n';
    ssize_t unused = write(atomic_load(&sink), line, (size_t)n);
    (void)unused; /* there is nowhere left to report it */
}
