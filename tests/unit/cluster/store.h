/* What tests of the store share: a store in a folder of its own, driven by a loop until something is done. */
#pragma once

#include "../testing.h"

#include "aio/loop.h"
#include "base/fd.h"
#include "cluster/cluster.h"

#include <stdio.h>
#include <unistd.h>

struct store {
    struct zl_loop *loop;
    struct zl_cluster *cluster;
    struct zl_err ready, last;
    struct zl_state_result result;
    bool is_ready, is_closed;
    unsigned done, failed, changed;
};

static inline void store_ready(void *arg, const struct zl_err *err)
{
    struct store *s = arg;
    s->is_ready = true;
    s->ready = err ? *err : (struct zl_err){ 0 };
    zl_loop_stop(s->loop);
}

static inline void store_changed(void *arg)
{
    ((struct store *)arg)->changed++;
}

static inline void store_closed(void *arg)
{
    struct store *s = arg;
    s->is_closed = true;
    zl_loop_stop(s->loop);
}

static inline void store_done(void *arg, const struct zl_state_result *result, const struct zl_err *err)
{
    struct store *s = arg;
    s->done++;
    s->failed += err != NULL;
    s->last = err ? *err : (struct zl_err){ 0 };
    s->result = result ? *result : (struct zl_state_result){ 0 };
    zl_loop_stop(s->loop);
}

/* The code of open, or of ready. */
static inline int store_open(struct store *s, const char *dir)
{
    *s = (struct store){ .loop = zl_loop_new() };
    struct zl_cluster_options o = { .dir = dir, .ready = store_ready, .changed = store_changed, .arg = s };
    int r = zl_cluster_open(s->loop, &o, &s->cluster, &s->ready);
    if (r < 0)
        return r;
    assert_false(s->is_ready);
    while (!s->is_ready)
        zl_loop_run(s->loop);
    if (s->ready.code && s->ready.code != ZL_E_STORE_DAMAGED)
        print_message("%s\n", s->ready.text);
    return s->ready.code;
}

static inline void store_close(struct store *s)
{
    if (s->cluster) {
        zl_cluster_close(s->cluster, store_closed, s);
        while (!s->is_closed)
            zl_loop_run(s->loop);
    }
    zl_loop_free(s->loop);
}

static inline int store_do(struct store *s, const struct zl_command *c)
{
    unsigned before = s->done;
    zl_cluster_propose(s->cluster, c, store_done, s);
    assert_int_equal(s->done, before);
    while (s->done == before)
        zl_loop_run(s->loop);
    return s->last.code;
}

static inline int store_put(struct store *s, const char *name, const char *spec)
{
    struct zl_command_service web = { "web", 1, 1, false, false };
    struct zl_command c = { .kind = ZL_COMMAND_DEPLOYMENT_PUT,
                            .deployment = name,
                            .spec = spec,
                            .owner = "",
                            .services = &web,
                            .nservices = 1 };
    return store_do(s, &c);
}

static inline char *make_folder(char path[64])
{
    snprintf(path, 64, "/tmp/zl-test-cluster.XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void drop_folder(const char *path)
{
    assert_int_equal(zl_remove_tree(-100, path), 0); /* AT_FDCWD */
}
