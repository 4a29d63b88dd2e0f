/*
 * zl-systemd: asks systemd over D-Bus for what zl-oci needs of it when its cgroups are managed by systemd. A program of
 * its own, for one request: zl-oci is static and must not pay for libsystemd at each start. What its files share.
 * Thread: one. Owns: the caller owns what a function opens. Fails: zl_err.
 */
#pragma once

#include "base/error.h"
#include "codec/value.h"

#include <systemd/sd-bus.h>

struct systemd_manager {
    sd_bus *bus;
    const char *unit;
    /* Of the job that we wait for: */
    const char *job;
    char result[32]; /* "done", "failed" …; "": it has not ended */
};

/* --- message.c: a value tree as D-Bus types --- */
/* One complete type as the first of `signature`: b, i, u, x, t, d, s, a…, (…), or "ay" of text. -EINVAL: the value is
 * none of that type. *rest: what follows the type. */
int systemd_append(sd_bus_message *m, const char *signature, const struct zl_value *v, const char **rest) ZL_MUST;
/* [[name, signature, value], …] as a(sv); *bad: the name of the one that is at fault. */
int systemd_append_properties(sd_bus_message *m, const struct zl_value *list, const char **bad) ZL_MUST;

/* --- manager.c: the manager, the system's or the user's --- */
int systemd_open(struct systemd_manager *m, bool user, const char *unit, struct zl_err *err) ZL_MUST;
/* A scope with these properties; returns when it has started. ZL_E_EXISTS when there is a living unit of that name. */
int systemd_start(struct systemd_manager *m, const struct zl_value *properties, struct zl_err *err) ZL_MUST;
int systemd_set(struct systemd_manager *m, const struct zl_value *properties, struct zl_err *err) ZL_MUST;
/* Kills what is in it, waits until it has stopped, and forgets it; one that is not there is no error. */
int systemd_stop(struct systemd_manager *m, struct zl_err *err) ZL_MUST;
/* Moves a process into it, which the caller may not do itself. */
int systemd_attach(struct systemd_manager *m, uint32_t pid, struct zl_err *err) ZL_MUST;
