/* Request bodies: what each takes, and that a bad one is refused with its reason. */
#include "../testing.h"

#include "apidef/bodies.h"

struct body {
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err;
    void *v;
};

static int decode(struct body *b, const struct zl_type *type, const char *text)
{
    *b = (struct body){ 0 };
    zl_arena_init(&b->arena);
    zl_decoder_init(&b->d, &b->arena);
    return zl_body_decode(&b->d, type, zl_str(text), &b->v, &b->err);
}

static void done(struct body *b)
{
    zl_decoder_done(&b->d);
    zl_arena_done(&b->arena);
}

static void what_is_absent(void **state)
{
    struct body b;
    (void)state;
    assert_int_equal(decode(&b, zl_body_types[ZL_BODY_STOP], ""), 0); /* no body is an empty one */
    const struct zl_stop_request *stop = b.v;
    assert_null(stop->service);
    assert_int_equal(stop->timeout_s, 30);
    done(&b);
    assert_int_equal(decode(&b, zl_body_types[ZL_BODY_DEPLOY], "{\"spec\":\"x\"}"), 0);
    const struct zl_deploy_request *deploy = b.v;
    assert_int_equal(deploy->pull, 0);
    assert_null(deploy->owner);
    assert_false(deploy->dry_run);
    done(&b);
    assert_int_equal(decode(&b, &zl_type_image_request, "{\"verb\":\"pull\",\"reference\":\"a\"}"), 0);
    const struct zl_image_request *image = b.v;
    assert_int_equal(image->policy, ZL_PULL_ALWAYS);
    assert_int_equal(image->stall_s, 30);
    done(&b);
}

static void pull_names_a_policy(void **state)
{
    struct body b;
    (void)state;
    assert_int_equal(decode(&b, zl_body_types[ZL_BODY_DEPLOY], "{\"spec\":\"x\",\"pull\":\"newer\"}"), 0);
    assert_int_equal(((const struct zl_deploy_request *)b.v)->pull, ZL_PULL_NEWER + 1);
    done(&b);
    struct zl_deploy_request q = { .spec = "x" };
    zl_arena_init(&b.arena);
    assert_null(zl_value_get(zl_print(&b.arena, zl_body_types[ZL_BODY_DEPLOY], &q), "pull"));
    q.pull = ZL_PULL_IF_NOT_PRESENT + 1;
    assert_string_equal(zl_value_cstr(zl_print(&b.arena, zl_body_types[ZL_BODY_DEPLOY], &q), "pull"), "if_not_present");
    zl_arena_done(&b.arena);
}

/* The API decodes one, fills the verb in, prints it for zl-image, which decodes it: nothing is lost. */
static void an_import_is_passed_on(void **state)
{
    static const char text[] = "{\"reference\":\"a:1\",\"source\":\"/r\",\"cmd\":[\"-v\",\"\"],\"entrypoint\":[\"/b\"],"
                               "\"env\":[\"A=1\"],\"ports\":[\"80\",\"53/udp\"],\"workdir\":\"/w\",\"user\":\"1:2\"}";
    struct body b, c;
    zl_auto_buf json = ZL_BUF_INIT;
    (void)state;
    assert_int_equal(decode(&b, zl_body_types[ZL_BODY_IMPORT], text), 0);
    zl_json_print(&json, zl_print(&b.arena, &zl_type_image_request, b.v), 0);
    assert_int_equal(decode(&c, &zl_type_image_request, json.p), 0);
    const struct zl_image_request *q = c.v;
    assert_int_equal(q->verb, ZL_IMAGE_IMPORT);
    assert_string_equal(q->reference, "a:1");
    assert_string_equal(q->source, "/r");
    assert_int_equal(q->cmd.n, 2);
    assert_string_equal(q->cmd.v[1], "");
    assert_string_equal(q->entrypoint.v[0], "/b");
    assert_string_equal(q->env.v[0], "A=1");
    assert_string_equal(q->ports.v[1], "53/udp");
    assert_string_equal(q->workdir, "/w");
    assert_string_equal(q->user, "1:2");
    done(&b);
    done(&c);
}

static void bad_ones(void **state)
{
#define IMAGE(keys) "{\"verb\":\"import\",\"reference\":\"a\",\"source\":\"/r\"," keys "}"
    static const struct {
        enum zl_body body; /* ZL_BODY_NONE: an image job's */
        const char *text, *reason;
    } cases[] = {
        { ZL_BODY_STOP, "{", "no JSON" },
        { ZL_BODY_STOP, "[]", "must be a map, got a list" },
        { ZL_BODY_STOP, "{\"timeout_s\":-1}", "an integer from 0 to 86400, got '-1'" },
        { ZL_BODY_STOP, "{\"timeout_s\":86401}", "an integer from 0 to 86400" },
        { ZL_BODY_STOP, "{\"timeout_s\":\"5\"}", "an integer from 0 to 86400" },
        { ZL_BODY_STOP, "{\"timeout_s\":18446744073709551615}", "" },
        { ZL_BODY_STOP, "{\"service\":[]}", "a string, got a list" },
        { ZL_BODY_STOP, "{\"servise\":\"a\"}", "unknown key 'servise'" },
        { ZL_BODY_EXEC, "", "needs the key 'command'" },
        { ZL_BODY_EXEC, "{\"command\":[]}", "'command' must not be empty" },
        { ZL_BODY_EXEC, "{\"command\":\"ls\"}", "a list of strings, got 'ls'" },
        { ZL_BODY_EXEC, "{\"command\":[{}]}", "strings, got a map" },
        { ZL_BODY_EXEC, "{\"command\":[null]}", "strings, got nothing" },
        { ZL_BODY_EXEC, "{\"command\":[\"a\"],\"replica\":1000000}", "an integer from 0 to 999999" },
        { ZL_BODY_DEPLOY, "{}", "needs the key 'spec'" },
        { ZL_BODY_DEPLOY, "{\"spec\":1.5e3,\"pull\":\"-as the document says\"}", "one of if_not_present, always" },
        { ZL_BODY_DEPLOY, "{\"spec\":\"\",\"pull\":\"sometimes\"}", "one of if_not_present, always" },
        { ZL_BODY_DEPLOY, "{\"spec\":\"\",\"dry_run\":1}", "true or false" },
        { ZL_BODY_DEPLOY, "{\"spec\":\"\",\"owner\":\"me\"}", "32 hex digits" },
        { ZL_BODY_DEPLOY, "{\"spec\":\"a\\u0000b\"}", "" },
        { ZL_BODY_PULL, "{}", "needs the key 'reference'" },
        { ZL_BODY_PULL, "{\"reference\":\"\"}", "'reference' must not be empty" },
        { ZL_BODY_PULL, "{\"reference\":\"a\",\"verb\":\"remove\"}", "unknown key 'verb'" },
        { ZL_BODY_PULL, "{\"reference\":\"a\",\"policy\":\"newest\"}", "one of" },
        { ZL_BODY_IMPORT, "{\"reference\":\"a\"}", "'source' must be an absolute path" },
        { ZL_BODY_IMPORT, "{\"reference\":\"a\",\"source\":\"r\"}", "'source' must be an absolute path" },
        { ZL_BODY_NONE, "{\"reference\":\"a\"}", "needs the key 'verb'" },
        { ZL_BODY_NONE, "{\"verb\":\"eat\",\"reference\":\"a\"}", "one of pull, import, remove" },
        { ZL_BODY_NONE, IMAGE("\"ports\":[{}]"), "strings, got a map" },
        { ZL_BODY_NONE, IMAGE("\"ports\":[\"65536\"]"), "'65536' is no port" },
        { ZL_BODY_NONE, IMAGE("\"ports\":[\"80/http\"]"), "'80/http' is no port" },
        { ZL_BODY_NONE, IMAGE("\"ports\":[\"80/\"]"), "'80/' is no port" },
        { ZL_BODY_NONE, IMAGE("\"env\":[\"A\"]"), "NAME=VALUE" },
        { ZL_BODY_NONE, IMAGE("\"env\":[\"=A\"]"), "NAME=VALUE" },
        { ZL_BODY_NONE, IMAGE("\"cmd\":\"a\""), "a list of strings" },
        { ZL_BODY_NONE, IMAGE("\"user\":{}"), "a string, got a map" },
        { ZL_BODY_NONE, IMAGE("\"stall_s\":0"), "an integer from 1 to 3600" },
        { ZL_BODY_NONE, IMAGE("\"force\":\"yes\""), "true or false" },
    };
    (void)state;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        struct body b;
        const struct zl_type *type = zl_body_types[cases[i].body];
        if (decode(&b, type ? type : &zl_type_image_request, cases[i].text) >= 0)
            fail_msg("%s was taken", cases[i].text);
        if (!b.err.text[0] || !strstr(b.err.text, cases[i].reason))
            fail_msg("%s: '%s' does not say '%s'", cases[i].text, b.err.text, cases[i].reason);
        done(&b);
    }
}

static void a_misspelling_has_a_hint(void **state)
{
    struct body b;
    (void)state;
    assert_int_equal(decode(&b, zl_body_types[ZL_BODY_STOP], "{\"timout_s\":1,\"x\":2}"), ZL_E_INVALID);
    assert_int_equal(b.d.count, 2); /* all are kept */
    assert_string_equal(b.d.first->path, "timout_s");
    assert_non_null(strstr(b.err.hint, "timeout_s"));
    done(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_absent),           cmocka_unit_test(pull_names_a_policy),
        cmocka_unit_test(an_import_is_passed_on),   cmocka_unit_test(bad_ones),
        cmocka_unit_test(a_misspelling_has_a_hint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
