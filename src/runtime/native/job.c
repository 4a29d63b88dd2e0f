#include "runtime/native/job.h"

#include "base/assert.h"
#include "base/frame.h"

#include <errno.h>

enum kind { TEXT, TEXTS, NUMBER, BYTES, STRUCT, LIST };

struct table;
struct row {
    unsigned short at, count_at; /* count_at: of a LIST; of TEXTS that are counted; 0 else */
    enum kind kind;
    const struct table *of;
};
/* A row's place in its table, from 1, is its record type: the wire format. */
struct table {
    const struct row *rows;
    unsigned n;
    size_t size;
};

#define AT(type, member) (unsigned short)offsetof(struct type, member)
#define TEXT_OF(type, member)                \
    {                                        \
        .at = AT(type, member), .kind = TEXT \
    }
#define NUMBER_OF(type, member)                \
    {                                          \
        .at = AT(type, member), .kind = NUMBER \
    }
#define TEXTS_OF(member)                        \
    {                                           \
        .at = AT(zl_job, member), .kind = TEXTS \
    }
#define LIST_OF(member, table)                                                                    \
    {                                                                                             \
        .at = AT(zl_job, member), .count_at = AT(zl_job, n##member), .kind = LIST, .of = &(table) \
    }
#define TABLE(rows_, type)                                                   \
    {                                                                        \
        .rows = rows_, .n = ZL_ARRAY_LEN(rows_), .size = sizeof(struct type) \
    }

/* clang-format off */
static const struct row namespace_rows[] = { NUMBER_OF(zl_job_namespace, kind), TEXT_OF(zl_job_namespace, path) };
static const struct row mount_rows[] = {
    TEXT_OF(zl_job_mount, target), TEXT_OF(zl_job_mount, source), TEXT_OF(zl_job_mount, type), TEXT_OF(zl_job_mount, data),
    NUMBER_OF(zl_job_mount, flags), NUMBER_OF(zl_job_mount, propagation), NUMBER_OF(zl_job_mount, copy_up),
    NUMBER_OF(zl_job_mount, attr_set), NUMBER_OF(zl_job_mount, attr_clear), NUMBER_OF(zl_job_mount, idmap),
    TEXT_OF(zl_job_mount, uid_map), TEXT_OF(zl_job_mount, gid_map),
};
static const struct row device_rows[] = {
    TEXT_OF(zl_job_device, path), NUMBER_OF(zl_job_device, mode), NUMBER_OF(zl_job_device, major),
    NUMBER_OF(zl_job_device, minor), NUMBER_OF(zl_job_device, uid), NUMBER_OF(zl_job_device, gid),
};
static const struct row group_rows[] = { NUMBER_OF(zl_job_group, gid) };
static const struct row pair_rows[] = { TEXT_OF(zl_job_pair, name), TEXT_OF(zl_job_pair, value) };
static const struct row rlimit_rows[] = {
    NUMBER_OF(zl_job_rlimit, resource), NUMBER_OF(zl_job_rlimit, soft), NUMBER_OF(zl_job_rlimit, hard),
};
static const struct row caps_rows[] = {
    NUMBER_OF(zl_job_caps, bounding), NUMBER_OF(zl_job_caps, effective), NUMBER_OF(zl_job_caps, permitted),
    NUMBER_OF(zl_job_caps, inheritable), NUMBER_OF(zl_job_caps, ambient),
};
static const struct row scheduler_rows[] = {
    NUMBER_OF(zl_job_scheduler, set), NUMBER_OF(zl_job_scheduler, policy), NUMBER_OF(zl_job_scheduler, flags),
    NUMBER_OF(zl_job_scheduler, nice), NUMBER_OF(zl_job_scheduler, priority), NUMBER_OF(zl_job_scheduler, runtime),
    NUMBER_OF(zl_job_scheduler, deadline), NUMBER_OF(zl_job_scheduler, period),
};
static const struct table scheduler = TABLE(scheduler_rows, zl_job_scheduler);
static const struct table namespaces = TABLE(namespace_rows, zl_job_namespace), mounts = TABLE(mount_rows, zl_job_mount),
                          devices = TABLE(device_rows, zl_job_device), pairs = TABLE(pair_rows, zl_job_pair), groups = TABLE(group_rows, zl_job_group),
                          rlimits = TABLE(rlimit_rows, zl_job_rlimit), caps = TABLE(caps_rows, zl_job_caps);

static const struct row job_rows[] = {
    TEXT_OF(zl_job, id), TEXT_OF(zl_job, hostname), TEXTS_OF(argv), TEXTS_OF(env),
    { .at = AT(zl_job, lowers), .count_at = AT(zl_job, nlowers), .kind = TEXTS },
    LIST_OF(namespaces, namespaces), LIST_OF(mounts, mounts), LIST_OF(devices, devices), LIST_OF(links, pairs),
    LIST_OF(files, pairs), TEXTS_OF(masked), TEXTS_OF(readonly),
    TEXT_OF(zl_job, cwd), TEXT_OF(zl_job, user), { .at = AT(zl_job, caps), .kind = STRUCT, .of = &caps },
    LIST_OF(sysctls, pairs), LIST_OF(rlimits, rlimits), NUMBER_OF(zl_job, no_new_privs),
    { .at = AT(zl_job, seccomp), .kind = BYTES },
    TEXT_OF(zl_job, cgroup_parent), NUMBER_OF(zl_job, memory_bytes), NUMBER_OF(zl_job, cpu_quota_us), NUMBER_OF(zl_job, pids),
    TEXT_OF(zl_job, domainname), TEXT_OF(zl_job, rootfs), NUMBER_OF(zl_job, root_readonly), NUMBER_OF(zl_job, root_propagation),
    NUMBER_OF(zl_job, exact_user), LIST_OF(groups, groups), NUMBER_OF(zl_job, umask), TEXT_OF(zl_job, oom_score_adj),
    NUMBER_OF(zl_job, terminal), NUMBER_OF(zl_job, rows), NUMBER_OF(zl_job, columns),
    TEXT_OF(zl_job, netns), TEXT_OF(zl_job, link), NUMBER_OF(zl_job, addr), NUMBER_OF(zl_job, local),
    NUMBER_OF(zl_job, log_max_bytes), NUMBER_OF(zl_job, log_files),
    TEXT_OF(zl_job, uid_map), TEXT_OF(zl_job, gid_map), TEXT_OF(zl_job, time_offsets), LIST_OF(links_in, pairs),
    NUMBER_OF(zl_job, seccomp_flags), NUMBER_OF(zl_job, seccomp_listener), TEXT_OF(zl_job, apparmor), TEXT_OF(zl_job, selinux),
    { .at = AT(zl_job, scheduler), .kind = STRUCT, .of = &scheduler }, NUMBER_OF(zl_job, io_priority),
    NUMBER_OF(zl_job, set_personality), NUMBER_OF(zl_job, personality), { .at = AT(zl_job, cpus_entering), .kind = BYTES },
    { .at = AT(zl_job, cpus), .kind = BYTES }, NUMBER_OF(zl_job, memory_policy), { .at = AT(zl_job, memory_nodes), .kind = BYTES },
    NUMBER_OF(zl_job, preserve_fds), NUMBER_OF(zl_job, keep_keyring),
    NUMBER_OF(zl_job, open_stdin), NUMBER_OF(zl_job, user_xattr), TEXT_OF(zl_job, fuse_overlay),
};
/* clang-format on */
static const struct table job_table = TABLE(job_rows, zl_job);
enum { ROWS_MAX = 64, FILTER_UNIT = 8 /* sizeof(struct sock_filter) */ };
_Static_assert(ZL_ARRAY_LEN(job_rows) <= ROWS_MAX, "the totals of a table");

static void encode(struct zl_buf *out, const struct table *t, const char *object)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct row *row = &t->rows[i];
        const void *at = object + row->at;
        uint16_t type = (uint16_t)(i + 1);
        const char *text;
        const char *const *texts;
        uint64_t number, count = 1;
        switch (row->kind) {
        case TEXT:
            memcpy(&text, at, sizeof text);
            zl_record_add_str(out, type, zl_str(text ? text : ""));
            break;
        case TEXTS:
            memcpy(&texts, at, sizeof texts);
            for (; texts && *texts; texts++)
                zl_record_add_str(out, type, zl_str(*texts));
            break;
        case NUMBER:
            memcpy(&number, at, sizeof number);
            zl_record_add_u64(out, type, number);
            break;
        case BYTES: {
            struct zl_str bytes;
            memcpy(&bytes, at, sizeof bytes);
            zl_record_add_str(out, type, bytes);
            break;
        }
        case STRUCT:
        case LIST: {
            const char *items = at;
            if (row->kind == LIST) {
                memcpy(&items, at, sizeof items);
                memcpy(&count, object + row->count_at, sizeof count);
            }
            for (uint64_t k = 0; k < count; k++) {
                zl_auto_buf item = ZL_BUF_INIT;
                encode(&item, row->of, items + k * row->of->size);
                zl_record_add_str(out, type, zl_buf_view(&item));
            }
            break;
        }
        }
    }
}

void zl_job_encode(struct zl_buf *out, const struct zl_job *job)
{
    size_t start = zl_frame_begin(out, ZL_JOB_MAGIC, ZL_JOB_VERSION, 1);
    encode(out, &job_table, (const char *)job);
    zl_frame_end(out, start);
}

static int count(struct zl_str body, const struct table *t, unsigned totals[ROWS_MAX])
{
    struct zl_record r;
    int more;
    while ((more = zl_record_next(&body, &r)) > 0) {
        if (r.type == 0 || r.type > t->n)
            return -EPROTO;
        enum kind kind = t->rows[r.type - 1].kind;
        if (totals[r.type - 1]++ > 0 && kind != TEXTS && kind != LIST)
            return -EPROTO;
    }
    return more;
}

/* Arrays of the right size, empty strings: what a record then fills. */
static void prepare(struct zl_arena *arena, const struct table *t, const unsigned *totals, char *object)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct row *row = &t->rows[i];
        const void *value = "";
        uint64_t n = totals[i];
        if (row->kind == TEXTS)
            value = zl_arena_alloc(arena, (n + 1) * sizeof(char *));
        else if (row->kind == LIST)
            value = zl_arena_alloc(arena, (n + 1) * row->of->size);
        if (row->kind == TEXT || row->kind == TEXTS || row->kind == LIST)
            memcpy(object + row->at, &value, sizeof value);
        if (row->kind == LIST || (row->kind == TEXTS && row->count_at))
            memcpy(object + row->count_at, &n, sizeof n);
    }
}

static int decode(struct zl_arena *arena, const struct table *t, struct zl_str body, char *object);

static int take(struct zl_arena *arena, const struct row *row, const struct zl_record *r, unsigned k, char *object)
{
    char *at = object + row->at, *items;
    uint64_t number;
    const char *text;
    switch (row->kind) {
    case TEXT:
    case TEXTS:
        if (r->bytes.n && memchr(r->bytes.p, 0, r->bytes.n))
            return -EPROTO;
        text = zl_arena_strndup(arena, r->bytes.n ? r->bytes.p : "", r->bytes.n);
        if (row->kind == TEXTS) {
            memcpy(&items, at, sizeof items);
            at = items + k * sizeof text;
        }
        memcpy(at, &text, sizeof text);
        return 0;
    case NUMBER:
        if (zl_record_u64(r, &number) < 0)
            return -EPROTO;
        memcpy(at, &number, sizeof number);
        return 0;
    case BYTES:
        memcpy(at, &r->bytes, sizeof r->bytes);
        return r->bytes.n % FILTER_UNIT ? -EPROTO : 0;
    case STRUCT:
        return decode(arena, row->of, r->bytes, at);
    case LIST:
        memcpy(&items, at, sizeof items);
        return decode(arena, row->of, r->bytes, items + k * row->of->size);
    }
    return -EPROTO;
}

static int decode(struct zl_arena *arena, const struct table *t, struct zl_str body, char *object)
{
    unsigned totals[ROWS_MAX] = { 0 }, seen[ROWS_MAX] = { 0 };
    struct zl_record r;
    int e = count(body, t, totals);
    if (e < 0)
        return e;
    prepare(arena, t, totals, object);
    while (e >= 0 && zl_record_next(&body, &r) > 0)
        e = take(arena, &t->rows[r.type - 1], &r, seen[r.type - 1]++, object);
    return e;
}

int zl_job_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_job *ret)
{
    struct zl_frame f;
    ssize_t size = zl_frame_parse(bytes, ZL_JOB_MAGIC, ZL_JOB_MAX, &f);
    if (size < 0)
        return (int)size;
    if ((size_t)size != bytes.n || f.type != 1 || f.version != ZL_JOB_VERSION)
        return -EPROTO;
    *ret = (struct zl_job){ 0 };
    return decode(arena, &job_table, f.body, (char *)ret);
}
