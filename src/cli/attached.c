/*
 * A foreground `up`: three streams of the agent (lease, events, logs) and the signals, in one poll loop. An agent that
 * dies is started again by the next call; logs go on behind their cursors. Events end when it is ready or has failed;
 * from then on the services are looked at every LOOK_MS, until a stop begins a new story.
 *
 *   RUNNING ──first signal, or a failure before ready──► STOPPING ──second signal──► KILLING
 *      └──────────────── gone ─────────────────────────────┴───── gone ─────────────────┴──► the end
 */
#include "cli/deploy.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/id.h"
#include "cli/logview.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum phase { RUNNING, STOPPING, KILLING };
enum stream { LEASE, EVENTS, LOGS, STREAMS };
enum { LOOK_MS = 2000 };

struct session {
    struct zl_cli *cli;
    struct zl_client *client;
    const char *name, *owner;
    struct zl_stream *streams[STREAMS];
    struct zl_logview logs;
    struct zl_progress progress;
    int signals;
    int signal; /* the first that came */
    enum phase phase;
    bool existed, was_ready, failed, gone;
    bool told;     /* the events came to their end */
    bool unread;   /* a stream had its turn and holds more lines, which poll does not see */
    char *trouble; /* what was said last about services that are not ready */
};

static void close_streams(struct session *s)
{
    for (unsigned i = 0; i < STREAMS; i++)
        s->streams[i] = zl_stream_free(s->streams[i]);
}

static int open_stream(struct session *s, enum stream which, struct zl_err *err)
{
    zl_auto_buf path = ZL_BUF_INIT;
    switch (which) {
    case LEASE:
        zl_buf_printf(&path, "/lease?owner=%s", s->owner);
        break;
    case EVENTS:
        zl_buf_puts(&path, "/events");
        break;
    case LOGS:
        zl_buf_printf(&path, "/logs?follow=true&lines=all");
        zl_logview_query(&s->logs, &path);
        break;
    case STREAMS:
        break;
    }
    return zl_stream_open(s->client, "GET", zl_deployment_path(s->cli, s->name, path.p), NULL, &s->streams[which], err);
}

/* Services that stopped being ready after all of them were: each change is said once. */
static void look(struct session *s)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_value *d = NULL;
    zl_auto_buf text = ZL_BUF_INIT;
    const char *path = zl_deployment_path(s->cli, s->name, "");
    const struct zl_value *services =
        zl_client_call(s->client, &arena, "GET", path, NULL, &d, NULL) < 0 ? NULL : zl_value_get(d, "services");
    for (const struct zl_value *v = services ? services->first : NULL; v; v = v->next) {
        const char *status = zl_value_cstr(v, "status"), *message = zl_value_cstr(v, "message");
        if (zl_streq(status, "ready") || zl_streq(status, "stopped"))
            continue;
        zl_buf_printf(&text, "%s%s: %s", text.n ? "; " : "", zl_value_cstr(v, "name"), status);
        if (message[0])
            zl_buf_printf(&text, " (%s)", message);
    }
    if (services && !zl_streq(text.p ? text.p : "", s->trouble ? s->trouble : "")) {
        zl_progress_note(&s->progress, "%s", text.n ? text.p : "all services are ready again");
        free(s->trouble);
        s->trouble = zl_xstrdup(text.p ? text.p : "");
        s->failed |= strstr(s->trouble, "backoff") || strstr(s->trouble, "failed");
        if (!text.n)
            s->failed = false;
    }
    zl_arena_done(&arena);
}

/* Where the logs of replicas end that ran before this command: they are not its news. */
static void skip_old_logs(struct session *s)
{
    ZL_AUTO(zl_stream) old = NULL;
    s->client->may_start = false;
    const char *path = zl_deployment_path(s->cli, s->name, "/logs?lines=1");
    struct zl_str line;
    if (zl_stream_open(s->client, "GET", path, NULL, &old, NULL) >= 0) {
        s->existed = true;
        while (zl_stream_line(old, 5000, &line, NULL) == 1)
            zl_logview_skip(&s->logs, line);
    }
    s->client->may_start = true;
}

static int send_stop(struct session *s, bool kill, struct zl_err *err)
{
    const char *path = zl_deployment_path(s->cli, s->name, kill ? "?timeout_s=0" : "");
    int e = zl_client_call(s->client, &s->cli->arena, "DELETE", path, NULL, NULL, err);
    s->told = false;
    if (e == ZL_E_NOT_FOUND) {
        s->gone = true;
        return 0;
    }
    return e;
}

static int on_signal(struct session *s, struct zl_err *err)
{
    struct signalfd_siginfo info;
    if (read(s->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return 0;
    if (info.ssi_signo == SIGWINCH) {
        zl_term_resize(&s->cli->err);
        return 0;
    }
    if (!s->signal)
        s->signal = (int)info.ssi_signo;
    if (s->phase == KILLING)
        return 0;
    bool kill = s->phase == STOPPING && s->signal;
    if (s->phase == RUNNING)
        zl_progress_note(&s->progress, "stopping '%s' in reverse order; once more to kill", s->name);
    else
        zl_progress_note(&s->progress, "killing '%s'", s->name);
    s->phase = kill ? KILLING : STOPPING;
    return send_stop(s, kill, err);
}

static int on_event(struct session *s, struct zl_str name, struct zl_str data, struct zl_err *err)
{
    switch (zl_event_show(&s->progress, s->name, name, data)) {
    case ZL_OUTCOME_NONE:
        return 0;
    case ZL_OUTCOME_READY:
        s->told = true;
        zl_progress_done(&s->progress);
        if (!s->was_ready && s->phase == RUNNING)
            zl_note(s->cli, "'%s' is ready; Ctrl+C stops it", s->name);
        s->was_ready = true;
        return 0;
    case ZL_OUTCOME_GONE:
        s->gone = true;
        return 0;
    case ZL_OUTCOME_FAILED:
        s->failed = s->told = true;
        if (s->was_ready || s->existed || s->phase != RUNNING)
            return 0; /* the others go on */
        s->phase = STOPPING;
        zl_note(s->cli, "stopping '%s', which did not become ready", s->name);
        return send_stop(s, false, err);
    }
    return 0;
}

/* Everything that a stream has: 1; 0: it ended or broke. */
static int drain(struct session *s, enum stream which, struct zl_err *err)
{
    struct zl_stream *stream = s->streams[which];
    struct zl_str line, data;
    int r = 0;
    for (unsigned budget = 20000; budget; budget--) { /* then the others have their turn */
        r = which == EVENTS ? zl_stream_event(stream, 0, &line, &data, NULL) : zl_stream_line(stream, 0, &line, NULL);
        if (r != 1)
            break;
        int e = 0;
        if (which == LOGS)
            zl_logview_add(&s->logs, line);
        else if (which == EVENTS)
            e = on_event(s, line, data, err);
        if (e < 0)
            return e;
    }
    s->unread |= r == 1;
    if (which == LOGS) {
        if (s->logs.out.n || s->logs.err.n)
            zl_progress_clear(&s->progress);
        zl_logview_flush(&s->logs);
    }
    return r == 1 || r == -EAGAIN || r == -EINTR;
}

static int open_missing(struct session *s, struct zl_err *err)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        if (s->streams[i] || (i == EVENTS && s->told) || (i == LEASE && s->phase != RUNNING))
            continue;
        int e = open_stream(s, i, err);
        if (e == ZL_E_NOT_FOUND) {
            s->gone = true;
            return 0;
        }
        if (e < 0)
            return e;
        s->unread = true; /* its first lines may have come with the head of the reply */
    }
    return 0;
}

static int loop(struct session *s, struct zl_err *err)
{
    unsigned lost = 0;
    uint64_t looked = 0;
    while (!s->gone) {
        int e = open_missing(s, err);
        if (e < 0)
            return e;
        if (s->gone)
            break;
        struct pollfd p[STREAMS + 1] = { { .fd = s->signals, .events = POLLIN } };
        for (unsigned i = 0; i < STREAMS; i++)
            p[i + 1] = (struct pollfd){ .fd = s->streams[i] ? zl_stream_fd(s->streams[i]) : -1, .events = POLLIN };
        if (poll(p, STREAMS + 1, s->unread ? 0 : s->told ? LOOK_MS : -1) < 0)
            continue;
        bool unread = s->unread;
        s->unread = false;
        uint64_t now = zl_clock_mono_ms();
        if (s->told && s->phase == RUNNING && now - looked >= LOOK_MS) {
            looked = now;
            look(s);
        }
        if (p[0].revents && (e = on_signal(s, err)) < 0)
            return e;
        bool ended = false;
        for (unsigned i = 0; i < STREAMS && !s->gone; i++) {
            if (!s->streams[i] || (!p[i + 1].revents && !unread))
                continue;
            e = drain(s, i, err);
            if (e < 0)
                return e;
            if (e == 0) {
                s->streams[i] = zl_stream_free(s->streams[i]);
                ended |= i != EVENTS || !s->told;
            }
        }
        lost = ended ? lost + 1 : 0;
        if (ended && !s->gone) /* an agent that ends all streams needs a moment; a signal cuts the wait short */
            (void)poll(p, 1, (int)ZL_MIN(50u * lost, 1000u));
    }
    return 0;
}

/* After the end: what the replicas said last. */
static void drain_logs(struct session *s)
{
    struct zl_str line;
    uint64_t deadline = zl_clock_mono_ms() + 2000;
    while (s->streams[LOGS] && zl_clock_mono_ms() < deadline) {
        int r = zl_stream_line(s->streams[LOGS], 200, &line, NULL);
        if (r != 1)
            break;
        zl_logview_add(&s->logs, line);
    }
    zl_logview_flush(&s->logs);
}

static int open_signals(sigset_t *old)
{
    sigset_t set;
    sigemptyset(&set);
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGWINCH };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(wanted); i++)
        sigaddset(&set, wanted[i]);
    sigprocmask(SIG_BLOCK, &set, old);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static int result(const struct session *s)
{
    if (s->signal)
        return 128 + s->signal;
    return s->failed ? 1 : 0;
}

int zl_deploy_attached(struct zl_cli *cli, const struct zl_deploy *options, const struct zl_document *doc,
                       struct zl_err *err)
{
    char owner[ZL_ID_HEX_SIZE];
    zl_id_make(owner);
    struct zl_deploy d = *options;
    d.owner = owner;
    struct session s = { .cli = cli, .name = doc->spec->deployment, .owner = owner, .signals = -EBADF };
    int e = zl_cli_client(cli, ZL_MAY_START, &s.client, err);
    if (e < 0)
        return e;
    zl_logview_init(&s.logs, cli);
    zl_progress_init(&s.progress, cli);
    for (unsigned i = 0; i < doc->spec->services.n; i++) {
        const struct zl_service *service = doc->spec->services.v[i];
        s.logs.width = ZL_MAX(s.logs.width, (unsigned)ZL_MIN(strlen(service->name) + 2, (size_t)30));
    }
    skip_old_logs(&s);
    sigset_t old;
    s.signals = open_signals(&old);
    struct zl_value *reply = NULL;
    e = s.signals < 0 ? zl_fail(err, s.signals, "watch for signals")
                      : zl_deploy_submit(cli, &d, doc, false, &reply, err);
    if (e >= 0)
        e = loop(&s, err);
    zl_progress_done(&s.progress);
    drain_logs(&s);
    close_streams(&s);
    zl_logview_done(&s.logs);
    free(s.trouble);
    (void)zl_close(s.signals);
    if (e < 0)
        return e;
    zl_note(cli, s.phase == RUNNING ? "'%s' was taken down" : "'%s' is stopped", s.name);
    return result(&s);
}
