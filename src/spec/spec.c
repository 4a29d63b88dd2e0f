#include "spec/spec.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int zl_spec_parse(struct zl_decoder *d, struct zl_str text, struct zl_spec **ret, struct zl_err *err)
{
    struct zl_value *root = NULL;
    struct zl_parse_error pe;
    int r = zl_yaml_parse(d->arena, text, &zl_limits_document, &root, &pe);
    if (r < 0) {
        struct zl_value at = { .kind = ZL_NULL, .line = pe.line, .column = pe.column, .text = ZL_STR("") };
        zl_problem_add(d, &at, "yaml_error", NULL, "%s", pe.text);
    } else {
        struct zl_spec *spec = zl_decode(d, &zl_type_spec, root);
        if (d->count == 0) {
            *ret = spec;
            return 0;
        }
    }
    return zl_fail(err, ZL_E_SPEC, "the document has %u problem%s: %s%s", d->count, d->count == 1 ? "" : "s",
                   d->first->message, d->count > 1 ? " …" : "");
}

struct zl_service *zl_spec_service(const struct zl_spec *spec, const char *name)
{
    for (unsigned i = 0; i < spec->services.n; i++)
        if (zl_streq(((struct zl_service *)spec->services.v[i])->name, name))
            return spec->services.v[i];
    return NULL;
}

static void prune(struct zl_value *map, const char *key)
{
    struct zl_value *prev = NULL;
    for (struct zl_value *i = map ? map->first : NULL; i; prev = i, i = i->next) {
        if (!zl_str_is(i->key->text, key))
            continue;
        if (prev)
            prev->next = i->next;
        else
            map->first = i->next;
        if (map->last == i)
            map->last = prev;
        map->count--;
        return;
    }
}

/* Leaves out what goes with another mode or check, so that the canonical form is a document again. */
struct zl_value *zl_spec_print(struct zl_arena *arena, const struct zl_spec *spec)
{
    static const struct {
        const char *key, *modes;
    } scale_keys[] = {
        { "min", "adaptive" },     { "max", "adaptive" },   { "cooldown", "adaptive" },
        { "targets", "adaptive" }, { "replicas", "fixed" },
    };
    struct zl_value *v = zl_print(arena, &zl_type_spec, spec);
    for (struct zl_value *s = zl_value_get(v, "services")->first; s; s = s->next) {
        struct zl_value *check = zl_value_get(zl_value_get(s, "health"), "check"), *scale = zl_value_get(s, "scale");
        struct zl_str type = zl_value_str(check, "type"), mode = zl_value_str(scale, "mode");
        if (zl_str_is(type, "-none"))
            prune(s, "health"); /* a document says it by leaving `health` out, too */
        prune(check, zl_str_is(type, "http") ? "port" : "expect_status");
        for (size_t i = 0; i < ZL_ARRAY_LEN(scale_keys); i++)
            if (!zl_str_is(mode, scale_keys[i].modes))
                prune(scale, scale_keys[i].key);
    }
    return v;
}

unsigned zl_service_replicas(const struct zl_service *s, unsigned current)
{
    switch ((enum zl_scale_mode)s->scale.mode) {
    case ZL_SCALE_ADAPTIVE:
        return (unsigned)s->scale.min;
    case ZL_SCALE_FIXED:
        return (unsigned)s->scale.replicas;
    case ZL_SCALE_MANUAL:
        break;
    }
    return current ? current : 1;
}

/* FNV-1a 64 over the canonical text of what an instance is made from. */
uint64_t zl_service_fingerprint(const struct zl_service *s)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_value *v = zl_print(&arena, &zl_type_service, s);
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        if (zl_str_is(i->key->text, "scale") || zl_str_is(i->key->text, "depends") ||
            zl_str_is(i->key->text, "endpoints") || zl_str_is(i->key->text, "health"))
            continue;
        zl_auto_buf b = ZL_BUF_INIT;
        zl_json_string(&b, i->key->text);
        zl_json_print(&b, i, 0);
        for (size_t k = 0; k < b.n; k++)
            h = (h ^ (unsigned char)b.p[k]) * UINT64_C(0x100000001b3);
    }
    zl_arena_done(&arena);
    return h;
}

static void visit(const struct zl_spec *spec, const struct zl_service *s, const struct zl_service **order, unsigned *n)
{
    for (unsigned i = 0; i < *n; i++)
        if (order[i] == s)
            return;
    for (unsigned k = 0; k < s->depends.n; k++) {
        const struct zl_service *dep = zl_spec_service(spec, ((const struct zl_depend *)s->depends.v[k])->service);
        if (dep)
            visit(spec, dep, order, n);
    }
    order[(*n)++] = s;
}

void zl_spec_order(struct zl_arena *arena, const struct zl_spec *spec, const struct zl_service ***ret)
{
    unsigned n = 0;
    *ret = zl_arena_alloc(arena, (spec->services.n + 1) * sizeof **ret);
    for (unsigned i = 0; i < spec->services.n; i++)
        visit(spec, spec->services.v[i], *ret, &n);
}

static struct zl_str line_of(struct zl_str text, unsigned line)
{
    for (unsigned i = 1; i < line && text.p; i++)
        (void)zl_str_cut(text, '\n', &text);
    struct zl_str rest;
    struct zl_str s = text.p ? zl_str_cut(text, '\n', &rest) : ZL_STR("");
    return s.n && s.p[s.n - 1] == '\r' ? zl_str_n(s.p, s.n - 1) : s;
}

void zl_spec_problems_print(struct zl_buf *out, const struct zl_decoder *d, struct zl_str text, const char *file,
                            bool colour)
{
    const char *bold = colour ? "\033[1m" : "", *red = colour ? "\033[31m" : "", *dim = colour ? "\033[2m" : "",
               *off = colour ? "\033[0m" : "";
    for (const struct zl_problem *p = d->first; p; p = p->next) {
        if (p->line)
            zl_buf_printf(out, "%s%s:%u:%u:%s ", bold, file, p->line, p->column, off);
        else
            zl_buf_printf(out, "%s%s:%s ", bold, file, off);
        zl_buf_printf(out, "%serror:%s %s [%s]\n", red, off, p->message, p->code);
        struct zl_str line = line_of(text, p->line);
        if (p->line && line.n && line.n < 240) {
            zl_buf_printf(out, "%s%5u |%s ", dim, p->line, off);
            for (size_t i = 0; i < line.n; i++) /* nothing of the file may steer the terminal */
                zl_buf_putc(out, (unsigned char)line.p[i] < ' ' || line.p[i] == 0x7f ? ' ' : line.p[i]);
            zl_buf_printf(out, "\n%s      |%s %*s%s^", dim, off, (int)(p->column ? p->column - 1 : 0), "", red);
            size_t before = ZL_MIN(line.n, (size_t)(p->column ? p->column - 1 : 0)), width = p->width;
            if (before < line.n && (line.p[before] == '"' || line.p[before] == '\''))
                width += 2; /* the width is that of the value without its quotes */
            width = ZL_MIN(width, line.n - before);
            for (size_t i = 1; i < width; i++)
                zl_buf_putc(out, '~');
            zl_buf_printf(out, "%s\n", off);
        }
        if (p->hint[0])
            zl_buf_printf(out, "       hint: %s\n", p->hint);
    }
    if (d->count > ZL_PROBLEMS_MAX)
        zl_buf_printf(out, "%s: %u more problems\n", file, d->count - ZL_PROBLEMS_MAX);
}

void zl_spec_plan_print(struct zl_buf *out, const struct zl_spec *spec)
{
    static const char *const protocol[] = { "http", "tcp" }, *const expose[] = { "internal", "public" },
                             *const condition[] = { "healthy", "started", "ready" };
    struct zl_arena arena;
    zl_arena_init(&arena);
    const struct zl_service **order;
    zl_spec_order(&arena, spec, &order);
    zl_buf_printf(out, "=== Deployment Plan ===\nDeployment: %s\nVersion: %s\nServices: %u\n", spec->deployment,
                  spec->version, spec->services.n);
    for (unsigned i = 0; i < spec->services.n; i++) {
        const struct zl_service *s = order[i];
        zl_buf_printf(out, "\nService: %s\n  Image: %s\n  Type: service\n", s->name, s->image.name);
        if (s->scale.mode == ZL_SCALE_FIXED)
            zl_buf_printf(out, "  Scale: fixed (%lld replicas)\n", (long long)s->scale.replicas);
        else if (s->scale.mode == ZL_SCALE_ADAPTIVE)
            zl_buf_printf(out, "  Scale: adaptive (%lld-%lld replicas)\n", (long long)s->scale.min,
                          (long long)s->scale.max);
        else
            zl_buf_puts(out, "  Scale: manual\n");
        if (s->resources.cpu > 0 || s->resources.memory_bytes) {
            zl_buf_puts(out, "  Resources:");
            if (s->resources.cpu > 0)
                zl_buf_printf(out, " cpu=%.15g", s->resources.cpu);
            if (s->resources.memory_bytes)
                zl_buf_printf(out, " memory=%s", zl_print_size(&arena, s->resources.memory_bytes));
            zl_buf_putc(out, '\n');
        }
        for (unsigned k = 0; k < s->endpoints.n; k++) {
            const struct zl_endpoint *e = s->endpoints.v[k];
            zl_buf_printf(out, "%s    %s (%s:%lld, %s)\n", k ? "" : "  Endpoints:\n", e->name, protocol[e->protocol],
                          (long long)e->port, expose[e->expose]);
        }
        for (unsigned k = 0; k < s->depends.n; k++) {
            const struct zl_depend *dep = s->depends.v[k];
            zl_buf_printf(out, "%s    %s (%s)\n", k ? "" : "  Dependencies:\n", dep->service,
                          condition[dep->condition]);
        }
    }
    zl_arena_done(&arena);
}

static bool is_spec_name(struct zl_str name)
{
    struct zl_str base = name;
    if (zl_str_ends(name, ZL_STR(".yml")))
        base.n -= 4;
    else if (zl_str_ends(name, ZL_STR(".yaml")))
        base.n -= 5;
    else
        return false;
    return (base.n > 7 && zl_str_ends(base, ZL_STR(".zlayer"))) ||
           (base.n > 7 && zl_str_starts(base, ZL_STR("zlayer.")));
}

int zl_spec_find(char **ret, struct zl_err *err)
{
    static const char *const fixed[] = { ".zlayer.yml", ".zlayer.yaml", "zlayer.yml", "zlayer.yaml" };
    struct stat st;
    for (size_t i = 0; i < ZL_ARRAY_LEN(fixed); i++) {
        if (stat(fixed[i], &st) == 0 && S_ISREG(st.st_mode)) {
            *ret = zl_xstrdup(fixed[i]);
            return 0;
        }
    }
    struct dirent **entries = NULL;
    int n = scandir(".", &entries, NULL, alphasort), found = 0;
    zl_auto_buf list = ZL_BUF_INIT;
    char *one = NULL;
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        if (is_spec_name(zl_str(name)) && stat(name, &st) == 0 && S_ISREG(st.st_mode)) {
            zl_buf_printf(&list, "%s%s", found ? ", " : "", name);
            free(one);
            one = zl_xstrdup(name);
            found++;
        }
        free(entries[i]);
    }
    free(entries);
    if (found == 1) {
        *ret = one;
        return 0;
    }
    free(one);
    if (found > 1)
        return zl_hint(err, zl_fail(err, ZL_E_CONFLICT, "several documents here: %s", list.p), "name the one you mean");
    return zl_hint(err, zl_fail(err, ZL_E_NOT_FOUND, "no document here: there is no .zlayer.yml in this folder"),
                   "create one, or name a file");
}
