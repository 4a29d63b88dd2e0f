/* Images: looked up in the store, or fetched by a zl-image job. */
#include "agent/agent_priv.h"

#include "aio/child.h"
#include "apidef/bodies.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

struct pull *agent_pull_of(struct zl_agent *a, const char *deployment, const char *service, uint64_t generation,
                           bool make)
{
    for (struct pull *p = a->pulls; p; p = p->next)
        if (p->generation == generation && zl_streq(p->deployment, deployment) && zl_streq(p->service, service))
            return p;
    if (!make)
        return NULL;
    struct pull *p = zl_xcalloc(1, sizeof *p);
    p->agent = a;
    p->deployment = zl_xstrdup(deployment);
    p->service = zl_xstrdup(service);
    p->generation = generation;
    p->next = a->pulls;
    a->pulls = p;
    return p;
}

void agent_pull_again(struct zl_agent *a, const char *deployment, const char *service, uint64_t generation)
{
    struct pull *p = agent_pull_of(a, deployment, service, generation, false);
    if (p && p->state == ZL_IMAGE_PRESENT)
        p->state = ZL_IMAGE_ABSENT;
}

static bool wanted(struct zl_agent *a, const struct pull *p)
{
    const struct zl_state_deployment *d = zl_state_deployment(zl_cluster_state(a->cluster), p->deployment);
    const struct zl_state_service *s = d ? zl_state_service(d, p->service) : NULL;
    return p->job || (s && s->generation == p->generation);
}

static void failed(struct pull *p, const struct zl_err *err, bool permanent)
{
    p->state = ZL_IMAGE_FAILED;
    p->failures++;
    p->failed_ms = agent_now(p->agent);
    p->permanent = permanent;
    p->err = *err;
    zl_log_warn("image not available service=%s.%s image=%s: %s", p->deployment, p->service, p->reference, err->text);
}

struct pull_job {
    struct pull *pull;
    struct zl_agent *agent;
    struct zl_child *child;
    struct zl_watch *watch;
    struct zl_buf line;
    int out;
    bool exited, ended, done;
    struct zl_err err;
};

static void finish(struct pull_job *j)
{
    if (!j->exited || !j->ended)
        return;
    struct pull *p = j->pull;
    if (j->done)
        p->state = ZL_IMAGE_PRESENT;
    else
        failed(p, &j->err, j->err.code && !zl_error_retryable(j->err.code));
    p->job = NULL;
    zl_buf_done(&j->line);
    zl_phase("pull.done");
    j->agent->open_calls--;
    agent_step_soon(j->agent);
    free(j);
}

static void take_line(struct pull_job *j, struct zl_str line)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, line, &zl_limits_document, &v, &pe) == 0) {
        struct zl_str event = zl_value_str(v, "event");
        if (zl_str_is(event, "done")) {
            j->done = true;
            if (*zl_value_cstr(v, "warning"))
                zl_log_warn("image=%s: %s", j->pull->reference, zl_value_cstr(v, "warning"));
        }
        if (zl_str_is(event, "error")) {
            int code = zl_error_by_name(zl_value_cstr(v, "code"));
            zl_fail(&j->err, code ? code : ZL_E_PULL_FAILED, "%s", zl_value_cstr(v, "message"));
            snprintf(j->err.hint, sizeof j->err.hint, "%s", zl_value_cstr(v, "hint"));
        }
        if (zl_str_is(event, "progress")) {
            zl_auto_buf data = ZL_BUF_INIT;
            zl_buf_printf(&data, "{\"service\":\"%s\",\"image\":", j->pull->service);
            zl_json_string(&data, zl_str(j->pull->reference));
            zl_buf_puts(&data, ",\"layer\":");
            zl_json_string(&data, zl_value_str(v, "layer"));
            zl_buf_printf(&data, ",\"current\":%llu,\"total\":%llu}", (unsigned long long)zl_value_u64(v, "current", 0),
                          (unsigned long long)zl_value_u64(v, "total", 0));
            agent_event(j->agent, j->pull->deployment, "pull", zl_buf_view(&data), false);
        }
    }
    zl_arena_done(&arena);
}

static void readable(void *arg, int events)
{
    struct pull_job *j = arg;
    (void)events;
    zl_buf_reserve(&j->line, 8192);
    ssize_t n = read(j->out, j->line.p + j->line.n, 8192);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        j->watch = zl_watch_free(j->watch);
        j->out = zl_close(j->out);
        j->ended = true;
        finish(j);
        return;
    }
    j->line.n += (size_t)n;
    const char *nl;
    while ((nl = memchr(j->line.p, '\n', j->line.n)) != NULL) {
        size_t len = (size_t)(nl - j->line.p);
        take_line(j, zl_str_n(j->line.p, len));
        zl_buf_drop(&j->line, len + 1);
    }
    if (j->line.n > (1 << 20))
        zl_buf_clear(&j->line);
}

static void exited(void *arg, int status)
{
    struct pull_job *j = arg;
    j->exited = true;
    j->child = NULL;
    if (!j->done && !j->err.code)
        zl_fail(&j->err, ZL_E_PULL_FAILED, "the image job ended by %s %d", WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    finish(j);
}

static void spawn(struct pull *p, const struct zl_service *s)
{
    struct zl_agent *a = p->agent;
    struct zl_err err = { 0 };
    zl_auto_buf request = ZL_BUF_INIT;
    int out[2];
    struct zl_image_request q = { .verb = ZL_IMAGE_PULL, .reference = s->image.name, .policy = s->image.policy };
    struct zl_arena arena;
    zl_arena_init(&arena);
    zl_json_print(&request, zl_print(&arena, &zl_type_image_request, &q), 0);
    zl_arena_done(&arena);
    zl_auto_close int in = zl_sealed_memfd("image-job", request.p, request.n);
    if (in < 0 || lseek(in, 0, SEEK_SET) < 0 || pipe2(out, O_CLOEXEC) < 0) {
        zl_fail(&err, -errno, "start the image job");
        failed(p, &err, false);
        return;
    }
    struct pull_job *j = zl_xcalloc(1, sizeof *j);
    j->pull = p;
    j->agent = a;
    j->out = out[0];
    ZL_IGNORE(zl_set_nonblock(out[0], true)); /* a blocking read after poll does not wait either */
    const char *argv[ZL_AGENT_IMAGE_WORDS], *program = zl_agent_image_job(a, argv);
    struct zl_child_fd fds[] = { { in, 0 }, { out[1], 1 } };
    struct zl_child_options o = { .path = program,
                                  .argv = argv,
                                  .envp = (const char *const *)environ,
                                  .fds = fds,
                                  .nfds = 2,
                                  .exited = exited,
                                  .arg = j };
    int r = zl_child_spawn(a->loop, &o, &j->child);
    zl_close(out[1]);
    r = r < 0 ? r : zl_watch_new(a->loop, out[0], ZL_READABLE, readable, j, &j->watch);
    if (r < 0) {
        zl_child_free(j->child); /* one that was spawned ends by its closed pipe */
        zl_close(out[0]);
        free(j);
        zl_fail(&err, r, "start %s", program);
        failed(p, &err, false);
        return;
    }
    p->state = ZL_IMAGE_PULLING;
    p->job = j;
    a->open_calls++;
    zl_phase("pull.spawned");
}

void agent_pulls_prune(struct zl_agent *a, bool all)
{
    for (struct pull **at = &a->pulls; *at;) {
        struct pull *p = *at;
        struct pull_job *j = p->job;
        if (!all && wanted(a, p)) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        if (j) {
            zl_watch_free(j->watch);
            zl_child_free(j->child);
            zl_close(j->out);
            zl_buf_done(&j->line);
            free(j);
        }
        free(p->deployment);
        free(p->service);
        free(p->reference);
        free(p);
    }
}

void agent_pull(struct zl_agent *a, const char *deployment, const struct zl_service *s, uint64_t generation)
{
    struct pull *p = agent_pull_of(a, deployment, s->name, generation, true);
    if (p->state == ZL_IMAGE_PULLING)
        return;
    free(p->reference);
    p->reference = zl_xstrdup(s->image.name);
    struct zl_arena arena;
    struct zl_image_record *record;
    struct zl_err err = { 0 };
    zl_arena_init(&arena);
    int r = s->image.policy == ZL_PULL_ALWAYS || s->image.policy == ZL_PULL_NEWER
                ? ZL_E_IMAGE_NOT_FOUND
                : zl_store_find_for(&a->store, &arena, s->image.name, NULL, &record, &err);
    zl_arena_done(&arena);
    if (r == 0)
        p->state = ZL_IMAGE_PRESENT;
    else if (s->image.policy == ZL_PULL_NEVER)
        failed(p, &err, true);
    else
        spawn(p, s);
    agent_step_soon(a);
}
