/* Files of credentials as docker and podman write them, and helpers that are scripts made here. */
#include "../testing.h"

#include "base/clock.h"
#include "base/fd.h"
#include "image/credentials.h"
#include "image/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/zl-credentials-XXXXXX";
static char path[200], own[200], docker[200];

static void put(const char *file, const char *text, mode_t mode)
{
    zl_auto_close int dir = zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(zl_write_file_atomic(dir, strrchr(file, '/') + 1, text, strlen(text), mode, ZL_KILL_PROOF), 0);
}

static void find(const char *registry, const char *repository, const char *user, const char *password)
{
    struct zl_credentials c;
    zl_credentials_find(registry, repository, &c);
    assert_string_equal(c.user, user);
    assert_string_equal(c.password, password);
}

static int set_up(void **state)
{
    char helper[220];
    if (!mkdtemp(folder))
        return -1;
    snprintf(own, sizeof own, "%s/auth.json", folder);
    snprintf(docker, sizeof docker, "%s/config.json", folder);
    snprintf(path, sizeof path, "%s:/usr/bin:/bin", folder);
    snprintf(helper, sizeof helper, "%s/docker-credential-test", folder);
    setenv("ZLAYER_CONFIG_DIR", folder, 1);
    setenv("DOCKER_CONFIG", folder, 1);
    setenv("XDG_RUNTIME_DIR", folder, 1);
    setenv("HOME", folder, 1);
    setenv("PATH", path, 1);
    unsetenv("ZLAYER_AUTH_FILE");
    unsetenv("REGISTRY_AUTH_FILE");
    unsetenv("XDG_CONFIG_HOME");
    put(helper,
        "#!/bin/sh\nread -r input || :\ncase $1 in\nget) case $input in\n"
        "token.example) echo '{\"ServerURL\":\"x\",\"Username\":\"<token>\",\"Secret\":\"refresh\"}' ;;\n"
        "broken.example) echo 'not json' ;;\n"
        "kept.example) cat \"$HOME/kept\" ;;\n"
        "*) echo 'credentials not found in native keychain'; exit 1 ;;\nesac ;;\n"
        "store) echo \"$input\" > \"$HOME/kept\" ;;\n"
        "erase) rm \"$HOME/kept\" ;;\nesac\n",
        0700);
    return 0;
}

static int tear_down(void **state)
{
    return zl_remove_tree(AT_FDCWD, folder);
}

static void test_keys(void **state)
{
    put(docker,
        "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"aHViOnB3\"},\"http://"
        "a.b:5000\":{\"auth\":\"YTo6cA==\"},"
        "\"c.d\":{\"username\":\"u\",\"password\":\"p\"},\"c.d/team\":{\"auth\":\"dGVhbTpwdw==\"},"
        "\"c.d/team/"
        "app\":{\"auth\":\"YXBwOnB3\"},\"bad\":{\"auth\":\"%%\"},\"id\":{\"auth\":\"dTo=\",\"identitytoken\":\"t\"}}}",
        0600);
    find("docker.io", "library/x", "hub", "pw");
    find("a.b:5000", "x", "a", ":p");
    find("a.b", "x", "", "");
    find("c.d", "x", "u", "p");
    find("c.d", "team/other", "team", "pw");
    find("c.d", "team/app", "app", "pw");
    find("c.d", "teammate/x", "u", "p");
    find("bad", "x", "", "");
    struct zl_credentials c;
    zl_credentials_find("id", "x", &c);
    assert_string_equal(c.identity_token, "t");
}

static void test_own_file_comes_first(void **state)
{
    put(docker, "{\"auths\":{\"a.b\":{\"auth\":\"ZG9ja2VyOnB3\"},\"only.docker\":{\"auth\":\"ZG9ja2VyOnB3\"}}}", 0600);
    put(own, "{\"auths\":{\"a.b\":{\"auth\":\"b3duOnB3\"}}}", 0600);
    find("a.b", "", "own", "pw");
    find("only.docker", "", "docker", "pw");
    put(own, "{\"auths\":", 0600); /* damaged: told, and the others still count */
    struct zl_credentials c;
    zl_credentials_find("only.docker", "", &c);
    assert_string_equal(c.user, "docker");
    zl_credentials_find("a.x", "", &c);
    assert_non_null(strstr(c.problem, "auth.json:1:"));
    assert_int_equal(unlinkat(AT_FDCWD, own, 0), 0);
}

static void test_helpers(void **state)
{
    struct zl_credentials c;
    put(docker,
        "{\"credsStore\":\"missing\",\"credHelpers\":{\"token.example\":\"test\",\"broken.example\":\"test\","
        "\"none.example\":\"test\",\"evil.example\":\"../test\"},\"auths\":{\"none.example\":{\"auth\":\"dTpw\"}}}",
        0600);
    zl_credentials_find("token.example", "", &c);
    assert_string_equal(c.identity_token, "refresh");
    find("none.example", "", "u", "p"); /* the helper has none, the file has */
    zl_credentials_find("broken.example", "", &c);
    assert_non_null(strstr(c.problem, "wrote no credentials"));
    zl_credentials_find("evil.example", "", &c);
    assert_non_null(strstr(c.problem, "no name of a credential helper"));
    zl_credentials_find("other.example", "", &c);
    assert_non_null(strstr(c.problem, "docker-credential-missing"));
}

static void helper(const char *name, const char *script)
{
    char file[240];
    snprintf(file, sizeof file, "%s/docker-credential-%s", folder, name);
    put(file, script, 0700);
}

/* It ends with this error, within 10 s, and its process (which has written its number) is gone and reaped. */
static void misbehaves(const char *name, unsigned limit_ms, const char *wanted)
{
    struct zl_err err = { 0 };
    zl_auto_buf out = ZL_BUF_INIT, pid = ZL_BUF_INIT;
    char file[240], *end;
    snprintf(file, sizeof file, "%s/pid", folder);
    (void)unlink(file); /* of the one before, if there was one */
    uint64_t began = zl_clock_mono_ms();
    assert_int_equal(zl_helper_run_for(limit_ms, name, "get", ZL_STR("a.b"), &out, &err), ZL_E_INVALID);
    assert_true(zl_clock_mono_ms() - began < 10000);
    if (!strstr(err.text, wanted) || !strstr(err.text, name))
        fail_msg("'%s' is not in '%s'", wanted, err.text);
    if (zl_read_file(AT_FDCWD, file, 100, &pid) == 0)
        assert_int_equal(kill((pid_t)strtol(pid.p, &end, 10), 0), -1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static bool ran(void)
{
    char file[240];
    snprintf(file, sizeof file, "%s/pid", folder);
    return access(file, F_OK) == 0;
}

static void test_helpers_that_misbehave(void **state)
{
    helper("hangs", "#!/bin/sh\necho $$ > \"$HOME/pid\"; trap '' TERM; exec sleep 60\n");
    misbehaves("hangs", 500, "timed out");
    assert_true(ran());
    helper("closes", "#!/bin/sh\necho $$ > \"$HOME/pid\"; echo '{}'; exec sleep 60 >&-\n");
    misbehaves("closes", 500, "timed out");
    assert_true(ran());
    helper("drips", "#!/bin/sh\necho $$ > \"$HOME/pid\"; while :; do echo x; done | dd bs=1 count=1000000000 2>&-\n");
    misbehaves("drips", 60000, "too large");
    helper("endless", "#!/bin/sh\necho $$ > \"$HOME/pid\"; exec cat /dev/zero\n");
    misbehaves("endless", 60000, "too large");
    assert_true(ran());
    misbehaves("absent", 60000, "No such file");
    assert_false(ran());
    helper("garbage", "\001\002 no program");
    misbehaves("garbage", 60000, "");
    helper("dies", "#!/bin/sh\necho $$ > \"$HOME/pid\"; kill -9 $$\n");
    misbehaves("dies", 60000, "failed");
    helper("talks", "#!/bin/sh\nprintf 'wrong\\033[31m\\nwords'; exit 3\n");
    misbehaves("talks", 60000, "wrong [31m words");
    /* One that is slow and ends in time is fine, and so is the most that may be written. */
    struct zl_err err = { 0 };
    zl_auto_buf out = ZL_BUF_INIT;
    helper("large", "#!/bin/sh\nhead -c 65536 /dev/zero | tr '\\0' x\n");
    assert_int_equal(zl_helper_run("large", "get", ZL_STR("a.b"), &out, &err), 0);
    assert_int_equal(out.n, 65536);
}

static void test_answers_that_are_none(void **state)
{
    static const char *const answers[] = {
        "", "{", "[]", "\"x\"", "null", "{}", "{\"Username\":1,\"Secret\":[]}", "{\"Username\":\"u\"}"
    };
    put(docker, "{\"credsStore\":\"says\"}", 0600);
    for (size_t i = 0; i < ZL_ARRAY_LEN(answers); i++) {
        char script[200];
        struct zl_credentials c;
        snprintf(script, sizeof script, "#!/bin/sh\necho '%s'\n", answers[i]);
        helper("says", script);
        zl_credentials_find("a.b", "", &c);
        if (!strstr(c.problem, "wrote no credentials") || zl_credentials_any(&c))
            fail_msg("'%s': '%s'", answers[i], c.problem);
        zl_credentials_done(&c);
    }
}

static void test_keep_and_forget(void **state)
{
    struct zl_err err = { 0 };
    struct zl_credentials c = { .user = "me", .password = "s:e\"c" };
    struct stat st;
    put(docker, "{}", 0600);
    assert_int_equal(zl_credentials_forget(own, "a.b", &err), 0);
    assert_int_equal(zl_credentials_keep(own, "a.b", &c, &err), 0);
    assert_int_equal(zl_credentials_keep(own, "docker.io", &c, &err), 0);
    assert_int_equal(stat(own, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    find("a.b", "x", "me", "s:e\"c");
    find("docker.io", "library/x", "me", "s:e\"c");
    zl_auto_buf text = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, own, 10000, &text), 0);
    assert_non_null(strstr(text.p, "https://index.docker.io/v1/"));
    assert_int_equal(zl_credentials_forget(own, "a.b", &err), 1);
    assert_int_equal(zl_credentials_forget(own, "a.b", &err), 0);
    find("a.b", "x", "", "");
    find("docker.io", "library/x", "me", "s:e\"c");
    /* What else the file says stays, and a helper that it names keeps the secret instead. */
    put(own,
        "{\"credHelpers\":{\"kept.example\":\"test\"},\"other\":[1,2.5,null],\"auths\":{\"b.c/"
        "ns\":{\"auth\":\"dTpw\"}}}",
        0600);
    assert_int_equal(zl_credentials_keep(own, "kept.example", &c, &err), 0);
    find("kept.example", "", "me", "s:e\"c");
    zl_buf_clear(&text);
    assert_int_equal(zl_read_file(AT_FDCWD, own, 10000, &text), 0);
    assert_null(strstr(text.p, "bWU6"));
    assert_non_null(strstr(text.p, "2.5"));
    assert_int_equal(zl_credentials_forget(own, "kept.example", &err), 1);
    assert_int_equal(zl_credentials_forget(own, "b.c", &err), 0); /* an entry for a part of it is another */
    find("b.c", "ns/x", "u", "p");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_own_file_comes_first),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_helpers_that_misbehave),
        cmocka_unit_test(test_answers_that_are_none),
        cmocka_unit_test(test_keep_and_forget),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
