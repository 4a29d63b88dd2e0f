/* The mounts of a config.json into those of a set-up job. */
#include "ocirun/ocirun.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

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

/* config.md, Linux mount options: those for a whole tree, as mount_setattr(2) takes them. */
static const struct {
    const char *name;
    uint64_t set, clear;
} tree_options[] = {
    { "rro", MOUNT_ATTR_RDONLY, 0 },
    { "rrw", 0, MOUNT_ATTR_RDONLY },
    { "rnosuid", MOUNT_ATTR_NOSUID, 0 },
    { "rsuid", 0, MOUNT_ATTR_NOSUID },
    { "rnodev", MOUNT_ATTR_NODEV, 0 },
    { "rdev", 0, MOUNT_ATTR_NODEV },
    { "rnoexec", MOUNT_ATTR_NOEXEC, 0 },
    { "rexec", 0, MOUNT_ATTR_NOEXEC },
    { "rnodiratime", MOUNT_ATTR_NODIRATIME, 0 },
    { "rdiratime", 0, MOUNT_ATTR_NODIRATIME },
    { "rrelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
    { "rnorelatime", 0, MOUNT_ATTR__ATIME },
    { "rnoatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
    { "ratime", 0, MOUNT_ATTR__ATIME },
    { "rstrictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
    { "rnostrictatime", 0, MOUNT_ATTR__ATIME },
    { "rnosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0 },
    { "rsymfollow", 0, MOUNT_ATTR_NOSYMFOLLOW },
};

/* File systems that are made for the container carry its SELinux label. */
static const char *labelled(struct ocirun_translation *t, const struct zl_job_mount *m)
{
    static const char *const kinds[] = { "tmpfs", "devpts", "mqueue", "overlay" };
    bool takes = false;
    for (size_t i = 0; i < ZL_ARRAY_LEN(kinds); i++)
        takes |= zl_streq(m->type, kinds[i]);
    return takes ? zl_arena_printf(&t->r->arena, "%s%scontext=\"%s\"", m->data, m->data[0] ? "," : "",
                                   t->c->linux_.mount_label)
                 : m->data;
}

/* Mappings may be there without the option (before 1.2 they were). */
static int map_owners(struct ocirun_translation *t, const struct zl_oci_mount *from, struct zl_job_mount *m, unsigned i)
{
    if ((from->uid_map.n > 0) != (from->gid_map.n > 0))
        return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u]: uidMappings and gidMappings come together", i);
    if (from->uid_map.n && !m->idmap)
        m->idmap = MS_BIND;
    bool user = false;
    for (uint64_t k = 0; k < t->job->nnamespaces; k++)
        user |= t->job->namespaces[k].kind == CLONE_NEWUSER;
    if (m->idmap && !from->uid_map.n && !user)
        return zl_fail(&t->r->err, ZL_E_INVALID,
                       "mounts[%u].options: idmap without mappings takes the user namespace's, and there is none", i);
    int r = ocirun_map(t, "uidMappings", &from->uid_map, &m->uid_map);
    return r < 0 ? r : ocirun_map(t, "gidMappings", &from->gid_map, &m->gid_map);
}

/* A name that is none of the specification's is the file system's. */
static void take_option(struct zl_job_mount *m, const char *option, struct zl_buf *data)
{
    for (size_t k = 0; k < ZL_ARRAY_LEN(tree_options); k++) {
        if (!zl_streq(option, tree_options[k].name))
            continue;
        m->attr_set = (m->attr_set & ~tree_options[k].clear) | tree_options[k].set;
        m->attr_clear = (m->attr_clear & ~tree_options[k].set) | tree_options[k].clear;
        return;
    }
    for (size_t k = 0; k < ZL_ARRAY_LEN(mount_options); k++) {
        if (!zl_streq(option, mount_options[k].name))
            continue;
        m->flags = (m->flags & ~(uint64_t)mount_options[k].clear) | mount_options[k].set;
        if (mount_options[k].propagation)
            m->propagation = mount_options[k].propagation;
        return;
    }
    if (zl_streq(option, "tmpcopyup"))
        m->copy_up = true;
    else if (zl_streq(option, "idmap"))
        m->idmap = MS_BIND;
    else if (zl_streq(option, "ridmap"))
        m->idmap = MS_BIND | MS_REC;
    else
        zl_buf_printf(data, "%s%s", data->n ? "," : "", option);
}

int ocirun_mounts(struct ocirun_translation *t, const char *bundle)
{
    const struct zl_items *list = &t->c->mounts;
    struct zl_arena *a = &t->r->arena;
    struct zl_job *j = t->job;
    int r;
    j->mounts = zl_arena_alloc(a, (list->n + 1) * sizeof *j->mounts);
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_mount *from = list->v[i];
        struct zl_job_mount *m = &j->mounts[j->nmounts++];
        zl_auto_buf data = ZL_BUF_INIT;
        *m = (struct zl_job_mount){ .target = from->destination,
                                    .type = from->type ? from->type : "",
                                    .source = from->source ? from->source : "" };
        for (unsigned k = 0; k < from->options.n; k++) {
            take_option(m, from->options.v[k], &data);
        }
        m->data = zl_arena_strndup(a, data.n ? data.p : "", data.n);
        if (t->c->linux_.mount_label && t->c->linux_.mount_label[0])
            m->data = labelled(t, m);
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
            r = map_owners(t, from, m, i);
            if (r < 0)
                return r;
        } else if (m->idmap || from->uid_map.n || from->gid_map.n) {
            return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u]: owners can be mapped of a bind mount only", i);
        } else if (!m->type[0]) {
            return zl_fail(&t->r->err, ZL_E_INVALID, "mounts[%u]: neither a type nor bind", i);
        }
    }
    return 0;
}

void ocirun_mount_option_names(struct zl_arena *arena, struct zl_value *ret)
{
    static const char *const others[] = { "tmpcopyup", "idmap", "ridmap" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(mount_options); i++)
        zl_value_append(ret, zl_value_string(arena, zl_str(mount_options[i].name)));
    for (size_t i = 0; i < ZL_ARRAY_LEN(tree_options); i++)
        zl_value_append(ret, zl_value_string(arena, zl_str(tree_options[i].name)));
    for (size_t i = 0; i < ZL_ARRAY_LEN(others); i++)
        zl_value_append(ret, zl_value_string(arena, zl_str(others[i])));
}
