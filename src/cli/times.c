#include "cli/times.h"

#include "base/clock.h"
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

int zl_time_parse(const char *text, int64_t *ret)
{
    struct tm tm = { 0 };
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest || (*rest != 'Z' && *rest != '.'))
        return -EINVAL;
    *ret = (int64_t)timegm(&tm);
    return 0;
}

void zl_since_text(struct zl_buf *out, const char *text)
{
    int64_t then, now = (int64_t)(zl_clock_wall_ms() / 1000);
    if (zl_time_parse(text, &then) >= 0)
        zl_age_text(out, now > then ? (uint64_t)(now - then) : 0);
}
