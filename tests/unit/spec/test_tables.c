/*
 * Every row of the document's field tables, one after the other, in the smallest document that has it: a good value is
 * taken; a value of the wrong type, one out of range and a misspelt key are refused where they stand. A row without a
 * line in `cases` below fails, and so does a line without a row.
 */
#include "../testing.h"

#include "spec/spec.h"

#include <stdio.h>

enum { DEPTH_MAX = 8 };

struct row_case {
    const char *path; /* keys from the root; map keys and list indices are left out */
    const char *good, *type, *range;
    const char *code;   /* of the value out of range; NULL: yaml_error */
    unsigned at;        /* how many bytes behind the value's first the problem is */
    const char *beside; /* what its struct needs besides, instead of the required rows */
};

static const struct row_case cases[] = {
    { "version", "v1", "[v1]", "v2", "invalid_version" },
    { "deployment", "shop", "{a: b}", "Shop", "invalid_deployment_name" },
    { "services", "{a: {image: {name: b}}}", "[a]", "{-a: {image: {name: b}}}", "invalid_service_name", 1 },
    { "services.rtype", "service", "[service]", "servant" },
    { "services.image", "{name: b}", "[b]", "{}" },
    { "services.image.name", "b:1", "{a: b}", "'b c'", NULL },
    { "services.image.pull_policy", "newer", "[always]", "sometimes", .beside = "name: b" },
    { "services.command", "[a, b]", "17", "[[a]]", NULL, 1 },
    { "services.command.entrypoint", "[/a]", "/a", "[/a, {b: c}]", NULL, 5 },
    { "services.command.args", "[a]", "17", "[[]]", NULL, 1 },
    { "services.command.workdir", "/srv", "[/srv]", "srv" },
    { "services.env", "{A: b}", "17", "{1A: b}", "invalid_env_var", 1 },
    { "services.endpoints", "[{name: w, protocol: http, port: 80}]", "80", "[80]", NULL, 1 },
    { "services.endpoints.name", "web", "[web]", "''", "length", .beside = "protocol: tcp, port: 80" },
    { "services.endpoints.protocol", "tcp", "[tcp]", "carrier", .beside = "name: web, port: 80" },
    { "services.endpoints.port", "65535", "[80]", "65536", "invalid_port", .beside = "name: web, protocol: tcp" },
    { "services.endpoints.target_port", "1", "{a: 80}", "0", "invalid_port",
      .beside = "name: web, protocol: tcp, port: 80" },
    { "services.endpoints.expose", "public", "[public]", "nowhere", .beside = "name: web, protocol: tcp, port: 80" },
    { "services.scale", "{mode: fixed, replicas: 2}", "2", "{mode: fixed}" },
    { "services.scale.mode", "manual", "[fixed]", "wild" },
    { "services.scale.min", "0", "[1]", "-1", "invalid_scale_range", .beside = "mode: adaptive, max: 5" },
    { "services.scale.max", "10000", "[5]", "10001", "invalid_scale_range", .beside = "mode: adaptive, min: 1" },
    { "services.scale.replicas", "10000", "[3]", "10001", "invalid_scale_range", .beside = "mode: fixed" },
    { "services.scale.cooldown", "1m 30s", "[30s]", "99999999999999999999s",
      .beside = "mode: adaptive, min: 1, max: 2" },
    { "services.scale.targets", "{cpu: 70}", "70", "{cpu: 101}", NULL, 6, "mode: adaptive, min: 1, max: 2" },
    { "services.scale.targets.cpu", "100%", "[70]", "0" },
    { "services.scale.targets.memory", "1", "{a: 70}", "101%" },
    { "services.scale.targets.rps", "1", "many", "0" },
    { "services.health", "{check: {type: tcp}}", "tcp", "{}" },
    { "services.health.start_grace", "0s", "[5s]", "-5s", .beside = "check: {type: tcp}" },
    { "services.health.interval", "1ms", "[5s]", "0s", .beside = "check: {type: tcp}" },
    { "services.health.timeout", "2h", "{a: 5s}", "0", .beside = "check: {type: tcp}" },
    { "services.health.retries", "1000", "[3]", "0", .beside = "check: {type: tcp}" },
    { "services.health.check", "{type: tcp}", "tcp", "{type: http}" },
    { "services.health.check.type", "tcp", "[tcp]", "smoke" },
    { "services.health.check.port", "0", "[80]", "65536", "invalid_port", .beside = "type: tcp" },
    { "services.health.check.url", "/health", "[/health]", "'/a b'", .beside = "type: http" },
    { "services.health.check.expect_status", "599", "[200]", "600", .beside = "type: http, url: /" },
    { "services.resources", "{cpu: 0.5}", "5", "{cpu: 0}", "invalid_cpu", 6 },
    { "services.resources.cpu", "0.01", "[1]", "-0.5", "invalid_cpu" },
    { "services.resources.memory", "64Mi", "[64Mi]", "9999999999Ti", "invalid_memory_format" },
    { "services.depends", "[{service: b}]", "b", "[b]", NULL, 1 },
    { "services.depends.service", "b", "[b]", "nobody", "unknown_dependency" },
    { "services.depends.condition", "started", "[healthy]", "tired", .beside = "service: b" },
    { "services.depends.timeout", "0", "[1m]", "1 fortnight", .beside = "service: b" },
    { "services.depends.on_timeout", "warn", "[fail]", "panic", .beside = "service: b" },
};
static unsigned used[ZL_ARRAY_LEN(cases)];

/* A row of the tables and the rows that lead to it from the root. */
struct place {
    const struct zl_type *types[DEPTH_MAX];
    const struct zl_field *rows[DEPTH_MAX];
    unsigned depth; /* index of the last */
};

struct emitted {
    struct zl_buf text;
    unsigned line, column, value; /* of the key, and the column of its value */
};

static const char *path_of(const struct place *p, unsigned depth, char ret[256])
{
    size_t n = 0;
    ret[0] = 0;
    for (unsigned i = 0; i <= depth; i++)
        n += (size_t)snprintf(ret + n, 256 - n, "%s%s", i ? "." : "", p->rows[i]->name);
    return ret;
}

static const struct row_case *case_of(const struct place *p, unsigned depth)
{
    char path[256];
    path_of(p, depth, path);
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        if (zl_streq(cases[i].path, path)) {
            used[i]++;
            return &cases[i];
        }
    }
    fail_msg("no case for the row '%s'", path);
    return NULL;
}

static void put_line(struct emitted *e, unsigned level, const char *key, const char *value)
{
    zl_buf_printf(&e->text, "%*s%s:%s%s\n", (int)level * 2, "", key, value ? " " : "", value ? value : "");
}

static void emit_beside(struct emitted *e, unsigned level, const char *beside)
{
    for (struct zl_str rest = zl_str(beside); rest.p;) {
        struct zl_str at = rest, pair;
        /* Pairs are parted by ", " outside of braces. */
        size_t i = 0, depth = 0;
        for (; i < at.n && !(depth == 0 && at.p[i] == ','); i++)
            depth += (at.p[i] == '{') - (size_t)(at.p[i] == '}');
        pair = zl_str_n(at.p, i);
        rest = i < at.n ? zl_str_trim(zl_str_n(at.p + i + 1, at.n - i - 1)) : (struct zl_str){ 0 };
        zl_buf_printf(&e->text, "%*s%.*s\n", (int)level * 2, "", ZL_STR_FMT(pair));
    }
}

static void emit(struct emitted *e, const struct place *p, unsigned depth, unsigned level, const char *key,
                 const char *value)
{
    const struct zl_type *type = p->types[depth];
    const struct row_case *c = p->rows[depth]->kind != ZL_K_NOT_YET ? case_of(p, depth) : NULL;
    if (c && c->beside)
        emit_beside(e, level, c->beside);
    for (unsigned i = 0; i < type->count; i++) {
        const struct zl_field *f = &type->fields[i];
        if (f == p->rows[depth])
            continue;
        /* The document's services, and the image of each, are needed although no row says so of the former. */
        bool needed = (f->flags & ZL_F_REQUIRED) != 0;
        if (!needed || (c && c->beside))
            continue;
        struct place other = *p;
        other.rows[depth] = f;
        put_line(e, level, f->name, case_of(&other, depth)->good);
    }
    if (depth == p->depth) {
        e->line = 1;
        for (size_t i = 0; i < e->text.n; i++)
            e->line += e->text.p[i] == '\n';
        e->column = level * 2 + 1;
        e->value = e->column + (unsigned)strlen(key) + 2;
        put_line(e, level, key, value);
        if (depth == 0 && !zl_streq(p->rows[0]->name, "services"))
            put_line(e, level, "services", "{a: {image: {name: b}}}");
        return;
    }
    put_line(e, level, p->rows[depth]->name, NULL);
    switch (p->rows[depth]->kind) {
    case ZL_K_MAP: /* a second service, which the first may depend on, and an endpoint for its checks */
        zl_buf_printf(&e->text, "%*sb: {image: {name: b}}\n%*sa:\n", (int)level * 2 + 2, "", (int)level * 2 + 2, "");
        if (!zl_streq(p->rows[depth + 1]->name, "endpoints"))
            put_line(e, level + 2, "endpoints", "[{name: w, protocol: http, port: 80}]");
        emit(e, p, depth + 1, level + 2, key, value);
        break;
    case ZL_K_LIST:
        zl_buf_printf(&e->text, "%*s-\n", (int)level * 2 + 2, "");
        emit(e, p, depth + 1, level + 2, key, value);
        break;
    default:
        emit(e, p, depth + 1, level + 1, key, value);
    }
}

/* A dependency's service is needed where the row is a service's, and a document may have two. */
static void parse(const struct place *p, const char *key, const char *value, struct emitted *e, struct zl_arena *arena,
                  struct zl_decoder *d)
{
    struct zl_spec *spec;
    struct zl_err err = { 0 };
    *e = (struct emitted){ .text = ZL_BUF_INIT };
    emit(e, p, 0, 0, key, value);
    zl_arena_init(arena);
    zl_decoder_init(d, arena);
    int r = zl_spec_parse(d, zl_buf_view(&e->text), &spec, &err);
    assert_int_equal(r, d->count ? ZL_E_SPEC : 0);
}

static void done(struct emitted *e, struct zl_arena *arena, struct zl_decoder *d)
{
    zl_buf_done(&e->text);
    zl_decoder_done(d);
    zl_arena_done(arena);
}

static ZL_NORETURN void complain(const struct emitted *e, const struct zl_decoder *d, const char *what)
{
    zl_auto_buf shown = ZL_BUF_INIT;
    zl_spec_problems_print(&shown, d, zl_buf_view(&e->text), "document", false);
    print_error("%s\n%s%s\n", what, e->text.p, shown.n ? shown.p : "no problem\n");
    fail();
    abort();
}

static void good(const struct place *p, const struct row_case *c)
{
    struct emitted e;
    struct zl_arena arena;
    struct zl_decoder d;
    parse(p, p->rows[p->depth]->name, c->good, &e, &arena, &d);
    if (d.count)
        complain(&e, &d, "a good value is refused");
    done(&e, &arena, &d);
}

static void refused(const struct place *p, const char *value, const char *code, unsigned behind)
{
    struct emitted e;
    struct zl_arena arena;
    struct zl_decoder d;
    parse(p, p->rows[p->depth]->name, value, &e, &arena, &d);
    if (d.count != 1 || !zl_streq(d.first->code, code) || d.first->line != e.line ||
        d.first->column != e.value + behind || !strstr(d.first->message, " "))
        complain(&e, &d, zl_arena_printf(&arena, "expected one problem, %s at %u:%u", code, e.line, e.value + behind));
    done(&e, &arena, &d);
}

/* With a letter too many, and without one in the middle: the hint names the row, and only what it leaves out is missed.
 */
static void misspelt(const struct place *p, const struct row_case *c, bool longer)
{
    const char *name = p->rows[p->depth]->name;
    size_t n = strlen(name), cut = n / 2;
    char key[80], hint[120], unknown[120];
    if (longer)
        snprintf(key, sizeof key, "%s%c", name, name[n - 1]);
    else
        snprintf(key, sizeof key, "%.*s%s", (int)cut, name, name + cut + 1);
    snprintf(hint, sizeof hint, "did you mean '%s'?", name);
    snprintf(unknown, sizeof unknown, "unknown key '%s'", key);
    struct emitted e;
    struct zl_arena arena;
    struct zl_decoder d;
    parse(p, key, c->good, &e, &arena, &d);
    bool found = false, more = false;
    for (const struct zl_problem *q = d.first; q; q = q->next) {
        bool it = zl_str_starts(zl_str(q->message), zl_str(unknown));
        found |= it && zl_streq(q->code, "yaml_error") && zl_streq(q->hint, hint) && q->line == e.line &&
                 q->column == e.column;
        more |= !it && !strstr(q->message, "needs the key");
    }
    if (!found || more)
        complain(&e, &d,
                 zl_arena_printf(&arena, "expected %s at %u:%u and the hint: %s", unknown, e.line, e.column, hint));
    done(&e, &arena, &d);
}

static void not_yet(const struct place *p)
{
    struct emitted e;
    struct zl_arena arena;
    struct zl_decoder d;
    parse(p, p->rows[p->depth]->name, "{anything: [1]}", &e, &arena, &d);
    if (d.count != 1 || !zl_streq(d.first->code, "not_supported_yet") || d.first->hint[0] || d.first->line != e.line ||
        d.first->column != e.column)
        complain(&e, &d, "expected not_supported_yet at the key, without a hint");
    done(&e, &arena, &d);
}

/* Each value that is known and not built yet says so, and each that is built is taken or missed nothing but its peers.
 */
static void values(const struct place *p)
{
    for (const char *const *name = p->rows[p->depth]->names; *name; name++) {
        if (**name == '!')
            refused(p, *name + 1, "not_supported_yet", 0);
        if (**name == '-')
            refused(p, *name + 1, "yaml_error", 0);
    }
}

static unsigned walk(struct place *p, const struct zl_type *type, unsigned depth)
{
    unsigned rows = 0;
    assert_in_range(depth, 0, DEPTH_MAX - 1);
    p->types[depth] = type;
    for (unsigned i = 0; i < type->count; i++) {
        const struct zl_field *f = &type->fields[i];
        p->rows[depth] = f;
        p->depth = depth;
        rows++;
        if (f->kind == ZL_K_NOT_YET) {
            not_yet(p);
            continue;
        }
        const struct row_case *c = case_of(p, depth);
        good(p, c);
        refused(p, c->type, "yaml_error", 0);
        refused(p, c->range, c->code ? c->code : "yaml_error", c->at);
        misspelt(p, c, true);
        if (strlen(f->name) > 4)
            misspelt(p, c, false);
        if (f->kind == ZL_K_ENUM)
            values(p);
        if (f->kind == ZL_K_STRUCT || f->kind == ZL_K_LIST || f->kind == ZL_K_MAP)
            rows += walk(p, f->type, depth + 1);
    }
    return rows;
}

static void every_row_refuses_what_is_wrong_where_it_stands(void **state)
{
    struct place p = { .depth = 0 };
    (void)state;
    assert_in_range(walk(&p, &zl_type_spec, 0), 100, 1000);
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++)
        if (!used[i])
            fail_msg("no row for the case '%s'", cases[i].path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_refuses_what_is_wrong_where_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
