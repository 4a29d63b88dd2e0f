#include "../testing.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "net/proxy/board.h"
#include "net/proxy/snapshot.h"
#include "net/proxy/wire.h"

#include <sys/socket.h>

static const struct zl_px_backend_def backends[] = {
    { .id = 11, .address = "10.200.0.2", .port = 8080 },
    { .id = 12, .address = "fd00::2", .port = 8081, .draining = true },
};
static const struct zl_px_service_def services[] = {
    { .id = 7,
      .name = "shop.web.http",
      .probe = { .kind = ZL_PX_PROBE_HTTP, .interval_ms = 1000, .timeout_ms = 500, .retries = 3, .path = "/health" },
      .backends = backends,
      .nbackends = 2 },
    { .id = 8, .name = "shop.db.sql" },
};
static const struct zl_px_route_def web_routes[] = { { .host = "Shop.Test", .path = "/api", .service = 0 } };
static const struct zl_px_route_def db_routes[] = { { .service = 1 } };
static const struct zl_px_allow_def allows[] = { { "10.200.0.0", 16 }, { "fd00::", 8 } };
static const struct zl_px_listener_def listeners[] = {
    { .id = 1, .protocol = ZL_PX_HTTP, .routes = web_routes, .nroutes = 1 },
    { .id = 2, .protocol = ZL_PX_TCP, .routes = db_routes, .nroutes = 1, .allows = allows, .nallows = 2 },
};
static const struct zl_px_def def = { .listeners = listeners, .nlisteners = 2, .services = services, .nservices = 2 };
static const uint32_t slots[] = { 5, 3 };

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    zl_auto_buf b = ZL_BUF_INIT;
    struct zl_px_view v;
    assert_int_equal(zl_px_write(&def, 42, slots, &b), 0);
    assert_int_equal(zl_px_check(zl_buf_view(&b), &v), 0);
    assert_int_equal(v.header->number, 42);
    assert_int_equal(v.header->nlisteners, 2);
    assert_true(zl_str_is(zl_px_str(&v, v.routes[v.listeners[0].first_route].host), "shop.test"));
    assert_true(zl_str_is(zl_px_str(&v, v.services[0].probe_path), "/health"));
    assert_int_equal(v.backends[0].slot, 5);
    assert_int_equal(v.backends[1].flags, ZL_PX_BACKEND_DRAINING);
    assert_int_equal(v.allows[0].prefix, 112);
    struct sockaddr_storage sa;
    assert_int_equal(zl_px_sockaddr(v.backends[0].address, 80, &sa), sizeof(struct sockaddr_in));
    assert_int_equal(sa.ss_family, AF_INET);
    assert_int_equal(zl_px_sockaddr(v.backends[1].address, 80, &sa), sizeof(struct sockaddr_in6));
}

/* Every single byte changed to each of a few values: taken or refused, never a read outside (with a sanitizer). */
static void test_every_changed_byte(void **state)
{
    (void)state;
    static const unsigned char values[] = { 0, 1, 0x7f, 0x80, 0xff };
    zl_auto_buf b = ZL_BUF_INIT;
    struct zl_px_view v;
    assert_int_equal(zl_px_write(&def, 42, slots, &b), 0);
    for (size_t i = 0; i < b.n; i++) {
        char was = b.p[i];
        for (unsigned k = 0; k < sizeof values; k++) {
            b.p[i] = (char)values[k];
            (void)!zl_px_check(zl_buf_view(&b), &v);
        }
        b.p[i] = was;
    }
    for (size_t n = 0; n < b.n; n++) {
        char *copy = zl_xmalloc(n + 1);
        memcpy(copy, b.p, n);
        assert_true(zl_px_check(zl_str_n(copy, n), &v) < 0);
        free(copy);
    }
    b.p[4] = 2;
    assert_int_equal(zl_px_check(zl_buf_view(&b), &v), -EPROTONOSUPPORT);
}

static int write_changed(struct zl_px_def d)
{
    zl_auto_buf b = ZL_BUF_INIT;
    return zl_px_write(&d, 1, slots, &b);
}

static void test_wrong_descriptions(void **state)
{
    (void)state;
    struct zl_px_backend_def bad_backend[] = { { .id = 11, .address = "nowhere", .port = 1 } };
    struct zl_px_service_def s = services[0];
    struct zl_px_def d = { .services = &s, .nservices = 1 };
    s.backends = bad_backend;
    s.nbackends = 1;
    assert_int_equal(write_changed(d), -EINVAL);
    bad_backend[0].address = "10.0.0.1";
    assert_int_equal(write_changed(d), 0);
    bad_backend[0].id = 0;
    assert_int_equal(write_changed(d), -EINVAL);
    bad_backend[0].id = 1;
    bad_backend[0].port = 0;
    assert_int_equal(write_changed(d), -EINVAL);
    s = services[0];
    s.probe.timeout_ms = 0;
    assert_int_equal(write_changed(d), -EINVAL);
    s = services[0];
    s.name = "two words";
    assert_int_equal(write_changed(d), -EINVAL);
    s = services[0];
    const uint32_t same[] = { 3, 3 };
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_px_write(&d, 1, same, &b), -EINVAL);
    struct zl_px_listener_def l = { .id = 1, .protocol = ZL_PX_TCP };
    d.listeners = &l;
    d.nlisteners = 1;
    assert_int_equal(write_changed(d), -EINVAL);
    const struct zl_px_route_def far = { .service = 1 };
    l.routes = &far;
    l.nroutes = 1;
    assert_int_equal(write_changed(d), -EINVAL);
}

static void test_board(void **state)
{
    (void)state;
    zl_auto_close int fd = -EBADF;
    struct zl_px_board *a = NULL, *b = NULL;
    assert_int_equal(zl_px_board_make(&fd, &a), 0);
    assert_int_equal(zl_px_board_map(fd, &b), 0);
    assert_false(zl_px_board_applied(a, 1));
    atomic_store(&b->threads, 2);
    atomic_store(&b->thread[0].applied, 3);
    assert_false(zl_px_board_applied(a, 1));
    atomic_store(&b->thread[1].applied, 2);
    assert_true(zl_px_board_applied(a, 2));
    assert_false(zl_px_board_applied(a, 3));
    atomic_store(&b->slots_used, 1);
    atomic_store(&b->slot[0].in_flight, 9);
    atomic_store(&b->slot[0].health, ZL_PX_HEALTH_OK);
    zl_px_board_reset(a);
    assert_int_equal(atomic_load(&b->slot[0].in_flight), 0);
    assert_int_equal(atomic_load(&b->slot[0].health), ZL_PX_HEALTH_OK);
    assert_false(zl_px_board_applied(a, 1));
    zl_px_board_unmap(a);
    zl_px_board_unmap(b);
    zl_auto_close int other = zl_sealed_memfd("x", "y", 1);
    assert_int_equal(zl_px_board_map(other, &a), -EBADMSG);
}

static void test_wire(void **state)
{
    (void)state;
    int s[2];
    struct zl_px_in in;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s), 0);
    assert_int_equal(zl_px_receive(s[1], &in), -EAGAIN);
    assert_int_equal(zl_px_send_hello(s[0], 1, 2, 3), 0);
    assert_int_equal(zl_px_receive(s[1], &in), 0);
    assert_true(in.type == ZL_PX_HELLO && in.pid == 1 && in.threads == 2 && in.number == 3 && in.fd < 0);
    assert_int_equal(zl_px_send(s[0], ZL_PX_LISTENER, ZL_PX_R_ID, 9, "text", s[0]), 0);
    assert_int_equal(zl_px_receive(s[1], &in), 0);
    assert_true(in.type == ZL_PX_LISTENER && in.id == 9 && in.fd >= 0);
    assert_string_equal(in.text, "text");
    in.fd = zl_close(in.fd);
    assert_int_equal(send(s[0], "rubbish", 7, 0), 7);
    assert_int_equal(zl_px_receive(s[1], &in), -EPROTO);
    s[0] = zl_close(s[0]);
    assert_int_equal(zl_px_receive(s[1], &in), -ECONNRESET);
    s[1] = zl_close(s[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_every_changed_byte),
        cmocka_unit_test(test_wrong_descriptions),
        cmocka_unit_test(test_board),
        cmocka_unit_test(test_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
