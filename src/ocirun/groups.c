/* A container's cgroups at its beginning and its end: made by us, by systemd, or none at all. */
#include "ocirun/ocirun.h"
#include "ocirun/scope.h"

#include "base/phase.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static bool has_unit(const struct ocirun_state *s)
{
    return s->unit && *s->unit;
}

static int plan_unit(struct ocirun_groups *k, const char *id)
{
    struct ocirun *r = k->r;
    struct ocirun_state *s = k->s;
    struct ocirun_scope scope;
    struct zl_cgroup any;
    s->unit_user = ocirun_is_user();
    s->cgroup_parent = s->cgroup_name = ""; /* where it is shows when it is there */
    int e = ocirun_systemd_find(r, s);
    e = e < 0 ? e : ocirun_scope_name(r, k->c->linux_.cgroups_path, id, s->unit_user, &scope);
    if (e < 0)
        return e;
    s->unit = scope.unit;
    e = zl_cgroup_find("", "", &any);
    if (e < 0)
        return zl_fail(&r->err, e, "find the cgroups");
    if (s->unit_user && any.layout != ZL_CGROUP_V2)
        return zl_fail(&r->err, ZL_E_UNSUPPORTED,
                       "an ordinary user's systemd manages cgroups v2 only, and this machine has v1");
    return ocirun_scope_properties(r, k->c, &scope, id, any.layout == ZL_CGROUP_V2, &k->properties);
}

static int plan_path(struct ocirun_groups *k, const char *id)
{
    struct ocirun *r = k->r;
    struct ocirun_state *s = k->s;
    int e = ocirun_cgroup_path(r, k->c->linux_.cgroups_path, id, &s->cgroup_parent, &s->cgroup_name);
    if (e < 0)
        return e;
    e = zl_cgroup_find_all(s->cgroup_parent, s->cgroup_name, k->values.controllers, k->g);
    if (e < 0)
        return zl_fail(&r->err, e, "find the cgroups");
    if (zl_cgroup_empty(k->g) == 0) /* and a failure later must not end what is in there */
        return zl_fail(&r->err, ZL_E_CONFLICT, "the cgroup %s/%s has processes already", s->cgroup_parent,
                       s->cgroup_name);
    return 0;
}

int ocirun_groups_plan(struct ocirun_groups *k, const char *id)
{
    struct ocirun *r = k->r;
    int e = ocirun_values(r, &k->c->linux_.resources, &k->values);
    if (e < 0)
        return e;
    k->s->controllers = k->values.controllers;
    /* The container's process reads where it is after it was made. */
    k->g = mmap(NULL, sizeof *k->g, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (k->g == MAP_FAILED)
        return zl_fail(&r->err, -errno, "share memory with the container's process");
    k->s->cgroup_parent = k->s->cgroup_name = k->s->unit = "";
    if (r->o.no_cgroup)
        return 0;
    return r->o.systemd_cgroup ? plan_unit(k, id) : plan_path(k, id);
}

/* Without groups there may be no limits. */
static int need_none(const struct ocirun_groups *k, const struct zl_cgroup_limits *limits, const char *why)
{
    return zl_cgroup_create(k->g, limits) == 0
               ? 0
               : zl_fail(&k->r->err, ZL_E_PERMISSION, "linux.resources: %s, so there can be no limits", why);
}

/* An ordinary user to whom no group is given does without, as long as no limit is asked. */
static int do_without(struct ocirun_groups *k, const struct zl_cgroup_limits *limits)
{
    ZL_IGNORE(zl_cgroup_destroy(k->g, 0));
    *k->g = (struct zl_cgroup){ 0 };
    k->s->cgroup_parent = k->s->cgroup_name = "";
    return need_none(k, limits,
                     zl_arena_printf(&k->r->arena, "no cgroup is delegated to user %u", (unsigned)geteuid()));
}

static int set_limits(struct ocirun_groups *k)
{
    struct ocirun *r = k->r;
    struct zl_cgroup_limits limits;
    int e = ocirun_limits(r, &k->c->linux_.resources, &limits);
    if (e < 0)
        return e;
    limits.controllers = k->values.controllers;
    if (r->o.no_cgroup)
        return need_none(k, &limits, "--cgroup-manager is disabled");
    e = zl_cgroup_create(k->g, &limits);
    if ((e == -EACCES || e == -EPERM || e == -EROFS) && geteuid() != 0 && !has_unit(k->s))
        return do_without(k, &limits);
    if (e < 0)
        return zl_fail(&r->err, e, "make the cgroup with its limits");
    e = ocirun_set_values(r, k->g, &k->values);
    if (e < 0 || geteuid() != 0)
        return e; /* the kernel lets the user open the own devices only, whatever the rules */
    return ocirun_set_devices(r, &k->c->linux_.resources.devices, k->g);
}

int ocirun_groups_make(struct ocirun_groups *k)
{
    return has_unit(k->s) ? 0 : set_limits(k);
}

int ocirun_groups_place(struct ocirun_groups *k, pid_t pid)
{
    struct ocirun_state *s = k->s;
    zl_phase("oci.unit.planned");
    int e = ocirun_systemd_start(k->r, s, k->properties, pid);
    zl_phase("oci.unit.started");
    e = e < 0 ? e : ocirun_write_state(k->r, k->folder, s);
    if (e < 0)
        return e;
    e = zl_cgroup_find_all(s->cgroup_parent, s->cgroup_name, k->values.controllers, k->g);
    e = e < 0 ? zl_fail(&k->r->err, e, "find the cgroups of %s", s->unit) : set_limits(k);
    zl_phase("oci.unit.limited");
    return e;
}

/* systemd goes first where it has a say, as it removes what it has made. */
int ocirun_groups_remove(struct ocirun *r, const struct ocirun_state *s, unsigned timeout_ms)
{
    struct zl_cgroup g;
    int e = ocirun_cgroup(s, &g), stopped = 0;
    /* A unit that is not known to have started may be another's; ours has gone with its only process, which ends when
     * who makes the container does. */
    if (e == 0 && has_unit(s) && *s->cgroup_name) {
        e = zl_cgroup_clear(&g, timeout_ms);
        stopped = e < 0 ? 0 : ocirun_systemd_stop(r, s);
        if (stopped < 0 && stopped != ZL_E_NO_AGENT)
            return stopped;
    }
    e = e < 0 ? e : zl_cgroup_destroy(&g, timeout_ms);
    if (e < 0)
        return zl_fail(&r->err, e, "remove the cgroup of %s", s->id);
    if (stopped < 0) { /* a user's systemd ends with the last session, and all that is in its groups with it */
        ocirun_log(r, "warning", "%s", r->err.text);
        r->err = (struct zl_err){ 0 };
    }
    return 0;
}

void ocirun_groups_drop(const struct ocirun_groups *k)
{
    struct zl_err why = k->r->err;
    if (has_unit(k->s))
        ZL_IGNORE(ocirun_groups_remove(k->r, k->s, 2000));
    else
        ZL_IGNORE(zl_cgroup_destroy(k->g, 2000));
    k->r->err = why;
}
