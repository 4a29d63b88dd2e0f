/*
 * Many containers at once through the runtime's own interface, without agent and network: for bench/oci.
 *
 *   shim-driver FOLDER LAYER SHIM CGROUP N PROGRAM   makes and starts N containers of /PROGRAM on the layer, and prints
 *                                                    the seconds that took; when its input ends it removes what
 *                                                    FOLDER has (also what an earlier one left) and prints
 *                                                    the seconds of that
 *
 * At most 8 are made at a time, as many as keep two processors busy. The shims are its children.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/id.h"
#include "runtime/native/native.h"
#include "sys/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { AT_ONCE = 8, WORKERS = 2, QUEUE = 64 };

struct driver {
    struct zl_loop *loop;
    struct zl_runtime *rt;
    struct zl_rt_spec spec;
    unsigned wanted, begun, ready, left;
    uint64_t since_ms;
    struct zl_watch *input;
};

struct one {
    struct driver *d;
    char id[ZL_ID_HEX_SIZE];
};

static ZL_NORETURN void die(const char *what, const struct zl_err *err)
{
    fprintf(stderr, "shim-driver: %s: %s\n", what, err->text);
    exit(1); /* what was made is removed by the next one with this folder */
}

static void say(struct driver *d, const char *what)
{
    printf("%s %.3f\n", what, (double)(zl_clock_mono_ms() - d->since_ms) / 1e3);
    (void)fflush(stdout);
}

static void make_next(struct driver *d);

static void made(struct driver *d)
{
    if (d->ready == d->wanted)
        say(d, "made");
    else
        make_next(d);
}

static void started(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct one *o = arg;
    struct driver *d = o->d;
    (void)reply;
    if (err->code)
        die("start", err);
    free(o);
    d->ready++;
    made(d);
}

static void created(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct one *o = arg;
    (void)reply;
    if (err->code)
        die("create", err);
    (void)zl_runtime_start(o->d->rt, o->id, started, o);
}

static void make_next(struct driver *d)
{
    if (d->begun == d->wanted)
        return;
    struct one *o = zl_xcalloc(1, sizeof *o);
    o->d = d;
    zl_id_make(o->id);
    snprintf(d->spec.id, sizeof d->spec.id, "%s", o->id);
    d->spec.slot = ++d->begun;
    (void)zl_runtime_create(d->rt, &d->spec, created, o);
}

static void removed(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct driver *d = arg;
    (void)reply;
    if (err->code)
        die("remove", err);
    if (--d->left == 0) {
        say(d, "removed");
        zl_loop_stop(d->loop);
    }
}

static void remove_all(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct driver *d = arg;
    if (err->code)
        die("list", err);
    d->left = reply->list.n;
    d->since_ms = zl_clock_mono_ms();
    if (d->left == 0)
        zl_loop_stop(d->loop);
    for (unsigned i = 0; i < reply->list.n; i++)
        (void)zl_runtime_remove(d->rt, reply->list.v[i].id, removed, d);
}

static void input_ready(void *arg, int events)
{
    struct driver *d = arg;
    char byte;
    (void)events;
    if (read(STDIN_FILENO, &byte, 1) > 0)
        return;
    d->input = zl_watch_free(d->input);
    (void)zl_runtime_list(d->rt, remove_all, d);
}

static void listed(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    struct driver *d = arg;
    (void)reply;
    if (err->code)
        die("list", err);
    d->since_ms = zl_clock_mono_ms();
    made(d);
    for (int i = 1; i < AT_ONCE; i++)
        make_next(d);
    if (zl_watch_new(d->loop, STDIN_FILENO, ZL_READABLE, input_ready, d, &d->input) < 0)
        die("watch the input", &(struct zl_err){ .text = "it must be a pipe" });
}

int main(int argc, char **argv)
{
    struct driver d = { 0 };
    struct zl_err err = { 0 };
    uint64_t n;
    if (argc != 7 || zl_parse_u64(zl_str(argv[5]), 0, 10000, &n) < 0)
        return 2;
    const char *const layers[] = { argv[2] };
    const char *const command[] = { argv[6] };
    d.wanted = (unsigned)n;
    d.spec = (struct zl_rt_spec){ .layers = layers, .nlayers = 1, .argv = command, .nargv = 1, .hostname = "bench" };
    d.loop = zl_loop_new();
    struct zl_pool *pool = zl_pool_new(d.loop, WORKERS, QUEUE);
    struct zl_rt_native_config c = {
        .loop = d.loop, .pool = pool, .containers = argv[1], .shim = argv[3], .cgroup_parent = argv[4]
    };
    if (zl_rt_native_open(&c, &d.rt, &err) < 0)
        die("open the runtime", &err);
    (void)zl_runtime_list(d.rt, listed, &d);
    zl_loop_run(d.loop);
    d.rt = zl_runtime_close(d.rt);
    zl_pool_free(pool);
    zl_loop_free(d.loop);
    zl_cgroup_remove_parent(argv[4]);
    return 0;
}
