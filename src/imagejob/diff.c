/* diff: how the files of two images differ, one event a path. */
#include "base/fd.h"
#include "imagejob/job.h"
#include "imagejob/tree.h"

#include <fcntl.h>
#include <stdio.h>

struct diff {
    struct zl_image_job *job;
    unsigned long long added, removed, changed;
};

static int differ(void *arg, const char *path, unsigned what)
{
    static const struct {
        unsigned bit;
        const char *name;
    } bits[] = { { ZL_TREE_KIND, "kind" },   { ZL_TREE_CONTENT, "content" }, { ZL_TREE_MODE, "mode" },
                 { ZL_TREE_OWNER, "owner" }, { ZL_TREE_TIME, "time" },       { ZL_TREE_XATTR, "attributes" } };
    struct diff *d = arg;
    zl_auto_buf line = ZL_BUF_INIT, full = ZL_BUF_INIT;
    const char *change = what & ZL_TREE_ADDED ? "added" : what & ZL_TREE_REMOVED ? "removed" : "changed";
    d->added += what & ZL_TREE_ADDED ? 1 : 0;
    d->removed += what & ZL_TREE_REMOVED ? 1 : 0;
    d->changed += what & (ZL_TREE_ADDED | ZL_TREE_REMOVED) ? 0 : 1;
    zl_buf_printf(&full, "/%s", path);
    zl_buf_printf(&line, "{\"event\":\"difference\",\"change\":\"%s\",\"path\":", change);
    zl_json_string(&line, zl_buf_view(&full));
    zl_buf_puts(&line, ",\"what\":[");
    bool first = true;
    for (size_t i = 0; i < ZL_ARRAY_LEN(bits); i++) {
        if (!(what & bits[i].bit))
            continue;
        zl_buf_printf(&line, "%s\"%s\"", first ? "" : ",", bits[i].name);
        first = false;
    }
    zl_buf_puts(&line, "]}");
    zl_image_job_event(d->job, &line);
    return 0;
}

static int open_layers(struct zl_image_job *job, const struct zl_image_record *r, int **dirs, struct zl_err *err)
{
    *dirs = zl_arena_alloc(&job->arena, (r->chain_ids.n + 1) * sizeof **dirs);
    for (unsigned i = 0; i < r->chain_ids.n; i++)
        (*dirs)[i] = -EBADF;
    for (unsigned i = 0; i < r->chain_ids.n; i++) {
        char path[ZL_LAYER_PATH_SIZE];
        (*dirs)[i] = zl_openat(AT_FDCWD, zl_store_layer_path(&job->store, r->chain_ids.v[i], path),
                               O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
        if ((*dirs)[i] < 0)
            return zl_fail(err, ZL_E_BAD_IMAGE, "the layer %.20s… of %.200s is gone from the store", r->chain_ids.v[i],
                           r->reference);
    }
    return 0;
}

int zl_diff(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_image_record *a, *b;
    int *da = NULL, *db = NULL;
    struct diff d = { .job = job };
    int r = zl_store_find(&job->store, &job->arena, job->request->reference, &a, err);
    r = r < 0 ? r : zl_store_find(&job->store, &job->arena, job->request->other, &b, err);
    if (r < 0)
        return r;
    zl_auto_close int lock = zl_store_lock(&job->store, false); /* the layers stay meanwhile */
    r = lock < 0 ? zl_fail(err, lock, "lock the image store") : open_layers(job, a, &da, err);
    r = r < 0 ? r : open_layers(job, b, &db, err);
    if (r == 0) {
        struct zl_tree_diff t = {
            .a = { da, a->chain_ids.n }, .b = { db, b->chain_ids.n }, .whole_folders = true, .differ = differ, .arg = &d
        };
        r = zl_tree_compare(&t);
        if (r < 0)
            zl_fail(err, r, "compare %.150s with %.150s", a->reference, b->reference);
    }
    for (unsigned i = 0; da && i < a->chain_ids.n; i++)
        da[i] = zl_close(da[i]);
    for (unsigned i = 0; db && i < b->chain_ids.n; i++)
        db[i] = zl_close(db[i]);
    if (r == 0)
        dprintf(job->events, "{\"event\":\"done\",\"added\":%llu,\"removed\":%llu,\"changed\":%llu}\n", d.added,
                d.removed, d.changed);
    return r;
}
