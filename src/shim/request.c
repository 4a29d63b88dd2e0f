#include "shim/request.h"

#include "base/error.h"
#include "runtime/native/protocol.h"

enum { STRING_MAX = 128 * 1024 - 1 /* what execve(2) takes of one */, SIZE_MAX_OF_TTY = 65535 };

/* A record that is 0 or 1, or a number up to `max`. */
static int number(const struct zl_record *r, uint64_t max, uint64_t *ret)
{
    uint64_t v;
    if (zl_record_u64(r, &v) < 0)
        return ZL_E_PROTOCOL;
    if (v > max)
        return ZL_E_INVALID;
    *ret = v;
    return 0;
}

static int flag(const struct zl_record *r, bool *ret)
{
    uint64_t v = 0;
    int e = number(r, 1, &v);
    *ret = v != 0;
    return e;
}

static int size(const struct zl_record *r, unsigned *ret)
{
    uint64_t v = 0;
    int e = number(r, SIZE_MAX_OF_TTY, &v);
    *ret = (unsigned)v;
    return e;
}

static int text(const struct zl_record *r)
{
    if (r->bytes.n > STRING_MAX)
        return ZL_E_LIMIT;
    return r->bytes.n && memchr(r->bytes.p, 0, r->bytes.n) ? ZL_E_INVALID : 0;
}

static int take_exec(const struct zl_record *r, struct shim_request_exec *e)
{
    int bad;
    switch (r->type) {
    case ZL_SH_R_ARG:
        bad = text(r);
        return bad < 0 ? bad : ++e->argc > ZL_SH_ARGS_MAX ? ZL_E_LIMIT : 0;
    case ZL_SH_R_ENV:
        bad = text(r);
        if (bad == 0 && (!r->bytes.n || r->bytes.p[0] == '='))
            bad = ZL_E_INVALID;
        return bad < 0 ? bad : ++e->nenv > ZL_SH_ENV_MAX ? ZL_E_LIMIT : 0;
    case ZL_SH_R_CWD:
    case ZL_SH_R_USER:
        return text(r);
    case ZL_SH_R_SESSION:
        return flag(r, &e->session);
    case ZL_SH_R_TTY:
        return flag(r, &e->tty);
    case ZL_SH_R_STDIN:
        return flag(r, &e->input);
    case ZL_SH_R_PRIVILEGED:
        return flag(r, &e->privileged);
    case ZL_SH_R_ROWS:
        return size(r, &e->rows);
    case ZL_SH_R_COLUMNS:
        return size(r, &e->columns);
    default:
        return 0; /* of a later version */
    }
}

int shim_request_exec(struct zl_str body, struct shim_request_exec *ret)
{
    struct shim_request_exec e = { 0 };
    struct zl_record r;
    int more, bad = 0;
    while (bad == 0 && (more = zl_record_next(&body, &r)) != 0)
        bad = more < 0 ? ZL_E_PROTOCOL : take_exec(&r, &e);
    if (bad < 0)
        return bad;
    if (e.argc == 0 || ((e.tty || e.input) && !e.session))
        return ZL_E_INVALID;
    *ret = e;
    return 0;
}

static bool same_variable(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && (b[n] == '=' || !b[n]);
}

/* "NAME=value" replaces or adds, "NAME" takes the variable away. */
static void set_variable(const char **env, size_t *n, const char *entry)
{
    size_t i = 0;
    while (i < *n && !same_variable(entry, env[i]))
        i++;
    if (strchr(entry, '=')) {
        env[i] = entry;
        *n += i == *n;
    } else if (i < *n) {
        env[i] = env[--*n];
    }
}

void shim_request_command(struct zl_arena *arena, struct zl_str body, const struct shim_request_exec *exec,
                          const char *const *env, struct shim_request_command *ret)
{
    struct zl_record r;
    size_t argc = 0, n = 0;
    while (env[n])
        n++;
    *ret = (struct shim_request_command){ 0 };
    ret->argv = zl_arena_alloc(arena, (exec->argc + 1) * sizeof *ret->argv);
    ret->env = zl_arena_alloc(arena, (n + exec->nenv + 1) * sizeof *ret->env);
    for (size_t i = 0; i < n; i++)
        ret->env[i] = env[i];
    while (zl_record_next(&body, &r) > 0) {
        if (r.type < ZL_SH_R_ARG || r.type > ZL_SH_R_USER)
            continue;
        const char *s = zl_arena_strndup(arena, r.bytes.n ? r.bytes.p : "", r.bytes.n);
        if (r.type == ZL_SH_R_ARG)
            ret->argv[argc++] = s;
        else if (r.type == ZL_SH_R_ENV)
            set_variable(ret->env, &n, s);
        else if (r.type == ZL_SH_R_CWD)
            ret->cwd = s;
        else
            ret->user = s;
    }
    ret->argv[argc] = NULL;
    ret->env[n] = NULL;
}

int shim_request_kill(struct zl_str body, struct shim_request_kill *ret)
{
    struct zl_record r;
    uint64_t signal = 0, all = 0;
    int more, bad = 0;
    while (bad == 0 && (more = zl_record_next(&body, &r)) != 0) {
        if (more < 0)
            bad = ZL_E_PROTOCOL;
        else if (r.type == ZL_SH_R_SIGNAL)
            bad = number(&r, 64, &signal);
        else if (r.type == ZL_SH_R_ALL)
            bad = number(&r, 1, &all);
    }
    if (bad < 0 || signal == 0)
        return bad < 0 ? bad : ZL_E_INVALID;
    *ret = (struct shim_request_kill){ (int)signal, all != 0 };
    return 0;
}

int shim_request_resize(struct zl_str body, unsigned *ret_rows, unsigned *ret_columns)
{
    struct zl_record r;
    unsigned rows = 0, columns = 0;
    int more, bad = 0;
    while (bad == 0 && (more = zl_record_next(&body, &r)) != 0) {
        if (more < 0)
            bad = ZL_E_PROTOCOL;
        else if (r.type == ZL_SH_R_ROWS)
            bad = size(&r, &rows);
        else if (r.type == ZL_SH_R_COLUMNS)
            bad = size(&r, &columns);
    }
    if (bad < 0)
        return bad;
    *ret_rows = rows;
    *ret_columns = columns;
    return 0;
}

int shim_request_input(struct zl_str body, struct zl_str *ret)
{
    struct zl_record r;
    struct zl_str data = { NULL, 0 };
    int more;
    while ((more = zl_record_next(&body, &r)) > 0) {
        if (r.type == ZL_SH_R_DATA && data.p)
            return ZL_E_PROTOCOL;
        if (r.type == ZL_SH_R_DATA)
            data = zl_str_n(r.bytes.n ? r.bytes.p : "", r.bytes.n);
    }
    if (more < 0 || !data.p)
        return ZL_E_PROTOCOL;
    if (data.n > ZL_SH_INPUT_MAX)
        return ZL_E_LIMIT;
    *ret = data;
    return 0;
}

int shim_request_attach(struct zl_str body, bool *ret_input)
{
    struct zl_record r;
    bool input = false;
    int more, bad = 0;
    while (bad == 0 && (more = zl_record_next(&body, &r)) != 0)
        bad = more < 0 ? ZL_E_PROTOCOL : r.type == ZL_SH_R_STDIN ? flag(&r, &input) : 0;
    if (bad < 0)
        return bad;
    *ret_input = input;
    return 0;
}
