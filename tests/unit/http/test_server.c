/* The server's engine on a loop in this thread, the blocking client on another. */
#include "../testing.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "client.h"
#include "http/server.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct world {
    char dir[64], path[200];
    int listen_fd;
    struct zl_loop *loop;
    struct zl_http_server *server;
    struct zl_http_exchange *held;
    struct zl_timer *timer;
    unsigned gone, drained, handled;
    size_t streamed;
    void (*script)(struct world *w); /* on the client's thread */
    int end[2];
    bool failed;
};

#define CHECK(w, expr)                                                  \
    do {                                                                \
        if (!(expr)) {                                                  \
            fprintf(stderr, "line %d: %s is false\n", __LINE__, #expr); \
            (w)->failed = true;                                         \
        }                                                               \
    } while (0)

enum { STREAM_BYTES = 4 * 1024 * 1024, PIECE = 64 * 1024 };

static void stream_on(void *arg)
{
    struct world *w = arg;
    static char piece[PIECE];
    w->drained++;
    while (w->streamed < STREAM_BYTES) {
        memset(piece, 'a' + (int)(w->streamed / PIECE % 26), sizeof piece);
        w->streamed += sizeof piece;
        if (zl_http_reply_write(w->held, zl_str_n(piece, sizeof piece)) > 256 * 1024)
            return;
    }
    struct zl_http_exchange *x = ZL_TAKE(w->held);
    zl_http_reply_end(x);
}

static void gone(void *arg)
{
    struct world *w = arg;
    w->gone++;
    w->held = NULL;
}

static void reply_later(void *arg)
{
    struct world *w = arg;
    if (w->held)
        zl_http_reply(ZL_TAKE(w->held), 200, "text/plain", ZL_STR("later"));
}

static void handler(void *arg, struct zl_http_exchange *x)
{
    struct world *w = arg;
    const struct zl_http_request *r = zl_http_request(x);
    w->handled++;
    if (zl_str_is(r->path, "/echo")) {
        zl_http_reply_header(x, "X-Method", r->method);
        zl_http_reply(x, 200, "application/octet-stream", r->body);
    } else if (zl_str_is(r->path, "/stream")) {
        w->held = x;
        w->streamed = 0;
        zl_http_on_gone(x, gone, w);
        zl_http_on_drained(x, stream_on, w);
        zl_http_reply_begin(x, 200, "text/plain");
        stream_on(w);
    } else if (zl_str_is(r->path, "/later")) {
        w->held = x;
        zl_http_on_gone(x, gone, w);
        zl_timer_set(w->timer, 5);
    } else if (zl_str_is(r->path, "/hold")) {
        w->held = x;
        zl_http_on_gone(x, gone, w);
    } else if (zl_str_is(r->path, "/query")) {
        zl_auto_buf v = ZL_BUF_INIT;
        int n = zl_http_query(r, "name", &v);
        zl_http_reply(x, n == 1 ? 200 : n == 0 ? 404 : 400, "text/plain", zl_buf_view(&v));
    } else if (zl_str_is(r->path, "/who")) {
        char text[64];
        snprintf(text, sizeof text, "%d %d", (int)r->pid, (int)r->uid);
        zl_http_reply(x, 200, "text/plain", zl_str(text));
    } else {
        zl_http_reply(x, 404, "text/plain", ZL_STR("no\n"));
    }
}

static void *client_thread(void *arg)
{
    struct world *w = arg;
    w->script(w);
    (void)zl_close(w->end[1]);
    return NULL;
}

static void script_over(void *arg, int events)
{
    struct world *w = arg;
    (void)events;
    zl_loop_stop(w->loop);
}

static int setup(void **state)
{
    struct world *w = zl_xcalloc(1, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/zl-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    /* Longer than a socket's address may be. */
    snprintf(w->path, sizeof w->path, "%s/%0100d", w->dir, 0);
    assert_int_equal(zl_mkdirat(AT_FDCWD, w->path, 0700), 0);
    zl_auto_close int dir = zl_openat(AT_FDCWD, w->path, O_PATH | O_DIRECTORY, 0);
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/s", dir);
    snprintf(w->path, sizeof w->path, "%s/%0100d/s", w->dir, 0);
    w->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w->listen_fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(w->listen_fd, 16), 0);
    w->loop = zl_loop_new();
    w->timer = zl_timer_new(w->loop, reply_later, w);
    struct zl_http_server_options o = { .loop = w->loop, .listen_fd = w->listen_fd, .handler = handler, .arg = w };
    assert_int_equal(zl_http_server_new(&o, &w->server, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    zl_http_server_free(w->server);
    zl_timer_free(w->timer);
    zl_loop_free(w->loop);
    zl_close(w->listen_fd);
    assert_int_equal(zl_remove_tree(AT_FDCWD, w->dir), 0);
    free(w);
    return 0;
}

static void run(struct world *w, void (*script)(struct world *))
{
    pthread_t t;
    struct zl_watch *watch;
    w->script = script;
    assert_int_equal(pipe(w->end), 0);
    assert_int_equal(zl_watch_new(w->loop, w->end[0], ZL_READABLE, script_over, w, &watch), 0);
    assert_int_equal(pthread_create(&t, NULL, client_thread, w), 0);
    zl_loop_run(w->loop);
    pthread_join(t, NULL);
    zl_watch_free(watch);
    zl_close(w->end[0]);
    assert_false(w->failed);
}

static int call(struct world *w, const char *method, const char *target, struct zl_str body, struct zl_buf *reply,
                struct zl_err *err)
{
    struct zl_http_client_options o = { .socket_path = w->path, .timeout_ms = 5000 };
    struct zl_http_call c = { .method = method, .target = target, .body = body };
    return zl_http_call(&o, &c, reply, err);
}

static void whole_script(struct world *w)
{
    struct zl_err err = { 0 };
    zl_auto_buf reply = ZL_BUF_INIT;
    CHECK(w, call(w, "GET", "/none", ZL_STR(""), &reply, &err) == 404);
    CHECK(w, zl_str_is(zl_buf_view(&reply), "no\n"));
    CHECK(w, call(w, "GET", "/later", ZL_STR(""), &reply, &err) == 200);
    CHECK(w, zl_str_is(zl_buf_view(&reply), "later"));
    CHECK(w, call(w, "GET", "/query?a=b&name=x%20y+z", ZL_STR(""), &reply, &err) == 200);
    CHECK(w, zl_str_is(zl_buf_view(&reply), "x y z"));
    CHECK(w, call(w, "GET", "/query?name=%zz", ZL_STR(""), &reply, &err) == 400);
    char who[64];
    snprintf(who, sizeof who, "%d %d", (int)getpid(), (int)getuid());
    CHECK(w, call(w, "GET", "/who", ZL_STR(""), &reply, &err) == 200);
    CHECK(w, zl_str_is(zl_buf_view(&reply), who));

    /* A large body, both ways; and one over the limit. */
    zl_auto_buf big = ZL_BUF_INIT;
    for (unsigned i = 0; big.n < ZL_HTTP_SERVER_BODY_MAX - 64; i++)
        zl_buf_printf(&big, "%u,", i);
    CHECK(w, call(w, "POST", "/echo", zl_buf_view(&big), &reply, &err) == 200);
    CHECK(w, zl_str_eq(zl_buf_view(&reply), zl_buf_view(&big)));
    while (big.n <= ZL_HTTP_SERVER_BODY_MAX)
        zl_buf_putc(&big, 'x');
    CHECK(w, call(w, "POST", "/echo", zl_buf_view(&big), &reply, &err) == 413);

    /* Several requests on one connection. */
    struct zl_http_client_options o = { .socket_path = w->path, .timeout_ms = 5000 };
    struct zl_http_client *c = NULL;
    CHECK(w, zl_http_client_open(&o, &c, &err) == 0);
    for (unsigned i = 0; i < 3; i++) {
        struct zl_http_call k = { .method = "PUT", .target = "/echo", .body = ZL_STR("one") };
        zl_buf_clear(&reply);
        CHECK(w, zl_http_client_send(c, &k, &err) == 200);
        CHECK(w, zl_str_is(zl_http_client_header(c, "x-method"), "PUT"));
        CHECK(w, zl_http_client_body(c, 100, &reply, &err) == 0);
        CHECK(w, zl_str_is(zl_buf_view(&reply), "one"));
    }
    zl_http_client_free(c);
}

static void test_whole(void **state)
{
    struct world *w = *state;
    run(w, whole_script);
    assert_int_equal(w->gone, 0);
}

static void stream_script(struct world *w)
{
    struct zl_err err = { 0 };
    zl_auto_buf reply = ZL_BUF_INIT;
    CHECK(w, call(w, "GET", "/stream", ZL_STR(""), &reply, &err) == 200);
    CHECK(w, reply.n == STREAM_BYTES);
    for (size_t i = 0; i < reply.n; i += PIECE)
        CHECK(w, reply.p[i] == (char)('a' + (int)(i / PIECE % 26)));
}

static void test_stream_with_backpressure(void **state)
{
    struct world *w = *state;
    run(w, stream_script);
    assert_true(w->drained > 2);
    assert_int_equal(w->gone, 0);
}

static void gone_script(struct world *w)
{
    struct zl_http_client_options o = { .socket_path = w->path, .timeout_ms = 50 };
    struct zl_http_client *c = NULL;
    struct zl_err err = { 0 };
    CHECK(w, zl_http_client_open(&o, &c, &err) == 0);
    struct zl_http_call k = { .method = "GET", .target = "/hold" };
    CHECK(w, zl_http_client_send(c, &k, &err) == ZL_E_TIMEOUT);
    zl_http_client_free(c);
    /* The server takes the next one only after it has seen the end of the first. */
    zl_auto_buf reply = ZL_BUF_INIT;
    CHECK(w, call(w, "GET", "/none", ZL_STR(""), &reply, &err) == 404);
}

static void test_client_gone(void **state)
{
    struct world *w = *state;
    run(w, gone_script);
    assert_int_equal(w->gone, 1);
}

/* Bytes by hand: what comes back until the end. */
static void raw(struct world *w, const char *bytes, size_t step, struct zl_buf *reply)
{
    struct zl_http_client_options o = { .socket_path = w->path };
    struct zl_http_client *c = NULL;
    CHECK(w, zl_http_client_open(&o, &c, NULL) == 0);
    int fd = zl_http_client_fd(c);
    CHECK(w, zl_set_nonblock(fd, false) == 0);
    size_t n = strlen(bytes);
    for (size_t i = 0; i < n; i += step) {
        size_t m = n - i < step ? n - i : step;
        if (send(fd, bytes + i, m, MSG_NOSIGNAL) != (ssize_t)m)
            break;
    }
    char buf[4096];
    ssize_t got;
    zl_buf_clear(reply);
    while ((got = recv(fd, buf, sizeof buf, 0)) > 0)
        zl_buf_add(reply, buf, (size_t)got);
    zl_http_client_free(c);
}

static void raw_script(struct world *w)
{
    zl_auto_buf reply = ZL_BUF_INIT;
    zl_auto_buf reply2 = ZL_BUF_INIT;
    const char *pipelined =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
        "HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n"
        "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    raw(w, pipelined, 4096, &reply);
    CHECK(w, strstr(reply.p, "\r\n\r\nabcdeHTTP/1.1 200"));
    CHECK(w, strstr(reply.p, "\r\n\r\nxyzHTTP/1.1 404"));
    CHECK(w, zl_str_ends(zl_buf_view(&reply), ZL_STR("Connection: close\r\nContent-Length: 3\r\n\r\nno\n")));
    raw(w, pipelined, 1, &reply2);
    CHECK(w, zl_str_eq(zl_buf_view(&reply), zl_buf_view(&reply2)));

    raw(w, "GET / HTTP/1.1\nHost: a\n\n", 100, &reply);
    CHECK(w, zl_str_starts(zl_buf_view(&reply), ZL_STR("HTTP/1.1 400 ")));
    raw(w, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 100, &reply);
    CHECK(w, zl_str_starts(zl_buf_view(&reply), ZL_STR("HTTP/1.1 400 ")));
    raw(w, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
        100, &reply);
    CHECK(w, zl_str_starts(zl_buf_view(&reply), ZL_STR("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")));
    raw(w, "GET /stream HTTP/1.0\r\n\r\n", 100, &reply);
    CHECK(w, reply.n > STREAM_BYTES && !strstr(reply.p, "chunked"));
}

static void test_raw(void **state)
{
    run(*state, raw_script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_with_backpressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_raw, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
