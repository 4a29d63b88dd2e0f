#include "cli/imagework.h"

#include "base/fd.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "image/credentials.h"
#include "spec/reference.h"
#include "sys/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 1 << 20 };

bool zl_agent_runs(struct zl_cli *cli)
{
    struct zl_client *c;
    return zl_cli_client(cli, ZL_NEVER_START, &c, NULL) >= 0 && zl_client_probe(&c->place, NULL) == ZL_AGENT_REACHABLE;
}

/* Where the events of a job go. */
struct listener {
    struct zl_cli *cli;
    struct zl_progress progress;
    struct zl_value *rows;
    const struct zl_value *last;
    const char *problem; /* why there are no credentials to send along; NULL */
};

/* What an event is about, as a row. */
static struct zl_value *without_event(struct zl_cli *cli, const struct zl_value *e)
{
    struct zl_value *row = zl_value_new(&cli->arena, ZL_MAP);
    for (struct zl_value *i = e->first, *next; i; i = next) {
        next = i->next;
        i->next = NULL;
        if (!zl_streq(i->key->text.p, "event"))
            zl_value_set(&cli->arena, row, i->key->text.p, i);
    }
    return row;
}

/* One event: 0, or the error that it is. */
static int take(struct listener *l, struct zl_str line, struct zl_err *err)
{
    struct zl_cli *cli = l->cli;
    struct zl_value *e;
    struct zl_parse_error pe;
    if (!zl_str_trim(line).n)
        return 0;
    char *text = zl_arena_strndup(&cli->arena, line.p, line.n);
    if (zl_json_parse(&cli->arena, zl_str_n(text, line.n), &zl_limits_document, &e, &pe) < 0)
        return zl_fail(err, ZL_E_PROTOCOL, "the image job wrote what is no event: %s", pe.text);
    const char *kind = zl_value_cstr(e, "event");
    if (zl_streq(kind, "progress")) {
        const char *layer = zl_value_cstr(e, "layer");
        char key[40];
        bool digest = strncmp(layer, "sha256:", 7) == 0;
        snprintf(key, sizeof key, digest ? "layer %.12s" : "%.32s", digest ? layer + 7 : layer);
        zl_progress_bytes(&l->progress, key, zl_value_u64(e, "current", 0), zl_value_u64(e, "total", 0));
        return 0;
    }
    if (!zl_streq(kind, "error")) {
        if (zl_streq(kind, "done"))
            l->last = without_event(cli, e);
        else if (l->rows)
            zl_value_append(l->rows, without_event(cli, e));
        return 0;
    }
    int code = zl_error_by_name(zl_value_cstr(e, "code"));
    code = zl_fail(err, code ? code : ZL_E_INTERNAL, "%s", zl_value_cstr(e, "message"));
    const char *hint = zl_value_cstr(e, "hint");
    return hint[0] ? zl_hint(err, code, "%s", hint) : code;
}

/* The agent's user has files of its own; who asks it brings the credentials from his. */
static void add_credentials(struct listener *l, struct zl_image_request *q)
{
    struct zl_cli *cli = l->cli;
    struct zl_reference ref;
    struct zl_credentials c;
    const char *why, *to = q->destination ? q->destination : q->reference;
    bool local = q->verb == ZL_IMAGE_PULL && q->policy == ZL_PULL_NEVER; /* a helper may ask the network */
    if (local || q->username || zl_reference_parse(zl_str(to), &ref, &why) < 0)
        return;
    ZL_IGNORE(zl_process_private()); /* no reason to fail: the user's files hold them, too */
    zl_credentials_find(ref.registry, ref.repository, &c);
    q->username = c.user[0] ? zl_arena_strdup(&cli->arena, c.user) : NULL;
    q->password = c.password[0] ? zl_arena_strdup(&cli->arena, c.password) : NULL;
    q->identity_token = c.identity_token[0] ? zl_arena_strdup(&cli->arena, c.identity_token) : NULL;
    q->registry_token = c.registry_token[0] ? zl_arena_strdup(&cli->arena, c.registry_token) : NULL;
    l->problem = c.problem[0] ? zl_arena_strdup(&cli->arena, c.problem) : NULL;
    zl_credentials_done(&c);
}

/* How each verb is asked of an agent. */
static const struct {
    const char *path; /* below /api/v1/; NULL: by the image's own path */
    enum zl_body body;
} verbs[] = {
    [ZL_IMAGE_PULL] = { "images/pull", ZL_BODY_PULL }, [ZL_IMAGE_IMPORT] = { "images/import", ZL_BODY_IMPORT },
    [ZL_IMAGE_LOAD] = { "images/load", ZL_BODY_LOAD }, [ZL_IMAGE_SAVE] = { "images/save", ZL_BODY_SAVE },
    [ZL_IMAGE_TAG] = { "images/tag", ZL_BODY_TAG },    [ZL_IMAGE_PRUNE] = { "images/prune", ZL_BODY_PRUNE },
    [ZL_IMAGE_FSCK] = { "images/fsck", ZL_BODY_FSCK }, [ZL_IMAGE_DIFF] = { "images/diff", ZL_BODY_DIFF },
    [ZL_IMAGE_DF] = { "usage/images", ZL_BODY_NONE },  [ZL_IMAGE_HISTORY] = { NULL, ZL_BODY_NONE },
    [ZL_IMAGE_REMOVE] = { NULL, ZL_BODY_NONE },        [ZL_IMAGE_PUSH] = { "images/push", ZL_BODY_PUSH },
};

static int by_agent(struct listener *l, const struct zl_image_request *request, struct zl_err *err)
{
    struct zl_cli *cli = l->cli;
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    zl_auto_buf path = ZL_BUF_INIT;
    const char *below = verbs[request->verb].path;
    enum zl_body body = verbs[request->verb].body;
    zl_buf_printf(&path, "/api/v1/%s", below ? below : "images/");
    if (!below)
        zl_path_segment(&path, request->reference);
    if (request->verb == ZL_IMAGE_REMOVE) {
        zl_buf_puts(&path, request->force ? "?force=true" : "");
        struct zl_value *reply = NULL;
        e = zl_client_call(c, &cli->arena, "DELETE", path.p, NULL, &reply, err);
        l->last = reply;
        return e;
    }
    if (request->verb == ZL_IMAGE_HISTORY)
        zl_buf_puts(&path, "/history");
    struct zl_image_request q = *request;
    if (q.verb == ZL_IMAGE_PULL || q.verb == ZL_IMAGE_PUSH)
        add_credentials(l, &q);
    ZL_AUTO(zl_stream) s = NULL;
    const struct zl_value *v = body == ZL_BODY_NONE ? NULL : zl_print(&cli->arena, zl_body_types[body], &q);
    e = zl_stream_open(c, v ? "POST" : "GET", path.p, v, &s, err);
    struct zl_str line;
    while (e >= 0) {
        int r = zl_stream_line(s, -1, &line, err);
        if (r == -EINTR || r == -EAGAIN)
            continue;
        if (r == 0 && !l->last) /* a killed agent; of a killed job it tells */
            return zl_fail(err, ZL_E_PROTOCOL, "the agent's answer ended before its image job did");
        if (r <= 0)
            return r;
        e = take(l, line, err);
    }
    if (e == ZL_E_UNAUTHORIZED && l->problem) {
        err->hint[0] = 0; /* the agent does not know of them */
        return zl_hint(err, e, "credentials could not be read: %s", l->problem);
    }
    return e;
}

/* `inside`: an ordinary user's job is started by zl-inside, in a user namespace of its own; NULL: root's, or one
 * without a store. `data` NULL: a job without a store. `descriptor`: the job's third, or negative. */
static int spawn(const char *program, const char *inside, const char *data, int in, int out, int descriptor, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all;
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    if (descriptor >= 0) /* before it is replaced, when it is one of our standard streams */
        posix_spawn_file_actions_adddup2(&files, descriptor, 3);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_adddup2(&files, out, 1);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigdefault(&attr, &all);
    char *argv[] = { (char[]){ "zl-inside" },
                     (char[]){ "map" },
                     (char *)(uintptr_t)program,
                     (char[]){ "zl-image" },
                     (char *)(uintptr_t)(data ? "--data-dir" : "--remote"),
                     (char *)(uintptr_t)data,
                     NULL };
    enum { LEADING = 3 };
    int e = posix_spawn(ret, inside ? inside : program, &files, &attr, inside ? argv : argv + LEADING, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -e;
}

static int read_events(struct listener *l, int fd, struct zl_err *err)
{
    zl_auto_buf b = ZL_BUF_INIT;
    int e = 0;
    for (;;) {
        zl_buf_reserve(&b, 4096);
        ssize_t n = read(fd, b.p + b.n, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 && e >= 0 ? zl_fail(err, -errno, "read from the image job") : e;
        b.n += (size_t)n;
        b.p[b.n] = 0;
        for (const char *end; (end = memchr(b.p, '\n', b.n));) {
            size_t length = (size_t)(end - b.p);
            int r = e >= 0 ? take(l, zl_str_n(b.p, length), err) : 0; /* the first error counts */
            e = r < 0 ? r : e;
            zl_buf_drop(&b, length + 1);
        }
        if (b.n > LINE_BYTES_MAX)
            return zl_fail(err, ZL_E_PROTOCOL, "a line of the image job is too long");
    }
}

static int run_job(struct listener *l, const char *data, const struct zl_image_request *request, int descriptor,
                   struct zl_err *err)
{
    struct zl_cli *cli = l->cli;
    zl_auto_free char *program = NULL, *inside = NULL;
    int e = zl_program_find("zl-image", &program, err);
    if (e < 0 || (data && geteuid() != 0 && (e = zl_program_find("zl-inside", &inside, err)) < 0))
        return e;
    zl_config_export();
    zl_auto_buf json = ZL_BUF_INIT;
    struct zl_image_request asked = *request;
    asked.quiet = l->progress.mode == ZL_PROGRESS_QUIET;
    zl_json_print(&json, zl_print(&cli->arena, &zl_type_image_request, &asked), 0);
    zl_auto_close int in = zl_sealed_memfd("image-request", json.p, json.n);
    if (in < 0)
        return zl_fail(err, in, "write the image job's request");
    (void)lseek(in, 0, SEEK_SET);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return zl_fail(err, -errno, "start the image job");
    zl_auto_close int from = ends[0];
    zl_auto_close int to = ends[1];
    pid_t pid;
    enum { FREE = 10 }; /* above what the job's own descriptors are */
    zl_auto_close int high_in = fcntl(in, F_DUPFD_CLOEXEC, FREE);
    zl_auto_close int high_out = fcntl(to, F_DUPFD_CLOEXEC, FREE);
    if (high_in < 0 || high_out < 0)
        return zl_fail(err, -errno, "start the image job");
    e = spawn(program, inside, data, high_in, high_out, descriptor, &pid);
    if (e < 0)
        return zl_fail(err, e, "start %s", program);
    to = zl_close(to);
    high_out = zl_close(high_out);
    e = read_events(l, from, err);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (e >= 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        e = zl_fail(err, ZL_E_INTERNAL, "the image job ended with %s %d", WIFSIGNALED(status) ? "signal" : "exit code",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return e;
}

static int by_own_job(struct listener *l, const struct zl_image_request *request, int descriptor, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(l->cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    if (zl_mkdir_p(c->place.data, 0711) < 0 && access(c->place.data, W_OK) < 0)
        return zl_hint(err, zl_fail(err, -errno, "use the data dir %s", c->place.data),
                       "name another with --data-dir, or run as root");
    return run_job(l, c->place.data, request, descriptor, err);
}

int zl_image_remote(struct zl_cli *cli, const struct zl_image_request *request, struct zl_value *rows,
                    struct zl_err *err)
{
    struct listener l = { .cli = cli, .rows = rows };
    zl_progress_init(&l.progress, cli);
    int e = run_job(&l, NULL, request, -EBADF, err);
    zl_progress_done(&l.progress);
    return e;
}

int zl_image_work_with(struct zl_cli *cli, const struct zl_image_request *request,
                       const struct zl_image_work_options *o, const struct zl_value **ret, struct zl_err *err)
{
    struct listener l = { .cli = cli, .rows = o->rows };
    zl_progress_init(&l.progress, cli);
    int e = o->descriptor < 0 && zl_agent_runs(cli) ? by_agent(&l, request, err)
                                                    : by_own_job(&l, request, o->descriptor, err);
    zl_progress_done(&l.progress);
    *ret = l.last;
    return e;
}

int zl_image_work(struct zl_cli *cli, const struct zl_image_request *request, const struct zl_value **ret,
                  struct zl_err *err)
{
    return zl_image_work_with(cli, request, &(struct zl_image_work_options){ .descriptor = -EBADF }, ret, err);
}
