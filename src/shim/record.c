#include "base/clock.h"
#include "base/fd.h"
#include "shim/shim.h"
#include "sys/process.h"

#include <unistd.h>

const char *shim_phase_name(enum shim_phase p)
{
    static const char *const names[] = { "created", "running", "ending" };
    return names[p];
}

const char *shim_reason_name(enum shim_reason r)
{
    static const char *const names[] = { "exited", "signal", "oom_killed", "runtime_error" };
    return names[r];
}

/* Both records hold numbers and fixed words only, so that nothing needs escaping. */
int shim_record_state(const struct shim *s)
{
    zl_auto_buf b = ZL_BUF_INIT;
    char boot[ZL_BOOT_ID_SIZE] = "";
    int r = zl_boot_id(boot);
    if (r < 0)
        return r;
    zl_buf_printf(
        &b, "{\"version\":1,\"phase\":\"%s\",\"pid\":%d,\"start_time\":%llu,\"shim_pid\":%d,\"boot_id\":\"%s\"}\n",
        shim_phase_name(s->phase), (int)s->setup.pid, (unsigned long long)s->setup.start_time, (int)getpid(), boot);
    return zl_write_file_atomic(ZL_SH_FD_DIR, "state", b.p, b.n, 0640, ZL_KILL_PROOF);
}

int shim_record_exit(const struct shim *s)
{
    zl_auto_buf b = ZL_BUF_INIT;
    const struct shim_outcome *o = &s->outcome;
    char boot[ZL_BOOT_ID_SIZE] = "", time[ZL_TIME_TEXT_SIZE];
    ZL_IGNORE(zl_boot_id(boot)); /* an empty one reads as another boot, and an exit is one in every boot */
    zl_buf_printf(&b,
                  "{\"version\":1,\"reason\":\"%s\",\"code\":%d,\"signal\":%d,\"oom_kills\":%llu,"
                  "\"finished_at\":\"%s\",\"finished_at_ms\":%llu,\"boot_id\":\"%s\"}\n",
                  shim_reason_name(o->reason), o->code, o->signal, (unsigned long long)o->oom_kills,
                  zl_time_text_s(o->finished_ms, time), (unsigned long long)o->finished_ms, boot);
    return zl_write_file_atomic(ZL_SH_FD_DIR, "exit", b.p, b.n, 0640, ZL_KILL_PROOF);
}
