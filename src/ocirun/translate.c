/* A config.json into a set-up job: names become numbers here, and what the machine can't do is refused here. */
#include "ocirun/ocirun.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

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
    uint64_t kind;
} namespace_kinds[] = { { "mount", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "network", CLONE_NEWNET },
                        { "ipc", CLONE_NEWIPC },  { "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP } };

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

/* mount(8), Filesystem-independent mount options; set and cleared flags of mount(2), and propagation. */
static const struct {
    const char *name;
    unsigned long set, clear, propagation;
} mount_options[] = {
    { "bind", MS_BIND, 0, 0 },
    { "rbind", MS_BIND | MS_REC, 0, 0 },
    { "ro", MS_RDONLY, 0, 0 },
    { "rw", 0, MS_RDONLY, 0 },
    { "nosuid", MS_NOSUID, 0, 0 },
    { "suid", 0, MS_NOSUID, 0 },
    { "nodev", MS_NODEV, 0, 0 },
    { "dev", 0, MS_NODEV, 0 },
    { "noexec", MS_NOEXEC, 0, 0 },
    { "exec", 0, MS_NOEXEC, 0 },
    { "sync", MS_SYNCHRONOUS, 0, 0 },
    { "async", 0, MS_SYNCHRONOUS, 0 },
    { "dirsync", MS_DIRSYNC, 0, 0 },
    { "noatime", MS_NOATIME, 0, 0 },
    { "atime", 0, MS_NOATIME, 0 },
    { "nodiratime", MS_NODIRATIME, 0, 0 },
    { "diratime", 0, MS_NODIRATIME, 0 },
    { "relatime", MS_RELATIME, 0, 0 },
    { "norelatime", 0, MS_RELATIME, 0 },
    { "strictatime", MS_STRICTATIME, 0, 0 },
    { "nostrictatime", 0, MS_STRICTATIME, 0 },
    { "mand", MS_MANDLOCK, 0, 0 },
    { "nomand", 0, MS_MANDLOCK, 0 },
    { "defaults", 0, 0, 0 },
    { "silent", MS_SILENT, 0, 0 },
    { "loud", 0, MS_SILENT, 0 },
    { "iversion", MS_I_VERSION, 0, 0 },
    { "noiversion", 0, MS_I_VERSION, 0 },
    { "nosymfollow", 256, 0, 0 },
    { "symfollow", 0, 256, 0 },
    { "shared", 0, 0, MS_SHARED },
    { "rshared", 0, 0, MS_SHARED | MS_REC },
    { "slave", 0, 0, MS_SLAVE },
    { "rslave", 0, 0, MS_SLAVE | MS_REC },
    { "private", 0, 0, MS_PRIVATE },
    { "rprivate", 0, 0, MS_PRIVATE | MS_REC },
    { "unbindable", 0, 0, MS_UNBINDABLE },
    { "runbindable", 0, 0, MS_UNBINDABLE | MS_REC },
};
/* Options of the specification that need mount_setattr or a copy. */
static const char *const options_not_yet[] = { "rro",       "rrw",         "rnosuid",      "rsuid",
                                               "rnodev",    "rdev",        "rnoexec",      "rexec",
                                               "ratime",    "rnoatime",    "rdiratime",    "rnodiratime",
                                               "rrelatime", "rnorelatime", "rstrictatime", "rnostrictatime",
                                               "idmap",     "ridmap" };

struct translation {
    struct ocirun *r;
    const struct zl_oci_runtime *c;
    struct zl_job *job;
};

static int caps_of(struct translation *t, const char *set, const struct zl_strings *names, uint64_t *ret)
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

static const char **list_of(struct zl_arena *a, const struct zl_strings *s)
{
    const char **v = zl_arena_alloc(a, (s->n + 1) * sizeof *v);
    for (unsigned i = 0; i < s->n; i++)
        v[i] = s->v[i];
    return v;
}

static int process_of(struct translation *t, const struct zl_oci_process *p)
{
    struct zl_arena *a = &t->r->arena;
    struct zl_job *j = t->job;
    if (p->terminal && !t->r->o.console_socket)
        return zl_fail(&t->r->err, ZL_E_USAGE,
                       "process.terminal needs --console-socket, to which the terminal is sent");
    if (!p->terminal && t->r->o.console_socket)
        return zl_fail(&t->r->err, ZL_E_USAGE, "--console-socket is of use with process.terminal only");
    j->terminal = p->terminal;
    j->rows = (uint64_t)p->rows;
    j->columns = (uint64_t)p->columns;
    j->argv = list_of(a, &p->args);
    j->env = list_of(a, &p->env);
    j->cwd = p->cwd;
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
    return r;
}

static int namespaces_of(struct translation *t)
{
    const struct zl_items *list = &t->c->linux_.namespaces;
    struct zl_job *j = t->job;
    uint64_t seen = 0;
    j->namespaces = zl_arena_alloc(&t->r->arena, (list->n + 1) * sizeof *j->namespaces);
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_namespace *n = list->v[i];
        size_t k = 0;
        while (k < ZL_ARRAY_LEN(namespace_kinds) && !zl_streq(namespace_kinds[k].name, n->type))
            k++;
        if (k == ZL_ARRAY_LEN(namespace_kinds)) {
            bool later = zl_streq(n->type, "user") || zl_streq(n->type, "time");
            return zl_fail(&t->r->err, later ? ZL_E_UNSUPPORTED : ZL_E_INVALID, "linux.namespaces[%u].type: '%.20s' %s",
                           i, n->type, later ? "is not supported yet" : "is none");
        }
        if (seen & namespace_kinds[k].kind)
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.namespaces: '%.20s' is there twice", n->type);
        if (n->path && n->path[0] && n->path[0] != '/')
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.namespaces[%u].path: '%.100s' is no absolute path", i,
                           n->path);
        seen |= namespace_kinds[k].kind;
        j->namespaces[j->nnamespaces++] = (struct zl_job_namespace){ namespace_kinds[k].kind, n->path ? n->path : "" };
    }
    if (!(seen & CLONE_NEWNS))
        return zl_fail(&t->r->err, ZL_E_INVALID, "linux.namespaces: a container needs a mount namespace");
    if ((*j->hostname || *j->domainname) && !(seen & CLONE_NEWUTS))
        return zl_fail(&t->r->err, ZL_E_INVALID, "hostname: it is the host's, without a uts namespace");
    return 0;
}

static int take_option(struct translation *t, struct zl_job_mount *m, unsigned i, const char *option,
                       struct zl_buf *data)
{
    for (size_t k = 0; k < ZL_ARRAY_LEN(options_not_yet); k++)
        if (zl_streq(option, options_not_yet[k]) || (strncmp(option, "idmap=", 6) == 0))
            return zl_fail(&t->r->err, ZL_E_UNSUPPORTED, "mounts[%u].options: '%.20s' is not supported yet", i, option);
    for (size_t k = 0; k < ZL_ARRAY_LEN(mount_options); k++) {
        if (!zl_streq(option, mount_options[k].name))
            continue;
        m->flags = (m->flags & ~(uint64_t)mount_options[k].clear) | mount_options[k].set;
        if (mount_options[k].propagation)
            m->propagation = mount_options[k].propagation;
        return 0;
    }
    if (zl_streq(option, "tmpcopyup"))
        m->copy_up = true;
    else
        zl_buf_printf(data, "%s%s", data->n ? "," : "", option);
    return 0;
}

static int mounts_of(struct translation *t, const char *bundle)
{
    const struct zl_items *list = &t->c->mounts;
    struct zl_arena *a = &t->r->arena;
    struct zl_job *j = t->job;
    j->mounts = zl_arena_alloc(a, (list->n + 1) * sizeof *j->mounts);
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_mount *from = list->v[i];
        struct zl_job_mount *m = &j->mounts[j->nmounts++];
        zl_auto_buf data = ZL_BUF_INIT;
        *m = (struct zl_job_mount){ .target = from->destination,
                                    .type = from->type ? from->type : "",
                                    .source = from->source ? from->source : "" };
        for (unsigned k = 0; k < from->options.n; k++) {
            int r = take_option(t, m, i, from->options.v[k], &data);
            if (r < 0)
                return r;
        }
        m->data = zl_arena_strndup(a, data.n ? data.p : "", data.n);
        if (m->copy_up && !zl_streq(m->type, "tmpfs"))
            return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u].options: tmpcopyup is of tmpfs only", i);
        if (zl_streq(m->type, "bind"))
            m->flags |= MS_BIND | (m->flags & MS_BIND ? 0 : MS_REC);
        if (m->flags & MS_BIND) {
            m->type = "";
            m->data = "";
            if (!m->source[0])
                return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u]: a bind mount needs a source", i);
            if (m->source[0] != '/')
                m->source = zl_arena_printf(a, "%s/%s", bundle, m->source);
        } else if (!m->type[0]) {
            return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u]: neither a type nor bind", i);
        }
    }
    return 0;
}

static int device_type(const char *type, mode_t *ret)
{
    *ret = zl_streq(type, "c") || zl_streq(type, "u") ? S_IFCHR
           : zl_streq(type, "b")                      ? S_IFBLK
           : zl_streq(type, "p")                      ? S_IFIFO
                                                      : 0;
    return *ret ? 0 : -EINVAL;
}

/* config-linux.md, Default Devices: these are there whatever the document says. */
static int devices_of(struct translation *t)
{
    static const struct zl_job_device defaults[] = {
        { "/dev/null", S_IFCHR | 0666, 1, 3, 0, 0 },    { "/dev/zero", S_IFCHR | 0666, 1, 5, 0, 0 },
        { "/dev/full", S_IFCHR | 0666, 1, 7, 0, 0 },    { "/dev/random", S_IFCHR | 0666, 1, 8, 0, 0 },
        { "/dev/urandom", S_IFCHR | 0666, 1, 9, 0, 0 }, { "/dev/tty", S_IFCHR | 0666, 5, 0, 0, 0 },
    };
    static struct zl_job_pair links[] = { { "/dev/fd", "/proc/self/fd" },
                                          { "/dev/stdin", "/proc/self/fd/0" },
                                          { "/dev/stdout", "/proc/self/fd/1" },
                                          { "/dev/stderr", "/proc/self/fd/2" },
                                          { "/dev/ptmx", "pts/ptmx" } };
    const struct zl_items *list = &t->c->linux_.devices;
    struct zl_job *j = t->job;
    j->devices = zl_arena_alloc(&t->r->arena, (list->n + ZL_ARRAY_LEN(defaults)) * sizeof *j->devices);
    for (size_t i = 0; i < ZL_ARRAY_LEN(defaults); i++)
        j->devices[j->ndevices++] = defaults[i];
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_device *from = list->v[i];
        mode_t type;
        if (device_type(from->type, &type) < 0)
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.devices[%u].type: '%.20s' is none of c, b, u, p", i,
                           from->type);
        struct zl_job_device d = { from->path,
                                   type | (mode_t)(from->file_mode < 0 ? 0666 : from->file_mode),
                                   (uint64_t)from->major,
                                   (uint64_t)from->minor,
                                   (uint64_t)from->uid,
                                   (uint64_t)from->gid };
        uint64_t k = 0;
        while (k < j->ndevices && !zl_streq(j->devices[k].path, d.path))
            k++;
        j->devices[k] = d; /* said again, it is what the document says */
        j->ndevices = ZL_MAX(j->ndevices, k + 1);
    }
    j->links = links;
    j->nlinks = ZL_ARRAY_LEN(links);
    return 0;
}

static int linux_of(struct translation *t)
{
    static const struct {
        const char *name;
        unsigned long flags;
    } propagations[] = { { "shared", MS_SHARED },         { "rshared", MS_SHARED | MS_REC },
                         { "slave", MS_SLAVE },           { "rslave", MS_SLAVE | MS_REC },
                         { "private", MS_PRIVATE },       { "rprivate", MS_PRIVATE | MS_REC },
                         { "unbindable", MS_UNBINDABLE }, { "runbindable", MS_UNBINDABLE | MS_REC } };
    struct zl_job *j = t->job;
    const char *wanted = t->c->linux_.rootfs_propagation;
    for (size_t i = 0; wanted && *wanted && i < ZL_ARRAY_LEN(propagations); i++)
        if (zl_streq(wanted, propagations[i].name))
            j->root_propagation = propagations[i].flags;
    if (wanted && *wanted && !j->root_propagation)
        return zl_fail(&t->r->err, ZL_E_INVALID, "linux.rootfsPropagation: '%.20s' is none", wanted);
    j->masked = list_of(&t->r->arena, &t->c->linux_.masked);
    j->readonly = list_of(&t->r->arena, &t->c->linux_.readonly);
    const struct zl_items *sysctl = &t->c->linux_.sysctl;
    j->sysctls = zl_arena_alloc(&t->r->arena, (sysctl->n + 1) * sizeof *j->sysctls);
    for (unsigned i = 0; i < sysctl->n; i++) {
        const struct zl_oci_pair *p = sysctl->v[i];
        char *name = zl_arena_strdup(&t->r->arena, p->key);
        for (char *c = name; *c; c++)
            *c = *c == '.' ? '/' : *c == '/' ? '.' : *c; /* sysctl(8): the other one stands for itself */
        j->sysctls[j->nsysctls++] = (struct zl_job_pair){ name, p->value };
    }
    return 0;
}

/* Only what belongs to a namespace of the container's own: anything else would be the machine's. */
static int check_sysctls(struct translation *t)
{
    static const struct {
        const char *prefix;
        uint64_t kind;
    } known[] = { { "net/", CLONE_NEWNET },
                  { "fs/mqueue/", CLONE_NEWIPC },
                  { "kernel/msg", CLONE_NEWIPC },
                  { "kernel/sem", CLONE_NEWIPC },
                  { "kernel/shm", CLONE_NEWIPC },
                  { "kernel/hostname", CLONE_NEWUTS },
                  { "kernel/domainname", CLONE_NEWUTS } };
    const struct zl_job *j = t->job;
    for (uint64_t i = 0; i < j->nsysctls; i++) {
        bool good = false;
        for (size_t k = 0; k < ZL_ARRAY_LEN(known); k++)
            for (uint64_t n = 0; n < j->nnamespaces; n++)
                good |= j->namespaces[n].kind == known[k].kind &&
                        strncmp(j->sysctls[i].name, known[k].prefix, strlen(known[k].prefix)) == 0;
        if (!good || strstr(j->sysctls[i].name, ".."))
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.sysctl: '%.80s' is of no namespace of the container",
                           j->sysctls[i].name);
    }
    return 0;
}

int ocirun_cgroup_path(struct ocirun *r, const char *path, const char *id, const char **parent, const char **name)
{
    if (!path || !*path)
        path = zl_arena_printf(&r->arena, "zl-oci-%s", id);
    if (strchr(path, ':'))
        return zl_fail(&r->err, ZL_E_UNSUPPORTED,
                       "linux.cgroupsPath: '%.100s': groups managed by systemd are not supported yet", path);
    zl_auto_buf clean = ZL_BUF_INIT;
    for (struct zl_str rest = zl_str(path); rest.p;) {
        struct zl_str part = zl_str_cut(rest, '/', &rest);
        if (zl_str_is(part, ".."))
            return zl_fail(&r->err, ZL_E_INVALID, "linux.cgroupsPath: '%.100s' has ..", path);
        if (part.n && !zl_str_is(part, "."))
            zl_buf_printf(&clean, "%s%.*s", clean.n ? "/" : "", ZL_STR_FMT(part));
    }
    if (!clean.n)
        return zl_fail(&r->err, ZL_E_INVALID, "linux.cgroupsPath: '%.100s' is the root of all groups", path);
    const char *slash = strrchr(clean.p, '/');
    *parent = slash ? zl_arena_strndup(&r->arena, clean.p, (size_t)(slash - clean.p)) : "";
    *name = zl_arena_strdup(&r->arena, slash ? slash + 1 : clean.p);
    return 0;
}

int ocirun_job(struct ocirun *r, const struct zl_oci_runtime *c, const struct zl_oci_process *process,
               const char *bundle, const char *id, struct zl_job *ret)
{
    struct translation t = { r, c, ret };
    *ret = (struct zl_job){ .id = id,
                            .hostname = c->hostname ? c->hostname : "",
                            .domainname = c->domainname ? c->domainname : "",
                            .netns = "",
                            .link = "",
                            .cgroup_parent = "",
                            .root_readonly = c->root_readonly };
    const char *root = c->root[0] == '/' ? c->root : zl_arena_printf(&r->arena, "%s/%s", bundle, c->root);
    char *real = realpath(root, NULL);
    struct stat st;
    if (!real || stat(real, &st) < 0 || !S_ISDIR(st.st_mode)) {
        free(real);
        return zl_fail(&r->err, real ? ZL_E_INVALID : -errno, "root.path: open %s", root);
    }
    ret->rootfs = zl_arena_strdup(&r->arena, real);
    free(real);
    if (!c->has_process && !process)
        return zl_fail(&r->err, ZL_E_UNSUPPORTED, "process: a container without one is not supported yet");
    int e = process_of(&t, process ? process : &c->process);
    e = e < 0 ? e : namespaces_of(&t);
    e = e < 0 ? e : mounts_of(&t, bundle);
    e = e < 0 ? e : devices_of(&t);
    e = e < 0 ? e : linux_of(&t);
    e = e < 0 ? e : check_sysctls(&t);
    return e < 0 ? e : ocirun_seccomp(&r->arena, &c->linux_.seccomp, &ret->seccomp, &r->err);
}

void ocirun_names(struct zl_arena *arena, struct zl_value *mount_opts, struct zl_value *namespaces,
                  struct zl_value *capabilities)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(mount_options); i++)
        zl_value_append(mount_opts, zl_value_string(arena, zl_str(mount_options[i].name)));
    zl_value_append(mount_opts, zl_value_string(arena, ZL_STR("tmpcopyup")));
    for (size_t i = 0; i < ZL_ARRAY_LEN(namespace_kinds); i++)
        zl_value_append(namespaces, zl_value_string(arena, zl_str(namespace_kinds[i].name)));
    for (size_t i = 0; i < ZL_ARRAY_LEN(cap_names); i++)
        zl_value_append(capabilities, zl_value_string(arena, zl_str(zl_arena_printf(arena, "CAP_%s", cap_names[i]))));
}
