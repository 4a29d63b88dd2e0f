/*
 * What the API takes out of a request: route, decoded parameter and query, the body's tree. The first line is the
 * method and the target, the rest the body.
 */
#include "apidef/routes.h"
#include "base/assert.h"
#include "codec/value.h"
#include "http/server.h"

static void check_text(const struct zl_buf *b, size_t most)
{
    zl_assert(b->n <= most && (b->n == 0 || !memchr(b->p, 0, b->n)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
        "timeout_s", "owner", "force", "service", "slot", "lines", "follow", "cursor"
    };
    struct zl_str body, target, param, line = zl_str_cut(zl_str_n((const char *)data, size), '\n', &body);
    struct zl_http_request r = { .query = ZL_STR("") };
    zl_auto_buf text = ZL_BUF_INIT;
    bool known = false;
    r.method = zl_str_cut(line, ' ', &target);
    if (!target.p || !body.p)
        return 0;
    r.path = zl_str_cut(target, '?', &r.query);
    const struct zl_route *route = zl_route_find(r.method, r.path, &param, &known);
    zl_assert(!route || known);
    if (route && param.p && zl_http_percent_decode(param, false, &text) == 0)
        check_text(&text, param.n);
    for (size_t i = 0; r.query.p && i < ZL_ARRAY_LEN(names); i++)
        if (zl_http_query(&r, names[i], &text) == 1)
            check_text(&text, r.query.n);
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, body, &zl_limits_document, &v, &pe) == 0) {
        static const char *const keys[] = { "spec", "owner", "pull", "service", "reference", "policy", "command" };
        for (size_t i = 0; i < ZL_ARRAY_LEN(keys); i++)
            zl_assert(strlen(zl_value_cstr(v, keys[i])) <= body.n);
        zl_assert(zl_value_u64(v, "timeout_s", 7) <= INT64_MAX);
    }
    zl_arena_done(&arena);
    return 0;
}
