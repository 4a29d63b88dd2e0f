#include "oci/reply.h"

#include "codec/value.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EXPIRES_DEFAULT_S = 60, EXPIRES_MAX_S = 86400 };

/* What may stand in a header: printable ASCII without spaces. */
static bool is_token(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if ((unsigned char)s[n] <= 0x20 || (unsigned char)s[n] >= 0x7f)
            return false;
    return n > 0 && n <= ZL_OCI_TOKEN_MAX;
}

int zl_oci_token_parse(struct zl_arena *arena, struct zl_str body, struct zl_oci_token *ret)
{
    struct zl_value *v;
    struct zl_parse_error pe;
    if (zl_json_parse(arena, body, &zl_limits_document, &v, &pe) < 0)
        return -EINVAL;
    const char *token = zl_value_cstr(v, "token"), *refresh = zl_value_cstr(v, "refresh_token");
    token = *token ? token : zl_value_cstr(v, "access_token");
    if (!is_token(token))
        return -EINVAL;
    *ret = (struct zl_oci_token){ .token = token,
                                  .expires_s = zl_value_u64(v, "expires_in", EXPIRES_DEFAULT_S),
                                  .refresh = is_token(refresh) ? refresh : "" };
    /* Servers that say 0, or a lifetime without sense, mean nothing by it. */
    if (ret->expires_s == 0 || ret->expires_s > EXPIRES_MAX_S)
        ret->expires_s = ret->expires_s ? EXPIRES_MAX_S : EXPIRES_DEFAULT_S;
    return 0;
}

bool zl_oci_wants_https(struct zl_str body)
{
    static const char *const said[] = {
        "HTTP request to an HTTPS server",     /* Go's servers, with it the usual registries */
        "HTTP request was sent to HTTPS port", /* nginx */
        "plain HTTP to an SSL-enabled server", /* Apache */
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(said); i++)
        if (body.n && memmem(body.p, body.n, said[i], strlen(said[i])))
            return true;
    return false;
}

char *zl_oci_error_text(struct zl_str body, char *ret, size_t size)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    ret[0] = 0;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, body, &zl_limits_document, &v, &pe) == 0) {
        const struct zl_value *errors = zl_value_get(v, "errors");
        const struct zl_value *first = errors && errors->kind == ZL_LIST ? errors->first : NULL;
        const char *text = zl_value_cstr(first, "message"), *code = zl_value_cstr(first, "code");
        text = *text ? text : code;
        text = *text ? text : zl_value_cstr(v, "details"); /* of token servers */
        snprintf(ret, size, "%s", text);
    }
    for (char *p = ret; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
    zl_arena_done(&arena);
    return ret;
}

int zl_oci_upload_range(struct zl_str header, uint64_t *ret)
{
    struct zl_str end, s = zl_str_trim(header);
    uint64_t first, last;
    if (zl_str_starts(s, ZL_STR("bytes=")) || zl_str_starts(s, ZL_STR("bytes ")))
        s = zl_str_n(s.p + 6, s.n - 6);
    s = zl_str_cut(s, '-', &end);
    if (!end.p || zl_parse_u64(s, 0, 0, &first) < 0 || zl_parse_u64(end, 0, INT64_MAX, &last) < 0)
        return -EINVAL;
    *ret = last ? last + 1 : 0;
    return 0;
}

int zl_oci_content_range(struct zl_str header, uint64_t *ret)
{
    struct zl_str rest, s = zl_str_trim(header);
    if (!zl_str_starts(s, ZL_STR("bytes ")))
        return -EINVAL;
    s = zl_str_cut(zl_str_n(s.p + 6, s.n - 6), '-', &rest);
    return rest.p ? zl_parse_u64(s, 0, INT64_MAX, ret) : -EINVAL;
}

/* Whether one of a link's parameters is rel="next" (or rel=next). */
static bool is_next(struct zl_str parameters)
{
    while (parameters.p) {
        struct zl_str value, name = zl_str_trim(zl_str_cut(parameters, ';', &parameters));
        name = zl_str_trim(zl_str_cut(name, '=', &value));
        if (value.p && zl_str_eq_nocase(name, ZL_STR("rel"))) {
            value = zl_str_trim(value);
            return zl_str_is(value, "next") || zl_str_is(value, "\"next\"");
        }
    }
    return false;
}

int zl_oci_link_next(struct zl_str header, struct zl_str *ret)
{
    while (header.n) {
        const char *open = memchr(header.p, '<', header.n);
        const char *end = header.p + header.n;
        const char *close = open ? memchr(open, '>', (size_t)(end - open)) : NULL;
        if (!close)
            return -EINVAL;
        /* A comma ends the parameters; none of those that are looked for may hold one. */
        const char *comma = memchr(close, ',', (size_t)(end - close));
        const char *until = comma ? comma : end;
        if (close > open + 1 && is_next(zl_str_n(close + 1, (size_t)(until - close) - 1))) {
            *ret = zl_str_n(open + 1, (size_t)(close - open) - 1);
            return 0;
        }
        header = zl_str_n(until, (size_t)(end - until));
        if (comma)
            header = zl_str_n(header.p + 1, header.n - 1);
    }
    return -EINVAL;
}
