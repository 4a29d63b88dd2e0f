/*
 * One run of libraft over the store's folder: the only file that sees raft.h. It loads, reports what it loaded, takes
 * commands until something fails, and is then closed for good; cluster.c decides what comes next.
 * Thread: the loop's. Owns: the caller owns the engine until its closed callback.
 * Fails: ZL_E_STORE_DAMAGED (the files contradict themselves), ZL_E_STORE_NEWER, ZL_E_DISK_FULL, ZL_E_INTERNAL.
 */
#pragma once

#include "aio/loop.h"
#include "cluster/mark.h"
#include "cluster/state.h"

struct zl_engine;

struct zl_engine_options {
    const char *dir;
    int dirfd;
    uint64_t node;
    bool fresh;          /* nothing was ever stored here: make the log */
    struct zl_mark mark; /* to check the history against while it is loaded */
    void (*applied)(void *arg, struct zl_str bytes);
    void *arg;
};

/* Loads everything; on success the state is complete and the engine leads. After a failure *ret is NULL or an engine
 * that can only be closed. */
int zl_engine_start(struct zl_loop *loop, const struct zl_engine_options *options, struct zl_engine **ret,
                    struct zl_err *err) ZL_MUST;
void zl_engine_close(struct zl_engine *e, void (*closed)(void *arg), void *arg);

/* Borrowed; changes with each apply. */
const struct zl_state *zl_engine_state(const struct zl_engine *e);
/* Takes the state out of an engine that is about to be closed. */
struct zl_state *zl_engine_take_state(struct zl_engine *e);
uint64_t zl_engine_term(const struct zl_engine *e);
/* False when the history that was loaded is not the one that the mark was made of. */
bool zl_engine_history_holds(const struct zl_engine *e);

/* status 0: applied, with its result. Else an error code; err is filled then. Not called from within submit. */
typedef void zl_engine_done(void *arg, const struct zl_state_result *result, const struct zl_err *err);
/* A non-zero return means that done will not be called. */
int zl_engine_submit(struct zl_engine *e, struct zl_str bytes, zl_engine_done *done, void *arg,
                     struct zl_err *err) ZL_MUST;
