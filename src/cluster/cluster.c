#include "cluster/cluster.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/log.h"
#include "base/phase.h"
#include "cluster/engine.h"
#include "cluster/files.h"
#include "cluster/kept.h"
#include "cluster/mark.h"
#include "cluster/segment.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum phase { OPENING, READY, FAILED, DAMAGED, REFUSED, CLOSING };

struct proposal {
    struct proposal *next;
    struct zl_cluster *cluster;
    struct zl_buf bytes;
    zl_cluster_done *done;
    void *arg;
    struct zl_err err;
};

struct zl_cluster {
    struct zl_loop *loop;
    struct zl_cluster_options o;
    char *dir;
    int dirfd, markfd;
    uint64_t node;
    enum phase phase;
    bool announced, opening, engine_closing, writing, saved;
    struct zl_engine *engine; /* READY only */
    struct zl_state *state;   /* what was loaded last, without an engine */
    struct zl_mark mark;
    char kept[ZL_KEPT_NAME_SIZE];
    struct zl_err damage, failure;        /* why DAMAGED or REFUSED; why FAILED */
    struct proposal *queue, **queue_tail; /* wait for the engine, or for their turn */
    void (*closed)(void *arg);
    void *closed_arg;
};

static void open_engine(void *arg);

static void complete(void *arg)
{
    struct proposal *p = arg;
    p->done(p->arg, NULL, &p->err);
    zl_buf_done(&p->bytes);
    free(p);
}

/* Never from within the call that proposed. */
static void fail(struct proposal *p, const struct zl_err *err)
{
    p->err = *err;
    zl_loop_defer(p->cluster->loop, complete, p);
}

static void fail_queue(struct zl_cluster *c, const struct zl_err *err)
{
    while (c->queue) {
        struct proposal *p = c->queue;
        c->queue = p->next;
        fail(p, err);
    }
    c->queue_tail = &c->queue;
}

static void write_mark(struct zl_cluster *c, const struct zl_state *s)
{
    c->mark = (struct zl_mark){ s->applied, zl_engine_term(c->engine), s->chain };
    char text[ZL_MARK_SIZE + 1];
    zl_mark_encode(text, &c->mark);
    /* A mark that lags proves less and harms nothing, so its failure is nobody's. */
    (void)!pwrite(c->markfd, text, ZL_MARK_SIZE, 0);
}

static void applied(void *arg, struct zl_str bytes)
{
    struct zl_cluster *c = arg;
    (void)bytes;
    zl_phase("cluster.applied");
    write_mark(c, zl_engine_state(c->engine));
    if (c->o.changed)
        c->o.changed(c->o.arg);
}

static void announce(struct zl_cluster *c, const struct zl_err *err)
{
    if (c->announced || c->phase == CLOSING)
        return;
    c->announced = true;
    c->o.ready(c->o.arg, err && err->code ? err : NULL);
}

static void free_cluster(void *arg)
{
    struct zl_cluster *c = arg;
    void (*closed)(void *) = c->closed;
    void *a = c->closed_arg;
    zl_state_free(c->state);
    zl_close(c->dirfd);
    zl_close(c->markfd);
    free(c->dir);
    free(c);
    if (closed)
        closed(a);
}

static void engine_closed(void *arg)
{
    struct zl_cluster *c = arg;
    c->engine_closing = false;
    if (c->phase == CLOSING)
        zl_loop_defer(c->loop, free_cluster, c);
    else if (c->phase == FAILED && c->queue)
        open_engine(c);
}

static void drop_engine(struct zl_cluster *c, struct zl_engine *engine)
{
    if (!engine)
        return;
    if (engine == c->engine)
        c->engine = NULL;
    c->engine_closing = true;
    zl_engine_close(engine, engine_closed, c);
}

/* The engine can't go on. What it had applied stays readable; the next proposal opens the log anew. */
static void engine_failed(struct zl_cluster *c, const struct zl_err *err)
{
    if (c->phase != READY)
        return;
    c->phase = FAILED;
    c->failure = *err;
    c->state = zl_engine_take_state(c->engine);
    zl_log_error("desired state can't be written, trying again at the next change reason=\"%s\"", err->text);
    drop_engine(c, c->engine);
}

static void damaged(struct zl_cluster *c, const struct zl_err *err)
{
    c->phase = DAMAGED;
    c->damage = *err;
    zl_kept_damaged(c->dirfd, c->kept);
    if (c->kept[0])
        (void)zl_fail(&c->damage, ZL_E_STORE_DAMAGED, "%s; the log as it was found is in %s/%s", err->text, c->dir,
                      c->kept);
    (void)snprintf(c->damage.hint, sizeof c->damage.hint, "%s", err->hint);
    (void)zl_hint(&c->damage, 0,
                  "containers go on; stop the agent and put %s back from a backup, or begin anew without it", c->dir);
    zl_log_error("desired state is damaged, nothing is started or stopped reason=\"%s\"", c->damage.text);
    if (!c->state && zl_snapshot_rescue(c->dirfd, &c->state) < 0)
        c->state = zl_state_new();
    fail_queue(c, &c->damage);
    announce(c, &c->damage);
}

static int check_against_mark(struct zl_cluster *c, const struct zl_engine *engine, struct zl_err *err)
{
    const struct zl_state *s = zl_engine_state(engine);
    if (s->applied >= c->mark.applied && zl_engine_history_holds(engine))
        return 0;
    if (s->applied < c->mark.applied)
        (void)zl_fail(err, ZL_E_STORE_DAMAGED, "the log in %s ends after %llu commands, %llu had been stored", c->dir,
                      (unsigned long long)s->applied, (unsigned long long)c->mark.applied);
    else
        (void)zl_fail(err, ZL_E_STORE_DAMAGED, "the log in %s is not the one that its mark was made of (command %llu)",
                      c->dir, (unsigned long long)c->mark.applied);
    return zl_hint(err, ZL_E_STORE_DAMAGED,
                   "containers go on; stop the agent and put %s back from a backup, or accept what is left: "
                   "remove its file mark",
                   c->dir);
}

static void pump(struct zl_cluster *c);

static void proposed(void *arg, const struct zl_state_result *result, const struct zl_err *err)
{
    struct proposal *p = arg;
    struct zl_cluster *c = p->cluster;
    c->writing = false;
    if (err)
        engine_failed(c, err);
    else if (result->code)
        (void)zl_fail(&p->err, result->code, "%s", result->text);
    if (err) {
        fail(p, err);
    } else {
        p->done(p->arg, result, result->code ? &p->err : NULL);
        zl_buf_done(&p->bytes);
        free(p);
    }
    if (c->phase == CLOSING && c->engine) {
        c->state = zl_engine_take_state(c->engine);
        drop_engine(c, c->engine);
    } else {
        pump(c);
    }
}

/*
 * One at a time: libraft 0.15 truncates its log once for each append that fails, and a second one under way when the
 * disk fails would make it truncate twice and crash.
 */
static void pump(struct zl_cluster *c)
{
    while (c->queue && c->phase == READY && !c->writing) {
        struct proposal *p = c->queue;
        if (!(c->queue = p->next))
            c->queue_tail = &c->queue;
        struct zl_err err = { 0 };
        int r = zl_engine_submit(c->engine, zl_buf_view(&p->bytes), proposed, p, &err);
        c->writing = r == 0;
        /* Too large or no space: the engine itself is sound. */
        if (r != 0 && r != ZL_E_DISK_FULL && r != ZL_E_LIMIT)
            engine_failed(c, &err);
        if (r != 0)
            fail(p, &err);
    }
}

static int load(struct zl_cluster *c, struct zl_engine **engine, struct zl_err *err)
{
    struct zl_engine_options o = {
        .dir = c->dir, .dirfd = c->dirfd, .node = c->node, .mark = c->mark, .applied = applied, .arg = c
    };
    int r = zl_log_present(c->dirfd);
    if (r < 0)
        return zl_fail(err, r, "%s can't be read", c->dir);
    o.fresh = r == 0;
    if (o.fresh && c->mark.applied)
        return zl_fail(err, ZL_E_STORE_DAMAGED, "the log in %s is gone, %llu commands had been stored", c->dir,
                       (unsigned long long)c->mark.applied);
    char bad[64] = "";
    r = zl_segments_prepare(c->dirfd, c->saved, bad, sizeof bad);
    if (r == -ENOSPC)
        return zl_fail(err, ZL_E_DISK_FULL, "no space is left to save the segment %s/%s before it is cut", c->dir, bad);
    if (r < 0)
        return zl_fail_errno(err, ZL_E_STORE_DAMAGED, r, "the segment %s/%s does not check", c->dir, bad);
    r = zl_engine_start(c->loop, &o, engine, err);
    return r < 0 ? r : check_against_mark(c, *engine, err);
}

static void open_engine(void *arg)
{
    struct zl_cluster *c = arg;
    c->opening = false;
    if (c->phase == CLOSING) {
        if (!c->engine_closing)
            free_cluster(c);
        return;
    }
    if (c->phase != OPENING && c->phase != FAILED)
        return;
    int r = 0;
    struct zl_err err = { 0 };
    zl_reserve_release(c->dirfd);
    if (!c->announced && (r = zl_kept_save(c->dirfd, c->kept)) < 0)
        zl_log_warn("open segments could not be copied, starting without reason=\"%s\"", zl_error_text(r));
    c->saved = c->announced || r == 0;
    struct zl_engine *engine = NULL;
    r = load(c, &engine, &err);
    if (r == 0 || (r == ZL_E_STORE_DAMAGED && engine)) {
        zl_state_free(c->state);
        c->state = r == 0 ? NULL : zl_engine_take_state(engine);
    }
    if (r == 0) {
        c->engine = engine;
        c->phase = READY;
        write_mark(c, zl_engine_state(engine));
        zl_reserve_hold(c->dirfd);
        bool again = c->announced;
        announce(c, NULL);
        if (again && c->o.changed && c->phase == READY)
            c->o.changed(c->o.arg);
        pump(c);
        return;
    }
    drop_engine(c, engine);
    if (r == ZL_E_STORE_DAMAGED) {
        damaged(c, &err);
        return;
    }
    if (!c->announced) {
        c->phase = REFUSED;
        c->damage = err;
        if (!c->state)
            c->state = zl_state_new();
    }
    fail_queue(c, &err);
    announce(c, &err);
}

static int read_mark(struct zl_cluster *c, struct zl_err *err)
{
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_read_file(c->dirfd, "mark", 4096, &text);
    if (r == 0 || r == -ENOENT)
        r = r ? 0 : zl_mark_decode(zl_buf_view(&text), &c->mark, err);
    if (r == ZL_E_PARSE) {
        c->mark = (struct zl_mark){ 0 };
        r = 0;
    }
    if (r == ZL_E_STORE_NEWER)
        return zl_hint(err, zl_wrap(err, r, "the store in %s was written by a newer release", c->dir),
                       "run that release, or another data dir");
    if (r == 0 && (c->markfd = zl_openat(c->dirfd, "mark", O_WRONLY | O_CREAT, 0600)) < 0)
        r = c->markfd;
    return r < 0 ? zl_fail(err, r, "%s/mark", c->dir) : 0;
}

int zl_cluster_open(struct zl_loop *loop, const struct zl_cluster_options *options, struct zl_cluster **ret,
                    struct zl_err *err)
{
    struct zl_cluster *c = zl_xcalloc(1, sizeof *c);
    c->loop = loop;
    c->o = *options;
    c->dir = zl_xstrdup(options->dir);
    c->o.dir = c->dir;
    c->markfd = -EBADF;
    c->queue_tail = &c->queue;
    int r = zl_mkdir_p(c->dir, 0700);
    c->dirfd = r < 0 ? r : zl_openat(AT_FDCWD, c->dir, O_RDONLY | O_DIRECTORY, 0);
    if (c->dirfd < 0)
        r = zl_fail(err, c->dirfd, "the store's folder %s", c->dir);
    else if ((r = zl_node_id_load(c->dirfd, &c->node)) < 0)
        r = zl_fail(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, "the node's id in %s/node", c->dir);
    else
        r = read_mark(c, err);
    if (r < 0) {
        zl_close(c->dirfd);
        zl_close(c->markfd);
        free(c->dir);
        free(c);
        return r;
    }
    c->opening = true;
    zl_loop_defer(loop, open_engine, c);
    *ret = c;
    return 0;
}

void zl_cluster_close(struct zl_cluster *c, void (*closed)(void *arg), void *arg)
{
    static const struct zl_err cancelled = { .code = ZL_E_CANCELLED, .text = "the store is closing" };
    zl_assert(c->phase != CLOSING);
    c->phase = CLOSING;
    c->closed = closed;
    c->closed_arg = arg;
    fail_queue(c, &cancelled);
    if (c->writing)
        return; /* what is on its way to the disk ends first */
    if (c->engine)
        c->state = zl_engine_take_state(c->engine);
    drop_engine(c, c->engine);
    if (!c->engine_closing && !c->opening)
        zl_loop_defer(c->loop, free_cluster, c);
}

const struct zl_state *zl_cluster_state(const struct zl_cluster *c)
{
    return c->engine ? zl_engine_state(c->engine) : c->state;
}

const struct zl_err *zl_cluster_damage(const struct zl_cluster *c)
{
    return &c->damage;
}

uint64_t zl_cluster_node(const struct zl_cluster *c)
{
    return c->node;
}

void zl_cluster_propose(struct zl_cluster *c, const struct zl_command *cmd, zl_cluster_done *done, void *arg)
{
    struct proposal *p = zl_xcalloc(1, sizeof *p);
    p->cluster = c;
    p->done = done;
    p->arg = arg;
    zl_command_encode(&p->bytes, cmd);
    if (p->bytes.n > ZL_COMMAND_MAX) {
        (void)zl_fail(&p->err, ZL_E_LIMIT, "a change of %zu bytes is too large for the store", p->bytes.n);
        zl_loop_defer(c->loop, complete, p);
        return;
    }
    if (c->phase == DAMAGED || c->phase == REFUSED) {
        fail(p, &c->damage);
        return;
    }
    zl_assert(c->phase != CLOSING);
    *c->queue_tail = p;
    c->queue_tail = &p->next;
    pump(c);
    if (c->phase == FAILED && !c->engine_closing && !c->opening) {
        c->opening = true;
        zl_loop_defer(c->loop, open_engine, c);
    }
}
