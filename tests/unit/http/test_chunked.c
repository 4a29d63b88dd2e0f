#include "../testing.h"

#include "base/str.h"
#include "http/chunked.h"

#include <errno.h>

/* Decodes with `step` bytes at a time. Returns ZL_CHUNKED_* or an error; *ret_rest is what was not taken. */
static int decode(const char *text, size_t n, size_t step, struct zl_buf *body, size_t *ret_rest)
{
    struct zl_chunked c;
    zl_chunked_init(&c);
    zl_buf_clear(body);
    int r = ZL_CHUNKED_MORE;
    size_t at = 0;
    while (at < n && r == ZL_CHUNKED_MORE) {
        size_t now = n - at < step ? n - at : step;
        struct zl_str in = zl_str_n(text + at, now), data;
        while ((r = zl_chunked_next(&c, &in, &data)) == ZL_CHUNKED_DATA) {
            assert_true(data.n > 0);
            zl_buf_add_str(body, data);
        }
        at += now - in.n;
    }
    *ret_rest = n - at;
    return r;
}

static int check(const char *text, const char *want_body, size_t want_rest)
{
    zl_auto_buf whole = ZL_BUF_INIT;
    zl_auto_buf bytes = ZL_BUF_INIT;
    size_t rest, rest_bytes;
    int r = decode(text, strlen(text), strlen(text), &whole, &rest);
    assert_int_equal(decode(text, strlen(text), 1, &bytes, &rest_bytes), r);
    assert_true(zl_str_eq(zl_buf_view(&whole), zl_buf_view(&bytes)));
    if (r == ZL_CHUNKED_END) {
        assert_int_equal(rest, rest_bytes);
        assert_int_equal(rest, want_rest);
        assert_string_equal(whole.n ? whole.p : "", want_body);
    }
    return r;
}

static void test_good(void **state)
{
    (void)state;
    assert_int_equal(check("0\r\n\r\n", "", 0), ZL_CHUNKED_END);
    assert_int_equal(check("5\r\nhello\r\n0\r\n\r\nGET", "hello", 3), ZL_CHUNKED_END);
    assert_int_equal(check("5;a=b;c=\"d\"\r\nhello\r\nA\r\n 123456789\r\n000\r\n\r\n", "hello 123456789", 0),
                     ZL_CHUNKED_END);
    assert_int_equal(check("1\r\nx\r\n0\r\nDigest: a b\r\nX-Y:\r\n\r\n", "x", 0), ZL_CHUNKED_END);
    assert_int_equal(check("5\r\nhel", "", 0), ZL_CHUNKED_MORE);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\r\n",
        "g\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "-1\r\n",
        "+5\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n0\r\n",
        "5\r\nhello\rX",
        "1000000000000000\r\n",
        "5;a\nb\r\n",
        "5;\x01\r\n",
        ";a\r\n",
        "5\r\r\n",
        "0\r\n\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: v\r\n\r\n",
        "0\r\nX : v\r\n\r\n",
        "0\r\nX: a\nb\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nHOST: x\r\n\r\n",
        "0\r\n folded\r\n\r\n",
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(bad); i++)
        if (check(bad[i], "", 0) != -EBADMSG)
            fail_msg("case %u is taken: %s", i, bad[i]);
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_puts(&b, "5;");
    while (b.n < 2000)
        zl_buf_putc(&b, 'x');
    assert_int_equal(check(b.p, "", 0), -EMSGSIZE);
    zl_buf_clear(&b);
    zl_buf_puts(&b, "0\r\n");
    while (b.n < 10000)
        zl_buf_puts(&b, "Name: value\r\n");
    assert_int_equal(check(b.p, "", 0), -EMSGSIZE);
}

static void test_heads(void **state)
{
    (void)state;
    char h[ZL_CHUNKED_HEAD_SIZE];
    assert_int_equal(zl_chunked_head(h, 1), 3);
    assert_memory_equal(h, "1\r\n", 3);
    assert_int_equal(zl_chunked_head(h, 0xdeadbeef), 10);
    assert_memory_equal(h, "deadbeef\r\n", 10);
    assert_int_equal(zl_chunked_head(h, UINT64_MAX), 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
