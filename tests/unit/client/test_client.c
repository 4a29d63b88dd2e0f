/* The client against a server of canned replies, which a thread sends byte for byte. */
#include "../testing.h"

#include "base/fd.h"
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct server {
    char folder[64], path[300];
    int listener;
    pthread_t thread;
    const char *replies[4]; /* one a connection; "": close without a word */
    unsigned step;          /* bytes a write; 0: all at once */
    char requests[4][4096];
};

static void *serve(void *arg)
{
    struct server *s = arg;
    for (unsigned i = 0; i < ZL_ARRAY_LEN(s->replies) && s->replies[i]; i++) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            break;
        size_t n = 0;
        while (n + 1 < sizeof s->requests[i]) { /* a head, and the body that it counts */
            ssize_t r = read(fd, s->requests[i] + n, sizeof s->requests[i] - 1 - n);
            if (r <= 0)
                break;
            n += (size_t)r;
            const char *end = strstr(s->requests[i], "\r\n\r\n"), *length = strstr(s->requests[i], "Content-Length: ");
            if (end && n >= (size_t)(end - s->requests[i]) + 4 + (length ? strtoul(length + 16, NULL, 10) : 0))
                break;
        }
        const char *reply = s->replies[i];
        for (size_t at = 0, all = strlen(reply); at < all;) {
            size_t part = s->step ? ZL_MIN((size_t)s->step, all - at) : all - at;
            ssize_t w = send(fd, reply + at, part, MSG_NOSIGNAL);
            if (w <= 0)
                break;
            at += (size_t)w;
        }
        close(fd);
    }
    return NULL;
}

static void start(struct server *s)
{
    snprintf(s->folder, sizeof s->folder, "/tmp/zl-client-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/run", s->folder);
    assert_int_equal(mkdir(s->path, 0700), 0);
    snprintf(s->path, sizeof s->path, "%s/run/zlayer.sock", s->folder);
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "%s/run/zlayer.sock", s->folder);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void finish(struct server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    assert_int_equal(zl_remove_tree(AT_FDCWD, s->folder), 0);
}

static int call(struct server *s, struct zl_arena *arena, const char *method, const struct zl_value *body,
                struct zl_value **ret, struct zl_err *err)
{
    struct zl_client c = { 0 };
    assert_int_equal(zl_place_find(&c.place, s->folder, err), 0);
    int e = zl_client_call(&c, arena, method, "/api/v1/x", body, ret, err);
    zl_place_done(&c.place);
    return e;
}

static void a_reply_is_read_whole_in_any_pieces(void **state)
{
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\":1}",
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(replies); i++) {
        for (unsigned step = 0; step < 4; step++) {
            struct server s = { .replies = { replies[i] }, .step = step };
            struct zl_arena arena;
            struct zl_value *v = NULL;
            struct zl_err err = { 0 };
            start(&s);
            zl_arena_init(&arena);
            assert_int_equal(call(&s, &arena, "GET", NULL, &v, &err), 0);
            assert_int_equal(zl_value_u64(v, "a", 0), 1);
            assert_non_null(strstr(s.requests[0], "GET /api/v1/x HTTP/1.1\r\n"));
            zl_arena_done(&arena);
            finish(&s);
        }
    }
}

static void an_error_reply_becomes_its_code_and_hint(void **state)
{
    struct server s = { 0 };
    struct zl_arena arena;
    struct zl_err err = { 0 };
    s.replies[0] =
        "HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"no 'x'\",\"code\":\"image_not_found\",\"hint\":\"look\"}";
    start(&s);
    zl_arena_init(&arena);
    assert_int_equal(call(&s, &arena, "GET", NULL, NULL, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_string_equal(err.text, "no 'x'");
    assert_string_equal(err.hint, "look");
    zl_arena_done(&arena);
    finish(&s);
}

static void what_is_no_http_is_refused(void **state)
{
    static const char *const bad[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 999 x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnix",
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        struct server s = { .replies = { bad[i] } };
        struct zl_arena arena;
        struct zl_value *v;
        struct zl_err err = { 0 };
        start(&s);
        zl_arena_init(&arena);
        assert_int_equal(call(&s, &arena, "GET", NULL, &v, &err), ZL_E_PROTOCOL);
        zl_arena_done(&arena);
        finish(&s);
    }
}

static void a_request_without_an_answer_is_sent_once_more(void **state)
{
    struct server s = { .replies = { "", "HTTP/1.1 204 No Content\r\n\r\n" } };
    struct zl_arena arena;
    struct zl_err err = { 0 };
    start(&s);
    zl_arena_init(&arena);
    struct zl_value *body = zl_value_new(&arena, ZL_MAP), *v = body;
    zl_value_set(&arena, body, "k", zl_value_string(&arena, ZL_STR("v")));
    assert_int_equal(call(&s, &arena, "POST", body, &v, &err), 0);
    assert_null(v);
    assert_string_equal(s.requests[0], s.requests[1]);
    assert_non_null(strstr(s.requests[1], "{\"k\":"));
    zl_arena_done(&arena);
    finish(&s);
}

static void a_request_that_must_be_done_once_is_not_sent_again(void **state)
{
    struct server s = { .replies = { "", "HTTP/1.1 204 No Content\r\n\r\n" } };
    struct zl_arena arena;
    struct zl_err err = { 0 };
    start(&s);
    zl_arena_init(&arena);
    struct zl_client c = { 0 };
    assert_int_equal(zl_place_find(&c.place, s.folder, &err), 0);
    assert_int_equal(zl_client_call(&c, &arena, "POST", "/api/v1/deployments/shop/exec?x=y",
                                    zl_value_new(&arena, ZL_MAP), NULL, &err),
                     ZL_E_CLOSED);
    assert_non_null(strstr(err.text, "not known"));
    assert_int_equal(s.requests[1][0], 0);
    zl_place_done(&c.place);
    zl_arena_done(&arena);
    finish(&s);
}

static void a_reply_that_breaks_off_is_not_tried_again(void **state)
{
    struct server s = { .replies = { "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{", "" } };
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_err err = { 0 };
    start(&s);
    zl_arena_init(&arena);
    assert_int_equal(call(&s, &arena, "GET", NULL, &v, &err), ZL_E_CLOSED);
    assert_int_equal(s.requests[1][0], 0);
    zl_arena_done(&arena);
    finish(&s);
}

static void each_reason_of_a_missing_agent_is_told(void **state)
{
    struct server s = { .replies = { "" } };
    struct zl_place p;
    struct zl_err err = { 0 };
    start(&s);
    assert_int_equal(zl_place_find(&p, s.folder, &err), 0);
    assert_int_equal(zl_client_probe(&p, &err), ZL_AGENT_REACHABLE);
    shutdown(s.listener, SHUT_RDWR);
    close(s.listener);
    assert_int_equal(zl_client_probe(&p, &err), ZL_AGENT_REFUSED);
    assert_int_equal(err.code, ZL_E_NO_AGENT);
    assert_non_null(strstr(err.text, "stale"));
    assert_int_equal(unlink(s.path), 0);
    assert_int_equal(zl_client_probe(&p, &err), ZL_AGENT_NO_SOCKET);
    struct zl_client c = { .place = p };
    struct zl_arena arena;
    zl_arena_init(&arena);
    assert_int_equal(zl_client_call(&c, &arena, "GET", "/", NULL, NULL, &err), ZL_E_NO_AGENT);
    zl_arena_done(&arena);
    zl_place_done(&p);
    pthread_join(s.thread, NULL);
    assert_int_equal(zl_remove_tree(AT_FDCWD, s.folder), 0);
}

static void a_long_path_is_reached(void **state)
{
    struct server s = { .replies = { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" } };
    struct zl_place p;
    struct zl_err err = { 0 };
    start(&s);
    zl_auto_buf path = ZL_BUF_INIT; /* the same folder, said at length */
    zl_buf_puts(&path, s.folder);
    while (path.n < 300)
        zl_buf_puts(&path, "/run/..");
    assert_int_equal(zl_place_find(&p, path.p, &err), 0);
    assert_int_equal(zl_client_probe(&p, &err), ZL_AGENT_REACHABLE);
    zl_place_done(&p);
    finish(&s);
}

static void a_stream_gives_lines_and_its_end(void **state)
{
    for (unsigned step = 0; step < 3; step++) {
        struct server s = { .step = step,
                            .replies = { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                         "5\r\nab\ncd\r\n3\r\n\r\n\n\r\n0\r\n\r\n" } };
        struct zl_client c = { 0 };
        struct zl_err err = { 0 };
        struct zl_str line;
        start(&s);
        assert_int_equal(zl_place_find(&c.place, s.folder, &err), 0);
        ZL_AUTO(zl_stream) stream = NULL;
        assert_int_equal(zl_stream_open(&c, "GET", "/l", NULL, &stream, &err), 0);
        assert_int_equal(zl_stream_line(stream, 5000, &line, &err), 1);
        assert_true(zl_str_is(line, "ab"));
        assert_int_equal(zl_stream_line(stream, 5000, &line, &err), 1);
        assert_true(zl_str_is(line, "cd"));
        assert_int_equal(zl_stream_line(stream, 5000, &line, &err), 1);
        assert_int_equal(line.n, 0);
        assert_int_equal(zl_stream_line(stream, 5000, &line, &err), 0);
        zl_place_done(&c.place);
        finish(&s);
    }
}

static void events_are_joined_and_comments_skipped(void **state)
{
    for (unsigned step = 0; step < 3; step++) {
        struct server s = { .step = step,
                            .replies = {
                                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                                ": hello\n\nid: 1\nevent: service\ndata: {\"a\":\ndata: 1}\n\n"
                                "data:x\r\n\r\nevent: ready\n\nevent: gone\ndata: {}\n\nevent: cut\ndata: 1\n" } };
        struct zl_client c = { 0 };
        struct zl_err err = { 0 };
        struct zl_str name, data;
        start(&s);
        assert_int_equal(zl_place_find(&c.place, s.folder, &err), 0);
        ZL_AUTO(zl_stream) stream = NULL;
        assert_int_equal(zl_stream_open(&c, "GET", "/e", NULL, &stream, &err), 0);
        assert_int_equal(zl_stream_event(stream, 5000, &name, &data, &err), 1);
        assert_true(zl_str_is(name, "service"));
        assert_true(zl_str_is(data, "{\"a\":\n1}"));
        assert_int_equal(zl_stream_event(stream, 5000, &name, &data, &err), 1);
        assert_true(zl_str_is(name, "message"));
        assert_true(zl_str_is(data, "x"));
        assert_int_equal(zl_stream_event(stream, 5000, &name, &data, &err), 1);
        assert_true(zl_str_is(name, "gone"));
        assert_int_equal(zl_stream_event(stream, 5000, &name, &data, &err), 0);
        zl_place_done(&c.place);
        finish(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_is_read_whole_in_any_pieces),
        cmocka_unit_test(an_error_reply_becomes_its_code_and_hint),
        cmocka_unit_test(what_is_no_http_is_refused),
        cmocka_unit_test(a_request_without_an_answer_is_sent_once_more),
        cmocka_unit_test(a_request_that_must_be_done_once_is_not_sent_again),
        cmocka_unit_test(a_reply_that_breaks_off_is_not_tried_again),
        cmocka_unit_test(each_reason_of_a_missing_agent_is_told),
        cmocka_unit_test(a_long_path_is_reached),
        cmocka_unit_test(a_stream_gives_lines_and_its_end),
        cmocka_unit_test(events_are_joined_and_comments_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
