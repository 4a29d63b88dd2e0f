/* config.json: what the struct gets, and that each bad one is refused with its place. */
#include "../testing.h"

#include "oci/runtime_config.h"

#include <string.h>

struct parsed {
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err;
    struct zl_oci_runtime *c;
};

static int parse(struct parsed *p, const char *text)
{
    *p = (struct parsed){ 0 };
    zl_arena_init(&p->arena);
    zl_decoder_init(&p->d, &p->arena);
    return zl_oci_runtime_parse(&p->d, zl_str(text), &p->c, &p->err);
}

static void done(struct parsed *p)
{
    zl_decoder_done(&p->d);
    zl_arena_done(&p->arena);
}

static void what_it_says(void **state)
{
    struct parsed p;
    (void)state;
    assert_int_equal(
        parse(
            &p,
            "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"h\","
            "\"futureMember\":[{}],"
            "\"process\":{\"user\":{\"uid\":7,\"gid\":8,\"umask\":63,\"additionalGids\":[1,2]},\"args\":[\"/a\",\"\"],"
            "\"env\":[\"A=b\"],\"cwd\":\"/w\",\"capabilities\":{\"bounding\":[\"CAP_KILL\"]},\"oomScoreAdj\":0,"
            "\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":1024,\"hard\":18446744073709551615}]},"
            "\"mounts\":[{\"destination\":\"/"
            "proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"ro\"]},{\"destination\":\"/m\"}],"
            "\"annotations\":{\"a\":\"1\"},\"hooks\":{\"prestart\":[]},"
            "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\",\"path\":\"/n\"}],\"cgroupsPath\":\"/"
            "a/b\","
            "\"sysctl\":{\"net.ipv4.ip_forward\":\"1\"},\"maskedPaths\":[\"/proc/kcore\"],"
            "\"resources\":{\"memory\":{\"limit\":1048576,\"swap\":-1},\"pids\":{\"limit\":-1},"
            "\"cpu\":{\"quota\":9223372036854771712,\"period\":100000},\"devices\":[{\"allow\":false,\"access\":"
            "\"rwm\"}]},"
            "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mount\"],\"action\":\"SCMP_"
            "ACT_ERRNO\","
            "\"errnoRet\":1,\"args\":[{\"index\":0,\"value\":18446744073709551615,\"op\":\"SCMP_CMP_EQ\"}]}]}}}"),
        0);
    const struct zl_oci_runtime *c = p.c;
    assert_true(c->root_readonly && c->has_process);
    assert_string_equal(c->root, "rootfs");
    assert_int_equal(c->process.uid, 7);
    assert_int_equal(c->process.umask, 63);
    assert_int_equal(c->process.groups.n, 2);
    assert_int_equal(c->process.args.n, 2);
    assert_true(c->process.has_oom_score_adj);
    assert_true(((const struct zl_oci_rlimit *)c->process.rlimits.v[0])->hard == UINT64_MAX);
    assert_int_equal(c->mounts.n, 2);
    assert_string_equal(((const struct zl_oci_namespace *)c->linux_.namespaces.v[1])->path, "/n");
    assert_string_equal(((const struct zl_oci_pair *)c->linux_.sysctl.v[0])->value, "1");
    assert_int_equal(c->linux_.resources.memory_limit, 1048576);
    assert_true(c->linux_.resources.cpu_quota == 9223372036854771712);
    assert_int_equal(c->linux_.resources.memory_swap, -1);
    assert_int_equal(c->linux_.resources.pids_limit, -1);
    assert_true(c->linux_.resources.cpu_period == 100000);
    const struct zl_oci_device_rule *rule = c->linux_.resources.devices.v[0];
    assert_true(!rule->allow && rule->major == -1 && !strcmp(rule->type, "a"));
    const struct zl_oci_seccomp_rule *call = c->linux_.seccomp.rules.v[0];
    assert_int_equal(call->errno_ret, 1);
    assert_true(((const struct zl_oci_seccomp_arg *)call->args.v[0])->value == UINT64_MAX);
    done(&p);
}

static void what_is_absent(void **state)
{
    struct parsed p;
    (void)state;
    assert_int_equal(parse(&p, "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"r\"}}"), 0);
    assert_false(p.c->has_process);
    assert_null(p.c->linux_.seccomp.default_action);
    assert_int_equal(p.c->linux_.resources.memory_limit, 0);
    done(&p);
}

#define HEAD          "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"r\"},"
#define PROCESS(more) HEAD "\"process\":{\"cwd\":\"/\",\"args\":[\"a\"]," more "}}"
#define LINUX(more)   HEAD "\"linux\":{" more "}}"

static void bad_ones(void **state)
{
    static const struct {
        const char *text, *reason;
    } cases[] = {
        { "", "line" },
        { "[]", "must be a map" },
        { "{\"ociVersion\":\"1.2.0\"}", "needs the key 'root'" },
        { "{\"root\":{\"path\":\"r\"}}", "needs the key 'ociVersion'" },
        { "{\"ociVersion\":\"2.0.0\",\"root\":{\"path\":\"r\"}}", "no version 1" },
        { "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"\"}}", "must not be empty" },
        { "{\"ociVersion\":\"1.2.0\",\"root\":\"r\"}", "must be a map" },
        { HEAD "\"process\":{\"cwd\":\"/\",\"args\":[]}}", "there is no command" },
        { HEAD "\"process\":{\"cwd\":\"a\",\"args\":[\"a\"]}}", "no absolute path" },
        { HEAD "\"process\":{\"args\":[\"a\"]}}", "needs the key 'cwd'" },
        { PROCESS("\"user\":{\"uid\":-1,\"gid\":0}"), "process.user.uid" },
        { PROCESS("\"user\":{\"uid\":4294967295,\"gid\":0}"), "process.user.uid" },
        { PROCESS("\"user\":{\"uid\":0,\"gid\":0,\"additionalGids\":[4294967295]}"), "process.user.additionalGids" },
        { PROCESS("\"user\":{\"uid\":0,\"gid\":0,\"umask\":512}"), "umask" },
        { PROCESS("\"terminal\":1"), "true or false" },
        { PROCESS("\"oomScoreAdj\":1001"), "-1000 to 1000" },
        { PROCESS("\"rlimits\":[{\"type\":\"RLIMIT_AS\",\"soft\":-1,\"hard\":1}]"), "process.rlimits[0].soft" },
        { PROCESS("\"rlimits\":[{\"type\":\"RLIMIT_AS\",\"soft\":18446744073709551616,\"hard\":1}]"),
          "rlimits[0].soft" },
        { PROCESS("\"rlimits\":[{\"type\":\"RLIMIT_AS\",\"soft\":1}]"), "needs the key 'hard'" },
        { PROCESS("\"apparmorProfile\":[]"), "apparmorProfile" },
        { PROCESS("\"scheduler\":{}"), "needs the key 'policy'" },
        { PROCESS("\"ioPriority\":{\"class\":\"a\",\"priority\":8}"), "ioPriority.priority" },
        { PROCESS("\"env\":[\"A\\u0000=b\"]"), "" },
        { HEAD "\"hooks\":{\"prestart\":[{\"path\":\"h\"}]}}", "hooks.prestart[0].path" },
        { HEAD "\"hooks\":{\"poststop\":[{}]}}", "needs the key 'path'" },
        { HEAD "\"hooks\":{\"poststop\":[{\"path\":\"/h\",\"timeout\":0}]}}", "timeout" },
        { HEAD "\"mounts\":[{\"type\":\"proc\"}]}", "needs the key 'destination'" },
        { HEAD "\"annotations\":{\"a\":1}}", "expects a string" },
        { LINUX("\"namespaces\":[{}]"), "needs the key 'type'" },
        { LINUX("\"uidMappings\":[{\"hostID\":0}]"), "needs the key 'containerID'" },
        { LINUX("\"gidMappings\":[{\"hostID\":0,\"containerID\":0,\"size\":0}]"), "size" },
        { LINUX("\"timeOffsets\":{\"boottime\":{\"nanosecs\":1000000000}}"), "nanosecs" },
        { LINUX("\"netDevices\":{\"a\":{\"name\":1}}"), "'name'" },
        { LINUX("\"intelRdt\":{\"enableMonitoring\":1}"), "intelRdt.enableMonitoring" },
        { LINUX("\"maskedPaths\":[\"proc\"]"), "linux.maskedPaths[0]" },
        { LINUX("\"sysctl\":[]"), "map of strings" },
        { LINUX("\"resources\":{\"memory\":{\"limit\":-2}}"), "memory.limit" },
        { LINUX("\"resources\":{\"memory\":{\"limit\":9223372036854775808}}"), "memory.limit" },
        { LINUX("\"resources\":{\"memory\":{\"limit\":-9223372036854775809}}"), "memory.limit" },
        { LINUX("\"resources\":{\"memory\":{\"limit\":1180591620717411303424}}"), "memory.limit" },
        { LINUX("\"resources\":{\"memory\":{\"useHierarchy\":1}}"), "useHierarchy" },
        { LINUX("\"cgroupsPath\":7"), "cgroupsPath" },
        { LINUX("\"maskedPaths\":[true]"), "maskedPaths" },
        { LINUX("\"resources\":{\"devices\":[{\"major\":1}]}"), "needs the key 'allow'" },
        { LINUX("\"devices\":[{\"type\":\"c\"}]"), "needs the key 'path'" },
        { LINUX("\"seccomp\":{}"), "needs the key 'defaultAction'" },
        { LINUX("\"seccomp\":{\"defaultAction\":\"a\",\"syscalls\":[{\"names\":[\"a\"],\"action\":\"b\",\"args\":[{"
                "\"index\":6,\"value\":0,\"op\":\"c\"}]}]}"),
          "args[0].index" },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        struct parsed p;
        if (parse(&p, cases[i].text) >= 0)
            fail_msg("%s was taken", cases[i].text);
        if (!p.err.text[0] || !strstr(p.err.text, cases[i].reason))
            fail_msg("%s: '%s' does not say '%s'", cases[i].text, p.err.text, cases[i].reason);
        done(&p);
    }
}

/* Digits are left alone in strings, in fractions and in what is no number. */
static void great_numbers(void **state)
{
    struct parsed p;
    (void)state;
    assert_int_equal(
        parse(&p, "{\"ociVersion\":\"1.12345678901234567890\",\"root\":{\"path\":\"\\\"12345678901234567890\"},"
                  "\"x\":0.12345678901234567890,\"y\":12345678901234567890}"),
        0);
    assert_string_equal(p.c->version, "1.12345678901234567890");
    assert_string_equal(p.c->root, "\"12345678901234567890");
    done(&p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_says),
        cmocka_unit_test(what_is_absent),
        cmocka_unit_test(bad_ones),
        cmocka_unit_test(great_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
