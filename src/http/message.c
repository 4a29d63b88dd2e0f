#include "http/message.h"

#include <errno.h>

/* Bit 0: a token's byte. Bit 1: allowed in a header's value. Bit 2: allowed in a request target. */
enum { TOKEN = 1, VALUE = 2, TARGET = 4 };

static const uint8_t class_of[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = TOKEN | VALUE | TARGET,
    ['"'] = VALUE | TARGET,
    ['#'] = TOKEN | VALUE,
    ['$' ... '\''] = TOKEN | VALUE | TARGET,
    ['(' ... ')'] = VALUE | TARGET,
    ['*' ... '+'] = TOKEN | VALUE | TARGET,
    [','] = VALUE | TARGET,
    ['-' ... '.'] = TOKEN | VALUE | TARGET,
    ['/'] = VALUE | TARGET,
    ['0' ... '9'] = TOKEN | VALUE | TARGET,
    [':' ... '@'] = VALUE | TARGET,
    ['A' ... 'Z'] = TOKEN | VALUE | TARGET,
    ['[' ... ']'] = VALUE | TARGET,
    ['^' ... 'z'] = TOKEN | VALUE | TARGET,
    ['{'] = VALUE | TARGET,
    ['|'] = TOKEN | VALUE | TARGET,
    ['}'] = VALUE | TARGET,
    ['~'] = TOKEN | VALUE | TARGET,
    [0x80 ... 0xff] = VALUE,
};

static bool all_of(struct zl_str s, uint8_t class)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(class_of[(uint8_t)s.p[i]] & class))
            return false;
    return true;
}

bool zl_http_is_token(struct zl_str s)
{
    return s.n > 0 && all_of(s, TOKEN);
}

bool zl_http_is_value(struct zl_str s)
{
    return all_of(s, VALUE);
}

/*
 * Looks for the empty line that ends a head, from *scanned on. Every LF must follow a CR: a bare one is refused as soon
 * as it is seen, so that the answer does not depend on how the bytes are cut.
 */
static ssize_t find_end(struct zl_str in, size_t *scanned)
{
    size_t at = *scanned;
    size_t end = in.n < ZL_HTTP_HEAD_MAX ? in.n : ZL_HTTP_HEAD_MAX;
    while (at < end) {
        const char *lf = memchr(in.p + at, '\n', end - at);
        if (!lf)
            break;
        size_t i = (size_t)(lf - in.p);
        if (i == 0 || in.p[i - 1] != '\r')
            return -EBADMSG;
        /* "\r\n\r\n": the line before is at least two bytes back, and a head never starts with the empty line here. */
        if (i >= 3 && in.p[i - 2] == '\n')
            return (ssize_t)i + 1;
        at = i + 1;
    }
    *scanned = end;
    return end == ZL_HTTP_HEAD_MAX ? -EMSGSIZE : 0;
}

bool zl_http_list_next(struct zl_str *list, struct zl_str *ret)
{
    while (list->p) {
        struct zl_str item = zl_str_trim(zl_str_cut(*list, ',', list));
        if (item.n) {
            *ret = item;
            return true;
        }
    }
    return false;
}

static int parse_version(struct zl_str s, unsigned *ret)
{
    if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || s.p[5] < '0' || s.p[5] > '9' || s.p[6] != '.' || s.p[7] < '0' ||
        s.p[7] > '9')
        return -EBADMSG;
    if (s.p[5] != '1')
        return -EPROTONOSUPPORT;
    *ret = s.p[7] != '0'; /* a later minor version is answered as 1.1 (RFC 9110, 2.5) */
    return 0;
}

static int connection_header(struct zl_http_head *h, struct zl_str value, bool *names_upgrade)
{
    struct zl_str item;
    while (zl_http_list_next(&value, &item)) {
        if (!zl_http_is_token(item))
            return -EBADMSG;
        if (zl_str_eq_nocase(item, ZL_STR("close")))
            h->keep_alive = false;
        else if (zl_str_eq_nocase(item, ZL_STR("keep-alive")))
            h->keep_alive = h->keep_alive || h->minor == 0;
        else if (zl_str_eq_nocase(item, ZL_STR("upgrade")))
            *names_upgrade = true;
        else
            h->connection_extra = true;
    }
    return 0;
}

static int content_length(struct zl_http_head *h, struct zl_str value)
{
    /* A second one is refused even when it says the same: which of the two a neighbour reads is not ours to guess. */
    if (h->has_length || value.n == 0 || value.n > 18)
        return -EBADMSG;
    uint64_t v = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9')
            return -EBADMSG;
        v = v * 10 + (uint64_t)(value.p[i] - '0');
    }
    h->has_length = true;
    h->content_length = v;
    return 0;
}

/* A Host is a name or an address and perhaps a port; nothing that could be taken for a path or for user information. */
static bool host_is_valid(struct zl_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!(class_of[(uint8_t)c] & TARGET) || strchr("/\\@?\",<>^`{|}", c))
            return false;
    }
    return true;
}

struct seen {
    bool connection_upgrade, upgrade, chunked, close_seen;
};

static int known_header(struct zl_http_head *h, const struct zl_http_header *f, bool request, struct seen *seen)
{
    switch (f->name.n) {
    case 4:
        if (request && zl_str_eq_nocase(f->name, ZL_STR("host"))) {
            if (h->host.p || !host_is_valid(f->value))
                return -EBADMSG;
            h->host = f->value;
        }
        return 0;
    case 6:
        if (request && zl_str_eq_nocase(f->name, ZL_STR("expect"))) {
            if (!zl_str_eq_nocase(f->value, ZL_STR("100-continue")))
                return -EBADMSG;
            h->expect_continue = h->minor > 0;
        }
        return 0;
    case 7:
        if (zl_str_eq_nocase(f->name, ZL_STR("upgrade")))
            seen->upgrade = true;
        return 0;
    case 10:
        if (zl_str_eq_nocase(f->name, ZL_STR("connection")))
            return connection_header(h, f->value, &seen->connection_upgrade);
        return 0;
    case 14:
        if (zl_str_eq_nocase(f->name, ZL_STR("content-length")))
            return content_length(h, f->value);
        return 0;
    case 17:
        if (zl_str_eq_nocase(f->name, ZL_STR("transfer-encoding"))) {
            if (seen->chunked || h->minor == 0)
                return -EBADMSG;
            if (!zl_str_eq_nocase(f->value, ZL_STR("chunked")))
                return zl_http_is_token(f->value) ? -EOPNOTSUPP : -EBADMSG;
            seen->chunked = true;
        }
        return 0;
    default:
        return 0;
    }
}

static int parse_headers(struct zl_str in, bool request, struct zl_http_head *h, struct seen *seen)
{
    while (in.n > 2) { /* what is left at last is the empty line */
        const char *lf = memchr(in.p, '\n', in.n);
        size_t n = (size_t)(lf - in.p) - 1;
        size_t colon = 0;
        while (colon < n && (class_of[(uint8_t)in.p[colon]] & TOKEN))
            colon++;
        /* Also refuses obs-fold (a line that starts with a space) and a space before the colon. */
        if (colon == 0 || colon == n || in.p[colon] != ':')
            return -EBADMSG;
        if (h->nheaders == ZL_HTTP_HEADERS_MAX)
            return -EMSGSIZE;
        struct zl_http_header *f = &h->headers[h->nheaders++];
        f->name = zl_str_n(in.p, colon);
        struct zl_str value = zl_str_n(in.p + colon + 1, n - colon - 1);
        if (!all_of(value, VALUE))
            return -EBADMSG;
        f->value = zl_str_trim(value);
        int r = known_header(h, f, request, seen);
        if (r < 0)
            return r;
        in = zl_str_n(lf + 1, in.n - n - 2);
    }
    if (seen->chunked && h->has_length)
        return -EBADMSG;
    h->upgrade = seen->upgrade && seen->connection_upgrade && h->minor > 0;
    return 0;
}

static void head_clear(struct zl_http_head *h)
{
    /* The array of headers is valid up to nheaders and need not be cleared for each message. */
    h->method = h->target = h->reason = h->host = (struct zl_str){ NULL, 0 };
    h->status = h->minor = h->nheaders = 0;
    h->body = ZL_HTTP_BODY_NONE;
    h->content_length = 0;
    h->has_length = h->keep_alive = h->expect_continue = h->upgrade = h->connection_extra = false;
}

static bool target_is_valid(struct zl_str method, struct zl_str t)
{
    if (!all_of(t, TARGET))
        return false;
    if (zl_str_is(method, "CONNECT"))
        return t.n > 0 && host_is_valid(t);
    if (t.n == 1 && t.p[0] == '*')
        return zl_str_is(method, "OPTIONS");
    return (t.n > 0 && t.p[0] == '/') || (t.n > 7 && zl_str_eq_nocase(zl_str_n(t.p, 7), ZL_STR("http://"))) ||
           (t.n > 8 && zl_str_eq_nocase(zl_str_n(t.p, 8), ZL_STR("https://")));
}

ssize_t zl_http_parse_request(struct zl_str in, size_t *scanned, struct zl_http_head *h)
{
    /* One empty line before a request is ignored (RFC 9112, 2.2). */
    size_t skip = 0;
    if (in.n >= 1 && in.p[0] == '\r') {
        if (in.n == 1)
            return 0;
        if (in.p[1] != '\n')
            return -EBADMSG;
        skip = 2;
        in = zl_str_n(in.p + 2, in.n - 2);
        if (in.n >= 1 && in.p[0] == '\r')
            return -EBADMSG;
    }
    ssize_t n = find_end(in, scanned);
    if (n <= 0)
        return n;

    head_clear(h);
    const char *lf = memchr(in.p, '\n', (size_t)n);
    struct zl_str line = zl_str_n(in.p, (size_t)(lf - in.p) - 1), rest;
    h->method = zl_str_cut(line, ' ', &rest);
    h->target = zl_str_cut(rest, ' ', &rest);
    if (!rest.p || !zl_http_is_token(h->method))
        return -EBADMSG;
    int r = parse_version(rest, &h->minor);
    if (r < 0)
        return r;
    if (!target_is_valid(h->method, h->target))
        return -EBADMSG;
    h->keep_alive = h->minor > 0;
    struct seen seen = { 0 };
    r = parse_headers(zl_str_n(lf + 1, (size_t)(in.p + n - lf) - 1), true, h, &seen);
    if (r < 0)
        return r;
    if (h->minor > 0 && !h->host.p)
        return -EBADMSG;
    if (seen.chunked)
        h->body = ZL_HTTP_BODY_CHUNKED;
    else if (h->has_length && h->content_length > 0)
        h->body = ZL_HTTP_BODY_LENGTH;
    return n + (ssize_t)skip;
}

ssize_t zl_http_parse_response(struct zl_str in, size_t *scanned, bool request_is_head, struct zl_http_head *h)
{
    if (in.n >= 1 && in.p[0] == '\r')
        return -EBADMSG;
    ssize_t n = find_end(in, scanned);
    if (n <= 0)
        return n;

    head_clear(h);
    const char *lf = memchr(in.p, '\n', (size_t)n);
    struct zl_str line = zl_str_n(in.p, (size_t)(lf - in.p) - 1);
    if (line.n < 12 || line.p[8] != ' ')
        return -EBADMSG;
    int r = parse_version(zl_str_n(line.p, 8), &h->minor);
    if (r < 0)
        return r;
    for (unsigned i = 9; i < 12; i++) {
        if (line.p[i] < '0' || line.p[i] > '9')
            return -EBADMSG;
        h->status = h->status * 10 + (unsigned)(line.p[i] - '0');
    }
    /* The space before an empty reason is often left out; nothing hangs on it. */
    if (h->status < 100 || h->status > 599 || (line.n > 12 && line.p[12] != ' '))
        return -EBADMSG;
    h->reason = line.n > 13 ? zl_str_n(line.p + 13, line.n - 13) : ZL_STR("");
    if (!all_of(h->reason, VALUE))
        return -EBADMSG;
    h->keep_alive = h->minor > 0;
    struct seen seen = { 0 };
    r = parse_headers(zl_str_n(lf + 1, (size_t)(in.p + n - lf) - 1), false, h, &seen);
    if (r < 0)
        return r;
    if (h->status < 200 || h->status == 204 || h->status == 304 || request_is_head)
        h->body = ZL_HTTP_BODY_NONE;
    else if (seen.chunked)
        h->body = ZL_HTTP_BODY_CHUNKED;
    else if (h->has_length)
        h->body = ZL_HTTP_BODY_LENGTH;
    else
        h->body = ZL_HTTP_BODY_CLOSE;
    return n;
}

const struct zl_http_header *zl_http_find(const struct zl_http_head *head, const char *name)
{
    struct zl_str want = zl_str(name);
    for (unsigned i = 0; i < head->nheaders; i++)
        if (zl_str_eq_nocase(head->headers[i].name, want))
            return &head->headers[i];
    return NULL;
}

const char *zl_http_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } names[] = {
        { 100, "Continue" },
        { 101, "Switching Protocols" },
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 411, "Length Required" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 422, "Unprocessable Content" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 499, "Client Closed Request" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(names); i++)
        if (names[i].status == status)
            return names[i].text;
    return "Unknown";
}

unsigned zl_http_error_status(int code)
{
    switch (code) {
    case -EMSGSIZE:
        return 431;
    case -EPROTONOSUPPORT:
        return 505;
    case -EOPNOTSUPP:
        return 501;
    default:
        return 400;
    }
}
