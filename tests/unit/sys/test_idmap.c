#include "../testing.h"

#include "sys/idmap.h"

static void lines_of_a_user_become_a_map_behind_the_own_id(void **state)
{
    (void)state;
    char map[ZL_IDMAP_SIZE];
    struct zl_str text = ZL_STR("root:1:2\nann:100000:65536\nbob:300000:10\n1000:500000:5\n");
    assert_int_equal(zl_idmap_take(text, "ann", 1000, 1000, map), 65541);
    assert_string_equal(map, "0 1000 1\n1 100000 65536\n65537 500000 5\n");
    assert_int_equal(zl_idmap_take(text, "bob", 7, 70, map), 10);
    assert_string_equal(map, "0 70 1\n1 300000 10\n");
    assert_int_equal(zl_idmap_take(text, "", 7, 7, map), 0); /* nobody's name is empty */
    assert_string_equal(map, "0 7 1\n");
}

static void what_newuidmap_would_refuse_is_left_out(void **state)
{
    (void)state;
    char map[ZL_IDMAP_SIZE];
    static const char *const bad[] = { "",
                                       "ann",
                                       "ann:",
                                       "ann::",
                                       "ann:1",
                                       "ann:0:10", /* root's */
                                       "ann:100000:0",
                                       "ann:-1:10",
                                       "ann:100000:x",
                                       "ann:4294967295:1",
                                       "ann:4294967290:10",
                                       "ann:999:2", /* the own id would be there twice */
                                       "annabel:100000:10",
                                       ":100000:10" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        if (zl_idmap_take(zl_str(bad[i]), "ann", 1000, 1000, map) != 0)
            fail_msg("%s: %s", bad[i], map);
        assert_string_equal(map, "0 1000 1\n");
    }
    assert_int_equal(zl_idmap_take(ZL_STR("ann:10:4294967200\nann:20:4294967200\n"), "ann", 5, 5, map), 4294967200u);
}

static void no_more_lines_than_a_map_may_have(void **state)
{
    (void)state;
    zl_auto_buf text = ZL_BUF_INIT;
    char map[ZL_IDMAP_SIZE];
    for (int i = 0; i < 1000; i++)
        zl_buf_printf(&text, "ann:%d:1\n", 2000000000 + 2 * i);
    uint32_t top = zl_idmap_take(zl_buf_view(&text), "ann", 1000, 1000, map);
    assert_in_range(top, 10, 64);
    unsigned lines = 0;
    for (const char *p = map; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, top + 1);
}

static void ids_of_the_own_namespace(void **state)
{
    (void)state;
    if (zl_idmap_inside()) {
        print_message("skip: this runs in a user namespace of its own\n");
        skip();
    }
    assert_true(zl_idmap_has("uid_map", 0));
    assert_true(zl_idmap_has("gid_map", 65534));
    assert_false(zl_idmap_has("uid_map", UINT32_MAX));
    assert_false(zl_idmap_has("no_such_map", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_a_user_become_a_map_behind_the_own_id),
        cmocka_unit_test(what_newuidmap_would_refuse_is_left_out),
        cmocka_unit_test(no_more_lines_than_a_map_may_have),
        cmocka_unit_test(ids_of_the_own_namespace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
