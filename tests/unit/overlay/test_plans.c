/* What is pure in the room: the member table and its transactions, the plan for foreign firewalls. */
#include "../testing.h"

#include "net/overlay/members_priv.h"
#include "net/overlay/rules_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

static struct zl_net_member member(const char *addr, const char *deployment)
{
    struct zl_net_member m = { 0 };
    assert_int_equal(inet_pton(AF_INET, addr, &m.addr), 1);
    snprintf(m.deployment, sizeof m.deployment, "%s", deployment);
    return m;
}

static void put(struct zl_members *t, const char *addr, const char *deployment)
{
    struct zl_net_member m = member(addr, deployment);
    assert_int_equal(zl_members_put(t, &m), 0);
}

static void assert_diff(const struct zl_members *from, const struct zl_members *to, const char *expected)
{
    zl_auto_buf b = ZL_BUF_INIT;
    struct zl_set_change *changes;
    size_t n = zl_members_diff(from, to, &changes);
    for (size_t i = 0; i < n; i++) {
        char addr[INET_ADDRSTRLEN];
        zl_buf_printf(&b, "%c%u %s %s\n", changes[i].add ? '+' : '-', changes[i].number,
                      inet_ntop(AF_INET, &changes[i].member.addr, addr, sizeof addr), changes[i].member.deployment);
    }
    free(changes);
    assert_string_equal(b.p ? b.p : "", expected);
}

static void tables_are_sorted_and_without_doubles(void **state)
{
    zl_auto_members t = { NULL };
    put(&t, "10.200.1.0", "b");
    put(&t, "10.200.0.2", "a");
    put(&t, "10.201.0.1", "a");
    put(&t, "10.200.0.2", "c");
    assert_int_equal(t.n, 3);
    assert_string_equal(t.rows[0].deployment, "c");
    assert_string_equal(t.rows[2].deployment, "a");
    struct zl_net_member m = member("10.200.1.0", "");
    assert_non_null(zl_members_find(&t, m.addr));
    zl_members_remove(&t, m.addr);
    zl_members_remove(&t, m.addr);
    assert_null(zl_members_find(&t, m.addr));
    assert_int_equal(t.n, 2);
    static const char *const bad[] = { "", "Shop", "a b", "a\"", "a;b", "a\n" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        m = member("10.200.0.9", bad[i]);
        assert_int_equal(zl_members_put(&t, &m), -EINVAL);
    }
}

static void changes_are_one_transaction(void **state)
{
    zl_auto_members none = { NULL }, one = { NULL }, two = { NULL };
    put(&one, "10.200.0.2", "shop");
    put(&one, "10.200.0.3", "blog");
    zl_members_number(&one, &none);
    assert_diff(&none, &one, "+1 10.200.0.2 shop\n+2 10.200.0.3 blog\n");
    assert_diff(&one, &one, "");
    /* A deployment keeps its number; a new one gets one that nobody had. */
    put(&two, "10.200.0.2", "blog");
    put(&two, "10.200.0.4", "news");
    zl_members_number(&two, &one);
    assert_diff(&one, &two,
                "-1 10.200.0.2 shop\n-2 10.200.0.3 blog\n"
                "+2 10.200.0.2 blog\n+3 10.200.0.4 news\n");
}

static void what_the_kernel_has_is_restored_with_its_numbers(void **state)
{
    zl_auto_members t = { NULL };
    struct zl_net_member m = member("10.200.0.2", "shop"), bad = member("10.200.0.3", "not ours");
    assert_int_equal(zl_members_restore(&t, 7, &m), 0);
    assert_int_equal(t.numbers[0], 7);
    assert_int_equal(zl_members_restore(&t, 0, &m), -EINVAL);
    assert_int_equal(zl_members_restore(&t, 7, &bad), -EINVAL);
    assert_int_equal(t.n, 1);
}

#define CHAIN(family, table, name, hook, policy)                                                                   \
    "{\"chain\": {\"family\": \"" family "\", \"table\": \"" table "\", \"name\": \"" name "\", \"hook\": \"" hook \
    "\", \"policy\": \"" policy "\"}}"
#define RULE(family, table, chain, handle, rest)                                                                      \
    "{\"rule\": {\"family\": \"" family "\", \"table\": \"" table "\", \"chain\": \"" chain "\", \"handle\": " handle \
    ", " rest "}}"
#define OURS "\"comment\": \"zlayer_abc123\", \"expr\": [{\"accept\": null}]"

static const struct {
    const char *items, *accept, *forget;
} foreign[] = {
    { "", "", "" },
    { CHAIN("ip", "filter", "FORWARD", "forward", "accept"), "", "" },
    { CHAIN("ip", "filter", "INPUT", "input", "drop"), "", "" },
    { CHAIN("ip6", "filter", "FORWARD", "forward", "drop"), "", "" },
    { CHAIN("inet", "zlayer_ffffff", "f", "forward", "drop"), "", "" },
    { CHAIN("ip", "filter; flush ruleset", "FORWARD", "forward", "drop"), "", "" },
    { CHAIN("ip", "filter", "FORWARD", "forward", "drop"),
      "insert rule ip filter FORWARD iifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n"
      "insert rule ip filter FORWARD oifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n",
      "" },
    /* firewalld: the policy accepts, a rule at the end rejects. */
    { CHAIN("inet", "firewalld", "filter_FORWARD", "forward", "accept") ", " RULE("inet", "firewalld", "filter_FORWARD",
                                                                                  "9", "\"expr\": [{\"reject\": {}}]"),
      "insert rule inet firewalld filter_FORWARD iifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n"
      "insert rule inet firewalld filter_FORWARD oifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n",
      "" },
    /* Ours are there: once. */
    { CHAIN("ip", "filter", "FORWARD", "forward",
            "drop") ", " RULE("ip", "filter", "FORWARD", "4", OURS) ", " RULE("ip", "filter", "FORWARD", "5", OURS),
      "", "delete rule ip filter FORWARD handle 4\ndelete rule ip filter FORWARD handle 5\n" },
    /* One of them was taken out by somebody. */
    { RULE("ip", "filter", "FORWARD", "4", OURS) ", " CHAIN("ip", "filter", "FORWARD", "forward", "drop"),
      "delete rule ip filter FORWARD handle 4\n"
      "insert rule ip filter FORWARD iifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n"
      "insert rule ip filter FORWARD oifname \"zl-abc123\" counter accept comment \"zlayer_abc123\"\n",
      "delete rule ip filter FORWARD handle 4\n" },
    /* Nothing drops any more. */
    { CHAIN("ip", "filter", "FORWARD", "forward", "accept") ", " RULE("ip", "filter", "FORWARD", "4", OURS),
      "delete rule ip filter FORWARD handle 4\n", "delete rule ip filter FORWARD handle 4\n" },
};

static void foreign_firewalls_get_an_accept(void **state)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(foreign); i++) {
        zl_auto_buf json = ZL_BUF_INIT, accept = ZL_BUF_INIT, forget = ZL_BUF_INIT;
        zl_buf_printf(&json, "{\"nftables\": [%s]}", foreign[i].items);
        assert_int_equal(zl_foreign_plan(zl_buf_view(&json), "abc123", "zl-abc123", true, &accept), 0);
        assert_int_equal(zl_foreign_plan(zl_buf_view(&json), "abc123", "zl-abc123", false, &forget), 0);
        assert_string_equal(accept.p ? accept.p : "", foreign[i].accept);
        assert_string_equal(forget.p ? forget.p : "", foreign[i].forget);
    }
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_foreign_plan(ZL_STR("nonsense"), "abc123", "zl-abc123", true, &b), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_sorted_and_without_doubles),
        cmocka_unit_test(changes_are_one_transaction),
        cmocka_unit_test(what_the_kernel_has_is_restored_with_its_numbers),
        cmocka_unit_test(foreign_firewalls_get_an_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
