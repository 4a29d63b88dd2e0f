#include "codec/text_priv.h"
#include "codec/value.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

struct builder {
    struct zl_arena *arena;
    const struct zl_parse_limits *limits;
    unsigned nodes;
};

static struct zl_value *convert(struct builder *b, const json_t *j, unsigned depth)
{
    if (depth > b->limits->depth || ++b->nodes > b->limits->nodes)
        return NULL;
    struct zl_value *v = NULL;
    switch (json_typeof(j)) {
    case JSON_NULL:
        return zl_value_new(b->arena, ZL_NULL);
    case JSON_TRUE:
    case JSON_FALSE:
        return zl_value_bool(b->arena, json_is_true(j));
    case JSON_INTEGER:
        return zl_value_int(b->arena, json_integer_value(j));
    case JSON_REAL:
        v = zl_value_new(b->arena, ZL_DOUBLE);
        v->real = json_real_value(j);
        v->text = zl_str(zl_arena_printf(b->arena, "%.17g", v->real));
        return v;
    case JSON_STRING:
        return zl_value_string(b->arena, zl_str_n(json_string_value(j), json_string_length(j)));
    case JSON_ARRAY:
        v = zl_value_new(b->arena, ZL_LIST);
        for (size_t i = 0; i < json_array_size(j); i++) {
            struct zl_value *item = convert(b, json_array_get(j, i), depth + 1);
            if (!item)
                return NULL;
            zl_value_append(v, item);
        }
        return v;
    case JSON_OBJECT: {
        v = zl_value_new(b->arena, ZL_MAP);
        const char *key;
        json_t *child;
        json_object_foreach((json_t *)(uintptr_t)j, key, child)
        {
            struct zl_value *item = convert(b, child, depth + 1);
            if (!item)
                return NULL;
            zl_value_set(b->arena, v, key, item);
        }
        return v;
    }
    }
    return NULL;
}

int zl_json_parse(struct zl_arena *arena, struct zl_str text, const struct zl_parse_limits *limits,
                  struct zl_value **ret, struct zl_parse_error *err)
{
    *err = (struct zl_parse_error){ 0 };
    if (text.n > limits->bytes) {
        snprintf(err->text, sizeof err->text, "larger than %zu bytes", limits->bytes);
        return -E2BIG;
    }
    json_error_t je;
    json_t *root = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (!root) {
        err->line = je.line > 0 ? (unsigned)je.line : 0;
        err->column = je.column > 0 ? (unsigned)je.column : 0;
        snprintf(err->text, sizeof err->text, "%s", je.text);
        return -EINVAL;
    }
    struct builder b = { arena, limits, 0 };
    struct zl_value *v = convert(&b, root, 1);
    json_decref(root);
    if (!v) {
        snprintf(err->text, sizeof err->text, "nested deeper than %u or more than %u values", limits->depth,
                 limits->nodes);
        return -E2BIG;
    }
    *ret = v;
    return 0;
}

size_t codec_utf8(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0x80                    ? 1
                 : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
                 : (s[0] & 0xf0) == 0xe0        ? 3
                 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

/*
 * The code point of a sequence of 2 or 3 bytes that is better written by its number, else 0: U+2028, U+2029 and U+FEFF
 * end lines, or are passed over, in the eyes of YAML 1.1 and of JavaScript, as does U+0085; that and the other C1
 * controls steer terminals; U+202A to U+202E and U+2066 to U+2069 show text in another order than it has.
 */
static unsigned by_number(const unsigned char *p, size_t len)
{
    unsigned c = len == 2   ? (unsigned)(p[0] & 0x1f) << 6 | (p[1] & 0x3f)
                 : len == 3 ? (unsigned)(p[0] & 0x0f) << 12 | (unsigned)(p[1] & 0x3f) << 6 | (p[2] & 0x3f)
                            : 0;
    bool is = (c >= 0x80 && c <= 0x9f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
    return is ? c : 0;
}

void zl_json_string(struct zl_buf *out, struct zl_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    zl_buf_putc(out, '"');
    for (size_t i = 0; i < s.n;) {
        unsigned char c = p[i];
        size_t len = 1;
        if (c == '"' || c == '\\') {
            zl_buf_putc(out, '\\');
            zl_buf_putc(out, (char)c);
        } else if (c == '\n') {
            zl_buf_puts(out, "\\n");
        } else if (c == '\t') {
            zl_buf_puts(out, "\\t");
        } else if (c == '\r') {
            zl_buf_puts(out, "\\r");
        } else if (c < 0x20 || c == 0x7f) {
            zl_buf_printf(out, "\\u%04x", c);
        } else if ((len = codec_utf8(p + i, s.n - i)) > 0 && by_number(p + i, len)) {
            zl_buf_printf(out, "\\u%04x", by_number(p + i, len));
        } else if (len > 0) {
            zl_buf_add(out, p + i, len);
        } else {
            zl_buf_puts(out, "\xef\xbf\xbd");
            len = 1;
        }
        i += len;
    }
    zl_buf_putc(out, '"');
}

static void newline(struct zl_buf *out, unsigned indent, unsigned level)
{
    if (indent)
        zl_buf_printf(out, "\n%*s", (int)(indent * level), "");
}

/* The shorter form that is read back the same, always as a real number. */
static void print_real(struct zl_buf *out, double real)
{
    char text[40];
    snprintf(text, sizeof text, "%.15g", real);
    double back = strtod(text, NULL);
    if (back < real || back > real)
        snprintf(text, sizeof text, "%.17g", real);
    zl_buf_printf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void print(struct zl_buf *out, const struct zl_value *v, unsigned indent, unsigned level)
{
    if (v->kind == ZL_STRING) {
        zl_json_string(out, v->text);
    } else if (v->kind == ZL_NULL) {
        zl_buf_puts(out, "null");
    } else if (v->kind == ZL_BOOL) {
        zl_buf_puts(out, v->boolean ? "true" : "false");
    } else if (v->kind == ZL_INT) {
        zl_buf_printf(out, "%lld", (long long)v->integer);
    } else if (v->kind == ZL_DOUBLE) {
        print_real(out, v->real);
    } else {
        bool map = v->kind == ZL_MAP;
        zl_buf_putc(out, map ? '{' : '[');
        for (const struct zl_value *i = v->first; i; i = i->next) {
            newline(out, indent, level + 1);
            if (map) {
                zl_json_string(out, i->key->text);
                zl_buf_puts(out, indent ? ": " : ":");
            }
            print(out, i, indent, level + 1);
            if (i->next)
                zl_buf_putc(out, ',');
        }
        if (v->first)
            newline(out, indent, level);
        zl_buf_putc(out, map ? '}' : ']');
    }
}

void zl_json_print(struct zl_buf *out, const struct zl_value *v, unsigned indent)
{
    print(out, v, indent, 0);
}
