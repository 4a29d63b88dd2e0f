/*
 * zl-systemd [--user] start|set|stop UNIT, zl-systemd [--user] attach UNIT PID. The properties of start and set come on
 * the standard input as JSON: [["MemoryMax", "t", 1048576], …]. Exit code 0; or 1, and the error on the standard output
 * as its name and its text, a line each, with the hint as a third.
 */
#include "systemd/systemd.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

enum { REQUEST_MAX = 1 << 20 };

static int read_properties(struct zl_arena *arena, struct zl_value **ret, struct zl_err *err)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_parse_error pe;
    int e = zl_read_file(AT_FDCWD, "/proc/self/fd/0", REQUEST_MAX, &text);
    if (e < 0)
        return zl_fail(err, e, "read the properties");
    if (zl_json_parse(arena, zl_buf_view(&text), &zl_limits_document, ret, &pe) < 0)
        return zl_fail(err, ZL_E_INVALID, "the properties: %s", pe.text);
    return 0;
}

static int do_verb(struct zl_arena *arena, bool user, int argc, char **argv, struct zl_err *err)
{
    static const char usage[] = "zl-systemd [--user] start|set|stop UNIT, or attach UNIT PID";
    struct systemd_manager m;
    struct zl_value *properties = NULL;
    uint64_t pid = 0;
    const char *verb = argc ? argv[0] : "";
    bool start = zl_streq(verb, "start"), set = zl_streq(verb, "set"), attach = zl_streq(verb, "attach");
    if (argc != (attach ? 3 : 2) || !(start || set || attach || zl_streq(verb, "stop")))
        return zl_fail(err, ZL_E_USAGE, "%s", usage);
    if (attach && zl_parse_u64(zl_str(argv[2]), 1, INT32_MAX, &pid) < 0)
        return zl_fail(err, ZL_E_USAGE, "'%.20s' is no process", argv[2]);
    int e = start || set ? read_properties(arena, &properties, err) : 0;
    e = e < 0 ? e : systemd_open(&m, user, argv[1], err);
    if (e < 0)
        return e;
    e = start    ? systemd_start(&m, properties, err)
        : set    ? systemd_set(&m, properties, err)
        : attach ? systemd_attach(&m, (uint32_t)pid, err)
                 : systemd_stop(&m, err);
    sd_bus_flush_close_unref(m.bus);
    return e;
}

int main(int argc, char **argv)
{
    struct zl_arena arena;
    struct zl_err err = { 0 };
    bool user = argc > 1 && zl_streq(argv[1], "--user");
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a scope that nobody waits for is not to be started */
    zl_arena_init(&arena);
    int e = do_verb(&arena, user, argc - 1 - user, argv + 1 + user, &err);
    zl_arena_done(&arena);
    if (e < 0)
        printf("%s\n%s\n%s\n", zl_error_name(err.code), err.text, err.hint);
    return e < 0;
}
