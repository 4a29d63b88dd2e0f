/* Images: what the store has, and jobs of zl-image whose events are passed on as they come. */
#include "api/api_priv.h"

#include "aio/child.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void api_image_list(struct api_request *q)
{
    struct zl_items items;
    struct zl_err err = { 0 };
    if (zl_store_list(zl_agent_store(q->api->agent), &q->arena, &items, &err) < 0) {
        api_fail(q, &err);
    } else {
        struct zl_value *list = zl_value_new(&q->arena, ZL_LIST);
        for (unsigned i = 0; i < items.n; i++)
            zl_value_append(list, zl_print(&q->arena, &zl_type_image_record, items.v[i]));
        api_reply(q, 200, list);
    }
    api_request_free(q);
}

void api_image_get(struct api_request *q)
{
    struct zl_image_record *record;
    struct zl_err err = { 0 };
    if (zl_store_find(zl_agent_store(q->api->agent), &q->arena, q->param, &record, &err) < 0)
        api_fail(q, &err);
    else
        api_reply(q, 200, zl_print(&q->arena, &zl_type_image_record, record));
    api_request_free(q);
}

struct job {
    struct api_request *q;
    struct zl_watch *watch;
    int out;
    bool collect;       /* the last event is the reply; else events are passed on as they come */
    struct zl_buf text; /* with `collect` all of it, else how the current line begins */
    bool said;          /* how it ended */
};

static void job_gone(void *arg)
{
    ((struct job *)arg)->q->x = NULL; /* the work goes on: the next request finds it done */
}

/* The job's last event as a reply. */
static void answer(struct job *j)
{
    struct api_request *q = j->q;
    struct zl_value *v = NULL;
    struct zl_parse_error pe;
    struct zl_err err = { 0 };
    struct zl_str line = { NULL, 0 }, rest = zl_buf_view(&j->text);
    while (rest.p && rest.n) {
        struct zl_str next = zl_str_cut(rest, '\n', &rest);
        line = next.n ? next : line;
    }
    if (!line.p || zl_json_parse(&q->arena, line, &zl_limits_document, &v, &pe) < 0 ||
        !zl_str_is(zl_value_str(v, "event"), "done")) {
        int code = zl_error_by_name(zl_value_cstr(v, "code"));
        code = code ? code : ZL_E_INTERNAL;
        zl_fail(&err, code, "%s",
                *zl_value_cstr(v, "message") ? zl_value_cstr(v, "message") : "the image job was killed");
        if (*zl_value_cstr(v, "hint"))
            zl_hint(&err, code, "%s", zl_value_cstr(v, "hint"));
        api_fail(q, &err);
        return;
    }
    struct zl_value *reply = zl_value_new(&q->arena, ZL_MAP);
    zl_value_set(&q->arena, reply, "freed_bytes", zl_value_int(&q->arena, (int64_t)zl_value_u64(v, "freed_bytes", 0)));
    api_reply(q, 200, reply);
}

/* Keeps how each line begins, for what kind of event it is: an end without one is told of. */
static void watch_for_end(struct job *j, struct zl_str part)
{
    const struct zl_str done = ZL_STR("{\"event\":\"done\""), error = ZL_STR("{\"event\":\"error\"");
    while (part.n) {
        const char *newline = memchr(part.p, '\n', part.n);
        size_t n = newline ? (size_t)(newline - part.p) : part.n;
        if (j->text.n < error.n)
            zl_buf_add(&j->text, part.p, ZL_MIN(n, error.n - j->text.n));
        struct zl_str line = zl_buf_view(&j->text);
        j->said |= zl_str_starts(line, done) || zl_str_starts(line, error);
        if (newline)
            zl_buf_clear(&j->text);
        n += newline != NULL;
        part = zl_str_n(part.p + n, part.n - n);
    }
}

static void end(struct job *j)
{
    if (!j->said && j->text.n)
        (void)zl_http_reply_write(j->q->x, ZL_STR("\n"));
    if (!j->said)
        (void)zl_http_reply_write(j->q->x, ZL_STR("{\"event\":\"error\",\"code\":\"internal\",\"message\":\"the image "
                                                  "job was killed\",\"hint\":\"\"}\n"));
    zl_http_reply_end(j->q->x);
}

static void job_readable(void *arg, int events)
{
    struct job *j = arg;
    char buf[16384];
    (void)events;
    ssize_t n = read(j->out, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        if (j->collect) {
            zl_buf_add(&j->text, buf, (size_t)n);
        } else if (j->q->x) {
            watch_for_end(j, zl_str_n(buf, (size_t)n));
            (void)zl_http_reply_write(j->q->x, zl_str_n(buf, (size_t)n));
        }
        return;
    }
    zl_watch_free(j->watch);
    zl_close(j->out);
    if (j->q->x && j->collect)
        answer(j);
    else if (j->q->x)
        end(j);
    zl_buf_done(&j->text);
    api_request_free(j->q);
    free(j);
}

static void run_job(struct api_request *q, const struct zl_image_request *request, bool collect)
{
    struct zl_err err = { 0 };
    zl_auto_buf text = ZL_BUF_INIT;
    int out[2] = { -EBADF, -EBADF };
    struct job *j = zl_xcalloc(1, sizeof *j);
    zl_json_print(&text, zl_print(&q->arena, &zl_type_image_request, request), 0);
    zl_auto_close int in = zl_sealed_memfd("image-job", text.p, text.n);
    explicit_bzero(text.p, text.n); /* it may hold a password */
    int r = in < 0 ? in : lseek(in, 0, SEEK_SET) < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
    const char *argv[ZL_AGENT_IMAGE_WORDS], *program = zl_agent_image_job(q->api->agent, argv);
    struct zl_child_fd fds[] = { { in, 0 }, { out[1], 1 } };
    struct zl_child_options o = {
        .path = program, .argv = argv, .envp = (const char *const *)environ, .fds = fds, .nfds = 2
    };
    if (r == 0)
        ZL_IGNORE(zl_set_nonblock(out[1], false)); /* the job's end waits */
    r = r < 0 ? r : zl_child_spawn(zl_agent_loop(q->api->agent), &o, NULL);
    zl_close(out[1]);
    j->q = q;
    j->collect = collect;
    j->out = out[0];
    r = r < 0 ? r : zl_watch_new(zl_agent_loop(q->api->agent), out[0], ZL_READABLE, job_readable, j, &j->watch);
    if (r < 0) {
        zl_close(out[0]);
        free(j);
        zl_fail(&err, r, "start %s", program);
        api_fail(q, &err);
        api_request_free(q);
        return;
    }
    zl_http_on_gone(q->x, job_gone, j);
    if (!collect)
        zl_http_reply_begin(q->x, 200, "application/x-ndjson");
}

/* The route's body says what to do. */
void api_image_work(struct api_request *q)
{
    run_job(q, q->body, false);
}

void api_image_history(struct api_request *q)
{
    run_job(q, &(struct zl_image_request){ .verb = ZL_IMAGE_HISTORY, .reference = q->param }, false);
}

void api_image_df(struct api_request *q)
{
    run_job(q, &(struct zl_image_request){ .verb = ZL_IMAGE_DF }, false);
}

/* In a job, too: removing a layer's files takes its time. */
void api_image_delete(struct api_request *q)
{
    const char *force = api_query(q, "force");
    bool forced = force && (zl_streq(force, "1") || zl_streq(force, "true"));
    run_job(q, &(struct zl_image_request){ .verb = ZL_IMAGE_REMOVE, .reference = q->param, .force = forced }, true);
}
