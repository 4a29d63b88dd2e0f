#include "spec/reference.h"

#include <errno.h>
#include <stdio.h>

static bool lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool word(char c)
{
    return lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

bool zl_digest_valid(struct zl_str digest)
{
    struct zl_str hex, alg = zl_str_cut(digest, ':', &hex);
    size_t want = zl_str_is(alg, "sha256") ? 64 : zl_str_is(alg, "sha384") ? 96 : zl_str_is(alg, "sha512") ? 128 : 0;
    if (!hex.p || want == 0 || hex.n != want)
        return false;
    for (size_t i = 0; i < hex.n; i++)
        if (!((hex.p[i] >= '0' && hex.p[i] <= '9') || (hex.p[i] >= 'a' && hex.p[i] <= 'f')))
            return false;
    return true;
}

static bool valid_tag(struct zl_str s)
{
    if (s.n == 0 || s.n > 128 || !word(s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!word(s.p[i]) && s.p[i] != '.' && s.p[i] != '-')
            return false;
    return true;
}

/* Lower-case letters and digits, separated by one of . _ __ or any number of -, in parts separated by slashes. */
static bool valid_path(struct zl_str s)
{
    bool separated = true;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (lower_or_digit(c)) {
            separated = false;
            continue;
        }
        bool repeat = i > 0 && c == s.p[i - 1] && (c == '-' || (c == '_' && !(i > 1 && s.p[i - 2] == '_')));
        if (!(c == '.' || c == '_' || c == '-' || c == '/') || (separated && !repeat))
            return false;
        separated = true;
    }
    return s.n > 0 && !separated;
}

/* A host name or an IPv6 address in brackets, and an optional port. */
static bool valid_host(struct zl_str s)
{
    size_t i = 0;
    if (s.n && s.p[0] == '[') {
        while (i < s.n && s.p[i] != ']')
            i++;
        if (i < 3 || i++ == s.n)
            return false;
        for (size_t k = 1; k < i - 1; k++)
            if (!s.p[k] || !strchr("0123456789abcdefABCDEF:.", s.p[k]))
                return false;
    } else {
        while (i < s.n && (lower_or_digit(s.p[i]) || s.p[i] == '.' || s.p[i] == '-'))
            i++;
        if (i == 0)
            return false;
    }
    uint64_t port;
    return i == s.n || (s.p[i] == ':' && zl_parse_u64(zl_str_n(s.p + i + 1, s.n - i - 1), 1, 65535, &port) == 0);
}

static int fail(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

static bool is_host(struct zl_str s)
{
    return memchr(s.p, '.', s.n) || memchr(s.p, ':', s.n) || zl_str_is(s, "localhost");
}

int zl_reference_parse(struct zl_str text, struct zl_reference *ret, const char **why)
{
    struct zl_reference r = { 0 };
    struct zl_str digest, tag = { NULL, 0 }, rest;
    if (text.n == 0)
        return fail(why, "the image reference is empty");
    if (text.n > 600)
        return fail(why, "the image reference is too long");
    struct zl_str name = zl_str_cut(text, '@', &digest);
    if (digest.p && !zl_digest_valid(digest))
        return fail(why, "the digest is not sha256: and 64 lower-case hex digits (or sha384, sha512)");
    for (size_t i = name.n; i-- > 0 && name.p[i] != '/';) {
        if (name.p[i] == ':') {
            tag = zl_str_n(name.p + i + 1, name.n - i - 1);
            name.n = i;
            break;
        }
    }
    if (tag.p && !valid_tag(tag))
        return fail(why, "the tag must be up to 128 letters, digits, '_', '.' and '-'");
    struct zl_str host = ZL_STR("docker.io"), first = zl_str_cut(name, '/', &rest);
    if (rest.p && is_host(first)) {
        host = first;
        name = rest;
        if (!valid_host(host))
            return fail(why, "the registry is not a host name with an optional port");
        if (zl_str_is(host, "index.docker.io"))
            host = ZL_STR("docker.io");
    }
    if (!valid_path(name))
        return fail(why, "the name must be lower-case letters and digits, separated by '.', '_', '-' and '/'");
    bool library = zl_str_is(host, "docker.io") && !memchr(name.p, '/', name.n);
    if (name.n + (library ? strlen("library/") : 0) > 255 || host.n > 255)
        return fail(why, "the name is longer than 255 bytes");
    snprintf(r.registry, sizeof r.registry, "%.*s", ZL_STR_FMT(host));
    snprintf(r.repository, sizeof r.repository, "%s%.*s", library ? "library/" : "", ZL_STR_FMT(name));
    snprintf(r.tag, sizeof r.tag, "%.*s", (int)tag.n, tag.p ? tag.p : "");
    if (digest.p)
        snprintf(r.digest, sizeof r.digest, "%.*s", ZL_STR_FMT(digest));
    else if (!tag.p)
        snprintf(r.tag, sizeof r.tag, "latest");
    *ret = r;
    return 0;
}

char *zl_reference_print(const struct zl_reference *ref, char ret[ZL_REFERENCE_TEXT_SIZE])
{
    snprintf(ret, ZL_REFERENCE_TEXT_SIZE, "%s/%s%s%s%s%s", ref->registry, ref->repository, ref->tag[0] ? ":" : "",
             ref->tag, ref->digest[0] ? "@" : "", ref->digest);
    return ret;
}
