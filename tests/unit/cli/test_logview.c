#include "../testing.h"

#include "base/fd.h"
#include "cli/logview.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct zl_cli cli;

static void text_of(int fd, char text[2048])
{
    ssize_t n = pread(fd, text, 2047, 0);
    assert_true(n >= 0);
    text[n] = 0;
}

static void lines_are_prefixed_and_their_ends_remembered(void **state)
{
    char out[2048], err[2048];
    struct zl_logview v;
    cli.out.fd = memfd_create("out", MFD_CLOEXEC);
    cli.err.fd = memfd_create("err", MFD_CLOEXEC);
    zl_logview_init(&v, &cli);
    v.split = true;
    v.width = 5;
    struct zl_buf query = ZL_BUF_INIT;
    zl_logview_query(&v, &query);
    assert_int_equal(query.n, 0);
    zl_logview_skip(
        &v, ZL_STR("{\"service\":\"web\",\"slot\":1,\"instance\":\"a\",\"text\":\"old\",\"cursor\":\"a:1:5\"}"));
    zl_logview_add(&v,
                   ZL_STR("{\"service\":\"web\",\"slot\":1,\"instance\":\"a\",\"stream\":\"stdout\",\"text\":\"one\","
                          "\"cursor\":\"a:1:9\"}"));
    zl_logview_add(&v,
                   ZL_STR("{\"service\":\"db\",\"slot\":12,\"instance\":\"b\",\"stream\":\"stderr\",\"text\":\"two\","
                          "\"cursor\":\"b:2:7\"}"));
    zl_logview_add(&v, ZL_STR(""));
    zl_logview_add(&v, ZL_STR("{\"service\":\"web\",\"slot\":1,\"instance\":\"a\",\"stream\":\"stdout\",\"text\":\"\","
                              "\"cursor\":\"a:1:12\"}"));
    zl_logview_flush(&v);
    text_of(cli.out.fd, out);
    text_of(cli.err.fd, err);
    assert_string_equal(out, "web-1 | one\nweb-1 | \n");
    assert_string_equal(err, "db-12 | two\n");
    zl_logview_query(&v, &query);
    assert_string_equal(query.p, "&cursor=a%3A1%3A12,b%3A2%3A7");
    zl_buf_done(&query);
    zl_logview_done(&v);
    (void)zl_close(cli.out.fd);
    (void)zl_close(cli.err.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_prefixed_and_their_ends_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
