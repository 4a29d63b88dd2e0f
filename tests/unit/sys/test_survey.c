#include "../testing.h"

#include "base/str.h"
#include "sys/nft.h"
#include "sys/survey.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct zl_survey_row *find(const struct zl_survey_row *rows, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (zl_streq(rows[i].name, name))
            return &rows[i];
    fail_msg("no row '%s'", name);
    return NULL;
}

static void says_something_of_each_need(void **state)
{
    static const char *const names[] = { "kernel",       "rights",     "cgroups", "namespaces", "overlayfs",
                                         "veth",         "nftables",   "nft",     "seccomp",    "landlock",
                                         "system calls", "forwarding", "disk",    "open files" };
    struct zl_survey_row rows[ZL_SURVEY_ROWS];
    size_t n = zl_survey("/var/lib/zlayer-not-there", rows);
    assert_int_equal(n, ZL_ARRAY_LEN(names));
    for (size_t i = 0; i < n; i++) {
        printf("%-12s %-4s %s%s%s\n", rows[i].name, zl_survey_level_text(rows[i].level), rows[i].found,
               rows[i].fix[0] ? ": " : "", rows[i].fix);
        assert_string_equal(rows[i].name, names[i]);
        assert_true(rows[i].found[0] != 0);
        if (rows[i].level == ZL_SURVEY_FAIL)
            assert_true(rows[i].fix[0] != 0);
    }
    assert_int_equal(find(rows, n, "kernel")->level, ZL_SURVEY_OK);
    assert_int_equal(find(rows, n, "seccomp")->level, ZL_SURVEY_OK);
}

static int in_child(void (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void as_nobody(void)
{
    struct zl_survey_row rows[ZL_SURVEY_ROWS];
    if (geteuid() == 0 && setuid(65534) < 0)
        _exit(1);
    size_t n = zl_survey("/nowhere", rows);
    const struct zl_survey_row *r = find(rows, n, "user namespaces");
    if (r->level == ZL_SURVEY_FAIL && !strstr(r->fix, "user namespaces") && !strstr(r->fix, "sysctl"))
        _exit(2);
    static const char *const names[] = { "ids", "pasta", "cgroups", "ports" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++) {
        r = find(rows, n, names[i]);
        if (r->level != ZL_SURVEY_OK && !r->fix[0])
            _exit(3);
    }
    for (size_t i = 0; i < n; i++)
        if (zl_streq(rows[i].name, "rights") || zl_streq(rows[i].name, "forwarding")) /* root's */
            _exit(4);
}

static void tells_an_ordinary_user_what_there_is(void **state)
{
    assert_int_equal(in_child(as_nobody), 0);
}

static void behind_a_firewall(void)
{
    char drops[100];
    if (unshare(CLONE_NEWNET) < 0)
        _exit(77);
    if (zl_nft_probe() != 0 || zl_nft_forward_chains(drops, sizeof drops) != 0)
        _exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("nft", "nft",
               "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };"
               "add table inet other; add chain inet other f { type filter hook forward priority 0; policy accept; };"
               "add chain inet other i { type filter hook input priority 0; policy drop; }",
               (char *)NULL);
        _exit(77);
    }
    int status;
    (void)waitpid(pid, &status, 0);
    if (WEXITSTATUS(status) == 77)
        _exit(77);
    if (zl_nft_forward_chains(drops, sizeof drops) != 2 || !zl_streq(drops, "ip filter/FORWARD"))
        _exit(2);
}

static void sees_a_forward_policy(void **state)
{
    int r = in_child(behind_a_firewall);
    if (r == 77) {
        fprintf(stderr, "skip: needs root and nft\n");
        skip();
    }
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_something_of_each_need),
        cmocka_unit_test(tells_an_ordinary_user_what_there_is),
        cmocka_unit_test(sees_a_forward_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
