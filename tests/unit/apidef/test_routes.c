/* The route table: each row is found by what it says, and what is none is told apart. */
#include "../testing.h"

#include "apidef/routes.h"

#include <string.h>

static const struct zl_route *find(const char *method, const char *path, struct zl_str *param)
{
    return zl_route_find(zl_str(method), zl_str(path), param);
}

static void every_row(void **state)
{
    bool seen[ZL_H_COUNT] = { false };
    (void)state;
    for (size_t i = 0; i < ZL_H_COUNT; i++) {
        const struct zl_route *r = &zl_routes[i];
        zl_auto_buf path = ZL_BUF_INIT;
        struct zl_str param, rest = zl_str(r->path);
        const char *open = strchr(r->path, '{');
        if (open) {
            zl_buf_printf(&path, "%.*sa%%2Fb%s", (int)(open - r->path), r->path, strchr(open, '}') + 1);
            rest = zl_buf_view(&path);
        }
        assert_ptr_equal(zl_route_find(zl_str(r->method), rest, &param), r);
        assert_true(open ? zl_str_is(param, "a%2Fb") : !param.p);
        assert_false(seen[r->handler]);
        seen[r->handler] = true;
        /* What changes nothing needs no more than reading, and takes no body. */
        assert_true(strcmp(r->method, "GET") != 0 || r->body == ZL_BODY_NONE);
        assert_true(r->body == ZL_BODY_NONE || r->permission == ZL_PERM_WRITE);
    }
}

static void what_is_no_route(void **state)
{
    static const char *const paths[] = { "",
                                         "/",
                                         "//health/live",
                                         "/health/live/",
                                         "/health",
                                         "/api/v1/deployments/",
                                         "/api/v1/deployments//stop",
                                         "/api/v1/deployments/a/b",
                                         "/API/v1/status" };
    struct zl_str param;
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(paths); i++) {
        zl_auto_buf methods = ZL_BUF_INIT;
        assert_null(find("GET", paths[i], &param));
        assert_false(zl_route_methods(zl_str(paths[i]), &methods));
        assert_int_equal(methods.n, 0);
    }
    assert_null(find("get", "/health/live", &param)); /* methods have a case (RFC 9110, 9.1) */
}

static void the_methods_of_a_path(void **state)
{
    zl_auto_buf one = ZL_BUF_INIT, two = ZL_BUF_INIT;
    struct zl_str param;
    (void)state;
    assert_null(find("PUT", "/api/v1/deployments/a", &param));
    assert_true(zl_route_methods(ZL_STR("/api/v1/deployments/a"), &one));
    assert_string_equal(one.p, "GET, DELETE");
    assert_true(zl_route_methods(ZL_STR("/api/v1/deployments"), &two));
    assert_string_equal(two.p, "GET, POST");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row),
        cmocka_unit_test(what_is_no_route),
        cmocka_unit_test(the_methods_of_a_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
