#include "../testing.h"

#include "base/fd.h"
#include "base/str.h"
#include "proxyd/table_priv.h"

static struct slot_state states[ZL_PX_SLOTS];

struct world {
    struct zl_px_board *board;
    int board_fd;
    struct table *table;
};

static const struct zl_px_backend_def backends[] = {
    { .id = 1, .address = "10.0.0.1", .port = 80 },
    { .id = 2, .address = "10.0.0.2", .port = 80 },
    { .id = 3, .address = "10.0.0.3", .port = 80 },
};
static const struct zl_px_service_def services[] = {
    { .id = 7, .name = "a", .backends = backends, .nbackends = 3 },
    { .id = 8, .name = "b" },
    { .id = 9, .name = "c" },
};
static const struct zl_px_route_def routes[] = {
    { .service = 0 },
    { .host = "shop.test", .service = 1 },
    { .host = "*.test", .path = "/deep/er/", .service = 0 },
    { .host = "*.shop.test", .service = 2 },
    { .host = "shop.test", .path = "/api", .service = 2 },
};
static const struct zl_px_allow_def allows[] = { { "10.200.0.0", 15 }, { "fd00::", 9 } };
static const struct zl_px_listener_def listeners[] = {
    { .id = 1, .protocol = ZL_PX_HTTP, .routes = routes, .nroutes = 5, .allows = allows, .nallows = 2 },
};
static const struct zl_px_def def = { .listeners = listeners, .nlisteners = 1, .services = services, .nservices = 3 };

static int setup(void **state)
{
    static struct world w;
    static const uint32_t slots[] = { 4, 2, 9 };
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_px_board_make(&w.board_fd, &w.board), 0);
    assert_int_equal(zl_px_write(&def, 1, slots, &b), 0);
    zl_auto_close int fd = zl_sealed_memfd("test", b.p, b.n);
    assert_int_equal(table_new(fd, w.board, states, &w.table), 0);
    table_listen(w.table, 1, 99);
    for (unsigned i = 0; i < 3; i++)
        atomic_store(&w.table->backends[i].counters->health, ZL_PX_HEALTH_OK);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    table_free(w->table);
    zl_px_board_unmap(w->board);
    zl_close(w->board_fd);
    memset(states, 0, sizeof states);
    return 0;
}

static uint64_t route(struct world *w, const char *host, const char *path)
{
    const struct route *r = listener_route(table_listener(w->table, 1), zl_str(host), zl_str(path));
    return r ? (uint64_t)(r - w->table->routes) : 99;
}

static void test_routes(void **state)
{
    struct world *w = *state;
    assert_int_equal(route(w, "", "/"), 0);
    assert_int_equal(route(w, "other", "/api"), 0);
    assert_int_equal(route(w, "shop.test", "/"), 1);
    assert_int_equal(route(w, "Shop.Test.:8080", "/apis"), 1);
    assert_int_equal(route(w, "shop.test", "/api"), 4);
    assert_int_equal(route(w, "shop.test", "/api/v1?x=/"), 4);
    assert_int_equal(route(w, "x.shop.test", "/deep/er"), 3);
    assert_int_equal(route(w, "x.test", "/deep/er/x"), 2);
    assert_int_equal(route(w, "x.test", "/deep"), 0);
    assert_int_equal(route(w, "test", "/"), 0);
    assert_int_equal(route(w, "[::1]:80", "/"), 0);
}

static void test_sources(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *address;
        bool allowed;
    } cases[] = { { "10.200.0.1", true }, { "10.201.255.255", true }, { "10.202.0.0", false },
                  { "fd7f::1", true },    { "fd80::1", false },       { "127.0.0.1", false } };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        uint8_t a[16];
        struct sockaddr_storage sa;
        assert_int_equal(zl_px_address(cases[i].address, a), 0);
        (void)zl_px_sockaddr(a, 1, &sa);
        assert_int_equal(listener_allows(table_listener(w->table, 1), &sa), cases[i].allowed);
    }
}

static uint64_t choose(struct world *w, const uint32_t *tried, unsigned ntried, uint32_t turn, bool *more)
{
    const struct backend *b = service_choose(table_service(w->table, 7), tried, ntried, turn, 1000, more);
    return b ? b->id : 0;
}

static void test_choice(void **state)
{
    struct world *w = *state;
    struct backend *b = w->table->backends;
    bool more;
    for (uint32_t turn = 0; turn < 6; turn++)
        assert_int_equal(choose(w, NULL, 0, turn, &more), turn % 3 + 1);
    assert_true(more);
    atomic_store(&b[0].counters->in_flight, 1);
    assert_int_equal(choose(w, NULL, 0, 0, &more), 2);
    atomic_store(&b[1].counters->health, ZL_PX_HEALTH_BAD);
    assert_int_equal(choose(w, NULL, 0, 0, &more), 3);
    const uint32_t tried[] = { 9, 4 };
    assert_int_equal(choose(w, tried, 1, 0, &more), 1);
    assert_false(more);
    assert_int_equal(choose(w, tried, 2, 0, &more), 0);
    /* One whose connect has just failed is only the last resort, and it is one. */
    atomic_store(&b[2].state->avoid_until_ms, 1001);
    assert_int_equal(choose(w, NULL, 0, 0, &more), 1);
    b[0].draining = true;
    assert_int_equal(choose(w, NULL, 0, 0, &more), 3);
    atomic_store(&b[2].state->avoid_until_ms, 1000);
    assert_int_equal(choose(w, NULL, 0, 0, &more), 3);
    assert_null(service_choose(table_service(w->table, 8), NULL, 0, 0, 0, &more));
}

static void test_lookups(void **state)
{
    struct world *w = *state;
    assert_non_null(table_backend(w->table, 4, 1));
    assert_null(table_backend(w->table, 4, 2));
    assert_null(table_backend(w->table, 4000, 1));
    assert_null(table_service(w->table, 1));
    assert_null(table_listener(w->table, 2));
    struct table *t;
    zl_auto_close int rubbish = zl_sealed_memfd("test", "rubbish", 7);
    assert_int_equal(table_new(rubbish, w->board, states, &t), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
        cmocka_unit_test_setup_teardown(test_choice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lookups, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
