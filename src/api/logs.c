/*
 * Log lines of a deployment's replicas as NDJSON, each with a cursor `<instance>:<generation>:<offset>` behind which a
 * later request goes on. Following costs one descriptor a replica, and a look for new replicas four times a second
 * while somebody follows.
 */
#include "api/api_priv.h"

#include "base/fd.h"
#include "base/id.h"
#include "runtime/logs.h"

#include <fcntl.h>
#include <stdio.h>

enum { WAITING_MAX = 1 << 20, LOOK_MS = 250, DEFAULT_LINES = 100 };

struct follow;
struct source {
    struct source *next;
    struct follow *follow;
    char id[ZL_ID_HEX_SIZE];
    char *service;
    unsigned slot;
    struct zl_log_reader *reader;
    struct zl_watch *watch;
    bool ended;
};

struct follow {
    struct api_request *q;
    struct source *sources;
    struct zl_timer *timer;
    const char *service, *instance, *cursors;
    uint64_t slot, lines;
    int containers;
    bool follow, first, over;
};

static void follow_free(struct follow *f)
{
    while (f->sources) {
        struct source *s = f->sources;
        f->sources = s->next;
        zl_watch_free(s->watch);
        zl_log_reader_free(s->reader);
        free(s->service);
        free(s);
    }
    zl_timer_free(f->timer);
    zl_close(f->containers);
    api_request_free(f->q);
    free(f);
}

static void client_gone(void *arg)
{
    struct follow *f = arg;
    f->q->x = NULL;
    follow_free(f);
}

static void write_entry(struct source *s, const struct zl_log_entry *e)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_printf(&line, "{\"service\":\"%s\",\"slot\":%u,\"instance\":\"%s\",\"time\":", s->service, s->slot, s->id);
    zl_json_string(&line, e->time);
    zl_buf_printf(&line, ",\"stream\":\"%s\",%s\"text\":", e->is_stderr ? "stderr" : "stdout",
                  e->partial ? "\"partial\":true," : "");
    zl_json_string(&line, e->text);
    zl_buf_printf(&line, ",\"cursor\":\"%s:%llu:%llu\"}\n", s->id, (unsigned long long)e->cursor.generation,
                  (unsigned long long)e->cursor.offset);
    (void)zl_http_reply_write(s->follow->q->x, zl_buf_view(&line));
}

/* Writes what there is, until the client has enough to read; true when it may be called again at once. */
static bool pump(struct source *s)
{
    struct zl_log_entry e;
    while (zl_http_reply_pending(s->follow->q->x) < WAITING_MAX) {
        int r = zl_log_reader_next(s->reader, &e);
        if (r <= 0) {
            s->ended = r < 0 || zl_log_reader_ended(s->reader);
            return false;
        }
        write_entry(s, &e);
    }
    return true;
}

static void pump_all(struct follow *f);

static void drained(void *arg)
{
    pump_all(arg);
}

static void readable(void *arg, int events)
{
    struct source *s = arg;
    (void)events;
    (void)pump(s);
    if (s->ended)
        s->watch = zl_watch_free(s->watch);
    else if (zl_http_reply_pending(s->follow->q->x) >= WAITING_MAX)
        zl_watch_set(s->watch, 0); /* until the client has taken what waits */
}

static void pump_all(struct follow *f)
{
    bool more = false;
    for (struct source *s = f->sources; s; s = s->next) {
        more |= !s->ended && pump(s);
        if (s->watch)
            zl_watch_set(s->watch, more ? 0 : ZL_READABLE);
        if (!s->watch && f->follow && !s->ended && !more) {
            int fd = zl_log_reader_fd(s->reader);
            if (fd >= 0 && zl_watch_new(zl_agent_loop(f->q->api->agent), fd, ZL_READABLE, readable, s, &s->watch) < 0)
                s->watch = NULL;
            (void)pump(s); /* what came before the watch */
        }
    }
    if (!more && !f->follow && !f->over) {
        f->over = true;
        zl_http_reply_end(f->q->x);
        follow_free(f);
    }
}

static bool find_cursor(const struct follow *f, const char *id, struct zl_log_cursor *ret)
{
    struct zl_str rest = zl_str(f->cursors ? f->cursors : "");
    while (rest.p && rest.n) {
        struct zl_str offset, generation, one = zl_str_cut(rest, ',', &rest);
        struct zl_str instance = zl_str_cut(one, ':', &generation);
        if (!generation.p)
            continue;
        generation = zl_str_cut(generation, ':', &offset);
        if (zl_str_is(instance, id) && offset.p && zl_parse_u64(generation, 0, UINT64_MAX, &ret->generation) == 0 &&
            zl_parse_u64(offset, 0, UINT64_MAX, &ret->offset) == 0)
            return true;
    }
    return false;
}

static void look_at(void *arg, const char *id, const char *service, unsigned slot, bool running)
{
    struct follow *f = arg;
    struct zl_log_cursor cursor;
    (void)running;
    if ((f->service && !zl_streq(f->service, service)) || (f->slot && f->slot != slot) ||
        (f->instance && !zl_str_starts(zl_str(id), zl_str(f->instance))))
        return;
    struct source **at = &f->sources;
    for (; *at; at = &(*at)->next)
        if (zl_streq((*at)->id, id))
            return;
    struct zl_log_reader *reader;
    if (zl_log_reader_open(f->containers, id, &reader) < 0)
        return; /* nothing was ever written */
    if (find_cursor(f, id, &cursor))
        zl_log_reader_seek(reader, cursor);
    else if (f->first && !f->cursors && f->lines != UINT64_MAX)
        ZL_IGNORE(zl_log_reader_seek_last(reader, f->lines)); /* else from the start */
    struct source *s = zl_xcalloc(1, sizeof *s);
    s->follow = f;
    snprintf(s->id, sizeof s->id, "%s", id);
    s->service = zl_xstrdup(service);
    s->slot = slot;
    s->reader = reader;
    *at = s;
}

static void look(void *arg)
{
    struct follow *f = arg;
    zl_agent_each_instance(f->q->api->agent, f->q->param, look_at, f);
    f->first = false;
    if (!zl_agent_has_deployment(f->q->api->agent, f->q->param))
        f->follow = false; /* what is there already is the end of it */
    if (f->follow)
        zl_timer_set(f->timer, LOOK_MS);
    pump_all(f);
}

void api_deployment_logs(struct api_request *q)
{
    struct zl_err err = { 0 };
    const char *lines = api_query(q, "lines"), *follow = api_query(q, "follow"), *slot = api_query(q, "slot");
    struct follow *f = zl_xcalloc(1, sizeof *f);
    f->q = q;
    f->containers = -EBADF;
    f->first = true;
    f->lines = DEFAULT_LINES;
    f->follow = follow && (zl_streq(follow, "1") || zl_streq(follow, "true"));
    f->service = api_query(q, "service");
    f->instance = api_query(q, "instance");
    f->cursors = api_query(q, "cursor");
    f->timer = zl_timer_new(zl_agent_loop(q->api->agent), look, f);
    if (!zl_agent_show_deployment(q->api->agent, &q->arena, q->param))
        zl_fail(&err, ZL_E_NOT_FOUND, "there is no deployment '%.70s'", q->param);
    else if (slot && zl_parse_u64(zl_str(slot), 1, 100000, &f->slot) < 0)
        zl_fail(&err, ZL_E_INVALID, "'slot' must be a number from 1");
    else if (lines && zl_streq(lines, "all"))
        f->lines = UINT64_MAX;
    else if (lines && zl_parse_u64(zl_str(lines), 0, UINT64_MAX - 1, &f->lines) < 0)
        zl_fail(&err, ZL_E_INVALID, "'lines' must be a number or all");
    if (!err.code) {
        f->containers = zl_openat(AT_FDCWD, zl_agent_home(q->api->agent)->containers, O_RDONLY | O_DIRECTORY, 0);
        if (f->containers < 0)
            zl_fail(&err, f->containers, "open the folder of containers");
    }
    if (err.code) {
        api_fail(q, &err);
        follow_free(f);
        return;
    }
    zl_http_on_gone(q->x, client_gone, f);
    zl_http_on_drained(q->x, drained, f);
    zl_http_reply_begin(q->x, 200, "application/x-ndjson");
    zl_timer_set(f->timer, 0);
}
