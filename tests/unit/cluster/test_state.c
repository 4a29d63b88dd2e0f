#include "../testing.h"

#include "cluster/mark.h"
#include "cluster/state.h"

static struct zl_state_result apply(struct zl_state *s, const struct zl_command *c)
{
    zl_auto_buf bytes = ZL_BUF_INIT;
    struct zl_arena arena;
    struct zl_command back;
    struct zl_state_result r;
    struct zl_err err;
    zl_command_encode(&bytes, c);
    zl_arena_init(&arena);
    assert_int_equal(zl_command_decode(&arena, zl_buf_view(&bytes), &back, &err), 0);
    zl_state_apply(s, &back, zl_buf_view(&bytes), &r);
    zl_arena_done(&arena);
    return r;
}

static const struct zl_command ranges = { .kind = ZL_COMMAND_RANGES_SET,
                                          .ranges = { 0x0AC80000, 0x0AC90000, 0x0ACA0000 } };

static struct zl_state *with_ranges(void)
{
    struct zl_state *s = zl_state_new();
    struct zl_command init = { .kind = ZL_COMMAND_NODE_INIT, .node = 0x1234567890abcdef };
    assert_int_equal(apply(s, &init).code, 0);
    assert_int_equal(apply(s, &ranges).code, 0);
    return s;
}

static struct zl_command put(const char *name, struct zl_command_service *services, unsigned n, uint64_t now)
{
    return (struct zl_command){ .kind = ZL_COMMAND_DEPLOYMENT_PUT,
                                .deployment = name,
                                .spec = "{\"a\":1}",
                                .owner = "",
                                .services = services,
                                .nservices = n,
                                .now_ms = now };
}

static void addresses_are_stable_and_generations_rise_only_with_the_fingerprint(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service one[] = { { "web", 7, 2, false, true },
                                        { "db", 8, 1, false, true },
                                        { "job", 9, 1, false, false } };
    struct zl_command c = put("shop", one, 3, 100);
    struct zl_state_result r = apply(s, &c);
    assert_int_equal(r.code, 0);
    struct zl_state_deployment *d = zl_state_deployment(s, "shop");
    assert_int_equal(d->generation, r.value);
    assert_int_equal(d->services[0].address, 0x0AC90001);
    assert_int_equal(d->services[1].address, 0x0AC90002);
    assert_int_equal(d->services[2].address, 0);
    uint64_t web = d->services[0].generation, db = d->services[1].generation;

    struct zl_command_service two[] = { { "db", 8, 3, false, true },
                                        { "cache", 1, 1, false, true },
                                        { "web", 70, 2, false, true } };
    c = put("shop", two, 3, 200);
    assert_int_equal(apply(s, &c).code, 0);
    d = zl_state_deployment(s, "shop");
    assert_int_equal(d->created_ms, 100);
    assert_int_equal(d->updated_ms, 200);
    assert_int_equal(zl_state_service(d, "db")->generation, db);
    assert_int_equal(zl_state_service(d, "db")->replicas, 3);
    assert_int_equal(zl_state_service(d, "db")->address, 0x0AC90002);
    assert_int_equal(zl_state_service(d, "cache")->address, 0x0AC90003);
    assert_true(zl_state_service(d, "web")->generation > web);
    assert_int_equal(zl_state_service(d, "web")->address, 0x0AC90001);
    assert_null(zl_state_service(d, "job"));
}

static void an_address_rests_before_it_is_given_again(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service web[] = { { "web", 7, 1, false, true } };
    for (unsigned i = 1; i < 5; i++) {
        struct zl_command c = put("a", web, 1, i);
        uint64_t generation = apply(s, &c).value;
        assert_int_equal(zl_state_deployment(s, "a")->services[0].address, 0x0AC90000 + i);
        struct zl_command stop = { .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "a" };
        struct zl_command remove = { .kind = ZL_COMMAND_DEPLOYMENT_REMOVE,
                                     .deployment = "a",
                                     .generation = generation };
        assert_int_equal(apply(s, &remove).code, ZL_E_CONFLICT); /* it is not stopping */
        assert_int_equal(apply(s, &stop).code, 0);
        assert_int_equal(apply(s, &remove).code, 0);
        assert_null(zl_state_deployment(s, "a"));
    }
    s->next_service = 0xffff; /* the last one is never given, nor the first */
    struct zl_command c = put("a", web, 1, 9);
    assert_int_equal(apply(s, &c).code, 0);
    assert_int_equal(zl_state_deployment(s, "a")->services[0].address, 0x0AC90001);
}

static void a_put_revives_a_stopping_deployment_and_a_late_removal_is_refused(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service web[] = { { "web", 7, 1, false, false } };
    struct zl_command c = put("a", web, 1, 1);
    uint64_t first = apply(s, &c).value;
    struct zl_command stop = { .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "a" };
    apply(s, &stop);
    assert_true(zl_state_deployment(s, "a")->stopping);
    apply(s, &c);
    assert_false(zl_state_deployment(s, "a")->stopping);
    apply(s, &stop);
    struct zl_command remove = { .kind = ZL_COMMAND_DEPLOYMENT_REMOVE, .deployment = "a", .generation = first };
    assert_int_equal(apply(s, &remove).code, ZL_E_CONFLICT);
    assert_int_equal(apply(s, &(struct zl_command){ .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "b" }).code,
                     ZL_E_NOT_FOUND);
}

static void scaling_sets_one_or_all_and_manual_counts_survive_a_put(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service services[] = { { "web", 7, 1, true, false }, { "db", 8, 1, false, false } };
    struct zl_command c = put("a", services, 2, 1);
    apply(s, &c);
    struct zl_command scale = { .kind = ZL_COMMAND_SERVICE_SCALE, .deployment = "a", .service = "web", .replicas = 5 };
    assert_int_equal(apply(s, &scale).code, 0);
    assert_int_equal(zl_state_deployment(s, "a")->services[0].replicas, 5);
    scale.service = "";
    scale.replicas = 0;
    assert_int_equal(apply(s, &scale).code, 0);
    assert_int_equal(zl_state_deployment(s, "a")->services[1].replicas, 0);
    apply(s, &c);
    assert_int_equal(zl_state_deployment(s, "a")->services[0].replicas, 0);
    assert_int_equal(zl_state_deployment(s, "a")->services[1].replicas, 1);
    scale.service = "nope";
    assert_int_equal(apply(s, &scale).code, ZL_E_NOT_FOUND);
}

static void blocks_and_ranges_have_limits(void **state)
{
    ZL_AUTO(zl_state) none = zl_state_new();
    struct zl_command take = { .kind = ZL_COMMAND_BLOCK_TAKE, .node = 5 };
    assert_int_equal(apply(none, &take).code, ZL_E_INVALID);
    struct zl_command_service web[] = { { "web", 7, 1, false, true } };
    struct zl_command c = put("a", web, 1, 1);
    assert_int_equal(apply(none, &c).code, ZL_E_INVALID);
    assert_int_equal(none->ndeployments, 0);

    ZL_AUTO(zl_state) s = with_ranges();
    assert_int_equal(apply(s, &take).value, 0x0AC80000);
    assert_int_equal(apply(s, &take).value, 0x0AC80100);
    for (unsigned i = 2; i < 256; i++)
        assert_int_equal(apply(s, &take).code, 0);
    assert_int_equal(apply(s, &take).code, ZL_E_LIMIT);
    struct zl_command other = ranges;
    assert_int_equal(apply(s, &other).code, 0);
    other.ranges.services = 0x0AD00000;
    assert_int_equal(apply(s, &other).code, ZL_E_CONFLICT);
    other.ranges.services = other.ranges.replicas;
    assert_int_equal(apply(s, &other).code, ZL_E_INVALID);
}

static void service_addresses_run_out_cleanly(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    enum { EACH = 4000 };
    static char names[EACH][16];
    static struct zl_command_service services[EACH];
    for (unsigned i = 0; i < EACH; i++) {
        snprintf(names[i], sizeof names[i], "s%u", i);
        services[i] = (struct zl_command_service){ names[i], i, 1, false, true };
    }
    zl_auto_buf before = ZL_BUF_INIT, after = ZL_BUF_INIT;
    struct zl_state_result r = { 0 };
    struct zl_arena arena;
    zl_arena_init(&arena);
    for (char name[] = "a"; r.code == 0; name[0]++) {
        struct zl_command c = put(zl_arena_strdup(&arena, name), services, EACH, 1);
        if (s->ndeployments == 65534 / EACH)
            zl_state_encode(&before, s);
        zl_state_apply(s, &c, ZL_STR("x"), &r);
    }
    assert_int_equal(r.code, ZL_E_LIMIT);
    assert_int_equal(s->ndeployments, 65534 / EACH);
    s->applied--;
    struct zl_state *same;
    assert_int_equal(zl_state_decode(zl_buf_view(&before), &same, NULL), 0);
    s->chain = same->chain;
    zl_state_encode(&after, s);
    assert_true(zl_str_eq(zl_buf_view(&before), zl_buf_view(&after)));
    zl_state_free(same);
    zl_arena_done(&arena);
}

static void a_snapshot_reads_back_to_the_same_bytes(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service services[] = { { "web", 0xfedcba9876543210, 1, true, true },
                                             { "db", 8, 1, false, true } };
    const char *names[] = { "shop", "a", "z9", "m-m" };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(names); i++) {
        struct zl_command c = put(names[i], services, 2, i);
        c.spec = "{\"text\":\"quo\\\"te \\n \xc3\xa9\"}";
        c.owner = i == 1 ? "0123456789abcdef0123456789abcdef" : "";
        assert_int_equal(apply(s, &c).code, 0);
    }
    struct zl_command take = { .kind = ZL_COMMAND_BLOCK_TAKE, .node = 0xffffffffffffffff };
    apply(s, &take);
    apply(s, &(struct zl_command){ .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "a", .now_ms = 77 });
    zl_auto_buf one = ZL_BUF_INIT, two = ZL_BUF_INIT;
    zl_state_encode(&one, s);
    struct zl_state *back;
    struct zl_err err;
    assert_int_equal(zl_state_decode(zl_buf_view(&one), &back, &err), 0);
    zl_state_encode(&two, back);
    assert_true(zl_str_eq(zl_buf_view(&one), zl_buf_view(&two)));
    assert_string_equal(back->deployments[0].name, "a");
    assert_string_equal(back->deployments[0].owner, "0123456789abcdef0123456789abcdef");
    assert_true(back->deployments[0].stopping);
    assert_string_equal(back->deployments[2].spec, "{\"text\":\"quo\\\"te \\n \xc3\xa9\"}");
    back = zl_state_free(back);

    one.p[0] = 2;
    assert_int_equal(zl_state_decode(zl_buf_view(&one), &back, &err), ZL_E_STORE_NEWER);
    one.p[0] = 1;
    for (size_t n = 0; n < one.n; n++) /* every truncation is refused */
        assert_int_equal(zl_state_decode(zl_str_n(one.p, n), &back, NULL), ZL_E_PARSE);
}

static void commands_of_later_releases_and_broken_ones_are_told_apart(void **state)
{
    static const struct {
        const char *text;
        int code;
    } rows[] = {
        { "", ZL_E_PARSE },
        { "\x01", ZL_E_PARSE },
        { "\x01[]", ZL_E_PARSE },
        { "\x02{}", ZL_E_STORE_NEWER },
        { "\x01{\"kind\":\"split_brain\"}", ZL_E_STORE_NEWER },
        { "\x01{\"kind\":\"block_take\",\"node\":\"0000000000000001\",\"colour\":1}", ZL_E_STORE_NEWER },
        { "\x01{\"kind\":\"block_take\",\"node\":\"0000000000000001\"}", 0 },
        { "\x01{\"kind\":\"block_take\",\"node\":\"000000000000001\"}", ZL_E_PARSE },
        { "\x01{\"kind\":\"block_take\",\"node\":1}", ZL_E_PARSE },
        { "\x01{\"kind\":\"deployment_stop\",\"deployment\":\"Upper\",\"now_ms\":1}", ZL_E_PARSE },
        { "\x01{\"kind\":\"deployment_stop\",\"deployment\":\"a\",\"now_ms\":-1}", ZL_E_PARSE },
        { "\x01{\"kind\":\"deployment_stop\",\"deployment\":\"a\"}", ZL_E_PARSE },
        { "\x01{\"kind\":\"ranges_set\",\"ranges\":7}", ZL_E_PARSE },
        { "\x01{\"kind\":\"service_scale\",\"deployment\":\"a\",\"service\":\"\",\"replicas\":4294967296,\"now_ms\":1}",
          ZL_E_PARSE },
    };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        struct zl_arena arena;
        struct zl_command c;
        struct zl_err err = { 0 };
        zl_arena_init(&arena);
        int r = zl_command_decode(&arena, zl_str(rows[i].text), &c, &err);
        if (r != rows[i].code)
            print_message("row %u: %s\n", i, err.text);
        assert_int_equal(r, rows[i].code);
        zl_arena_done(&arena);
    }
}

static void the_chain_sees_order_change_and_loss(void **state)
{
    uint64_t ab = zl_state_chain(zl_state_chain(0, ZL_STR("a")), ZL_STR("b"));
    assert_int_not_equal(ab, zl_state_chain(zl_state_chain(0, ZL_STR("b")), ZL_STR("a")));
    assert_int_not_equal(ab, zl_state_chain(0, ZL_STR("ab")));
    assert_int_not_equal(ab, zl_state_chain(0, ZL_STR("b")));
}

static void a_mark_survives_only_as_a_whole(void **state)
{
    struct zl_mark m = { 12345, 678, 0xdeadbeefcafef00d }, back;
    char text[ZL_MARK_SIZE + 1];
    zl_mark_encode(text, &m);
    assert_int_equal(zl_mark_decode(zl_str_n(text, ZL_MARK_SIZE), &back, NULL), 0);
    assert_memory_equal(&m, &back, sizeof m);
    for (unsigned i = 0; i < ZL_MARK_SIZE; i++) {
        text[i] ^= 1;
        int r = zl_mark_decode(zl_str_n(text, ZL_MARK_SIZE), &back, NULL);
        assert_int_equal(r, ZL_E_PARSE);
        text[i] ^= 1;
        assert_int_equal(zl_mark_decode(zl_str_n(text, i), &back, NULL), ZL_E_PARSE);
    }
    text[0] = '2';
    assert_int_equal(zl_mark_decode(zl_str_n(text, ZL_MARK_SIZE), &back, NULL), ZL_E_STORE_NEWER);
}

static void a_put_that_says_the_same_changes_nothing(void **state)
{
    ZL_AUTO(zl_state) s = with_ranges();
    struct zl_command_service one[] = { { "web", 7, 2, false, true } };
    struct zl_command c = put("shop", one, 1, 100), other;
    uint64_t first = apply(s, &c).value;
    c.now_ms = 200;
    assert_int_equal(apply(s, &c).value, first);
    assert_int_equal(s->last_generation, first);
    assert_int_equal(zl_state_deployment(s, "shop")->updated_ms, 200);
    other = c;
    other.owner = "0123456789abcdef0123456789abcdef";
    assert_int_equal(apply(s, &other).value, first + 1);
    assert_int_equal(apply(s, &c).value, first + 2);
    struct zl_command scale = { .kind = ZL_COMMAND_SERVICE_SCALE, .deployment = "shop", .service = "", .replicas = 0 };
    assert_int_equal(apply(s, &scale).code, 0);
    assert_int_equal(apply(s, &c).value, first + 3); /* it brings the replicas back */
    assert_int_equal(zl_state_deployment(s, "shop")->services[0].replicas, 2);
    struct zl_command stop = { .kind = ZL_COMMAND_DEPLOYMENT_STOP, .deployment = "shop", .now_ms = 300 };
    assert_int_equal(apply(s, &stop).code, 0);
    assert_int_equal(apply(s, &c).value, first + 4);
    assert_false(zl_state_deployment(s, "shop")->stopping);
    one[0].fingerprint = 8;
    assert_int_equal(apply(s, &c).value, first + 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_stable_and_generations_rise_only_with_the_fingerprint),
        cmocka_unit_test(a_put_that_says_the_same_changes_nothing),
        cmocka_unit_test(an_address_rests_before_it_is_given_again),
        cmocka_unit_test(a_put_revives_a_stopping_deployment_and_a_late_removal_is_refused),
        cmocka_unit_test(scaling_sets_one_or_all_and_manual_counts_survive_a_put),
        cmocka_unit_test(blocks_and_ranges_have_limits),
        cmocka_unit_test(service_addresses_run_out_cleanly),
        cmocka_unit_test(a_snapshot_reads_back_to_the_same_bytes),
        cmocka_unit_test(commands_of_later_releases_and_broken_ones_are_told_apart),
        cmocka_unit_test(the_chain_sees_order_change_and_loss),
        cmocka_unit_test(a_mark_survives_only_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
