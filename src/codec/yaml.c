/*
 * YAML by libyaml's event parser into a value tree. Aliases are expanded while the tree is built, under the limit on
 * nodes, so that a document of a few lines cannot become millions of values.
 */
#include "codec/text_priv.h"
#include "codec/value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <yaml.h>

enum { MAP_KEYS_MAX = 5000, KEY_MAX = 1000 }; /* YAML 1.2, 7.4.2: a key in front of its colon has 1024 characters */

struct anchor {
    struct anchor *next;
    struct zl_str name;
    struct zl_value *value; /* NULL while its node is still open: an alias to it would be a cycle */
};

struct builder {
    struct zl_arena *arena;
    const struct zl_parse_limits *limits;
    yaml_parser_t *parser;
    struct zl_parse_error *err;
    struct anchor *anchors;
    unsigned nodes;
};

static int fail(struct builder *b, int code, const yaml_mark_t *m, const char *text)
{
    b->err->line = (unsigned)m->line + 1;
    b->err->column = (unsigned)m->column + 1;
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

static struct anchor *remember(struct builder *b, const yaml_char_t *name)
{
    if (!name)
        return NULL;
    struct anchor *a = zl_arena_alloc(b->arena, sizeof *a);
    const size_t n = strlen((const char *)name);
    *a = (struct anchor){ b->anchors, zl_str_n(zl_arena_strndup(b->arena, (const char *)name, n), n), NULL };
    b->anchors = a;
    return a;
}

static int alias(struct builder *b, const yaml_event_t *e, struct zl_value **ret)
{
    struct zl_str name = zl_str((const char *)e->data.alias.anchor);
    for (struct anchor *a = b->anchors; a; a = a->next) {
        if (!zl_str_eq(a->name, name))
            continue;
        if (!a->value)
            return fail(b, -EINVAL, &e->start_mark, "an alias to the value that contains it");
        *ret = copy(b, a->value);
        return *ret ? 0 : fail(b, -E2BIG, &e->start_mark, "aliases expand to too many values");
    }
    return fail(b, -EINVAL, &e->start_mark, "an alias to an anchor that is not defined above");
}

/* Of tags only those of the core schema are known: "!!str 5" and "! 5" are strings, the others change nothing. */
static int check_tag(struct builder *b, const yaml_event_t *e, const yaml_char_t *tag, bool *ret_string)
{
    static const char *const core[] = { YAML_STR_TAG,   YAML_NULL_TAG, YAML_BOOL_TAG, YAML_INT_TAG,
                                        YAML_FLOAT_TAG, YAML_SEQ_TAG,  YAML_MAP_TAG,  "!" };
    struct zl_str t = zl_str((const char *)tag);
    *ret_string = tag && (zl_str_is(t, YAML_STR_TAG) || zl_str_is(t, "!"));
    for (size_t i = 0; i < ZL_ARRAY_LEN(core); i++)
        if (!tag || zl_str_is(t, core[i]))
            return 0;
    char text[120];
    snprintf(text, sizeof text, "the tag '%.60s' is not known", t.p);
    return fail(b, -EINVAL, &e->start_mark, text);
}

static int collection(struct builder *b, struct zl_value *v, unsigned depth);

static int node(struct builder *b, const yaml_event_t *e, unsigned depth, struct zl_value **ret)
{
    if (e->type == YAML_ALIAS_EVENT)
        return alias(b, e, ret);
    if (++b->nodes > b->limits->nodes)
        return fail(b, -E2BIG, &e->start_mark, "too many values");
    if (depth > b->limits->depth)
        return fail(b, -E2BIG, &e->start_mark, "nested too deep");
    bool scalar = e->type == YAML_SCALAR_EVENT, map = e->type == YAML_MAPPING_START_EVENT, string;
    const yaml_char_t *tag = scalar ? e->data.scalar.tag : map ? e->data.mapping_start.tag : e->data.sequence_start.tag;
    int r = check_tag(b, e, tag, &string);
    if (r < 0)
        return r;
    struct anchor *a = remember(b, scalar ? e->data.scalar.anchor
                                   : map  ? e->data.mapping_start.anchor
                                          : e->data.sequence_start.anchor);
    struct zl_value *v =
        scalar ? zl_value_string(b->arena, zl_str_n((const char *)e->data.scalar.value, e->data.scalar.length))
               : zl_value_new(b->arena, map ? ZL_MAP : ZL_LIST);
    v->line = (unsigned)e->start_mark.line + 1;
    v->column = (unsigned)e->start_mark.column + 1;
    if (scalar && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !string)
        resolve_plain(v);
    if (!scalar)
        r = collection(b, v, depth + 1);
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
    zl_auto_buf written = ZL_BUF_INIT;
    zl_json_string(&written, key->text);
    if (written.n > KEY_MAX)
        problem = "a key of more than 1000 characters";
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
        yaml_event_t e;
        if (!yaml_parser_parse(b->parser, &e))
            return -EINVAL;
        if (e.type == YAML_MAPPING_END_EVENT || e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return 0;
        }
        struct zl_value *item = NULL;
        int r = node(b, &e, depth, &item);
        yaml_event_delete(&e);
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
        yaml_event_t e;
        if (!yaml_parser_parse(b->parser, &e))
            return -EINVAL;
        enum yaml_event_type_e type = e.type;
        int r = 0;
        if (type == YAML_DOCUMENT_START_EVENT && root)
            r = fail(b, -EINVAL, &e.start_mark, "a second document; one file is one document");
        else if (type == YAML_SCALAR_EVENT || type == YAML_ALIAS_EVENT || type == YAML_MAPPING_START_EVENT ||
                 type == YAML_SEQUENCE_START_EVENT)
            r = node(b, &e, 1, &root);
        yaml_event_delete(&e);
        if (r < 0)
            return r;
        if (type == YAML_STREAM_END_EVENT) {
            *ret = root ? root : zl_value_new(b->arena, ZL_NULL);
            return 0;
        }
    }
}

/* What the library found wrong, and where. */
static void blame(const yaml_parser_t *p, struct zl_parse_error *err)
{
    const yaml_mark_t *m = &p->problem_mark;
    err->line = (unsigned)m->line + 1;
    err->column = (unsigned)m->column + 1;
    const char *problem = p->problem ? p->problem : "not YAML";
    if (p->context && p->context_mark.line != m->line)
        snprintf(err->text, sizeof err->text, "%s, %s that begins on line %zu", problem, p->context,
                 p->context_mark.line + 1);
    else
        snprintf(err->text, sizeof err->text, "%s%s%s", problem, p->context ? ", " : "", p->context ? p->context : "");
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
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
    struct builder b = { arena, limits, &parser, err, NULL, 0 };
    int r = parse(&b, ret);
    if (r == -EINVAL && parser.error == YAML_MEMORY_ERROR)
        r = -ENOMEM;
    if (r == -EINVAL && !err->text[0]) {
        blame(&parser, err);
        blame_tab(text, err);
    }
    yaml_parser_delete(&parser);
    /* JSON's pairs of surrogates are no characters in YAML. */
    struct zl_parse_error of_json;
    if (r == -EINVAL && strstr(err->text, "Unicode character escape") &&
        zl_json_parse(arena, text, limits, ret, &of_json) == 0)
        r = 0;
    return r;
}

/* --- writing --- */

static bool plain_enough(struct zl_str s)
{
    struct zl_value probe = { .kind = ZL_STRING, .text = s };
    resolve_plain(&probe);
    if (probe.kind != ZL_STRING || s.n == 0 || s.n > 80 || zl_str_is(s, "...")) /* "..." ends a document */
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
