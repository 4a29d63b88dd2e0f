#include "runtime/native/job.h"

#include "base/frame.h"

#include <errno.h>

/* Numbers are the wire format: never reused. */
enum record {
    R_ID = 1,
    R_HOSTNAME,
    R_ARGV,
    R_ENV,
    R_LOWER,
    R_MASKED,
    R_READONLY,
    R_FILE_PATH,
    R_FILE_CONTENT,
    R_CWD,
    R_USER,
    R_CGROUP_PARENT,
    R_MEMORY,
    R_CPU_QUOTA,
    R_PIDS,
    R_CAPS,
    R_SECCOMP,
    R_NETNS,
    R_LINK,
    R_ADDR,
    R_LOCAL,
    R_LOG_MAX,
    R_LOG_FILES,
    R_NOFILE
};

static void add_list(struct zl_buf *out, uint16_t type, const char *const *list)
{
    for (; list && *list; list++)
        zl_record_add_str(out, type, zl_str(*list));
}

static void add(struct zl_buf *out, uint16_t type, const char *s)
{
    zl_record_add_str(out, type, zl_str(s ? s : ""));
}

void zl_job_encode(struct zl_buf *out, const struct zl_job *job)
{
    size_t start = zl_frame_begin(out, ZL_JOB_MAGIC, ZL_JOB_VERSION, 1);
    add(out, R_ID, job->id);
    add(out, R_HOSTNAME, job->hostname);
    add_list(out, R_ARGV, job->argv);
    add_list(out, R_ENV, job->env);
    add_list(out, R_LOWER, job->lowers);
    add_list(out, R_MASKED, job->masked);
    add_list(out, R_READONLY, job->readonly);
    for (unsigned i = 0; i < job->nfiles; i++) {
        add(out, R_FILE_PATH, job->files[i].path);
        add(out, R_FILE_CONTENT, job->files[i].content);
    }
    add(out, R_CWD, job->cwd);
    add(out, R_USER, job->user);
    add(out, R_CGROUP_PARENT, job->cgroup_parent);
    zl_record_add_u64(out, R_MEMORY, job->memory_bytes);
    zl_record_add_u64(out, R_CPU_QUOTA, job->cpu_quota_us);
    zl_record_add_u64(out, R_PIDS, job->pids);
    zl_record_add_u64(out, R_CAPS, job->caps);
    zl_record_add_str(out, R_SECCOMP, job->seccomp);
    add(out, R_NETNS, job->netns);
    add(out, R_LINK, job->link);
    zl_record_add_u64(out, R_ADDR, job->addr.s_addr);
    zl_record_add_u64(out, R_LOCAL, job->local.s_addr);
    zl_record_add_u64(out, R_LOG_MAX, job->log_max_bytes);
    zl_record_add_u64(out, R_LOG_FILES, job->log_files);
    zl_record_add_u64(out, R_NOFILE, job->nofile);
    zl_frame_end(out, start);
}

struct decoder {
    struct zl_arena *arena;
    unsigned counts[R_NOFILE + 1];
    struct zl_job *job;
};

static int number(const struct zl_record *r, uint64_t *ret)
{
    return zl_record_u64(r, ret);
}

static int address(const struct zl_record *r, struct in_addr *ret)
{
    uint64_t v;
    if (zl_record_u64(r, &v) < 0 || v > UINT32_MAX)
        return -EPROTO;
    ret->s_addr = (in_addr_t)v;
    return 0;
}

static int text(struct decoder *d, const struct zl_record *r, const char **ret)
{
    if (r->bytes.n && memchr(r->bytes.p, 0, r->bytes.n))
        return -EPROTO;
    *ret = zl_arena_strndup(d->arena, r->bytes.n ? r->bytes.p : "", r->bytes.n);
    return 0;
}

static int take(struct decoder *d, const struct zl_record *r, const unsigned *totals)
{
    struct zl_job *j = d->job;
    unsigned n = d->counts[r->type]++;
    const char ***lists[] = { [R_ARGV] = &j->argv,
                              [R_ENV] = &j->env,
                              [R_LOWER] = &j->lowers,
                              [R_MASKED] = &j->masked,
                              [R_READONLY] = &j->readonly };
    if (r->type < ZL_ARRAY_LEN(lists) && lists[r->type]) {
        const char ***list = lists[r->type];
        if (!*list)
            *list = zl_arena_alloc(d->arena, (totals[r->type] + 1) * sizeof **list);
        return text(d, r, &(*list)[n]);
    }
    if (r->type == R_FILE_PATH || r->type == R_FILE_CONTENT) {
        if (!j->files)
            j->files = zl_arena_alloc(d->arena, (totals[R_FILE_PATH] + totals[R_FILE_CONTENT]) * sizeof *j->files);
        return text(d, r, r->type == R_FILE_PATH ? &j->files[n].path : &j->files[n].content);
    }
    if (n > 0)
        return -EPROTO;
    switch ((enum record)r->type) {
    case R_ID:
        return text(d, r, &j->id);
    case R_HOSTNAME:
        return text(d, r, &j->hostname);
    case R_CWD:
        return text(d, r, &j->cwd);
    case R_USER:
        return text(d, r, &j->user);
    case R_CGROUP_PARENT:
        return text(d, r, &j->cgroup_parent);
    case R_NETNS:
        return text(d, r, &j->netns);
    case R_LINK:
        return text(d, r, &j->link);
    case R_MEMORY:
        return number(r, &j->memory_bytes);
    case R_CPU_QUOTA:
        return number(r, &j->cpu_quota_us);
    case R_PIDS:
        return number(r, &j->pids);
    case R_CAPS:
        return number(r, &j->caps);
    case R_LOG_MAX:
        return number(r, &j->log_max_bytes);
    case R_LOG_FILES:
        return number(r, &j->log_files);
    case R_NOFILE:
        return number(r, &j->nofile);
    case R_ADDR:
        return address(r, &j->addr);
    case R_LOCAL:
        return address(r, &j->local);
    case R_SECCOMP:
        j->seccomp = r->bytes;
        return r->bytes.n % 8 ? -EPROTO : 0;
    case R_ARGV:
    case R_ENV:
    case R_LOWER:
    case R_MASKED:
    case R_READONLY:
    case R_FILE_PATH:
    case R_FILE_CONTENT:
        break;
    }
    return -EPROTO;
}

int zl_job_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_job *ret)
{
    struct zl_frame f;
    ssize_t size = zl_frame_parse(bytes, ZL_JOB_MAGIC, ZL_JOB_MAX, &f);
    if (size < 0)
        return (int)size;
    if ((size_t)size != bytes.n || f.type != 1 || f.version != ZL_JOB_VERSION)
        return -EPROTO;
    unsigned totals[R_NOFILE + 1] = { 0 };
    struct zl_record r;
    struct zl_str body = f.body;
    int more;
    while ((more = zl_record_next(&body, &r)) > 0) {
        if (r.type == 0 || r.type > R_NOFILE)
            return -EPROTO;
        totals[r.type]++;
    }
    if (more < 0 || totals[R_FILE_PATH] != totals[R_FILE_CONTENT])
        return -EPROTO;
    static const char *no_strings[1];
    struct zl_job job = {
        .id = "", .hostname = "", .cwd = "", .user = "", .cgroup_parent = "", .netns = "", .link = ""
    };
    struct decoder d = { .arena = arena, .job = &job };
    while (zl_record_next(&f.body, &r) > 0) {
        int e = take(&d, &r, totals);
        if (e < 0)
            return e;
    }
    const char ***lists[] = { &job.argv, &job.env, &job.lowers, &job.masked, &job.readonly };
    for (size_t i = 0; i < ZL_ARRAY_LEN(lists); i++)
        if (!*lists[i])
            *lists[i] = no_strings;
    job.nlowers = totals[R_LOWER];
    job.nfiles = totals[R_FILE_PATH];
    *ret = job;
    return 0;
}
