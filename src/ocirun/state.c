#include "ocirun/ocirun.h"

#include "base/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const ocirun_status_names[] = { "created", "running", "paused", "stopped" };

#define AT(member) offsetof(struct ocirun_state, member)
/* clang-format off */
static struct zl_value *print_pairs(struct zl_arena *arena, const void *field)
{
    const struct zl_items *pairs = field;
    struct zl_value *map = zl_value_new(arena, ZL_MAP);
    for (unsigned i = 0; i < pairs->n; i++) {
        const struct zl_oci_pair *p = pairs->v[i];
        zl_value_set(arena, map, p->key, zl_value_string(arena, zl_str(p->value)));
    }
    return map;
}

static void decode_pairs(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    struct zl_items *pairs = field;
    pairs->v = zl_arena_alloc(d->arena, (v->count + 1) * sizeof *pairs->v);
    for (const struct zl_value *i = v->kind == ZL_MAP ? v->first : NULL; i; i = i->next) {
        struct zl_oci_pair *p = zl_arena_alloc(d->arena, sizeof *p);
        *p = (struct zl_oci_pair){ i->key->text.p, i->text.p };
        pairs->v[pairs->n++] = p;
    }
}

#define TEXT(name_, member) { .name = name_, .kind = ZL_K_STRING, .offset = AT(member), .flags = ZL_F_REQUIRED }
static const struct zl_field state_fields[] = {
    TEXT("ociVersion", version), TEXT("id", id), TEXT("bundle", bundle), TEXT("rootfs", rootfs), TEXT("created", created),
    TEXT("cgroupParent", cgroup_parent), TEXT("cgroupName", cgroup_name), TEXT("bootId", boot_id),
    { .name = "pid", .kind = ZL_K_INT, .offset = AT(pid), .max = INT32_MAX, .flags = ZL_F_REQUIRED },
    { .name = "startTime", .kind = ZL_K_INT, .offset = AT(start_time), .flags = ZL_F_REQUIRED },
    { .name = "systemdUnit", .kind = ZL_K_STRING, .offset = AT(unit), .flags = ZL_F_OMIT },
    { .name = "systemdProgram", .kind = ZL_K_STRING, .offset = AT(program), .flags = ZL_F_OMIT },
    { .name = "systemdUser", .kind = ZL_K_BOOL, .offset = AT(unit_user), .flags = ZL_F_OMIT },
    { .name = "rdtClass", .kind = ZL_K_STRING, .offset = AT(rdt_class) },
    { .name = "rdt", .kind = ZL_K_INT, .offset = AT(rdt), .max = OCIRUN_RDT_OWN | OCIRUN_RDT_MONITORED },
    { .name = "controllers", .kind = ZL_K_INT, .offset = AT(controllers), .max = UINT32_MAX },
    { .name = "annotations", .kind = ZL_K_CUSTOM, .offset = AT(annotations), .decode = decode_pairs, .print = print_pairs },
};
/* clang-format on */
static const struct zl_type type_state = ZL_TYPE("the state", struct ocirun_state, state_fields, .open = true);

int ocirun_check_id(const char *id, struct zl_err *err)
{
    size_t n = strlen(id);
    bool good = n > 0 && n <= 128 && id[0] != '.' && id[0] != '-';
    for (const char *p = id; good && *p; p++)
        good = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("_+-.", *p);
    return good ? 0
                : zl_fail(err, ZL_E_INVALID,
                          "'%.140s' is no container id, which is 1 to 128 letters, digits and '_+-.', and does not "
                          "begin with '-' or '.'",
                          id);
}

int ocirun_make_folder(struct ocirun *r, const char *id)
{
    int e = zl_mkdir_p(r->o.root, geteuid() == 0 ? 0711 : 0700);
    zl_auto_close int root = e < 0 ? e : zl_openat(AT_FDCWD, r->o.root, O_RDONLY | O_DIRECTORY, 0);
    if (root < 0) {
        e = zl_fail(&r->err, root, "open the state folder %s", r->o.root);
        return geteuid() == 0
                   ? e
                   : zl_hint(&r->err, e, "--root DIR, or $XDG_RUNTIME_DIR, says where an ordinary user's is");
    }
    if (mkdirat(root, id, 0711) < 0)
        return errno == EEXIST ? zl_fail(&r->err, ZL_E_EXISTS, "container with id exists already: %s", id)
                               : zl_fail(&r->err, -errno, "make the folder of %s", id);
    e = zl_openat(root, id, O_RDONLY | O_DIRECTORY, 0);
    if (e >= 0)
        return e;
    (void)unlinkat(root, id, AT_REMOVEDIR); /* nothing is in it */
    return zl_fail(&r->err, e, "open the folder of %s", id);
}

int ocirun_open_folder(struct ocirun *r, const char *id)
{
    int e = ocirun_check_id(id, &r->err);
    if (e < 0)
        return e;
    const char *path = zl_arena_printf(&r->arena, "%s/%s", r->o.root, id);
    e = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (e == -ENOENT)
        return zl_fail(&r->err, ZL_E_NOT_FOUND, "container does not exist: %s", id);
    return e < 0 ? zl_fail(&r->err, e, "open the folder of %s", id) : e;
}

int ocirun_remove_folder(struct ocirun *r, const char *id)
{
    zl_auto_close int root = zl_openat(AT_FDCWD, r->o.root, O_RDONLY | O_DIRECTORY, 0);
    int e = root < 0 ? root : zl_remove_tree(root, id);
    return e < 0 ? zl_fail(&r->err, e, "remove the folder of %s", id) : 0;
}

int ocirun_write_state(struct ocirun *r, int folder, const struct ocirun_state *s)
{
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, zl_print(&r->arena, &type_state, s), 0);
    int e = zl_write_file_atomic(folder, "state.json", text.p, text.n, 0600, ZL_KILL_PROOF);
    return e < 0 ? zl_fail(&r->err, e, "write the state of %s", s->id) : 0;
}

int ocirun_parse_state(struct zl_arena *arena, struct zl_str text, struct ocirun_state **ret, struct zl_err *err)
{
    struct zl_decoder d;
    struct zl_parse_error pe;
    struct zl_value *v;
    if (zl_json_parse(arena, text, &zl_limits_document, &v, &pe) < 0)
        return zl_fail(err, ZL_E_RUNTIME, "line %u: %s", pe.line, pe.text);
    zl_decoder_init(&d, arena);
    *ret = zl_decode(&d, &type_state, v);
    int e = d.count ? zl_fail(err, ZL_E_RUNTIME, "%s", d.first->message) : 0;
    zl_decoder_done(&d);
    return e;
}

int ocirun_read_state(struct ocirun *r, int folder, const char *id, struct ocirun_state **ret)
{
    zl_auto_buf text = ZL_BUF_INIT;
    int e = zl_read_file(folder, "state.json", 1 << 20, &text);
    if (e == -ENOENT)
        return zl_fail(&r->err, ZL_E_NOT_FOUND, "the creation of %s was cut off; `delete --force` removes what is left",
                       id);
    if (e < 0)
        return zl_fail(&r->err, e, "read the state of %s", id);
    e = ocirun_parse_state(&r->arena, zl_buf_view(&text), ret, &r->err);
    return e < 0 ? zl_wrap(&r->err, e, "the state of %s", id) : 0;
}

/* The process is that of the record: same boot, same start, and no zombie. What can't be read is no reason to take it
 * for dead, and its container for one that may be deleted. */
static int lives(const struct ocirun_state *s)
{
    char boot[ZL_BOOT_ID_SIZE];
    uint64_t start;
    if (s->pid == 0)
        return false;
    int r = zl_boot_id(boot);
    if (r < 0 || !zl_streq(boot, s->boot_id))
        return r;
    r = zl_process_start_time((pid_t)s->pid, &start);
    if (r < 0 || start != (uint64_t)s->start_time)
        return r == -ENOENT || r == -ESRCH ? false : r;
    r = zl_process_dying((pid_t)s->pid);
    return r < 0 ? r : r == 0;
}

static int find_status(const struct ocirun_state *s, int folder, enum ocirun_status *ret)
{
    struct zl_cgroup g;
    int r = lives(s);
    if (r <= 0) {
        *ret = OCIRUN_STOPPED;
        return r;
    }
    if (faccessat(folder, "start.sock", F_OK, 0) == 0) {
        *ret = OCIRUN_CREATED;
        return 0;
    }
    if (errno != ENOENT)
        return -errno;
    r = ocirun_cgroup(s, &g);
    r = r < 0 ? r : zl_cgroup_frozen(&g);
    *ret = r > 0 ? OCIRUN_PAUSED : OCIRUN_RUNNING;
    return r == -EOPNOTSUPP || r == -ENOENT || r == -ENODEV ? 0 : ZL_MIN(r, 0); /* no such group, or none any more */
}

int ocirun_status(struct ocirun *r, const struct ocirun_state *s, int folder, enum ocirun_status *ret)
{
    int e = find_status(s, folder, ret);
    return e < 0 ? zl_fail(&r->err, e, "find out what has become of %s", s->id) : 0;
}

int ocirun_cgroup(const struct ocirun_state *s, struct zl_cgroup *ret)
{
    *ret = (struct zl_cgroup){ 0 };
    return s->cgroup_name[0] ? zl_cgroup_find_all(s->cgroup_parent, s->cgroup_name, (uint32_t)s->controllers, ret) : 0;
}

struct zl_value *ocirun_show_as(struct ocirun *r, const struct ocirun_state *s, const char *status, int64_t pid)
{
    struct zl_arena *a = &r->arena;
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "ociVersion", zl_value_string(a, zl_str(s->version)));
    zl_value_set(a, v, "id", zl_value_string(a, zl_str(s->id)));
    zl_value_set(a, v, "status", zl_value_string(a, zl_str(status)));
    zl_value_set(a, v, "pid", zl_value_int(a, pid));
    zl_value_set(a, v, "bundle", zl_value_string(a, zl_str(s->bundle)));
    if (s->annotations.n)
        zl_value_set(a, v, "annotations", print_pairs(a, &s->annotations));
    return v;
}

int ocirun_show(struct ocirun *r, const struct ocirun_state *s, int folder, struct zl_value **ret)
{
    enum ocirun_status status;
    int e = ocirun_status(r, s, folder, &status);
    if (e < 0)
        return e;
    struct zl_value *v = ocirun_show_as(r, s, ocirun_status_names[status], status == OCIRUN_STOPPED ? 0 : s->pid);
    zl_value_set(&r->arena, v, "rootfs", zl_value_string(&r->arena, zl_str(s->rootfs)));
    zl_value_set(&r->arena, v, "created", zl_value_string(&r->arena, zl_str(s->created)));
    *ret = v;
    return 0;
}
