/* The process of a config.json into a set-up job: names become numbers here. */
#include "ocirun/ocirun.h"

#include "sys/process.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* capabilities(7), by number. */
static const char *const cap_names[] = {
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
};

static const struct {
    const char *name;
    int resource;
} rlimit_names[] = {
    { "RLIMIT_AS", RLIMIT_AS },
    { "RLIMIT_CORE", RLIMIT_CORE },
    { "RLIMIT_CPU", RLIMIT_CPU },
    { "RLIMIT_DATA", RLIMIT_DATA },
    { "RLIMIT_FSIZE", RLIMIT_FSIZE },
    { "RLIMIT_LOCKS", RLIMIT_LOCKS },
    { "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
    { "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
    { "RLIMIT_NICE", RLIMIT_NICE },
    { "RLIMIT_NOFILE", RLIMIT_NOFILE },
    { "RLIMIT_NPROC", RLIMIT_NPROC },
    { "RLIMIT_RSS", RLIMIT_RSS },
    { "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
    { "RLIMIT_RTTIME", RLIMIT_RTTIME },
    { "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
    { "RLIMIT_STACK", RLIMIT_STACK },
};

static const struct ocirun_name policies[] = {
    { "SCHED_OTHER", SCHED_OTHER },
    { "SCHED_FIFO", SCHED_FIFO },
    { "SCHED_RR", SCHED_RR },
    { "SCHED_BATCH", SCHED_BATCH },
    { "SCHED_IDLE", SCHED_IDLE },
    { "SCHED_DEADLINE", 6 },
    { "SCHED_ISO", 4 },
};
/* sched_setattr(2), SCHED_FLAG_… */
static const struct ocirun_name scheduler_flags[] = {
    { "SCHED_FLAG_RESET_ON_FORK", 1 },   { "SCHED_FLAG_RECLAIM", 2 },      { "SCHED_FLAG_DL_OVERRUN", 4 },
    { "SCHED_FLAG_KEEP_POLICY", 8 },     { "SCHED_FLAG_KEEP_PARAMS", 16 }, { "SCHED_FLAG_UTIL_CLAMP_MIN", 32 },
    { "SCHED_FLAG_UTIL_CLAMP_MAX", 64 },
};
static const struct ocirun_name io_classes[] = {
    { "IOPRIO_CLASS_RT", IOPRIO_CLASS_RT },
    { "IOPRIO_CLASS_BE", IOPRIO_CLASS_BE },
    { "IOPRIO_CLASS_IDLE", IOPRIO_CLASS_IDLE },
};

static int flag_of(const struct ocirun_name *names, size_t n, const char *name, uint64_t *ret)
{
    for (size_t i = 0; i < n; i++)
        if (zl_streq(names[i].name, name)) {
            *ret |= names[i].flag;
            return 0;
        }
    return -EINVAL;
}

static int caps_of(struct ocirun_translation *t, const char *set, const struct zl_strings *names, uint64_t *ret)
{
    *ret = 0;
    for (unsigned i = 0; i < names->n; i++) {
        const char *name = names->v[i];
        size_t cap = 0;
        while (cap < ZL_ARRAY_LEN(cap_names) && (strncmp(name, "CAP_", 4) != 0 || !zl_streq(name + 4, cap_names[cap])))
            cap++;
        if (cap == ZL_ARRAY_LEN(cap_names))
            return zl_fail(&t->r->err, ZL_E_INVALID, "process.capabilities.%s: '%.40s' is no capability", set, name);
        *ret |= UINT64_C(1) << cap;
    }
    return 0;
}

/*
 * What can't be granted is left out, with a warning (config.md, Linux Process): what the caller itself does not have,
 * but in a user namespace it has all. The kernel makes ambient what is permitted and inheritable, too; buildah asks for
 * more.
 */
static int leave_out(struct ocirun_translation *t, struct zl_job_caps *c)
{
    uint64_t *sets[] = { &c->bounding, &c->effective, &c->permitted, &c->inheritable, &c->ambient };
    uint64_t missing = 0;
    bool has_all = false;
    for (unsigned i = 0; i < t->c->linux_.namespaces.n; i++)
        if (zl_streq(((const struct zl_oci_namespace *)t->c->linux_.namespaces.v[i])->type, "user"))
            has_all = true;
    uint64_t own = UINT64_MAX;
    int r = has_all ? 0 : zl_caps_permitted(&own);
    if (r < 0)
        return zl_fail(&t->r->err, r, "find out the caller's capabilities");
    for (size_t i = 0; i < ZL_ARRAY_LEN(sets); i++) {
        missing |= *sets[i] & ~own;
        *sets[i] &= own;
    }
    for (size_t cap = 0; cap < ZL_ARRAY_LEN(cap_names); cap++)
        if (missing >> cap & 1)
            ocirun_log(t->r, "warning", "process.capabilities: CAP_%s can't be granted: the caller has it not",
                       cap_names[cap]);
    c->ambient &= c->permitted & c->inheritable;
    return 0;
}

/* "0-3,7" into bits of `size` bytes. */
int ocirun_bits(struct zl_arena *a, const char *list, size_t size, struct zl_str *ret)
{
    unsigned char *bits = zl_arena_alloc(a, size);
    for (struct zl_str rest = zl_str(list); rest.p && rest.n;) {
        struct zl_str part = zl_str_cut(rest, ',', &rest), to, from;
        uint64_t first, last;
        while (part.n && part.p[0] == ' ')
            part = zl_str_n(part.p + 1, part.n - 1);
        from = zl_str_cut(part, '-', &to);
        if (zl_parse_u64(from, 0, size * 8 - 1, &first) < 0)
            return -EINVAL;
        last = first;
        if (to.p && (zl_parse_u64(to, first, size * 8 - 1, &last) < 0))
            return -EINVAL;
        for (; first <= last; first++)
            bits[first / 8] |= (unsigned char)(1u << first % 8);
    }
    *ret = zl_str_n((const char *)bits, size);
    return 0;
}

/* Is the security module of that name at work here? */
static bool security(const char *file)
{
    return access(file, F_OK) == 0;
}

static int labels_of(struct ocirun_translation *t, const struct zl_oci_process *p)
{
    struct zl_job *j = t->job;
    j->apparmor = p->apparmor ? p->apparmor : "";
    j->selinux = p->selinux ? p->selinux : "";
    /* "unconfined" is what there is without a profile. */
    if (zl_streq(j->apparmor, "unconfined") && !security("/sys/kernel/security/apparmor"))
        j->apparmor = "";
    if (*j->apparmor && !security("/sys/kernel/security/apparmor"))
        return zl_fail(&t->r->err, ZL_E_UNSUPPORTED, "process.apparmorProfile: '%.60s': AppArmor is not enabled here",
                       j->apparmor);
    if (*j->selinux && !security("/sys/fs/selinux/enforce"))
        return zl_fail(&t->r->err, ZL_E_UNSUPPORTED, "process.selinuxLabel: '%.60s': SELinux is not enabled here",
                       j->selinux);
    return 0;
}

static int scheduling_of(struct ocirun_translation *t, const struct zl_oci_process *p)
{
    struct zl_job *j = t->job;
    struct zl_job_scheduler *s = &j->scheduler;
    struct zl_err *err = &t->r->err;
    uint64_t class = 0;
    if (p->scheduler.policy) {
        *s = (struct zl_job_scheduler){ .set = 1,
                                        .nice = (uint64_t)p->scheduler.nice,
                                        .priority = (uint64_t)p->scheduler.priority,
                                        .runtime = p->scheduler.runtime,
                                        .deadline = p->scheduler.deadline,
                                        .period = p->scheduler.period };
        if (flag_of(policies, ZL_ARRAY_LEN(policies), p->scheduler.policy, &s->policy) < 0)
            return zl_fail(err, ZL_E_INVALID, "process.scheduler.policy: '%.40s' is none", p->scheduler.policy);
        if (p->scheduler.nice < -20 || p->scheduler.nice > 19)
            return zl_fail(err, ZL_E_INVALID, "process.scheduler.nice: %lld is not from -20 to 19",
                           (long long)p->scheduler.nice);
        bool realtime = s->policy == SCHED_FIFO || s->policy == SCHED_RR;
        if (p->scheduler.priority && !realtime)
            return zl_fail(err, ZL_E_INVALID, "process.scheduler.priority is of SCHED_FIFO and SCHED_RR only");
        if ((p->scheduler.runtime || p->scheduler.deadline || p->scheduler.period) && s->policy != 6)
            return zl_fail(err, ZL_E_INVALID,
                           "process.scheduler: runtime, deadline and period are of SCHED_DEADLINE only");
        for (unsigned i = 0; i < p->scheduler.flags.n; i++)
            if (flag_of(scheduler_flags, ZL_ARRAY_LEN(scheduler_flags), p->scheduler.flags.v[i], &s->flags) < 0)
                return zl_fail(err, ZL_E_INVALID, "process.scheduler.flags[%u]: '%.40s' is none", i,
                               p->scheduler.flags.v[i]);
    }
    if (p->io_class) {
        if (flag_of(io_classes, ZL_ARRAY_LEN(io_classes), p->io_class, &class) < 0)
            return zl_fail(err, ZL_E_INVALID, "process.ioPriority.class: '%.40s' is none", p->io_class);
        j->io_priority = class << 13 | (uint64_t)p->io_priority;
    }
    bool exec = p != &t->c->process || t->r->o.command.n; /* the member is of exec alone */
    if (exec && p->cpus_initial && ocirun_bits(&t->r->arena, p->cpus_initial, sizeof(cpu_set_t), &j->cpus_entering) < 0)
        return zl_fail(err, ZL_E_INVALID, "process.execCPUAffinity.initial: '%.60s' is no list", p->cpus_initial);
    if (exec && p->cpus_final && ocirun_bits(&t->r->arena, p->cpus_final, sizeof(cpu_set_t), &j->cpus) < 0)
        return zl_fail(err, ZL_E_INVALID, "process.execCPUAffinity.final: '%.60s' is no list", p->cpus_final);
    return 0;
}

/* The sockets that it is given with --preserve-fds's, told as sd_listen_fds(3) wants it. */
static const char **variables_of(struct ocirun_translation *t, const struct zl_oci_process *p)
{
    struct zl_arena *a = &t->r->arena;
    const char *names = getenv("LISTEN_FDNAMES");
    if (!t->r->o.listen)
        return ocirun_words(a, &p->env);
    const char **v = zl_arena_alloc(a, (p->env.n + 4) * sizeof *v);
    unsigned n = 0;
    for (unsigned i = 0; i < p->env.n; i++)
        v[n++] = p->env.v[i];
    v[n++] = zl_arena_printf(a, "LISTEN_FDS=%s", t->r->o.listen);
    v[n++] = "LISTEN_PID=1";
    if (names)
        v[n++] = zl_arena_printf(a, "LISTEN_FDNAMES=%s", names);
    return v;
}

int ocirun_process(struct ocirun_translation *t, const struct zl_oci_process *p)
{
    struct zl_arena *a = &t->r->arena;
    struct zl_job *j = t->job;
    j->terminal = p->terminal;
    j->rows = (uint64_t)p->rows;
    j->columns = (uint64_t)p->columns;
    j->argv = ocirun_words(a, &p->args);
    j->env = variables_of(t, p);
    j->cwd = p->cwd ? p->cwd : "/";
    j->user = zl_arena_printf(a, "%lld:%lld", (long long)p->uid, (long long)p->gid);
    j->exact_user = true;
    j->umask = p->umask < 0 ? 0022 : (uint64_t)p->umask;
    j->no_new_privs = p->no_new_privileges;
    j->oom_score_adj = p->has_oom_score_adj ? zl_arena_printf(a, "%lld", (long long)p->oom_score_adj) : "";
    j->ngroups = p->groups.n;
    j->groups = zl_arena_alloc(a, (p->groups.n + 1) * sizeof *j->groups);
    for (unsigned i = 0; i < p->groups.n; i++)
        j->groups[i].gid = (uint64_t)p->groups.v[i];
    int r = caps_of(t, "bounding", &p->caps.bounding, &j->caps.bounding);
    r = r < 0 ? r : caps_of(t, "effective", &p->caps.effective, &j->caps.effective);
    r = r < 0 ? r : caps_of(t, "permitted", &p->caps.permitted, &j->caps.permitted);
    r = r < 0 ? r : caps_of(t, "inheritable", &p->caps.inheritable, &j->caps.inheritable);
    r = r < 0 ? r : caps_of(t, "ambient", &p->caps.ambient, &j->caps.ambient);
    r = r < 0 ? r : leave_out(t, &j->caps);
    j->rlimits = zl_arena_alloc(a, (p->rlimits.n + 1) * sizeof *j->rlimits);
    for (unsigned i = 0; i < p->rlimits.n && r == 0; i++) {
        const struct zl_oci_rlimit *l = p->rlimits.v[i];
        size_t k = 0;
        while (k < ZL_ARRAY_LEN(rlimit_names) && !zl_streq(rlimit_names[k].name, l->type))
            k++;
        if (k == ZL_ARRAY_LEN(rlimit_names))
            return zl_fail(&t->r->err, ZL_E_INVALID, "process.rlimits[%u].type: '%.40s' is none", i, l->type);
        if (l->soft > l->hard)
            return zl_fail(&t->r->err, ZL_E_INVALID, "process.rlimits[%u]: soft is over hard", i);
        j->rlimits[j->nrlimits++] = (struct zl_job_rlimit){ (uint64_t)rlimit_names[k].resource, l->soft, l->hard };
    }
    r = r < 0 ? r : labels_of(t, p);
    return r < 0 ? r : scheduling_of(t, p);
}

void ocirun_capability_names(struct zl_arena *arena, struct zl_value *ret)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(cap_names); i++)
        zl_value_append(ret, zl_value_string(arena, zl_str(zl_arena_printf(arena, "CAP_%s", cap_names[i]))));
}
