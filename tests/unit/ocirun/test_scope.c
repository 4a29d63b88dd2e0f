#include "../testing.h"

#include "ocirun/ocirun.h"
#include "ocirun/scope.h"

#include <errno.h>
#include <stdio.h>

struct ctx {
    struct ocirun r;
};

static int set_up(void **state)
{
    static struct ctx c;
    c = (struct ctx){ .r.log = -EBADF };
    zl_arena_init(&c.r.arena);
    *state = &c;
    return 0;
}

static int tear_down(void **state)
{
    struct ctx *c = *state;
    zl_arena_done(&c->r.arena);
    return 0;
}

/* "slice unit", or "!" and what of the error is asked for. */
static void expect_name(struct ctx *c, const char *path, bool user, const char *expected)
{
    struct ocirun_scope s;
    char got[800];
    c->r.err = (struct zl_err){ 0 };
    int e = ocirun_scope_name(&c->r, path, "id", user, &s);
    if (expected[0] == '!') {
        assert_int_equal(e, ZL_E_INVALID);
        assert_non_null(strstr(c->r.err.text, expected + 1));
        return;
    }
    assert_int_equal(e, 0);
    snprintf(got, sizeof got, "%s %s", s.slice, s.unit);
    assert_string_equal(got, expected);
}

static void test_names(void **state)
{
    struct ctx *c = *state;
    static const char form[] = "!is not SLICE:PREFIX:NAME", slice[] = "!is no name of a slice",
                      unit[] = "!is no name of a systemd unit";
    expect_name(c, NULL, false, "system.slice zl-oci-id.scope");
    expect_name(c, "", true, "user.slice zl-oci-id.scope");
    expect_name(c, "machine.slice:libpod:abc", false, "machine.slice libpod-abc.scope");
    expect_name(c, "::abc", false, "system.slice abc.scope");
    expect_name(c, "::abc", true, "user.slice abc.scope");
    expect_name(c, "-:p:abc", false, "-.slice p-abc.scope");
    expect_name(c, "a-b-c.slice:p:n.scope", false, "a-b-c.slice p-n.scope");
    expect_name(c, "a@b\\x2d.slice:p:n", false, "a@b\\x2d.slice p-n.scope");
    expect_name(c, "/a/b", false, form);
    expect_name(c, "a", false, form);
    expect_name(c, "a.slice:b", false, form);
    expect_name(c, "a.slice:b:", false, form);
    expect_name(c, "a.slice:b:c:d", false, form);
    expect_name(c, "a:b:c", false, slice);
    expect_name(c, ".slice:b:c", false, slice);
    expect_name(c, "-a.slice:b:c", false, slice);
    expect_name(c, "a-.slice:b:c", false, slice);
    expect_name(c, "a--b.slice:b:c", false, slice);
    expect_name(c, "../a.slice:b:c", false, slice);
    expect_name(c, "a.slice:b:../c", false, unit);
    expect_name(c, "a.slice:b:c\n.e", false, unit);
    expect_name(c, "a.slice:b:c.slice", false, "!holds no processes");
    char long_one[400];
    snprintf(long_one, sizeof long_one, "a.slice:b:%0300d", 1);
    expect_name(c, long_one, false, unit);
}

static const struct zl_value *find(const struct zl_value *list, const char *name)
{
    for (const struct zl_value *p = list->first; p; p = p->next)
        if (zl_str_is(p->first->text, name))
            return p;
    return NULL;
}

/* `json`: signature and value as they are sent; NULL: the property is not there. */
static void expect(const struct zl_value *list, const char *name, const char *json)
{
    zl_auto_buf text = ZL_BUF_INIT;
    const struct zl_value *p = find(list, name);
    if (!json) {
        assert_null(p);
        return;
    }
    assert_non_null(p);
    assert_int_equal(p->count, 3);
    zl_json_print(&text, p->first->next, 0);
    zl_buf_putc(&text, ' ');
    zl_json_print(&text, p->first->next->next, 0);
    assert_string_equal(text.p, json);
}

static struct zl_value *map(struct ctx *c, const struct zl_oci_resources *from, bool v2)
{
    struct zl_value *list = zl_value_new(&c->r.arena, ZL_LIST);
    ocirun_scope_resources(&c->r.arena, from, v2, list);
    return list;
}

static void test_limits(void **state)
{
    struct ctx *c = *state;
    struct zl_oci_resources from = { .memory_limit = 1 << 20,
                                     .memory_swap = 3 << 20,
                                     .memory_reservation = 4096,
                                     .pids_limit = 7,
                                     .cpu_shares = 1024,
                                     .cpu_quota = 20000,
                                     .cpu_period = 50000,
                                     .cpus = "0-2,9",
                                     .mems = "1",
                                     .io_weight = 1000,
                                     .swappiness = -1,
                                     .cpu_idle = -1 };
    const struct zl_value *list = map(c, &from, true);
    expect(list, "MemoryMax", "\"t\" \"1048576\"");
    expect(list, "MemorySwapMax", "\"t\" \"2097152\"");
    expect(list, "MemoryLow", "\"t\" \"4096\"");
    expect(list, "TasksMax", "\"t\" \"7\"");
    expect(list, "CPUWeight", "\"t\" \"39\"");
    expect(list, "CPUQuotaPerSecUSec", "\"t\" \"400000\"");
    expect(list, "CPUQuotaPeriodUSec", "\"t\" \"50000\"");
    expect(list, "AllowedCPUs", "\"ay\" [7,2]");
    expect(list, "AllowedMemoryNodes", "\"ay\" [2]");
    expect(list, "IOWeight", "\"t\" \"10000\"");
    list = map(c, &from, false);
    expect(list, "MemoryLimit", "\"t\" \"1048576\"");
    expect(list, "CPUShares", "\"t\" \"1024\"");
    expect(list, "BlockIOWeight", "\"t\" \"1000\"");
    expect(list, "MemoryMax", NULL);
    expect(list, "AllowedCPUs", NULL);
    from = (struct zl_oci_resources){
        .memory_limit = -1, .memory_swap = -1, .pids_limit = -1, .cpu_quota = -1, .cpus = "x"
    };
    list = map(c, &from, true);
    expect(list, "MemoryMax", "\"t\" \"18446744073709551615\"");
    expect(list, "MemorySwapMax", "\"t\" \"18446744073709551615\"");
    expect(list, "TasksMax", "\"t\" \"18446744073709551615\"");
    expect(list, "CPUQuotaPerSecUSec", "\"t\" \"18446744073709551615\"");
    expect(list, "CPUQuotaPeriodUSec", NULL);
    expect(list, "AllowedCPUs", NULL);
    from = (struct zl_oci_resources){ 0 };
    assert_int_equal(map(c, &from, true)->count, 0);
}

static void test_a_quota_is_rounded_up(void **state)
{
    struct ctx *c = *state;
    static const struct {
        int64_t quota;
        uint64_t period;
        const char *json;
    } all[] = { { 12345, 60000, "\"t\" \"210000\"" },
                { 33300, 0, "\"t\" \"340000\"" },
                { 1000, 1000000, "\"t\" \"10000\"" },
                { 100000, 100000, "\"t\" \"1000000\"" },
                { 400000, 100000, "\"t\" \"4000000\"" } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(all); i++) {
        struct zl_oci_resources from = { .cpu_quota = all[i].quota, .cpu_period = all[i].period };
        expect(map(c, &from, true), "CPUQuotaPerSecUSec", all[i].json);
    }
}

static void test_devices(void **state)
{
    struct ctx *c = *state;
    struct zl_oci_throttle slow = { .major = 8, .minor = 16, .rate = 1000 }, any = { .major = 8, .minor = 0 },
                           heavy = { .major = 8, .minor = 0, .weight = 10 };
    void *rates[] = { &slow, &any }, *weights[] = { &heavy };
    struct zl_oci_resources from = { .weight_devices = { weights, 1 } };
    from.throttles[0] = (struct zl_items){ rates, 2 };
    const struct zl_value *list = map(c, &from, true);
    expect(list, "IOReadBandwidthMax",
           "\"a(st)\" [[\"/dev/block/8:16\",\"1000\"],[\"/dev/block/8:0\",\"18446744073709551615\"]]");
    expect(list, "IODeviceWeight", "\"a(st)\" [[\"/dev/block/8:0\",\"1\"]]");
    expect(list, "IOWriteIOPSMax", NULL);
}

static void test_unified(void **state)
{
    struct ctx *c = *state;
    struct zl_oci_pair pairs[] = { { "memory.high", "4096" },   { "memory.max", "max" }, { "cpu.max", "max 20000" },
                                   { "cpuset.cpus", "0" },      { "pids.max", "lots" },  { "cpu.weight", "50" },
                                   { "cgroup.max.depth", "3" }, { "memory.min", "0" } };
    void *items[ZL_ARRAY_LEN(pairs)];
    for (size_t i = 0; i < ZL_ARRAY_LEN(pairs); i++)
        items[i] = &pairs[i];
    struct zl_oci_resources from = { .memory_limit = 1, .unified = { items, ZL_ARRAY_LEN(pairs) } };
    const struct zl_value *list = map(c, &from, true);
    expect(list, "MemoryHigh", "\"t\" \"4096\"");
    expect(list, "MemoryMax", "\"t\" \"18446744073709551615\""); /* the file's name is the last word */
    expect(list, "CPUQuotaPerSecUSec", "\"t\" \"18446744073709551615\"");
    expect(list, "CPUQuotaPeriodUSec", "\"t\" \"20000\"");
    expect(list, "AllowedCPUs", "\"ay\" [1]");
    expect(list, "CPUWeight", "\"t\" \"50\"");
    expect(list, "MemoryMin", "\"t\" \"0\"");
    expect(list, "TasksMax", NULL);
    assert_int_equal(list->count, 7);
}

/* One annotation, into the list; its error when there is one. */
static int annotate(struct ctx *c, const char *key, const char *value, struct zl_value *list)
{
    struct zl_oci_pair p = { key, value };
    void *items[] = { &p };
    c->r.err = (struct zl_err){ 0 };
    return ocirun_scope_annotations(&c->r, &(struct zl_items){ items, 1 }, list);
}

static void test_annotations(void **state)
{
    struct ctx *c = *state;
    static const struct {
        const char *name, *value, *as, *json;
    } good[] = {
        { "TasksMax", "uint64 5", NULL, "\"t\" 5" },
        { "TasksMax", "uint64 18446744073709551615", NULL, "\"t\" \"18446744073709551615\"" },
        { "Some", "5", NULL, "\"i\" 5" },
        { "Some", " int64  -5 ", NULL, "\"x\" -5" },
        { "Some", "double 2", NULL, "\"d\" 2" },
        { "Some", "1.5", NULL, "\"d\" 1.5" },
        { "SendSIGHUP", "true", NULL, "\"b\" true" },
        { "Some", "'it\\'s'", NULL, "\"s\" \"it's\"" },
        { "Some", "\"\"", NULL, "\"s\" \"\"" },
        { "Some", "['a', \"b,]\"]", NULL, "\"as\" [\"a\",\"b,]\"]" },
        { "Some", "[uint32 1,uint32 2]", NULL, "\"au\" [1,2]" },
        { "TimeoutStopSec", "7", "TimeoutStopUSec", "\"t\" \"7000000\"" },
        { "TimeoutStopSec", "uint64 7", "TimeoutStopUSec", "\"t\" \"7000000\"" },
        { "TimeoutStopUSec", "uint64 7", NULL, "\"t\" 7" },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(good); i++) {
        struct zl_value *list = zl_value_new(&c->r.arena, ZL_LIST);
        const char *key = zl_arena_printf(&c->r.arena, "org.systemd.property.%s", good[i].name);
        if (annotate(c, key, good[i].value, list) < 0)
            fail_msg("%s: %s", good[i].value, c->r.err.text);
        expect(list, good[i].as ? good[i].as : good[i].name, good[i].json);
    }
    static const char *const bad[] = { "",           "x",          "'a",      "'a\\",   "[",      "[]",
                                       "['a'",       "['a',]",     "[1,'a']", "[1 2]",  "uint64", "uint64 x",
                                       "uint64 'a'", "true false", "1e400",   "@as []", "[[1]]",  "{'a': 1}" };
    struct zl_value *list = zl_value_new(&c->r.arena, ZL_LIST);
    for (size_t i = 0; i < ZL_ARRAY_LEN(bad); i++) {
        assert_int_equal(annotate(c, "org.systemd.property.Some", bad[i], list), ZL_E_INVALID);
        assert_non_null(strstr(c->r.err.text, "org.systemd.property.Some"));
    }
    assert_int_equal(annotate(c, "org.systemd.property.TimeoutStopSec", "18446744073709", list), 0);
    assert_int_equal(annotate(c, "org.systemd.property.TimeoutStopSec", "18446744073710", list), ZL_E_INVALID);
    assert_int_equal(annotate(c, "org.systemd.property.TimeoutStopSec", "'1 min'", list), ZL_E_INVALID);
    assert_int_equal(annotate(c, "org.systemd.property.A B", "1", list), ZL_E_INVALID);
    assert_int_equal(annotate(c, "org.systemd.property.PIDs", "[uint32 1]", list), ZL_E_INVALID);
    assert_int_equal(annotate(c, "org.systemd.property.", "1", list), ZL_E_INVALID);
    assert_int_equal(annotate(c, "org.systemd.other", "1", list), 0);
    assert_int_equal(list->count, 1);
}

static void test_the_users_own_come_last(void **state)
{
    struct ctx *c = *state;
    struct zl_oci_pair p = { "org.systemd.property.TasksMax", "uint64 9" };
    void *items[] = { &p };
    struct zl_oci_runtime config = { .annotations = { items, 1 }, .linux_.resources.pids_limit = 5 };
    struct ocirun_scope scope = { "a.slice", "b.scope" };
    struct zl_value *list;
    assert_int_equal(ocirun_scope_properties(&c->r, &config, &scope, "id", true, &list), 0);
    expect(list, "TasksMax", "\"t\" 9");
    expect(list, "Slice", "\"s\" \"a.slice\"");
    expect(list, "Delegate", "\"b\" true");
    expect(list, "DefaultDependencies", "\"b\" false");
    expect(list, "DevicePolicy", NULL);
}

static void test_device_rules_of_v1(void **state)
{
    struct ctx *c = *state;
    struct zl_oci_device_rule before = { .allow = true, .type = "b", .major = 8, .minor = 0, .access = "r" },
                              none = { .allow = false, .type = "a", .major = -1, .minor = -1, .access = "rwm" },
                              one = { .allow = true, .type = "c", .major = 10, .minor = 229, .access = "rw" },
                              all = { .allow = true, .type = "b", .major = -1, .minor = -1, .access = "m" };
    void *items[] = { &before, &none, &one, &all };
    struct zl_oci_runtime config = { .linux_.resources.devices = { items, 4 } };
    struct ocirun_scope scope = { "a.slice", "b.scope" };
    struct zl_value *list;
    assert_int_equal(ocirun_scope_properties(&c->r, &config, &scope, "id", false, &list), 0);
    expect(list, "DevicePolicy", "\"s\" \"strict\"");
    const struct zl_value *allowed = find(list, "DeviceAllow")->first->next->next;
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, allowed, 0);
    assert_non_null(strstr(text.p, "[[\"/dev/char/10:229\",\"rw\"],[\"block-*\",\"m\"],[\"/dev/null\",\"rwm\"]"));
    assert_null(strstr(text.p, "8:0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_a_quota_is_rounded_up),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_unified),
        cmocka_unit_test(test_annotations),
        cmocka_unit_test(test_the_users_own_come_last),
        cmocka_unit_test(test_device_rules_of_v1),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
