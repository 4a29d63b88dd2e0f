/*
 * YAML by libfyaml's event parser into a value tree. Aliases are expanded while the tree is built, under the limit on
 * nodes, so that a document of a few lines cannot become millions of values.
 */
#include "codec/text_priv.h"
#include "codec/value.h"

#include <errno.h>
#include <libfyaml.h>
#include <math.h>
#include <stdio.h>

enum { MAP_KEYS_MAX = 5000 };

struct anchor {
    struct anchor *next;
    struct zl_str name;
    struct zl_value *value; /* NULL while its node is still open: an alias to it would be a cycle */
};

struct builder {
    struct zl_arena *arena;
    const struct zl_parse_limits *limits;
    struct fy_parser *parser;
    struct zl_parse_error *err;
    struct anchor *anchors;
    unsigned nodes;
};

static void mark(struct builder *b, const struct fy_mark *m, unsigned *line, unsigned *column)
{
    (void)b;
    *line = m ? (unsigned)m->line + 1 : 0;
    *column = m ? (unsigned)m->column + 1 : 0;
}

static int fail(struct builder *b, int code, const struct fy_mark *m, const char *text)
{
    mark(b, m, &b->err->line, &b->err->column);
    snprintf(b->err->text, sizeof b->err->text, "%s", text);
    return code;
}

static bool one_of(struct zl_str s, const char *a, const char *b, const char *c)
{
    return zl_str_is(s, a) || zl_str_is(s, b) || zl_str_is(s, c);
}

/* Digits of a base behind "0x", "0o" or "0b". */
static int based(struct zl_str s, unsigned base, int64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                            : 99;
        if (d >= base)
            return -EINVAL;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v) || v > INT64_MAX)
            return -ERANGE;
    }
    *ret = (int64_t)v;
    return 0;
}

static bool parse_integer(struct zl_str s, int64_t *ret)
{
    struct zl_str digits = s;
    if (digits.n > 1 && (digits.p[0] == '+' || digits.p[0] == '-'))
        digits.p++, digits.n--;
    if (s.n > 2 && s.p[0] == '0' && strchr("xob", s.p[1]) && s.p[1])
        return based(zl_str_n(s.p + 2, s.n - 2), s.p[1] == 'x' ? 16 : s.p[1] == 'o' ? 8 : 2, ret) == 0;
    if (digits.n > 1 && digits.p[0] == '0') /* 0755 stays a string */
        return false;
    return zl_parse_i64(s.p[0] == '+' ? digits : s, INT64_MIN, INT64_MAX, ret) == 0;
}

static bool parse_real(struct zl_str s, double *ret)
{
    bool digit = false;
    for (size_t i = 0; i < s.n; i++) {
        if (!strchr("+-.eE0123456789", s.p[i]) || !s.p[i])
            return false;
        digit |= s.p[i] >= '0' && s.p[i] <= '9';
    }
    char *end;
    if (!digit || (s.p[0] == '0' && s.n > 1 && s.p[1] >= '0' && s.p[1] <= '9'))
        return false;
    *ret = strtod(s.p, &end);
    return end == s.p + s.n && isfinite(*ret);
}

static void resolve_plain(struct zl_value *v)
{
    struct zl_str s = v->text;
    if (s.n == 0 || zl_str_is(s, "~") || one_of(s, "null", "Null", "NULL"))
        v->kind = ZL_NULL;
    else if (one_of(s, "true", "True", "TRUE"))
        v->kind = ZL_BOOL, v->boolean = true;
    else if (one_of(s, "false", "False", "FALSE"))
        v->kind = ZL_BOOL, v->boolean = false;
    else if (parse_integer(s, &v->integer))
        v->kind = ZL_INT;
    else if (parse_real(s, &v->real))
        v->kind = ZL_DOUBLE;
}

struct zl_value *zl_value_plain(struct zl_arena *arena, struct zl_str s)
{
    struct zl_value *v = zl_value_string(arena, s);
    resolve_plain(v);
    return v;
}

static struct zl_value *copy(struct builder *b, const struct zl_value *v)
{
    if (++b->nodes > b->limits->nodes)
        return NULL;
    struct zl_value *c = zl_value_new(b->arena, v->kind);
    *c = *v;
    c->first = c->last = c->next = c->key = NULL;
    c->count = 0;
    for (const struct zl_value *i = v->first; i; i = i->next) {
        struct zl_value *item = copy(b, i);
        if (!item)
            return NULL;
        item->key = i->key;
        zl_value_append(c, item);
    }
    return c;
}

static struct anchor *remember(struct builder *b, struct fy_token *name)
{
    if (!name)
        return NULL;
    size_t n = 0;
    const char *p = fy_token_get_text(name, &n);
    struct anchor *a = zl_arena_alloc(b->arena, sizeof *a);
    a->name = zl_str_n(zl_arena_strndup(b->arena, p ? p : "", p ? n : 0), p ? n : 0);
    a->next = b->anchors;
    b->anchors = a;
    return a;
}

/* The token begins behind the asterisk. */
static int fail_alias(struct builder *b, const struct fy_mark *m, const char *text)
{
    int r = fail(b, -EINVAL, m, text);
    b->err->column -= b->err->column > 1;
    return r;
}

static int alias(struct builder *b, struct fy_token *t, struct zl_value **ret)
{
    size_t n = 0;
    const char *p = fy_token_get_text(t, &n);
    const struct fy_mark *m = fy_token_start_mark(t);
    struct zl_str name = zl_str_n(p ? p : "", p ? n : 0);
    for (struct anchor *a = b->anchors; a; a = a->next) {
        if (!zl_str_eq(a->name, name))
            continue;
        if (!a->value)
            return fail_alias(b, m, "an alias to the value that contains it");
        *ret = copy(b, a->value);
        return *ret ? 0 : fail(b, -E2BIG, m, "aliases expand to too many values");
    }
    return fail_alias(b, m, "an alias to an anchor that is not defined above");
}

static int collection(struct builder *b, struct zl_value *v, unsigned depth);

static int node(struct builder *b, struct fy_event *e, unsigned depth, struct zl_value **ret)
{
    if (e->type == FYET_ALIAS)
        return alias(b, e->alias.anchor, ret);
    struct fy_token *start = fy_event_get_token(e);
    const struct fy_mark *m = start ? fy_token_start_mark(start) : NULL;
    if (++b->nodes > b->limits->nodes)
        return fail(b, -E2BIG, m, "too many values");
    if (depth > b->limits->depth)
        return fail(b, -E2BIG, m, "nested too deep");
    struct anchor *a = NULL;
    struct zl_value *v;
    int r = 0;
    if (e->type == FYET_SCALAR) {
        size_t n = 0;
        const char *p = e->scalar.value ? fy_token_get_text(e->scalar.value, &n) : "";
        enum fy_scalar_style style = e->scalar.value ? fy_token_scalar_style(e->scalar.value) : FYSS_PLAIN;
        if (p && (style == FYSS_FOLDED || style == FYSS_LITERAL))
            n = strnlen(p, n); /* an empty block scalar comes as one NUL byte */
        v = zl_value_string(b->arena, zl_str_n(p ? p : "", p ? n : 0));
        a = remember(b, e->scalar.anchor);
        if (style == FYSS_PLAIN)
            resolve_plain(v);
        mark(b, m, &v->line, &v->column);
    } else {
        bool map = e->type == FYET_MAPPING_START;
        v = zl_value_new(b->arena, map ? ZL_MAP : ZL_LIST);
        a = remember(b, map ? e->mapping_start.anchor : e->sequence_start.anchor);
        mark(b, m, &v->line, &v->column);
        r = collection(b, v, depth + 1);
    }
    if (r == 0 && a)
        a->value = v;
    if (r == 0)
        *ret = v;
    return r;
}

static int check_key(struct builder *b, const struct zl_value *map, struct zl_value *key)
{
    const char *problem = NULL;
    if (key->kind == ZL_LIST || key->kind == ZL_MAP)
        problem = "a key must be a string";
    else if (zl_str_is(key->text, "<<"))
        problem = "merge keys ('<<') are not supported; write the keys out";
    char text[120];
    if (map->count >= MAP_KEYS_MAX) /* each key is compared with all before it */
        problem = "a map of more than 5000 keys";
    for (const struct zl_value *i = map->first; i && !problem; i = i->next) {
        if (zl_str_eq(i->key->text, key->text)) {
            snprintf(text, sizeof text, "duplicate key '%.60s' (first on line %u)", key->text.p, i->key->line);
            problem = text;
        }
    }
    if (!problem) {
        key->kind = ZL_STRING;
        return 0;
    }
    b->err->line = key->line;
    b->err->column = key->column;
    snprintf(b->err->text, sizeof b->err->text, "%s", problem);
    return -EINVAL;
}

static int collection(struct builder *b, struct zl_value *v, unsigned depth)
{
    struct zl_value *key = NULL;
    for (;;) {
        struct fy_event *e = fy_parser_parse(b->parser);
        if (!e)
            return -EINVAL;
        if (e->type == FYET_MAPPING_END || e->type == FYET_SEQUENCE_END) {
            fy_parser_event_free(b->parser, e);
            return 0;
        }
        struct zl_value *item = NULL;
        int r = node(b, e, depth, &item);
        fy_parser_event_free(b->parser, e);
        if (r < 0)
            return r;
        if (v->kind == ZL_MAP && !key) {
            r = check_key(b, v, item);
            if (r < 0)
                return r;
            key = item;
            continue;
        }
        item->key = key;
        key = NULL;
        zl_value_append(v, item);
    }
}

static int parse(struct builder *b, struct zl_value **ret)
{
    struct zl_value *root = NULL;
    for (;;) {
        struct fy_event *e = fy_parser_parse(b->parser);
        if (!e)
            return fy_parser_get_stream_error(b->parser) || !root ? -EINVAL : (*ret = root, 0);
        enum fy_event_type type = e->type;
        int r = 0;
        if (type == FYET_DOCUMENT_START && root) {
            struct fy_token *t = fy_event_get_token(e);
            r = fail(b, -EINVAL, t ? fy_token_start_mark(t) : NULL, "a second document; one file is one document");
        } else if (type == FYET_SCALAR || type == FYET_ALIAS || type == FYET_MAPPING_START ||
                   type == FYET_SEQUENCE_START) {
            r = node(b, e, 1, &root);
        }
        fy_parser_event_free(b->parser, e);
        if (r < 0)
            return r;
        if (type == FYET_STREAM_END) {
            if (!root)
                root = zl_value_new(b->arena, ZL_NULL);
            *ret = root;
            return 0;
        }
    }
}

/* A tab among the spaces that indent a line is what most often makes a file no YAML, and the parser names it badly. */
static void blame_tab(struct zl_str text, struct zl_parse_error *err)
{
    unsigned number = 1;
    for (struct zl_str rest = text; rest.p; number++) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        size_t i = 0;
        while (i < line.n && line.p[i] == ' ')
            i++;
        if (number >= err->line && number <= err->line + 1 && i < line.n && line.p[i] == '\t') {
            err->line = number;
            err->column = (unsigned)i + 1;
            snprintf(err->text, sizeof err->text, "a tab in the indentation; YAML is indented by spaces");
            return;
        }
    }
}

/* YAML 1.2, 5.1: UTF-8 without control characters but tab and line ends. The parser takes some of them. */
static bool bad_text(struct zl_str text, struct zl_parse_error *err)
{
    unsigned line = 1, column = 1;
    for (size_t i = 0, n; i < text.n; i += n, column++) {
        unsigned char c = (unsigned char)text.p[i];
        n = codec_utf8((const unsigned char *)text.p + i, text.n - i);
        bool control = (c < ' ' && c != '\t' && c != '\r' && c != '\n') || c == 0x7f;
        if (n == 0 || control) {
            err->line = line;
            err->column = column;
            snprintf(err->text, sizeof err->text, "%s (byte 0x%02x)",
                     control ? "a control character" : "this is no UTF-8", c);
            return true;
        }
        if (c == '\n') {
            line++;
            column = 0;
        }
    }
    return false;
}

int zl_yaml_parse(struct zl_arena *arena, struct zl_str text, const struct zl_parse_limits *limits,
                  struct zl_value **ret, struct zl_parse_error *err)
{
    *err = (struct zl_parse_error){ 0 };
    if (text.n > limits->bytes) {
        snprintf(err->text, sizeof err->text, "larger than %zu bytes", limits->bytes);
        return -E2BIG;
    }
    if (bad_text(text, err))
        return -EINVAL;
    struct fy_diag_cfg dcfg;
    fy_diag_cfg_default(&dcfg);
    dcfg.fp = NULL;
    dcfg.output_fn = NULL;
    struct fy_diag *diag = fy_diag_create(&dcfg);
    if (!diag)
        return -ENOMEM;
    fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg cfg = { .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_JSON_NONE, .diag = diag };
    struct fy_parser *parser = fy_parser_create(&cfg);
    if (!parser) {
        fy_diag_destroy(diag);
        return -ENOMEM;
    }
    struct builder b = { arena, limits, parser, err, NULL, 0 };
    int r = fy_parser_set_string(parser, text.p ? text.p : "", text.n) < 0 ? -ENOMEM : parse(&b, ret);
    if (r == -EINVAL && !err->text[0]) {
        void *prev = NULL;
        struct fy_diag_error *e = fy_diag_errors_iterate(diag, &prev);
        if (e) {
            err->line = e->line > 0 ? (unsigned)e->line : 0;
            err->column = e->column > 0 ? (unsigned)e->column : 0;
        }
        snprintf(err->text, sizeof err->text, "%s", e && e->msg ? e->msg : "not YAML");
        blame_tab(text, err);
    }
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    return r;
}

/* --- writing --- */

static bool plain_enough(struct zl_str s)
{
    struct zl_value probe = { .kind = ZL_STRING, .text = s };
    resolve_plain(&probe);
    if (probe.kind != ZL_STRING || s.n == 0 || s.n > 80)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && !(c && strchr(i > 0 ? "-_./" : "/_.", c)))
            return false;
    }
    return true;
}

static void scalar(struct zl_buf *out, const struct zl_value *v)
{
    if (v->kind == ZL_STRING && plain_enough(v->text))
        zl_buf_add_str(out, v->text);
    else
        zl_json_print(out, v, 0); /* JSON's scalars, {} and [] are YAML */
}

static void block(struct zl_buf *out, const struct zl_value *v, unsigned level, bool inline_first)
{
    for (const struct zl_value *i = v->first; i; i = i->next) {
        if (!inline_first || i != v->first)
            zl_buf_printf(out, "%*s", (int)(2 * level), "");
        bool nested = (i->kind == ZL_MAP || i->kind == ZL_LIST) && i->first;
        if (v->kind == ZL_MAP) {
            struct zl_value key = { .kind = ZL_STRING, .text = i->key->text };
            scalar(out, &key);
            zl_buf_putc(out, ':');
            if (nested) {
                zl_buf_putc(out, '\n');
                block(out, i, level + 1, false);
                continue;
            }
            zl_buf_putc(out, ' ');
        } else {
            zl_buf_puts(out, "- ");
            if (nested) {
                block(out, i, level + 1, true);
                continue;
            }
        }
        scalar(out, i);
        zl_buf_putc(out, '\n');
    }
}

void zl_yaml_print(struct zl_buf *out, const struct zl_value *v)
{
    if ((v->kind == ZL_MAP || v->kind == ZL_LIST) && v->first) {
        block(out, v, 0, false);
        return;
    }
    scalar(out, v);
    zl_buf_putc(out, '\n');
}
