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

/* Between the brackets of an IPv6 address. */
static bool valid_address(struct zl_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!s.p[i] || !strchr("0123456789abcdefABCDEF:.", s.p[i]))
            return false;
    return s.n > 1;
}

/* Labels of letters, digits and dashes (not at their ends), separated by single dots. */
static bool valid_labels(struct zl_str s)
{
    char before = '.';
    for (size_t i = 0; i < s.n; before = s.p[i++]) {
        bool plain = word(s.p[i]) && s.p[i] != '_';
        if (!plain && !(before != '.' && (s.p[i] == '-' || (s.p[i] == '.' && before != '-'))))
            return false;
    }
    return s.n > 0 && before != '.' && before != '-';
}

/* A host name or an IPv6 address in brackets, and an optional port. */
static bool valid_host(struct zl_str s)
{
    struct zl_str host = s, port = { NULL, 0 };
    uint64_t number;
    if (s.n && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (!end)
            return false;
        host = zl_str_n(s.p + 1, (size_t)(end - s.p) - 1);
        port = zl_str_n(end + 1, s.n - host.n - 2);
        if (!valid_address(host) || (port.n && port.p[0] != ':'))
            return false;
        port = port.n ? zl_str_n(port.p + 1, port.n - 1) : (struct zl_str){ NULL, 0 };
    } else {
        host = zl_str_cut(s, ':', &port);
        if (!valid_labels(host))
            return false;
    }
    return !port.p || zl_parse_u64(port, 1, 65535, &number) == 0;
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

static bool is_hex_id(struct zl_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
    return s.n == 64;
}

/* Which of a path's rules is broken, for a path that is not valid. */
static const char *path_fault(struct zl_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] >= 'A' && name.p[i] <= 'Z')
            return "the name has upper-case letters; names of repositories are lower-case";
    return "the name must be lower-case letters and digits, separated by '.', '_', '__', '-' and '/'";
}

/* Cuts `:tag` and `@digest` off the end of *name. */
static int cut_ends(struct zl_str *name, struct zl_str *tag, struct zl_str *digest, const char **why)
{
    *tag = (struct zl_str){ NULL, 0 };
    *name = zl_str_cut(*name, '@', digest);
    if (digest->p && !zl_digest_valid(*digest))
        return fail(why, "the digest is not sha256: and 64 lower-case hex digits (or sha384, sha512)");
    for (size_t i = name->n; i-- > 0 && name->p[i] != '/' && name->p[i] != ']';) {
        if (name->p[i] == ':') {
            *tag = zl_str_n(name->p + i + 1, name->n - i - 1);
            name->n = i;
            break;
        }
    }
    if (tag->p && !valid_tag(*tag))
        return fail(why, "the tag must be up to 128 letters, digits, '_', '.' and '-', and begin with no '.' or '-'");
    return 0;
}

bool zl_reference_host_valid(struct zl_str host)
{
    return host.n < sizeof((struct zl_reference *)0)->registry && valid_host(host);
}

/* Names of hosts mean the same in upper and lower case, so they are kept in one. */
void zl_reference_host(struct zl_str host, char ret[256])
{
    size_t n = ZL_MIN(host.n, (size_t)255);
    for (size_t i = 0; i < n; i++)
        ret[i] = (char)(host.p[i] >= 'A' && host.p[i] <= 'Z' ? host.p[i] + 32 : host.p[i]);
    ret[n] = 0;
    if (zl_streq(ret, "index.docker.io") || zl_streq(ret, "registry-1.docker.io"))
        memcpy(ret, "docker.io", 10);
}

int zl_reference_parse(struct zl_str text, struct zl_reference *ret, const char **why)
{
    struct zl_reference r = { 0 };
    struct zl_str digest, tag, rest, name = text;
    if (text.n == 0)
        return fail(why, "the image reference is empty");
    if (text.n > 600)
        return fail(why, "the image reference is too long");
    if (zl_str_starts(text, ZL_STR("https://")) || zl_str_starts(text, ZL_STR("http://")) ||
        zl_str_starts(text, ZL_STR("docker://")))
        return fail(why, "an image reference begins with the registry's host, without https:// or the like");
    if (cut_ends(&name, &tag, &digest, why) < 0)
        return -EINVAL;
    struct zl_str host = ZL_STR("docker.io"), first = zl_str_cut(name, '/', &rest);
    if (rest.p && is_host(first)) {
        host = first;
        name = rest;
        if (!valid_host(host))
            return fail(why, "the registry is not a host name or [IPv6 address] with an optional port");
    }
    if (host.n > 255)
        return fail(why, "the registry's name is longer than 255 bytes");
    zl_reference_host(host, r.registry);
    if (!valid_path(name))
        return fail(why, path_fault(name));
    bool library = zl_streq(r.registry, "docker.io") && !memchr(name.p, '/', name.n);
    if (library && is_hex_id(name))
        return fail(why, "64 hex digits are an image's id, not a name; write @sha256: before them");
    if (name.n + (library ? strlen("library/") : 0) > 255)
        return fail(why, "the name is longer than 255 bytes");
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
