/*
 * What the API takes out of a request: route, decoded parameter and query, the body as its route's table has it. The
 * first line is the method and the target, the rest the body; with a route that takes none, it is an image job's.
 */
#include "apidef/routes.h"
#include "base/assert.h"
#include "http/server.h"

static void check_text(const struct zl_buf *b, size_t most)
{
    zl_assert(b->n <= most && (b->n == 0 || !memchr(b->p, 0, b->n)));
}

/* What is decoded and printed is decoded again, to the same. */
static void check_body(const struct zl_type *type, struct zl_str text)
{
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err = { 0 };
    zl_auto_buf first = ZL_BUF_INIT, second = ZL_BUF_INIT;
    void *body;
    zl_arena_init(&arena);
    zl_decoder_init(&d, &arena);
    if (zl_body_decode(&d, type, text, &body, &err) == 0) {
        zl_json_print(&first, zl_print(&arena, type, body), 0);
        zl_assert(zl_body_decode(&d, type, zl_buf_view(&first), &body, &err) == 0);
        zl_json_print(&second, zl_print(&arena, type, body), 0);
        zl_assert(zl_str_eq(zl_buf_view(&first), zl_buf_view(&second)));
    } else {
        zl_assert(err.code && err.text[0]);
    }
    zl_decoder_done(&d);
    zl_arena_done(&arena);
}

static void check_methods(const struct zl_route *route, struct zl_str path)
{
    zl_auto_buf methods = ZL_BUF_INIT;
    bool known = zl_route_methods(path, &methods);
    zl_assert(!route || (known && strstr(methods.p, route->method)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
        "timeout_s", "owner", "force", "service", "slot", "lines", "follow", "cursor"
    };
    struct zl_str body, target, param, line = zl_str_cut(zl_str_n((const char *)data, size), '\n', &body);
    struct zl_http_request r = { .query = ZL_STR("") };
    zl_auto_buf text = ZL_BUF_INIT;
    r.method = zl_str_cut(line, ' ', &target);
    if (!target.p || !body.p)
        return 0;
    r.path = zl_str_cut(target, '?', &r.query);
    const struct zl_route *route = zl_route_find(r.method, r.path, &param);
    check_methods(route, r.path);
    if (route && param.p && zl_http_percent_decode(param, false, &text) == 0)
        check_text(&text, param.n);
    for (size_t i = 0; r.query.p && i < ZL_ARRAY_LEN(names); i++)
        if (zl_http_query(&r, names[i], &text) == 1)
            check_text(&text, r.query.n);
    if (route && zl_body_types[route->body])
        check_body(zl_body_types[route->body], body);
    else
        check_body(&zl_type_image_request, body);
    return 0;
}
