#include "oci/challenge.h"

#include <errno.h>

/* A reading position in the header value. */
struct reader {
    const char *p, *end;
};

static void spaces(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t'))
        r->p++;
}

/* A token of RFC 9110, 5.6.2; empty when there is none. */
static struct zl_str token(struct reader *r)
{
    const char *start = r->p;
    while (r->p < r->end && ((*r->p >= '0' && *r->p <= '9') || (*r->p >= 'a' && *r->p <= 'z') ||
                             (*r->p >= 'A' && *r->p <= 'Z') || (*r->p && strchr("!#$%&'*+-.^_`|~", *r->p))))
        r->p++;
    return zl_str_n(start, (size_t)(r->p - start));
}

/* A token or a quoted string, unquoted into `ret`. Control characters have no place in what becomes an URL. */
static int value(struct reader *r, char *ret, size_t size)
{
    size_t n = 0;
    if (r->p == r->end || *r->p != '"') {
        struct zl_str t = token(r);
        if (t.n == 0 || t.n >= size)
            return -EINVAL;
        memcpy(ret, t.p, t.n);
        ret[t.n] = 0;
        return 0;
    }
    for (r->p++; r->p < r->end && *r->p != '"'; r->p++) {
        if (*r->p == '\\' && ++r->p == r->end)
            return -EINVAL;
        if ((unsigned char)*r->p < 0x20 || *r->p == 0x7f || n + 1 >= size)
            return -EINVAL;
        ret[n++] = *r->p;
    }
    if (r->p == r->end)
        return -EINVAL;
    r->p++;
    ret[n] = 0;
    return 0;
}

static void keep(const struct zl_oci_challenge *c, struct zl_oci_challenge *ret)
{
    if (c->scheme > ret->scheme)
        *ret = *c;
}

/* Either `name = value`, which belongs to the challenge that is being read, or the scheme of the next one. */
static int parameter(struct reader *r, struct zl_str name, struct zl_oci_challenge *c)
{
    char ignored[1024];
    spaces(r);
    if (zl_str_eq_nocase(name, ZL_STR("realm")))
        return value(r, c->realm, sizeof c->realm);
    if (zl_str_eq_nocase(name, ZL_STR("service")))
        return value(r, c->service, sizeof c->service);
    if (zl_str_eq_nocase(name, ZL_STR("scope")))
        return value(r, c->scope, sizeof c->scope);
    return value(r, ignored, sizeof ignored);
}

int zl_oci_challenge_parse(struct zl_str header, struct zl_oci_challenge *ret)
{
    struct reader r = { header.p, header.p + header.n };
    struct zl_oci_challenge c = { 0 };
    bool any = false;
    for (;;) {
        while (r.p < r.end && (*r.p == ',' || *r.p == ' ' || *r.p == '\t'))
            r.p++;
        if (r.p == r.end)
            break;
        struct zl_str name = token(&r);
        if (name.n == 0)
            return -EINVAL;
        spaces(&r);
        if (any && r.p < r.end && *r.p == '=') {
            r.p++;
            if (parameter(&r, name, &c) < 0)
                return -EINVAL;
            spaces(&r);
            if (r.p < r.end && *r.p != ',')
                return -EINVAL;
            continue;
        }
        keep(&c, ret);
        any = true;
        c = (struct zl_oci_challenge){ .scheme = zl_str_eq_nocase(name, ZL_STR("Bearer"))  ? ZL_OCI_AUTH_BEARER
                                                 : zl_str_eq_nocase(name, ZL_STR("Basic")) ? ZL_OCI_AUTH_BASIC
                                                                                           : ZL_OCI_AUTH_NONE };
    }
    keep(&c, ret);
    return 0;
}
