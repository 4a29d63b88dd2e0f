/* org.freedesktop.systemd1(5): transient scopes, and the jobs by which they start and stop. */
#include "systemd/systemd.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char service[] = "org.freedesktop.systemd1", path[] = "/org/freedesktop/systemd1",
                  interface[] = "org.freedesktop.systemd1.Manager";

enum { CALL_TIMEOUT_S = 60, JOB_TIMEOUT_MS = 120000 };

static int job_removed(sd_bus_message *message, void *arg, sd_bus_error *unused)
{
    struct systemd_manager *m = arg;
    uint32_t id;
    const char *job, *unit, *result;
    (void)unused;
    if (sd_bus_message_read(message, "uoss", &id, &job, &unit, &result) >= 0 && m->job && zl_streq(job, m->job))
        snprintf(m->result, sizeof m->result, "%s", result);
    return 0;
}

/* The manager's own socket, for where there is no bus. */
static int open_private(sd_bus **ret, const char *address)
{
    sd_bus *bus = NULL;
    int r = sd_bus_new(&bus);
    r = r < 0 ? r : sd_bus_set_address(bus, address);
    r = r < 0 ? r : sd_bus_start(bus);
    if (r < 0) {
        sd_bus_unref(bus);
        return r;
    }
    *ret = bus;
    return 0;
}

static int open_bus(struct systemd_manager *m, bool user)
{
    char address[200];
    int r = user ? sd_bus_open_user(&m->bus) : sd_bus_open_system(&m->bus);
    if (r >= 0)
        return r;
    const char *own = getenv("XDG_RUNTIME_DIR");
    if (user && (!own || strpbrk(own, ";,=%")))
        return r;
    snprintf(address, sizeof address, "unix:path=%s/systemd/private", user ? own : "/run");
    return open_private(&m->bus, address) < 0 ? r : 0;
}

int systemd_open(struct systemd_manager *m, bool user, const char *unit, struct zl_err *err)
{
    *m = (struct systemd_manager){ .unit = unit };
    int r = open_bus(m, user);
    if (r < 0 && user)
        return zl_hint(
            err, zl_fail_errno(err, ZL_E_NO_AGENT, r, "reach the user's systemd"),
            "it needs a session or `loginctl enable-linger`, and XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS");
    if (r < 0)
        return zl_hint(err, zl_fail_errno(err, ZL_E_NO_AGENT, r, "reach systemd over the system bus"),
                       "without systemd, leave out --systemd-cgroup");
    (void)sd_bus_set_method_call_timeout(m->bus, CALL_TIMEOUT_S * UINT64_C(1000000)); /* its own default is 25 s */
    r = sd_bus_match_signal(m->bus, NULL, service, path, interface, "JobRemoved", job_removed, m);
    /* Before the first job is asked for; the answer tells nothing that matters. */
    r = r < 0 ? r : sd_bus_call_method_async(m->bus, NULL, service, path, interface, "Subscribe", NULL, NULL, NULL);
    return r < 0 ? zl_fail_errno(err, ZL_E_NO_AGENT, r, "listen to systemd") : 0;
}

static int failed(const struct systemd_manager *m, int r, const sd_bus_error *e, const char *what, struct zl_err *err)
{
    const char *why = e->message ? e->message : strerror(-r);
    int code = ZL_E_RUNTIME;
    if (sd_bus_error_has_name(e, "org.freedesktop.systemd1.UnitExists"))
        code = ZL_E_EXISTS;
    else if (sd_bus_error_has_name(e, "org.freedesktop.systemd1.NoSuchUnit"))
        code = ZL_E_NOT_FOUND;
    else if (sd_bus_error_has_name(e, SD_BUS_ERROR_ACCESS_DENIED) ||
             sd_bus_error_has_name(e, SD_BUS_ERROR_AUTH_FAILED) ||
             sd_bus_error_has_name(e, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
        code = ZL_E_PERMISSION;
    else if (sd_bus_error_has_name(e, SD_BUS_ERROR_INVALID_ARGS) ||
             sd_bus_error_has_name(e, SD_BUS_ERROR_PROPERTY_READ_ONLY))
        code = ZL_E_INVALID;
    else if (!e->message)
        code = ZL_E_NO_AGENT;
    return zl_fail(err, code, "systemd could not %s %s: %s", what, m->unit, why);
}

static int wait_for_job(struct systemd_manager *m, const char *job, const char *what, struct zl_err *err)
{
    uint64_t end = zl_clock_mono_ms() + JOB_TIMEOUT_MS;
    m->job = job;
    m->result[0] = 0;
    while (!m->result[0]) {
        int r = sd_bus_process(m->bus, NULL);
        if (r > 0)
            continue;
        uint64_t now = zl_clock_mono_ms();
        if (now >= end)
            return zl_fail(err, ZL_E_TIMEOUT, "systemd did not %s %s within %d s", what, m->unit,
                           JOB_TIMEOUT_MS / 1000);
        r = r < 0 ? r : sd_bus_wait(m->bus, (end - now) * 1000);
        if (r < 0 && r != -EINTR)
            return zl_fail_errno(err, ZL_E_NO_AGENT, r, "wait for systemd to %s %s", what, m->unit);
    }
    return zl_streq(m->result, "done")
               ? 0
               : zl_fail(err, ZL_E_RUNTIME, "systemd could not %s %s: its job ended as '%s'", what, m->unit, m->result);
}

static int new_call(const struct systemd_manager *m, const char *method, sd_bus_message **ret, struct zl_err *err)
{
    int r = sd_bus_message_new_method_call(m->bus, ret, service, path, interface, method);
    return r < 0 ? zl_fail(err, r, "make a message for systemd") : 0;
}

/* Sends it, and waits for the job that the answer names when it names one. */
static int call(struct systemd_manager *m, sd_bus_message *message, bool job, const char *what, struct zl_err *err)
{
    sd_bus_error e = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;
    const char *object;
    int r = sd_bus_call(m->bus, message, 0, &e, &reply);
    if (r < 0)
        r = failed(m, r, &e, what, err);
    else if (job && (r = sd_bus_message_read(reply, "o", &object)) < 0)
        r = zl_fail(err, r, "read systemd's answer");
    else if (job)
        r = wait_for_job(m, object, what, err);
    sd_bus_error_free(&e);
    sd_bus_message_unref(reply);
    return r < 0 ? r : 0;
}

static int bad_property(int r, const char *bad, struct zl_err *err)
{
    return zl_fail(err, ZL_E_INVALID, "the property %.60s of a systemd unit: %s", bad,
                   r == -EINVAL ? "the value is not of its type" : strerror(-r));
}

static int start_once(struct systemd_manager *m, const struct zl_value *properties, struct zl_err *err)
{
    sd_bus_message *message = NULL;
    const char *bad = "";
    int r = new_call(m, "StartTransientUnit", &message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_append(message, "ss", m->unit, "fail");
    r = r < 0 ? r : systemd_append_properties(message, properties, &bad);
    r = r < 0 ? r : sd_bus_message_append(message, "a(sa(sv))", 0);
    r = r < 0 ? bad_property(r, bad, err) : call(m, message, true, "start", err);
    sd_bus_message_unref(message);
    return r;
}

static int simple(struct systemd_manager *m, const char *method, bool job, const char *what, const char *more,
                  struct zl_err *err)
{
    sd_bus_message *message = NULL;
    int r = new_call(m, method, &message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_append(message, "s", m->unit);
    if (r >= 0 && more)
        r = sd_bus_message_append(message, "s", more);
    r = r < 0 ? zl_fail(err, r, "make a message for systemd") : call(m, message, job, what, err);
    sd_bus_message_unref(message);
    return r;
}

int systemd_start(struct systemd_manager *m, const struct zl_value *properties, struct zl_err *err)
{
    struct zl_err unused = { 0 };
    int r = start_once(m, properties, err);
    if (r != ZL_E_EXISTS)
        return r;
    /* What failed keeps its name until it is reset. */
    if (simple(m, "ResetFailedUnit", false, "reset", NULL, &unused) < 0)
        return r;
    *err = (struct zl_err){ 0 };
    return start_once(m, properties, err);
}

int systemd_set(struct systemd_manager *m, const struct zl_value *properties, struct zl_err *err)
{
    sd_bus_message *message = NULL;
    const char *bad = "";
    int r = new_call(m, "SetUnitProperties", &message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_append(message, "sb", m->unit, 1); /* until the machine starts again */
    r = r < 0 ? r : systemd_append_properties(message, properties, &bad);
    r = r < 0 ? bad_property(r, bad, err) : call(m, message, false, "change", err);
    sd_bus_message_unref(message);
    return r;
}

static int kill_all(struct systemd_manager *m, struct zl_err *err)
{
    enum { KILL = 9 };
    sd_bus_message *message = NULL;
    int r = new_call(m, "KillUnit", &message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_append(message, "ssi", m->unit, "all", KILL);
    r = r < 0 ? zl_fail(err, r, "make a message for systemd") : call(m, message, false, "kill", err);
    sd_bus_message_unref(message);
    return r;
}

int systemd_stop(struct systemd_manager *m, struct zl_err *err)
{
    struct zl_err unused = { 0 };
    int r = kill_all(m, err);
    /* There may be nothing to kill; to stop it is what tells. */
    if (r == ZL_E_NO_AGENT || r == ZL_E_PERMISSION)
        return r;
    *err = (struct zl_err){ 0 };
    r = simple(m, "StopUnit", true, "stop", "replace", err);
    if (r < 0 && r != ZL_E_NOT_FOUND)
        return r;
    *err = (struct zl_err){ 0 };
    (void)simple(m, "ResetFailedUnit", false, "reset", NULL, &unused); /* most have not failed, and are gone by now */
    return 0;
}

int systemd_attach(struct systemd_manager *m, uint32_t pid, struct zl_err *err)
{
    sd_bus_message *message = NULL;
    int r = new_call(m, "AttachProcessesToUnit", &message, err);
    if (r < 0)
        return r;
    r = sd_bus_message_append(message, "ssau", m->unit, "", 1, pid);
    r = r < 0 ? zl_fail(err, r, "make a message for systemd") : call(m, message, false, "move a process into", err);
    sd_bus_message_unref(message);
    return r;
}
