/* A config.json into a set-up job: names become numbers here, and what the machine can't do is refused here. */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    uint64_t kind;
} namespace_kinds[] = { { "mount", CLONE_NEWNS },  { "pid", CLONE_NEWPID },  { "network", CLONE_NEWNET },
                        { "ipc", CLONE_NEWIPC },   { "uts", CLONE_NEWUTS },  { "cgroup", CLONE_NEWCGROUP },
                        { "user", CLONE_NEWUSER }, { "time", CLONE_NEWTIME } };

const char **ocirun_words(struct zl_arena *a, const struct zl_strings *s)
{
    const char **v = zl_arena_alloc(a, (s->n + 1) * sizeof *v);
    for (unsigned i = 0; i < s->n; i++)
        v[i] = s->v[i];
    return v;
}

int ocirun_map(struct ocirun_translation *t, const char *what, const struct zl_items *maps, const char **ret)
{
    zl_auto_buf text = ZL_BUF_INIT;
    for (unsigned i = 0; i < maps->n; i++) {
        const struct zl_oci_map *m = maps->v[i];
        if (m->container + m->size > UINT32_MAX || m->host + m->size > UINT32_MAX)
            return zl_fail(&t->r->err, ZL_E_INVALID, "%s[%u]: its ids go beyond 4294967294", what, i);
        for (unsigned k = 0; k < i; k++) {
            const struct zl_oci_map *o = maps->v[k];
            if ((m->container < o->container + o->size && o->container < m->container + m->size) ||
                (m->host < o->host + o->size && o->host < m->host + m->size))
                return zl_fail(&t->r->err, ZL_E_INVALID, "%s[%u] overlaps [%u]", what, i, k);
        }
        zl_buf_printf(&text, "%lld %lld %lld\n", (long long)m->container, (long long)m->host, (long long)m->size);
    }
    *ret = zl_arena_strndup(&t->r->arena, text.n ? text.p : "", text.n);
    return 0;
}

static bool maps_id(const struct zl_items *maps, int64_t id)
{
    for (unsigned i = 0; i < maps->n; i++) {
        const struct zl_oci_map *m = maps->v[i];
        if (id >= m->container && id < m->container + m->size)
            return true;
    }
    return false;
}

/* What belongs to a namespace is said with that namespace only. */
static int check_maps(struct ocirun_translation *t, uint64_t seen)
{
    struct zl_job *j = t->job;
    const struct zl_items *uids = &t->c->linux_.uid_map, *gids = &t->c->linux_.gid_map;
    struct zl_err *err = &t->r->err;
    bool new_user = false, new_time = false;
    for (uint64_t i = 0; i < j->nnamespaces; i++) {
        new_user |= j->namespaces[i].kind == CLONE_NEWUSER && !j->namespaces[i].path[0];
        new_time |= j->namespaces[i].kind == CLONE_NEWTIME && !j->namespaces[i].path[0];
    }
    if (new_user && (!uids->n || !gids->n))
        return zl_fail(err, ZL_E_INVALID, "linux.uidMappings, gidMappings: a new user namespace needs them");
    if ((uids->n || gids->n) && !(seen & CLONE_NEWUSER))
        return zl_fail(err, ZL_E_INVALID, "linux.uidMappings, gidMappings: there is no user namespace to have them");
    int r = ocirun_map(t, "linux.uidMappings", uids, &j->uid_map);
    r = r < 0 ? r : ocirun_map(t, "linux.gidMappings", gids, &j->gid_map);
    if (r < 0)
        return r;
    if (new_user && (!maps_id(uids, 0) || !maps_id(gids, 0)))
        return zl_fail(err, ZL_E_INVALID, "linux.uidMappings, gidMappings: id 0 of the container must be mapped");
    const struct zl_oci_process *p = &t->c->process;
    if (new_user && t->c->has_process && (!maps_id(uids, p->uid) || !maps_id(gids, p->gid)))
        return zl_fail(err, ZL_E_INVALID, "process.user: %lld:%lld is not mapped in the user namespace",
                       (long long)p->uid, (long long)p->gid);
    const struct zl_oci_clock *m = &t->c->linux_.monotonic, *b = &t->c->linux_.boottime;
    bool moved = m->secs || m->nanosecs || b->secs || b->nanosecs;
    if (moved && !new_time)
        return zl_fail(err, ZL_E_INVALID, "linux.timeOffsets: there is no new time namespace to have them");
    j->time_offsets = zl_arena_printf(&t->r->arena, "monotonic %lld %lld\nboottime %lld %lld\n", (long long)m->secs,
                                      (long long)m->nanosecs, (long long)b->secs, (long long)b->nanosecs);
    return 0;
}

static int namespaces_of(struct ocirun_translation *t)
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
        if (k == ZL_ARRAY_LEN(namespace_kinds))
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.namespaces[%u].type: '%.20s' is none", i, n->type);
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
    return check_maps(t, seen);
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
static int devices_of(struct ocirun_translation *t)
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
        if (from->path[0] != '/')
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.devices[%u].path: '%.100s' is no absolute path", i,
                           from->path);
        struct zl_job_device d = {
            from->path,
            type | (mode_t)(from->file_mode < 0 ? 0666 : from->file_mode & 07777), /* podman says the kind, too */
            (uint64_t)from->major,
            (uint64_t)from->minor,
            (uint64_t)from->uid,
            (uint64_t)from->gid
        };
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

static int linux_of(struct ocirun_translation *t)
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
    j->masked = ocirun_words(&t->r->arena, &t->c->linux_.masked);
    j->readonly = ocirun_words(&t->r->arena, &t->c->linux_.readonly);
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

/* mbind(2), set_mempolicy(2) */
const struct ocirun_name ocirun_memory_modes[] = {
    { "MPOL_DEFAULT", 0 },
    { "MPOL_PREFERRED", 1 },
    { "MPOL_BIND", 2 },
    { "MPOL_INTERLEAVE", 3 },
    { "MPOL_LOCAL", 4 },
    { "MPOL_PREFERRED_MANY", 5 },
    { "MPOL_WEIGHTED_INTERLEAVE", 6 },
    { NULL, 0 },
};
const struct ocirun_name ocirun_memory_flags[] = {
    { "MPOL_F_STATIC_NODES", 1 << 15 },
    { "MPOL_F_RELATIVE_NODES", 1 << 14 },
    { "MPOL_F_NUMA_BALANCING", 1 << 13 },
    { NULL, 0 },
};

static int machine_of(struct ocirun_translation *t)
{
    const struct ocirun_name *modes = ocirun_memory_modes, *flags = ocirun_memory_flags;
    enum { NODES_BYTES = 128 };
    struct zl_job *j = t->job;
    struct zl_err *err = &t->r->err;
    const char *domain = t->c->linux_.personality, *mode = t->c->linux_.memory_mode;
    if (domain) {
        if (!zl_streq(domain, "LINUX") && !zl_streq(domain, "LINUX32"))
            return zl_fail(err, ZL_E_INVALID, "linux.personality.domain: '%.20s' is neither LINUX nor LINUX32", domain);
        j->set_personality = true;
        j->personality = zl_streq(domain, "LINUX32") ? PER_LINUX32 : PER_LINUX;
    }
    for (size_t i = 0; mode && modes[i].name; i++)
        if (zl_streq(mode, modes[i].name))
            j->memory_policy = modes[i].flag + 1;
    if (mode && !j->memory_policy)
        return zl_fail(err, ZL_E_INVALID, "linux.memoryPolicy.mode: '%.40s' is none", mode);
    for (unsigned i = 0; i < t->c->linux_.memory_flags.n; i++) {
        uint64_t before = j->memory_policy;
        for (size_t k = 0; flags[k].name; k++)
            if (zl_streq(t->c->linux_.memory_flags.v[i], flags[k].name))
                j->memory_policy = ((j->memory_policy - 1) | flags[k].flag) + 1;
        if (j->memory_policy == before)
            return zl_fail(err, ZL_E_INVALID, "linux.memoryPolicy.flags[%u]: '%.40s' is none, or there twice", i,
                           t->c->linux_.memory_flags.v[i]);
    }
    const char *nodes = t->c->linux_.memory_nodes;
    if (mode && nodes && *nodes && ocirun_bits(&t->r->arena, nodes, NODES_BYTES, &j->memory_nodes) < 0)
        return zl_fail(err, ZL_E_INVALID, "linux.memoryPolicy.nodes: '%.60s' is no list", nodes);
    if (t->c->linux_.mount_label && t->c->linux_.mount_label[0] && access("/sys/fs/selinux/enforce", F_OK) < 0)
        return zl_fail(err, ZL_E_UNSUPPORTED, "linux.mountLabel: SELinux is not enabled here");
    return 0;
}

static int net_devices_of(struct ocirun_translation *t)
{
    const struct zl_items *list = &t->c->linux_.net_devices;
    struct zl_job *j = t->job;
    bool network = false;
    for (uint64_t i = 0; i < j->nnamespaces; i++)
        network |= j->namespaces[i].kind == CLONE_NEWNET;
    if (list->n && !network)
        return zl_fail(&t->r->err, ZL_E_INVALID, "linux.netDevices: there is no network namespace to have them");
    j->links_in = zl_arena_alloc(&t->r->arena, (list->n + 1) * sizeof *j->links_in);
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_pair *p = list->v[i];
        const char *inside = *p->value ? p->value : p->key;
        if (!*p->key || strlen(p->key) > 15 || strlen(inside) > 15 || strpbrk(inside, "/: "))
            return zl_fail(&t->r->err, ZL_E_INVALID, "linux.netDevices: '%.20s' as '%.20s': no name of a device",
                           p->key, inside);
        j->links_in[j->nlinks_in++] = (struct zl_job_pair){ p->key, inside };
    }
    return 0;
}

/* Only what belongs to a namespace of the container's own: anything else would be the machine's. */
static int check_sysctls(struct ocirun_translation *t)
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

/* An ordinary user may make groups below the own one, if anywhere. */
static const char *own_group(struct ocirun *r)
{
    zl_auto_buf text = ZL_BUF_INIT;
    if (zl_read_file(AT_FDCWD, "/proc/self/cgroup", 1 << 16, &text) < 0)
        return "";
    for (struct zl_str line, rest = zl_buf_view(&text); rest.p && rest.n;) {
        line = zl_str_cut(rest, '\n', &rest);
        if (line.n > 3 && memcmp(line.p, "0::", 3) == 0)
            return zl_arena_strndup(&r->arena, line.p + 3, line.n - 3);
    }
    return "";
}

int ocirun_cgroup_path(struct ocirun *r, const char *path, const char *id, const char **parent, const char **name)
{
    if (!path || !*path)
        path = zl_arena_printf(&r->arena, "%s/zl-oci-%s", geteuid() == 0 ? "" : own_group(r), id);
    if (strchr(path, ':'))
        return zl_hint(
            &r->err,
            zl_fail(&r->err, ZL_E_INVALID, "linux.cgroupsPath: '%.100s' is a unit of systemd, not a path", path),
            "--systemd-cgroup has cgroups managed by systemd");
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

/* A bind that is to see what is mounted outside later can't be made from mounts that don't; others of the document do
 * not see it, as without it. */
static void follow_outside(struct zl_job *j)
{
    bool follows = false;
    for (uint64_t i = 0; i < j->nmounts; i++)
        follows |= j->mounts[i].flags & MS_BIND && j->mounts[i].propagation & (MS_SLAVE | MS_SHARED);
    if (j->root_propagation || !follows)
        return;
    j->root_propagation = MS_SLAVE | MS_REC;
    for (uint64_t i = 0; i < j->nmounts; i++)
        if (j->mounts[i].flags & MS_BIND && !j->mounts[i].propagation)
            j->mounts[i].propagation = MS_PRIVATE | MS_REC;
}

int ocirun_job(struct ocirun *r, const struct zl_oci_runtime *c, const struct zl_oci_process *process,
               const char *bundle, const char *id, struct zl_job *ret)
{
    struct ocirun_translation t = { r, c, ret };
    *ret = (struct zl_job){ .id = id,
                            .hostname = c->hostname ? c->hostname : "",
                            .domainname = c->domainname ? c->domainname : "",
                            .netns = "",
                            .link = "",
                            .cgroup_parent = "",
                            .uid_map = "",
                            .gid_map = "",
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
    ret->preserve_fds = r->o.preserved;
    ret->keep_keyring = r->o.no_new_keyring;
    int e = ocirun_process(&t, process ? process : &c->process);
    e = e < 0 ? e : namespaces_of(&t);
    e = e < 0 ? e : ocirun_mounts(&t, bundle);
    e = e < 0 ? e : devices_of(&t);
    e = e < 0 ? e : linux_of(&t);
    e = e < 0 ? e : check_sysctls(&t);
    e = e < 0 ? e : machine_of(&t);
    e = e < 0 ? e : net_devices_of(&t);
    if (e == 0)
        follow_outside(ret);
    return e < 0 ? e : ocirun_seccomp(r, &c->linux_.seccomp, ret);
}

void ocirun_namespace_names(struct zl_arena *arena, struct zl_value *ret)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(namespace_kinds); i++)
        zl_value_append(ret, zl_value_string(arena, zl_str(namespace_kinds[i].name)));
}
