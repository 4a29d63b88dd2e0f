#include "cluster/engine.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    SEGMENT_SIZE = 256 << 10,
    /* Alone there is nobody to beat for: the tick is only raft's own housekeeping. */
    HEARTBEAT_MS = 10000,
    ELECTION_MS = 30000,
    SNAPSHOT_EVERY = 256,
    SNAPSHOT_TRAILING = 64,
};

struct zl_engine {
    struct zl_loop *loop;
    struct raft raft;
    struct raft_io io;
    struct raft_uv_transport transport;
    struct raft_fsm fsm;
    struct zl_engine_options o;
    struct zl_state *state;
    struct zl_state_result result;
    struct zl_err fault; /* what apply or restore met; the rest of the log is not looked at then */
    bool history_breaks, started, closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct submission {
    struct raft_apply req;
    struct zl_engine *engine;
    zl_engine_done *done;
    void *arg;
};

/* A transport for a node that is alone: it listens on nothing and reaches nobody. */
static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t, (void)id, (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t, (void)cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id, const char *address,
                             raft_uv_connect_cb cb)
{
    (void)t, (void)req, (void)id, (void)address, (void)cb;
    return RAFT_NOCONNECTION;
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

static void check_history(struct zl_engine *e)
{
    if (e->state->applied == e->o.mark.applied && e->state->chain != e->o.mark.chain)
        e->history_breaks = true;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct zl_engine *e = fsm->data;
    *result = &e->result;
    if (e->fault.code || e->closing)
        return 0;
    struct zl_arena arena;
    struct zl_command command;
    struct zl_str bytes = zl_str_n(buf->base, buf->len);
    /* Padded with zeros when it was submitted; JSON ends in none. */
    while (bytes.n && bytes.p[bytes.n - 1] == 0)
        bytes.n--;
    zl_arena_init(&arena);
    if (zl_command_decode(&arena, bytes, &command, &e->fault) == 0) {
        zl_state_apply(e->state, &command, bytes, &e->result);
        if (!e->started)
            check_history(e);
        else
            e->o.applied(e->o.arg, bytes);
    }
    zl_arena_done(&arena);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct zl_engine *e = fsm->data;
    zl_auto_buf out = ZL_BUF_INIT;
    zl_state_encode(&out, e->state);
    struct raft_buffer *b = raft_malloc(sizeof *b);
    void *bytes = raft_malloc(out.n);
    if (!b || !bytes) {
        raft_free(b);
        raft_free(bytes);
        return RAFT_NOMEM;
    }
    memcpy(bytes, out.p, out.n);
    *b = (struct raft_buffer){ bytes, out.n };
    *bufs = b;
    *n_bufs = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct zl_engine *e = fsm->data;
    struct zl_state *state;
    if (zl_state_decode(zl_str_n(buf->base, buf->len), &state, &e->fault) < 0)
        return RAFT_CORRUPT;
    zl_state_free(e->state);
    e->state = state;
    check_history(e);
    raft_free(buf->base);
    return 0;
}

static bool disk_is_full(const struct zl_engine *e)
{
    struct statvfs v;
    return fstatvfs(e->o.dirfd, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < 2 * SEGMENT_SIZE;
}

static int raft_failed(struct zl_engine *e, int rv, const char *what, struct zl_err *err)
{
    const char *said = raft_errmsg(&e->raft);
    if (!said || !*said)
        said = raft_strerror(rv);
    if (rv == RAFT_NOSPACE || disk_is_full(e))
        return zl_fail(err, ZL_E_DISK_FULL, "%s: no space is left on the disk of %s", what, e->o.dir);
    if (rv == RAFT_CORRUPT || rv == RAFT_MALFORMED)
        return zl_fail(err, ZL_E_STORE_DAMAGED, "%s: the files of %s are damaged: %s", what, e->o.dir, said);
    if (rv == RAFT_TOOBIG)
        return zl_fail(err, ZL_E_LIMIT, "%s: it is too large", what);
    if (rv == RAFT_SHUTDOWN || rv == RAFT_LEADERSHIPLOST || rv == RAFT_CANCELED || rv == RAFT_NOTLEADER)
        return zl_fail(err, ZL_E_CANCELLED, "%s: the store is closing", what);
    return zl_fail(err, ZL_E_INTERNAL, "%s: the log of %s can't be used: %s", what, e->o.dir, said);
}

static void engine_free(struct zl_engine *e)
{
    zl_state_free(e->state);
    free(e);
}

static int bootstrap(struct zl_engine *e)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    int rv = raft_configuration_add(&conf, e->o.node, "local", RAFT_VOTER);
    if (rv == 0)
        rv = raft_bootstrap(&e->raft, &conf);
    raft_configuration_close(&conf);
    return rv;
}

static void closed(struct raft *raft)
{
    struct zl_engine *e = raft->data;
    void (*fn)(void *) = e->closed;
    void *arg = e->closed_arg;
    raft_uv_close(&e->io);
    engine_free(e);
    if (fn)
        fn(arg);
}

static void close_later(void *arg)
{
    struct zl_engine *e = arg;
    raft_close(&e->raft, closed);
}

void zl_engine_close(struct zl_engine *e, void (*fn)(void *arg), void *arg)
{
    e->closing = true;
    e->closed = fn;
    e->closed_arg = arg;
    /* raft must not be closed from one of its own callbacks. */
    zl_loop_defer(e->loop, close_later, e);
}

/* What libraft can't load is damaged, whatever its code says: it calls a short file an I/O error. */
static int load_failed(struct zl_engine *e, int rv, struct zl_err *err)
{
    return raft_failed(e, rv == RAFT_NOMEM || rv == RAFT_NOSPACE ? rv : RAFT_CORRUPT, "loading the store", err);
}

static int start_raft(struct zl_engine *e, struct zl_err *err)
{
    if (e->o.fresh) {
        int rv = bootstrap(e);
        if (rv)
            return raft_failed(e, rv, "making the store", err);
    }
    int rv = raft_start(&e->raft);
    if (e->fault.code) {
        int code = e->fault.code == ZL_E_STORE_NEWER ? ZL_E_STORE_NEWER : ZL_E_STORE_DAMAGED;
        return zl_fail(err, code, "loading the store of %s: %s", e->o.dir, e->fault.text);
    }
    if (rv)
        return load_failed(e, rv, err);
    if (raft_state(&e->raft) != RAFT_LEADER || raft_last_applied(&e->raft) < raft_last_index(&e->raft))
        return zl_fail(err, ZL_E_STORE_DAMAGED, "the log of %s does not name this node as its only member", e->o.dir);
    return 0;
}

int zl_engine_start(struct zl_loop *loop, const struct zl_engine_options *options, struct zl_engine **ret,
                    struct zl_err *err)
{
    struct zl_engine *e = zl_xcalloc(1, sizeof *e);
    *ret = NULL;
    e->loop = loop;
    e->o = *options;
    e->state = zl_state_new();
    e->transport = (struct raft_uv_transport){
        .init = transport_init, .listen = transport_listen, .connect = transport_connect, .close = transport_close
    };
    e->fsm = (struct raft_fsm){
        .version = 1, .data = e, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore
    };
    if (e->o.fresh) {
        /* A first start that was killed may have left metadata without a log, and libraft would take it for one. */
        (void)unlinkat(e->o.dirfd, "metadata1", 0);
        (void)unlinkat(e->o.dirfd, "metadata2", 0);
    }
    int rv = raft_uv_init(&e->io, zl_loop_uv(loop), e->o.dir, &e->transport);
    if (rv) {
        engine_free(e);
        return zl_fail(err, ZL_E_INTERNAL, "the store's folder %s can't be used: %s", options->dir, raft_strerror(rv));
    }
    raft_uv_set_segment_size(&e->io, SEGMENT_SIZE);
    /* Snapshots stay readable without libraft, and its own recovery, which drops what it can't read, stays off. */
    (void)raft_uv_set_snapshot_compression(&e->io, false);
    raft_uv_set_auto_recovery(&e->io, false);
    rv = raft_init(&e->raft, &e->io, &e->fsm, e->o.node, "local");
    if (rv) {
        int r = load_failed(e, rv, err);
        raft_uv_close(&e->io);
        engine_free(e);
        return r;
    }
    e->raft.data = e;
    raft_set_election_timeout(&e->raft, ELECTION_MS);
    raft_set_heartbeat_timeout(&e->raft, HEARTBEAT_MS);
    raft_set_snapshot_threshold(&e->raft, SNAPSHOT_EVERY);
    raft_set_snapshot_trailing(&e->raft, SNAPSHOT_TRAILING);
    *ret = e;
    int r = start_raft(e, err);
    e->started = r == 0;
    return r;
}

const struct zl_state *zl_engine_state(const struct zl_engine *e)
{
    return e->state;
}

struct zl_state *zl_engine_take_state(struct zl_engine *e)
{
    struct zl_state *s = e->state;
    e->state = zl_state_new();
    return s;
}

uint64_t zl_engine_term(const struct zl_engine *e)
{
    return e->raft.current_term;
}

bool zl_engine_history_holds(const struct zl_engine *e)
{
    return !e->history_breaks;
}

static void submitted(struct raft_apply *req, int status, void *result)
{
    struct submission *s = req->data;
    struct zl_err err = { 0 };
    if (status)
        (void)raft_failed(s->engine, status, "writing the store", &err);
    s->done(s->arg, status ? NULL : result, status ? &err : NULL);
    free(s);
}

int zl_engine_submit(struct zl_engine *e, struct zl_str bytes, zl_engine_done *done, void *arg, struct zl_err *err)
{
    if (disk_is_full(e))
        return raft_failed(e, RAFT_NOSPACE, "writing the store", err);
    /* Whole words: what raft lays out on the disk is aligned to 8 bytes. */
    size_t padded = (bytes.n + 7) & ~(size_t)7;
    char *copy = raft_malloc(padded);
    if (!copy)
        return zl_fail(err, -ENOMEM, "writing the store");
    memcpy(copy, bytes.p, bytes.n);
    memset(copy + bytes.n, 0, padded - bytes.n);
    struct submission *s = zl_xcalloc(1, sizeof *s);
    *s = (struct submission){ .req = { .data = s }, .engine = e, .done = done, .arg = arg };
    struct raft_buffer buf = { copy, padded };
    int rv = raft_apply(&e->raft, &s->req, &buf, 1, submitted);
    if (rv) {
        raft_free(copy);
        free(s);
        return raft_failed(e, rv, "writing the store", err);
    }
    return 0;
}
