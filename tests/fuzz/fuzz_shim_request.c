/* What comes on a shim's socket: frames, and the body of each. What is taken keeps to its limits, and a command's
 * variables are the container's with exactly what was asked changed. */
#include "base/assert.h"
#include "base/error.h"
#include "runtime/native/protocol.h"
#include "shim/request.h"

static const char *const own[] = { "PATH=/bin", "PA=1", "HOME=/", NULL };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool names(struct zl_str entry, const char *variable)
{
    size_t n = strcspn(variable, "=");
    return entry.n >= n && memcmp(entry.p, variable, n) == 0 && (entry.n == n || entry.p[n] == '=');
}

static size_t count(const char *const *list)
{
    size_t n = 0;
    while (list[n])
        n++;
    return n;
}

/* The last request that names the container's variable decides. */
static void check_variable(struct zl_str body, const char *variable, const char *const *env)
{
    struct zl_record r;
    struct zl_str expected = zl_str(variable);
    while (zl_record_next(&body, &r) > 0)
        if (r.type == ZL_SH_R_ENV && names(r.bytes, variable))
            expected = r.bytes;
    bool gone = !memchr(expected.p, '=', expected.n);
    unsigned found = 0;
    for (; *env; env++) {
        if (!names(zl_str(*env), variable))
            continue;
        zl_assert(!gone && zl_str_is(expected, *env));
        found++;
    }
    zl_assert(found == !gone);
}

static void command(struct zl_str body)
{
    struct shim_request_exec e;
    struct shim_request_command c;
    struct zl_arena arena;
    int r = shim_request_exec(body, &e);
    if (r < 0) {
        zl_assert(r == ZL_E_PROTOCOL || r == ZL_E_LIMIT || r == ZL_E_INVALID);
        return;
    }
    zl_assert(e.argc > 0 && e.argc <= ZL_SH_ARGS_MAX && e.nenv <= ZL_SH_ENV_MAX);
    zl_assert(e.rows <= 65535 && e.columns <= 65535 && (e.session || (!e.tty && !e.input)));
    zl_arena_init(&arena);
    shim_request_command(&arena, body, &e, own, &c);
    zl_assert(count(c.argv) == e.argc && count(c.env) <= e.nenv + count(own));
    for (size_t i = 0; own[i]; i++)
        check_variable(body, own[i], c.env);
    zl_arena_done(&arena);
}

static void body_of(const struct zl_frame *f)
{
    struct shim_request_kill k;
    struct zl_str input;
    unsigned rows, columns;
    bool wants_input;
    switch (f->type) {
    case ZL_SH_EXEC:
        command(f->body);
        break;
    case ZL_SH_KILL:
        if (shim_request_kill(f->body, &k) == 0)
            zl_assert(k.signal >= 1 && k.signal <= 64);
        break;
    case ZL_SH_INPUT:
        if (shim_request_input(f->body, &input) == 0)
            zl_assert(input.p && input.n <= ZL_SH_INPUT_MAX);
        break;
    case ZL_SH_RESIZE:
        if (shim_request_resize(f->body, &rows, &columns) == 0)
            zl_assert(rows <= 65535 && columns <= 65535);
        break;
    case ZL_SH_ATTACH:
        if (shim_request_attach(f->body, &wants_input) < 0)
            break;
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str in = zl_str_n((const char *)data, size);
    struct zl_frame f;
    ssize_t n;
    while ((n = zl_frame_parse(in, ZL_SH_MAGIC, ZL_SH_REQUEST_MAX, &f)) > 0) {
        body_of(&f);
        in = zl_str_n(in.p + n, in.n - (size_t)n);
    }
    return 0;
}
