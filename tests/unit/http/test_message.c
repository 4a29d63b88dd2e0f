#include "../testing.h"

#include "base/alloc.h"
#include "http/message.h"

#include <errno.h>
#include <stdio.h>

/* Parses whole, then one byte more at a time: the first result that is not "more" must be the same. */
static ssize_t parse(const char *text, size_t n, bool response, bool is_head, struct zl_http_head *h)
{
    size_t scanned = 0;
    char *copy = zl_xmalloc(n + 1);
    memcpy(copy, text, n);
    ssize_t whole = response ? zl_http_parse_response(zl_str_n(copy, n), &scanned, is_head, h)
                             : zl_http_parse_request(zl_str_n(copy, n), &scanned, h);
    scanned = 0;
    ssize_t r = 0;
    static struct zl_http_head other;
    for (size_t i = 0; i <= n && r == 0; i++)
        r = response ? zl_http_parse_response(zl_str_n(text, i), &scanned, is_head, &other)
                     : zl_http_parse_request(zl_str_n(text, i), &scanned, &other);
    assert_int_equal(r, whole);
    if (whole > 0) {
        assert_int_equal(other.nheaders, h->nheaders);
        assert_int_equal(other.body, h->body);
        assert_int_equal(other.content_length, h->content_length);
        assert_int_equal(other.keep_alive, h->keep_alive);
    }
    free(copy);
    return whole;
}

static struct zl_http_head head;

static ssize_t request(const char *text)
{
    return parse(text, strlen(text), false, false, &head);
}

static ssize_t response(const char *text)
{
    return parse(text, strlen(text), true, false, &head);
}

static void test_good_requests(void **state)
{
    (void)state;
    const char *text = "GET /a?b=c HTTP/1.1\r\nHost: example.org:80\r\nX-Y:  v w \t\r\n\r\nrest";
    assert_int_equal(request(text), strlen(text) - 4);
    assert_int_equal(head.nheaders, 2);
    assert_int_equal(head.minor, 1);
    assert_int_equal(head.body, ZL_HTTP_BODY_NONE);
    assert_true(head.keep_alive);

    size_t scanned = 0;
    ssize_t n = zl_http_parse_request(zl_str(text), &scanned, &head);
    assert_true(n > 0);
    assert_true(zl_str_is(head.method, "GET"));
    assert_true(zl_str_is(head.target, "/a?b=c"));
    assert_true(zl_str_is(head.host, "example.org:80"));
    assert_true(zl_str_is(zl_http_find(&head, "x-y")->value, "v w"));
    assert_null(zl_http_find(&head, "x-z"));

    assert_true(request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_LENGTH);
    assert_int_equal(head.content_length, 12);
    assert_true(request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_CHUNKED);
    assert_true(request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") > 0);
    assert_false(head.keep_alive);
    assert_true(request("GET / HTTP/1.0\r\n\r\n") > 0);
    assert_false(head.keep_alive);
    assert_true(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") > 0);
    assert_true(head.keep_alive);
    assert_true(request("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n") >
                0);
    assert_true(head.upgrade);
    assert_false(head.connection_extra);
    assert_true(request("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-y\r\n\r\n") > 0);
    assert_true(head.connection_extra);
    assert_true(request("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n") > 0);
    assert_true(head.expect_continue);
    assert_true(request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(request("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(request("GET / HTTP/1.1\r\nHost:\r\n\r\n") > 0);
}

static void test_bad_requests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
    } bad[] = {
        /* framing that two readers could read two ways */
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", -EOPNOTSUPP },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", -EOPNOTSUPP },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", -EBADMSG },
        { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", -EBADMSG },
        /* lines */
        { "GET / HTTP/1.1\nHost: a\n\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\n\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\n Host: a\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nX(): v\r\n\r\n", -EBADMSG },
        { "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        /* the request line */
        { "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET a HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET * HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET /\r\n\r\n", -EBADMSG },
        { "GET / http/1.1\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET / HTTP/2.0\r\nHost: a\r\n\r\n", -EPROTONOSUPPORT },
        { "GET / HTTP/1.10\r\nHost: a\r\n\r\n", -EBADMSG },
        /* hosts */
        { "GET / HTTP/1.1\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", -EBADMSG },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", -EBADMSG },
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(bad); i++)
        if (request(bad[i].text) != bad[i].code)
            fail_msg("case %u gives %zd: %s", i, request(bad[i].text), bad[i].text);
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    assert_int_equal(parse(nul, sizeof nul - 1, false, false, &head), -EBADMSG);
}

static void test_limits(void **state)
{
    (void)state;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_puts(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 0; i < ZL_HTTP_HEADERS_MAX - 1; i++)
        zl_buf_printf(&b, "H%u: v\r\n", i);
    size_t n = b.n;
    zl_buf_puts(&b, "\r\n");
    assert_int_equal(request(b.p), b.n);
    b.n = n;
    zl_buf_puts(&b, "More: v\r\n\r\n");
    assert_int_equal(request(b.p), -EMSGSIZE);

    zl_buf_clear(&b);
    zl_buf_puts(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    while (b.n < ZL_HTTP_HEAD_MAX - 4)
        zl_buf_putc(&b, 'x');
    zl_buf_puts(&b, "\r\n\r\n");
    assert_int_equal(b.n, ZL_HTTP_HEAD_MAX);
    size_t scanned = 0;
    assert_int_equal(zl_http_parse_request(zl_buf_view(&b), &scanned, &head), ZL_HTTP_HEAD_MAX);
    b.n -= 4;
    zl_buf_puts(&b, "x\r\n\r\n");
    scanned = 0;
    assert_int_equal(zl_http_parse_request(zl_buf_view(&b), &scanned, &head), -EMSGSIZE);
}

static void test_responses(void **state)
{
    (void)state;
    assert_true(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") > 0);
    assert_int_equal(head.status, 200);
    assert_int_equal(head.body, ZL_HTTP_BODY_LENGTH);
    assert_true(response("HTTP/1.1 200\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_CLOSE);
    assert_true(response("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_NONE);
    assert_true(response("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_NONE);
    assert_true(head.has_length);
    assert_true(response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_CHUNKED);
    const char *h = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_true(parse(h, strlen(h), true, true, &head) > 0);
    assert_int_equal(head.body, ZL_HTTP_BODY_NONE);

    assert_int_equal(response("HTTP/1.1 20 OK\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1 600 OK\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1 2000 OK\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1  200 OK\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("ICY 200 OK\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1 200 OK\nA: b\n\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), -EBADMSG);
    assert_int_equal(response("HTTP/2 200\r\n\r\n"), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_requests),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_responses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
