/*
 * zlayerd: the agent. `zlayerd --data-dir D [--run-dir R] [--idle-exit] [--ready-fd N]`. With a ready descriptor it was
 * started by a client: it logs to <data>/agent.log and says on the descriptor, in one line of JSON, that it serves, or
 * why not. SIGTERM and SIGINT end the agent only; containers and the proxy go on.
 */
#include "agent/agent.h"
#include "api/api.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/place.h"
#include "image/credentials.h"

#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IDLE_MS = 10000, WORKERS = 4, QUEUE_MAX = 4096, LOG_MAX = 16 << 20 };

struct daemon {
    struct zl_home home;
    struct zl_loop *loop;
    struct zl_pool *pool;
    struct zl_agent *agent;
    struct zl_api *api;
    struct zl_timer *idle_timer;
    struct zl_signal *signals[2];
    int socket, ready_fd;
    uint64_t started_ms;
    bool idle_exit, idle, ending;
    int exit_code;
};

static void say_ready(struct daemon *d, const struct zl_err *err)
{
    zl_auto_buf line = ZL_BUF_INIT;
    if (d->ready_fd < 0)
        return;
    if (err && err->code) {
        zl_buf_printf(&line, "{\"code\":\"%s\",\"error\":", zl_error_name(err->code));
        zl_json_string(&line, zl_str(err->text));
        zl_buf_puts(&line, ",\"hint\":");
        zl_json_string(&line, zl_str(err->hint));
        zl_buf_puts(&line, "}\n");
    } else {
        zl_buf_puts(&line, "{}\n");
    }
    ZL_IGNORE(zl_write_full(d->ready_fd, line.p, line.n)); /* the client may have gone */
    d->ready_fd = zl_close(d->ready_fd);
}

static void agent_closed(void *arg)
{
    struct daemon *d = arg;
    d->agent = NULL;
    zl_loop_stop(d->loop);
}

static void end(struct daemon *d)
{
    if (d->ending)
        return;
    d->ending = true;
    zl_home_unlink_socket(&d->home);
    d->api = zl_api_free(d->api);
    d->socket = zl_close(d->socket);
    zl_agent_close(d->agent, agent_closed, d);
}

static void on_signal(void *arg, int signum)
{
    zl_log_info("ending by signal %d; containers and the proxy go on", signum);
    end(arg);
}

/*
 * The idle end: the socket's name goes first, while the lock is still held, so that a new client starts a successor,
 * which waits for the lock; then whoever had connected before is looked for, and if somebody is there we stay.
 */
static void idle_over(void *arg)
{
    struct daemon *d = arg;
    if (!d->idle || d->ending)
        return;
    if (zl_api_connections(d->api) > 0) {
        zl_timer_set(d->idle_timer, IDLE_MS);
        return;
    }
    int hidden = zl_home_hide_socket(&d->home);
    if (hidden == 0 && zl_api_accept_now(d->api) > 0) {
        ZL_IGNORE(zl_home_show_socket(&d->home)); /* if it fails, the next idle end is for good */
        zl_timer_set(d->idle_timer, IDLE_MS);
        return;
    }
    zl_log_info("nothing left to do, ending");
    end(d);
    if (hidden == 0 && zl_home_show_socket(&d->home) == 0)
        zl_home_unlink_socket(&d->home); /* the name that is kept while hidden goes, too */
}

static void idle_changed(void *arg, bool idle)
{
    struct daemon *d = arg;
    d->idle = idle;
    if (!d->idle_exit)
        return;
    if (idle)
        zl_timer_set(d->idle_timer, IDLE_MS);
    else
        zl_timer_stop(d->idle_timer);
}

static void agent_ready(void *arg, const struct zl_err *err)
{
    struct daemon *d = arg;
    struct zl_err e = { 0 };
    if (err && err->code) {
        e = *err;
    } else {
        d->socket = zl_home_listen(&d->home, &e);
        if (d->socket >= 0)
            ZL_IGNORE(zl_api_new(d->agent, d->socket, d->started_ms, &d->api, &e));
    }
    if (e.code) {
        zl_log_error("can't start: %s", e.text);
        d->exit_code = zl_error_exit(e.code);
        say_ready(d, &e);
        end(d);
        return;
    }
    zl_log_info("serving socket=%s", d->home.socket);
    say_ready(d, NULL);
}

static void log_to_file(struct daemon *d)
{
    struct stat st;
    int fd = zl_openat(d->home.data_dir, "agent.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size > LOG_MAX) {
        (void)renameat(d->home.data_dir, "agent.log", d->home.data_dir, "agent.log.1");
        zl_close(fd);
        fd = zl_openat(d->home.data_dir, "agent.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    if (fd >= 0)
        zl_log_set_fd(fd); /* ours until the end */
}

static int run(struct daemon *d, const char *data, const char *run_dir, struct zl_err *err)
{
    zl_auto_free char *shim = NULL, *proxy = NULL, *image = NULL;
    int r = zl_program_find("zl-shim", &shim, err);
    r = r < 0 ? r : zl_program_find("zl-proxy", &proxy, err);
    r = r < 0 ? r : zl_program_find("zl-image", &image, err);
    if (r < 0)
        return r;
    zl_auto_free char *inside = NULL;
    if (geteuid() != 0) {
        zl_config_export();
        r = zl_program_find("zl-inside", &inside, err);
        r = r < 0 ? r : zl_agent_check_user(inside, err);
        if (r < 0)
            return r;
    }
    struct zl_place place = { 0 };
    if (!run_dir && inside && zl_place_find(&place, data, err) == 0)
        run_dir = place.run;
    r = zl_home_open(data, run_dir, &d->home, err);
    zl_place_done(&place);
    if (r < 0)
        return r;
    if (d->ready_fd >= 0)
        log_to_file(d);
    d->loop = zl_loop_new();
    d->pool = zl_pool_new(d->loop, WORKERS, QUEUE_MAX);
    d->idle_timer = zl_timer_new(d->loop, idle_over, d);
    d->signals[0] = zl_signal_new(d->loop, SIGTERM, on_signal, d);
    d->signals[1] = zl_signal_new(d->loop, SIGINT, on_signal, d);
    struct zl_agent_options o = { .loop = d->loop,
                                  .pool = d->pool,
                                  .home = &d->home,
                                  .shim = shim,
                                  .proxy = proxy,
                                  .image = image,
                                  .inside = inside,
                                  .ready = agent_ready,
                                  .idle = idle_changed,
                                  .arg = d };
    r = zl_agent_open(&o, &d->agent, err);
    if (r == 0)
        zl_loop_run(d->loop);
    d->idle_timer = zl_timer_free(d->idle_timer);
    zl_signal_free(d->signals[0]);
    zl_signal_free(d->signals[1]);
    zl_pool_free(d->pool);
    zl_loop_free(d->loop);
    zl_home_done(&d->home);
    return r;
}

static int usage(void)
{
    fprintf(stderr, "usage: zlayerd --data-dir DIR [--run-dir DIR] [--idle-exit] [--ready-fd N]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "data-dir", required_argument, NULL, 'd' },
                                             { "run-dir", required_argument, NULL, 'r' },
                                             { "idle-exit", no_argument, NULL, 'i' },
                                             { "ready-fd", required_argument, NULL, 'f' },
                                             { NULL, 0, NULL, 0 } };
    struct daemon d = { .socket = -EBADF, .ready_fd = -EBADF, .started_ms = zl_clock_wall_ms() };
    const char *data = NULL, *run_dir = NULL;
    struct zl_err err = { 0 };
    struct rlimit files;
    uint64_t fd = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'd')
            data = optarg;
        else if (c == 'r')
            run_dir = optarg;
        else if (c == 'i')
            d.idle_exit = true;
        else if (c == 'f' && zl_parse_u64(zl_str(optarg), 3, 1000, &fd) == 0)
            d.ready_fd = (int)fd;
        else
            return usage();
    }
    if (!data || optind < argc)
        return usage();
    if (d.ready_fd >= 0)
        (void)fcntl(d.ready_fd, F_SETFD, FD_CLOEXEC);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    umask(0027);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    zl_log_set_level(ZL_LOG_INFO);
    zl_log_level_from_env();
    int r = run(&d, data, run_dir, &err);
    if (r < 0) {
        fprintf(stderr, "zlayerd: %s\n", err.text);
        if (err.hint[0])
            fprintf(stderr, "hint: %s\n", err.hint);
        say_ready(&d, &err);
        return zl_error_exit(err.code);
    }
    return d.exit_code;
}
