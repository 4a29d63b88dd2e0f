/* The file of --log, in runc's formats: engines read from it what failed. */
#include "ocirun/ocirun.h"

#include "base/clock.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdarg.h>

void ocirun_log(const struct ocirun *r, const char *level, const char *fmt, ...)
{
    zl_auto_buf line = ZL_BUF_INIT, text = ZL_BUF_INIT;
    char now[ZL_TIME_TEXT_SIZE];
    va_list ap;
    if (r->log < 0)
        return;
    va_start(ap, fmt);
    zl_buf_vprintf(&text, fmt, ap);
    va_end(ap);
    zl_time_text_s(zl_clock_wall_ms(), now);
    zl_buf_printf(&line, r->o.log_json ? "{\"level\":\"%s\",\"msg\":" : "level=%s msg=", level);
    zl_json_string(&line, zl_buf_view(&text));
    zl_buf_printf(&line, r->o.log_json ? ",\"time\":\"%s\"}\n" : " time=\"%s\"\n", now);
    ZL_IGNORE(zl_write_full(r->log, line.p, line.n)); /* there is nowhere else to say it */
}

int ocirun_open_log(struct ocirun *r, int argc, char **argv)
{
    if (r->o.log && *r->o.log) {
        r->log = zl_openat(AT_FDCWD, r->o.log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (r->log < 0)
            return zl_fail(&r->err, r->log, "--log: open %s", r->o.log);
    }
    zl_auto_buf said = ZL_BUF_INIT;
    for (int i = 1; r->o.debug && i < argc; i++)
        zl_buf_printf(&said, "%s%s", i > 1 ? " " : "called: ", argv[i]);
    if (r->o.debug)
        ocirun_log(r, "debug", "%s", said.p);
    return 0;
}
