#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t now_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t zl_clock_mono_ms(void)
{
    return now_ns(CLOCK_MONOTONIC) / 1000000u;
}

uint64_t zl_clock_mono_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

uint64_t zl_clock_wall_ns(void)
{
    return now_ns(CLOCK_REALTIME);
}

uint64_t zl_clock_wall_ms(void)
{
    return now_ns(CLOCK_REALTIME) / 1000000u;
}

/* Days to civil date; H. Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static void civil(uint64_t days, unsigned *y, unsigned *m, unsigned *d)
{
    uint64_t z = days + 719468;
    uint64_t era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (unsigned)(yoe + era * 400) + (*m <= 2);
}

static int print(uint64_t seconds, char *ret, size_t size)
{
    unsigned y, m, d, s = (unsigned)(seconds % 86400);
    civil(seconds / 86400, &y, &m, &d);
    return snprintf(ret, size, "%04u-%02u-%02uT%02u:%02u:%02u", y % 10000, m, d, s / 3600, s / 60 % 60, s % 60);
}

char *zl_time_text_ns(uint64_t wall_ns, char ret[ZL_TIME_TEXT_SIZE])
{
    int n = print(wall_ns / 1000000000u, ret, ZL_TIME_TEXT_SIZE);
    snprintf(ret + n, (size_t)(ZL_TIME_TEXT_SIZE - n), ".%09uZ", (unsigned)(wall_ns % 1000000000u));
    return ret;
}

char *zl_time_text_s(uint64_t wall_ms, char ret[ZL_TIME_TEXT_SIZE])
{
    int n = print(wall_ms / 1000u, ret, ZL_TIME_TEXT_SIZE);
    snprintf(ret + n, (size_t)(ZL_TIME_TEXT_SIZE - n), "Z");
    return ret;
}
