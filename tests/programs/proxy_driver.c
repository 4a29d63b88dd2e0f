/*
 * Drives a real zl-proxy through net/proxy/control.h, for tests and benchmarks: `proxy-driver ZL_PROXY DATA_DIR`.
 * Commands come as lines on stdin, each is answered by one line; see the table at the end. At the end of stdin it
 * leaves the proxy running, as an agent that ends does.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "net/proxy/bind.h"
#include "net/proxy/control.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { WORDS = 12 };

struct driver {
    struct zl_loop *loop;
    struct zl_proxy *proxy;
    struct zl_watch *watch;
    struct zl_buf in;
    unsigned events;
    struct zl_arena arena; /* what a publication is described with */
    struct zl_px_def def;
    struct zl_px_listener_def listeners[64];
    struct zl_px_service_def services[64];
};

static void changed(void *arg)
{
    struct driver *d = arg;
    d->events++;
}

static void say(const char *fmt, ...) ZL_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static uint64_t number(const char *s)
{
    return s ? strtoull(s, NULL, 0) : 0;
}

static const char *keep(struct driver *d, const char *s)
{
    return s && !zl_streq(s, "-") ? zl_arena_strdup(&d->arena, s) : NULL;
}

/* listen ID ADDRESS|public PORT */
static void cmd_listen(struct driver *d, char **w)
{
    struct zl_err err = { 0 };
    uint16_t port = (uint16_t)number(w[3]);
    int fd = zl_streq(w[2], "public") ? zl_px_bind_public(port, &err) : zl_px_bind_at(w[2], port, &err);
    int r = fd < 0 ? fd : zl_proxy_listen(d->proxy, (uint32_t)number(w[1]), fd, &err);
    say(r < 0 ? "error %s %s" : "ok", zl_error_name(r), err.text);
}

/* service ID NAME none|tcp|http INTERVAL TIMEOUT RETRIES GRACE PATH */
static void cmd_service(struct driver *d, char **w)
{
    struct zl_px_service_def *s = &d->services[d->def.nservices++];
    *s = (struct zl_px_service_def){
        .id = number(w[1]),
        .name = keep(d, w[2]),
        .probe = {
            .kind = zl_streq(w[3], "tcp") ? ZL_PX_PROBE_TCP : zl_streq(w[3], "http") ? ZL_PX_PROBE_HTTP : ZL_PX_PROBE_NONE,
            .interval_ms = (uint32_t)number(w[4]),
            .timeout_ms = (uint32_t)number(w[5]),
            .retries = (uint32_t)number(w[6]),
            .start_grace_ms = (uint32_t)number(w[7]),
            .path = keep(d, w[8]),
        },
    };
    s->backends = zl_arena_alloc(&d->arena, 256 * sizeof *s->backends);
    say("ok");
}

/* backend ID ADDRESS PORT [draining] [trusted] */
static void cmd_backend(struct driver *d, char **w)
{
    struct zl_px_service_def *s = &d->services[d->def.nservices - 1];
    struct zl_px_backend_def *b = (struct zl_px_backend_def *)(uintptr_t)&s->backends[s->nbackends++];
    *b = (struct zl_px_backend_def){ .id = number(w[1]), .address = keep(d, w[2]), .port = (uint16_t)number(w[3]) };
    for (unsigned i = 4; w[i]; i++) {
        b->draining = b->draining || zl_streq(w[i], "draining");
        b->trusted = b->trusted || zl_streq(w[i], "trusted");
    }
    say("ok");
}

/* listener ID http|tcp */
static void cmd_listener(struct driver *d, char **w)
{
    struct zl_px_listener_def *l = &d->listeners[d->def.nlisteners++];
    *l = (struct zl_px_listener_def){
        .id = (uint32_t)number(w[1]),
        .protocol = zl_streq(w[2], "tcp") ? ZL_PX_TCP : ZL_PX_HTTP,
        .routes = zl_arena_alloc(&d->arena, 64 * sizeof *l->routes),
        .allows = zl_arena_alloc(&d->arena, 64 * sizeof *l->allows),
    };
    say("ok");
}

/* route SERVICE-INDEX HOST PATH */
static void cmd_route(struct driver *d, char **w)
{
    struct zl_px_listener_def *l = &d->listeners[d->def.nlisteners - 1];
    struct zl_px_route_def *r = (struct zl_px_route_def *)(uintptr_t)&l->routes[l->nroutes++];
    *r = (struct zl_px_route_def){ .service = (unsigned)number(w[1]),
                                   .host = keep(d, w[2]),
                                   .path = w[2] ? keep(d, w[3]) : NULL };
    say("ok");
}

/* allow ADDRESS PREFIX */
static void cmd_allow(struct driver *d, char **w)
{
    struct zl_px_listener_def *l = &d->listeners[d->def.nlisteners - 1];
    struct zl_px_allow_def *a = (struct zl_px_allow_def *)(uintptr_t)&l->allows[l->nallows++];
    *a = (struct zl_px_allow_def){ .address = keep(d, w[1]), .prefix = (uint8_t)number(w[2]) };
    say("ok");
}

static void cmd_publish(struct driver *d, char **w)
{
    struct zl_err err = { 0 };
    (void)w;
    d->def.listeners = d->listeners;
    d->def.services = d->services;
    int r = zl_proxy_publish(d->proxy, &d->def, &err);
    if (r < 0)
        say("error %s %s", zl_error_name(r), err.text);
    else
        say("ok %" PRIu64, zl_proxy_number(d->proxy));
    d->def = (struct zl_px_def){ 0 };
    zl_arena_done(&d->arena);
    zl_arena_init(&d->arena);
}

static void cmd_applied(struct driver *d, char **w)
{
    say(zl_proxy_applied(d->proxy, w[1] ? number(w[1]) : zl_proxy_number(d->proxy)) ? "yes" : "no");
}

static void cmd_drained(struct driver *d, char **w)
{
    say(zl_proxy_drained(d->proxy, number(w[1])) ? "yes" : "no");
}

static void cmd_unlisten(struct driver *d, char **w)
{
    zl_proxy_unlisten(d->proxy, (uint32_t)number(w[1]));
    say("ok");
}

static void cmd_backend_state(struct driver *d, char **w)
{
    struct zl_proxy_backend b;
    if (zl_proxy_backend(d->proxy, number(w[1]), &b) < 0)
        say("none");
    else
        say("%" PRIu64 " %" PRIu64 " %u %u %u", b.requests, b.failures, b.in_flight, (unsigned)b.health, b.consecutive);
}

static void cmd_pid(struct driver *d, char **w)
{
    (void)w;
    say("%d", (int)zl_proxy_pid(d->proxy));
}

static void cmd_events(struct driver *d, char **w)
{
    (void)w;
    say("%u", d->events);
}

static void count_listener(void *arg, uint32_t id, int fd)
{
    unsigned *n = arg;
    (void)id;
    *n += fd >= 0;
}

static void cmd_listeners(struct driver *d, char **w)
{
    unsigned n = 0;
    (void)w;
    zl_proxy_each_listener(d->proxy, count_listener, &n);
    say("%u", n);
}

static void cmd_quit(struct driver *d, char **w)
{
    (void)w;
    d->proxy = zl_proxy_quit(d->proxy, 2000);
    say("ok");
    zl_loop_stop(d->loop);
}

static const struct {
    const char *name;
    void (*fn)(struct driver *d, char **w);
    unsigned args;
} commands[] = {
    { "listen", cmd_listen, 3 },   { "unlisten", cmd_unlisten, 1 },   { "service", cmd_service, 3 },
    { "backend", cmd_backend, 3 }, { "listener", cmd_listener, 2 },   { "route", cmd_route, 1 },
    { "allow", cmd_allow, 2 },     { "publish", cmd_publish, 0 },     { "applied", cmd_applied, 0 },
    { "drained", cmd_drained, 1 }, { "state", cmd_backend_state, 1 }, { "pid", cmd_pid, 0 },
    { "events", cmd_events, 0 },   { "listeners", cmd_listeners, 0 }, { "quit", cmd_quit, 0 },
};

static void run_line(struct driver *d, char *line)
{
    char *words[WORDS + 1] = { NULL }, *save = NULL;
    unsigned n = 0;
    for (char *p = strtok_r(line, " ", &save); p && n < WORDS; p = strtok_r(NULL, " ", &save))
        words[n++] = p;
    for (unsigned i = 0; n && i < ZL_ARRAY_LEN(commands); i++)
        if (zl_streq(words[0], commands[i].name) && n > commands[i].args) {
            commands[i].fn(d, words);
            return;
        }
    say("error unknown command");
}

static void readable(void *arg, int events)
{
    struct driver *d = arg;
    char bytes[4096];
    (void)events;
    ssize_t n = read(0, bytes, sizeof bytes);
    if (n <= 0) {
        if (n == 0)
            zl_loop_stop(d->loop);
        return;
    }
    zl_buf_add(&d->in, bytes, (size_t)n);
    char *lf;
    while (d->in.n && (lf = memchr(d->in.p, '\n', d->in.n)) != NULL) {
        size_t used = (size_t)(lf - d->in.p) + 1;
        *lf = 0;
        run_line(d, d->in.p);
        zl_buf_drop(&d->in, used);
    }
}

int main(int argc, char **argv)
{
    struct zl_err err = { 0 };
    static struct driver d;
    if (argc != 3)
        return 2;
    zl_log_level_from_env();
    zl_auto_close int dir = zl_openat(AT_FDCWD, argv[2], O_DIRECTORY | O_RDONLY, 0);
    d.loop = zl_loop_new();
    zl_arena_init(&d.arena);
    const struct zl_proxy_options o = {
        .loop = d.loop, .data_dir = dir, .program = argv[1], .netns = -EBADF, .changed = changed, .arg = &d
    };
    bool adopted = false;
    int r = zl_proxy_open(&o, &d.proxy, &adopted, &err);
    if (r < 0) {
        say("error %s %s", zl_error_name(r), err.text);
        return 1;
    }
    say(adopted ? "adopted" : "started");
    if (zl_watch_new(d.loop, 0, ZL_READABLE, readable, &d, &d.watch) < 0)
        return 1;
    zl_loop_run(d.loop);
    zl_watch_free(d.watch);
    zl_proxy_free(d.proxy);
    zl_arena_done(&d.arena);
    zl_buf_done(&d.in);
    zl_loop_free(d.loop);
    return 0;
}
