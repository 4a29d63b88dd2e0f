#include "cli/imagework.h"

#include "base/fd.h"
#include "cli/node.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "image/credentials.h"
#include "spec/reference.h"

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

/* One event: 0, or the error that it is. */
static int take(struct zl_cli *cli, struct zl_progress *p, struct zl_str line, const struct zl_value **last,
                struct zl_err *err)
{
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
        zl_progress_bytes(p, key, zl_value_u64(e, "current", 0), zl_value_u64(e, "total", 0));
        return 0;
    }
    if (!zl_streq(kind, "error")) {
        *last = e;
        return 0;
    }
    int code = zl_error_by_name(zl_value_cstr(e, "code"));
    code = zl_fail(err, code ? code : ZL_E_INTERNAL, "%s", zl_value_cstr(e, "message"));
    const char *hint = zl_value_cstr(e, "hint");
    return hint[0] ? zl_hint(err, code, "%s", hint) : code;
}

/* The agent's user has files of its own; who asks it brings the credentials from his. */
static void add_credentials(struct zl_cli *cli, struct zl_image_request *q)
{
    struct zl_reference ref;
    struct zl_credentials c;
    const char *why, *to = q->destination ? q->destination : q->reference;
    if (q->username || zl_reference_parse(zl_str(to), &ref, &why) < 0)
        return;
    zl_credentials_find(ref.registry, ref.repository, &c);
    q->username = c.user[0] ? zl_arena_strdup(&cli->arena, c.user) : NULL;
    q->password = c.password[0] ? zl_arena_strdup(&cli->arena, c.password) : NULL;
    q->identity_token = c.identity_token[0] ? zl_arena_strdup(&cli->arena, c.identity_token) : NULL;
    q->registry_token = c.registry_token[0] ? zl_arena_strdup(&cli->arena, c.registry_token) : NULL;
    zl_credentials_done(&c);
}

static int by_agent(struct zl_cli *cli, const struct zl_image_request *request, struct zl_progress *p,
                    const struct zl_value **ret, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    zl_auto_buf path = ZL_BUF_INIT;
    zl_buf_puts(&path, "/api/v1/images/");
    if (request->verb == ZL_IMAGE_REMOVE) {
        zl_path_segment(&path, request->reference);
        zl_buf_puts(&path, request->force ? "?force=true" : "");
        struct zl_value *reply = NULL;
        e = zl_client_call(c, &cli->arena, "DELETE", path.p, NULL, &reply, err);
        *ret = reply;
        return e;
    }
    static const struct {
        const char *path;
        enum zl_body body;
    } verbs[] = { [ZL_IMAGE_PULL] = { "pull", ZL_BODY_PULL },
                  [ZL_IMAGE_IMPORT] = { "import", ZL_BODY_IMPORT },
                  [ZL_IMAGE_PUSH] = { "push", ZL_BODY_PUSH } };
    struct zl_image_request q = *request;
    if (q.verb != ZL_IMAGE_IMPORT)
        add_credentials(cli, &q);
    zl_buf_puts(&path, verbs[q.verb].path);
    ZL_AUTO(zl_stream) s = NULL;
    e = zl_stream_open(c, "POST", path.p, zl_print(&cli->arena, zl_body_types[verbs[q.verb].body], &q), &s, err);
    struct zl_str line;
    while (e >= 0) {
        int r = zl_stream_line(s, -1, &line, err);
        if (r == -EINTR || r == -EAGAIN)
            continue;
        if (r <= 0)
            return r;
        e = take(cli, p, line, ret, err);
    }
    return e;
}

/* `inside`: an ordinary user's job is started by zl-inside, in a user namespace of its own; NULL: root's, or one
 * without a store. `data` NULL: a job without a store. */
static int spawn(const char *program, const char *inside, const char *data, int in, int out, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all;
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_adddup2(&files, out, 1);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigdefault(&attr, &all);
    char *argv[] = { (char[]){ "zl-inside" },
                     (char[]){ "map" },
                     (char *)(uintptr_t)program,
                     (char[]){ "zl-image" },
                     (char *)(uintptr_t)(data ? "--data-dir" : "--login"),
                     (char *)(uintptr_t)data,
                     NULL };
    enum { LEADING = 3 };
    int e = posix_spawn(ret, inside ? inside : program, &files, &attr, inside ? argv : argv + LEADING, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -e;
}

static int read_events(struct zl_cli *cli, int fd, struct zl_progress *p, const struct zl_value **ret,
                       struct zl_err *err)
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
            int r = e >= 0 ? take(cli, p, zl_str_n(b.p, length), ret, err) : 0; /* the first error counts */
            e = r < 0 ? r : e;
            zl_buf_drop(&b, length + 1);
        }
        if (b.n > LINE_BYTES_MAX)
            return zl_fail(err, ZL_E_PROTOCOL, "a line of the image job is too long");
    }
}

static int run_job(struct zl_cli *cli, const char *data, const struct zl_image_request *request, struct zl_progress *p,
                   const struct zl_value **ret, struct zl_err *err)
{
    zl_auto_free char *program = NULL, *inside = NULL;
    int e = zl_program_find("zl-image", &program, err);
    if (e < 0 || (data && geteuid() != 0 && (e = zl_program_find("zl-inside", &inside, err)) < 0))
        return e;
    zl_auto_buf json = ZL_BUF_INIT;
    zl_json_print(&json, zl_print(&cli->arena, &zl_type_image_request, request), 0);
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
    e = spawn(program, inside, data, in, to, &pid);
    if (e < 0)
        return zl_fail(err, e, "start %s", program);
    to = zl_close(to);
    e = read_events(cli, from, p, ret, err);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (e >= 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        e = zl_fail(err, ZL_E_INTERNAL, "the image job ended with %s %d", WIFSIGNALED(status) ? "signal" : "exit code",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return e;
}

static int by_own_job(struct zl_cli *cli, const struct zl_image_request *request, struct zl_progress *p,
                      const struct zl_value **ret, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    if (zl_mkdir_p(c->place.data, 0755) < 0 && access(c->place.data, W_OK) < 0)
        return zl_hint(err, zl_fail(err, -errno, "use the data dir %s", c->place.data),
                       "name another with --data-dir, or run as root");
    return run_job(cli, c->place.data, request, p, ret, err);
}

int zl_image_login(struct zl_cli *cli, const struct zl_image_request *request, struct zl_err *err)
{
    struct zl_progress p;
    const struct zl_value *done;
    zl_progress_init(&p, cli);
    int e = run_job(cli, NULL, request, &p, &done, err);
    zl_progress_done(&p);
    return e;
}

int zl_image_work(struct zl_cli *cli, const struct zl_image_request *request, const struct zl_value **ret,
                  struct zl_err *err)
{
    struct zl_progress p;
    zl_progress_init(&p, cli);
    *ret = NULL;
    int e = zl_agent_runs(cli) ? by_agent(cli, request, &p, ret, err) : by_own_job(cli, request, &p, ret, err);
    zl_progress_done(&p);
    return e;
}
