/* remove, tag, history, prune, df: what the store answers by itself, as events. */
#include "base/clock.h"
#include "base/fd.h"
#include "imagejob/confine.h"
#include "imagejob/digest.h"
#include "imagejob/job.h"
#include "imagejob/partial.h"
#include "oci/manifest.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static void event_of(struct zl_image_job *job, const char *kind, struct zl_value *v)
{
    zl_auto_buf line = ZL_BUF_INIT, members = ZL_BUF_INIT;
    zl_json_print(&members, v, 0);
    zl_buf_printf(&line, "{\"event\":\"%s\",%s", kind, members.p + 1); /* never empty; the kind comes first */
    zl_image_job_event(job, &line);
}

static void set_text(struct zl_arena *a, struct zl_value *v, const char *key, const char *text)
{
    zl_value_set(a, v, key, zl_value_string(a, zl_str(text)));
}

static void set_number(struct zl_arena *a, struct zl_value *v, const char *key, uint64_t n)
{
    zl_value_set(a, v, key, zl_value_int(a, (int64_t)ZL_MIN(n, (uint64_t)INT64_MAX)));
}

int zl_remove(struct zl_image_job *job, struct zl_err *err)
{
    uint64_t freed = 0;
    int r = zl_store_remove(&job->store, job->request->reference, job->request->force, &freed, err);
    if (r == 0)
        dprintf(job->events, "{\"event\":\"done\",\"freed_bytes\":%llu}\n", (unsigned long long)freed);
    return r;
}

int zl_tag(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_image_record *record;
    int r = zl_store_tag(&job->store, job->request->reference, job->request->target, err);
    r = r < 0 ? r : zl_store_find(&job->store, &job->arena, job->request->target, &record, err);
    if (r == 0)
        zl_image_job_done(job, record, NULL);
    return r;
}

/* ---- history ---- */

static int read_config(struct zl_image_job *job, const struct zl_image_record *r, struct zl_value **ret,
                       struct zl_err *err)
{
    static const struct zl_parse_limits limits = { .bytes = ZL_OCI_DOCUMENT_MAX,
                                                   .depth = 32,
                                                   .nodes = ZL_OCI_NODES_MAX };
    char path[100], is[ZL_DIGEST_SIZE];
    struct zl_parse_error pe;
    zl_auto_buf text = ZL_BUF_INIT;
    snprintf(path, sizeof path, "blobs/sha256/%.64s", r->config + 7);
    int e = zl_read_file(job->store.dir, path, ZL_OCI_DOCUMENT_MAX, &text);
    if (e < 0)
        return zl_fail(err, e == -ENOENT ? ZL_E_BAD_IMAGE : e, "read the config of %.200s", r->reference);
    if (!zl_streq(zl_digest_of(text.p ? text.p : "", text.n, is), r->config))
        return zl_fail(err, ZL_E_DIGEST, "the config of %.200s is damaged", r->reference);
    if (zl_json_parse(&job->arena, zl_buf_view(&text), &limits, ret, &pe) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the config of %.200s is no JSON: %s", r->reference, pe.text);
    return 0;
}

static uint64_t blob_size(struct zl_image_job *job, const char *digest)
{
    char path[100];
    struct stat st;
    snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
    return fstatat(job->store.dir, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : (uint64_t)st.st_size;
}

/* One step of the image's making, the first one first; those that made a layer have its digest and size. */
int zl_history(struct zl_image_job *job, struct zl_err *err)
{
    static const char *const keys[] = { "created", "created_by", "author", "comment" };
    struct zl_arena *a = &job->arena;
    struct zl_image_record *record;
    struct zl_value *config;
    int r = zl_store_find(&job->store, a, job->request->reference, &record, err);
    r = r < 0 ? r : zl_confine(&job->store, NULL, err);
    r = r < 0 ? r : read_config(job, record, &config, err);
    if (r < 0)
        return r;
    const struct zl_value *list = zl_value_get(config, "history");
    unsigned layer = 0;
    for (const struct zl_value *i = list && list->kind == ZL_LIST ? list->first : NULL; i; i = i->next) {
        struct zl_value *v = zl_value_new(a, ZL_MAP);
        bool empty = zl_value_true(i, "empty_layer");
        for (size_t k = 0; k < ZL_ARRAY_LEN(keys); k++)
            if (zl_value_str(i, keys[k]).p)
                set_text(a, v, keys[k], zl_value_cstr(i, keys[k]));
        zl_value_set(a, v, "empty_layer", zl_value_bool(a, empty));
        if (!empty && layer < record->layers.n) {
            set_text(a, v, "layer", record->layers.v[layer]);
            set_number(a, v, "size_bytes", blob_size(job, record->layers.v[layer]));
            layer++;
        }
        event_of(job, "step", v);
    }
    for (; layer < record->layers.n; layer++) { /* a history is optional */
        struct zl_value *v = zl_value_new(a, ZL_MAP);
        set_text(a, v, "layer", record->layers.v[layer]);
        set_number(a, v, "size_bytes", blob_size(job, record->layers.v[layer]));
        event_of(job, "step", v);
    }
    zl_image_job_done(job, record, NULL);
    return 0;
}

/* ---- prune ---- */

static void gone(void *arg, const char *kind, const char *name, uint64_t bytes)
{
    struct zl_image_job *job = arg;
    struct zl_arena arena; /* there may be many */
    zl_arena_init(&arena);
    struct zl_value *v = zl_value_new(&arena, ZL_MAP);
    zl_auto_buf line = ZL_BUF_INIT;
    set_text(&arena, v, "event", "gone");
    set_text(&arena, v, "kind", kind);
    set_text(&arena, v, "name", name);
    set_number(&arena, v, "bytes", bytes);
    zl_json_print(&line, v, 0);
    zl_image_job_event(job, &line);
    zl_arena_done(&arena);
}

int zl_prune(struct zl_image_job *job, struct zl_err *err)
{
    const struct zl_image_request *q = job->request;
    struct zl_prune p = { .all = q->all, .dry_run = q->dry_run, .gone = gone, .arg = job };
    p.labels.v = zl_arena_alloc(&job->arena, (q->filters.n + 1) * sizeof *p.labels.v);
    for (unsigned i = 0; i < q->filters.n; i++) {
        int64_t before;
        const char *label;
        if (zl_prune_filter(q->filters.v[i], zl_clock_wall_ms(), &before, &label) < 0)
            return zl_fail(err, ZL_E_INVALID, "'%.60s' is no filter", q->filters.v[i]);
        if (label)
            p.labels.v[p.labels.n++] = label;
        else if (!p.before_ms || before < p.before_ms) /* all of them must hold */
            p.before_ms = before;
    }
    if (!q->dry_run)
        zl_partial_drop(job->all_staging, true);
    int r = zl_store_prune(&job->store, &p, err);
    if (r == 0)
        dprintf(job->events, "{\"event\":\"done\",\"freed_bytes\":%llu}\n", (unsigned long long)p.freed);
    return r;
}

/* ---- df ---- */

static void one_image(void *arg, const struct zl_image_usage *u)
{
    struct zl_image_job *job = arg;
    struct zl_arena *a = &job->arena;
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    set_text(a, v, "reference", u->record->reference);
    set_text(a, v, "digest", u->record->digest);
    set_number(a, v, "bytes", u->bytes);
    set_number(a, v, "unique_bytes", u->unique_bytes);
    set_number(a, v, "shared_bytes", u->bytes - u->unique_bytes);
    zl_value_set(a, v, "in_use", zl_value_bool(a, u->in_use));
    event_of(job, "image", v);
}

int zl_df(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_store_use u;
    struct zl_arena *a = &job->arena;
    int r = zl_store_usage(&job->store, a, &u, one_image, job, err);
    if (r < 0)
        return r;
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    set_number(a, v, "blobs", u.blobs);
    set_number(a, v, "blob_bytes", u.blob_bytes);
    set_number(a, v, "layers", u.layers);
    set_number(a, v, "layer_bytes", u.layer_bytes);
    set_number(a, v, "total_bytes", u.blob_bytes + u.layer_bytes);
    set_number(a, v, "reclaimable_bytes", u.reclaimable_bytes);
    set_number(a, v, "staging_bytes", u.staging_bytes);
    event_of(job, "done", v);
    return 0;
}
