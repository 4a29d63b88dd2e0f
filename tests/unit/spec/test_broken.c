/*
 * Broken documents: tests/spec/broken/NAME.yml and NAME.expect, one line a problem, in order: `LINE:COLUMN CODE HINT`
 * (the position and the hint may be absent). The reference's documents give no other error than not_supported_yet.
 */
#include "../testing.h"

#include "base/fd.h"
#include "spec/spec.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

static void describe(struct zl_buf *out, const struct zl_decoder *d)
{
    for (const struct zl_problem *p = d->first; p; p = p->next) {
        if (p->line)
            zl_buf_printf(out, "%u:%u ", p->line, p->column);
        zl_buf_printf(out, "%s%s%s\n", p->code, p->hint[0] ? " " : "", p->hint);
    }
}

static unsigned each(const char *folder, bool broken,
                     bool (*fn)(const char *folder, const char *name, const struct zl_decoder *d, struct zl_str text))
{
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort);
    unsigned count = 0, bad = 0;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        if (zl_str_ends(zl_str(names[i]->d_name), ZL_STR(".yml"))) {
            zl_auto_free char *path = zl_xasprintf("%s/%s", folder, names[i]->d_name);
            zl_auto_buf text = ZL_BUF_INIT;
            struct zl_arena arena;
            struct zl_decoder d;
            struct zl_spec *spec;
            struct zl_err err = { 0 };
            assert_int_equal(zl_read_file(AT_FDCWD, path, 1 << 20, &text), 0);
            zl_arena_init(&arena);
            zl_decoder_init(&d, &arena);
            int r = zl_spec_parse(&d, zl_buf_view(&text), &spec, &err);
            assert_int_equal(r, broken || d.count ? ZL_E_SPEC : 0);
            bad += !fn(folder, names[i]->d_name, &d, zl_buf_view(&text));
            zl_decoder_done(&d);
            zl_arena_done(&arena);
            count++;
        }
        free(names[i]);
    }
    free(names);
    assert_int_equal(bad, 0);
    return count;
}

static bool as_expected(const char *folder, const char *name, const struct zl_decoder *d, struct zl_str text)
{
    zl_auto_free char *path = zl_xasprintf("%s/%.*s.expect", folder, (int)strlen(name) - 4, name);
    zl_auto_buf expected = ZL_BUF_INIT, got = ZL_BUF_INIT, shown = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, path, 1 << 16, &expected), 0);
    describe(&got, d);
    zl_spec_problems_print(&shown, d, text, name, false);
    assert_true(shown.n > 0);
    if (zl_streq(got.p, expected.p))
        return true;
    printf("%s\nexpected:\n%sgot:\n%s%s\n", name, expected.p, got.p, shown.p);
    return false;
}

static void every_broken_document_gives_the_problems_written_beside_it(void **state)
{
    assert_in_range(each(BROKEN, true, as_expected), 60, 1000);
}

static bool only_not_yet(const char *folder, const char *name, const struct zl_decoder *d, struct zl_str text)
{
    zl_auto_buf shown = ZL_BUF_INIT;
    (void)folder;
    for (const struct zl_problem *p = d->first; p; p = p->next) {
        if (zl_streq(p->code, "not_supported_yet") && !p->hint[0])
            continue;
        zl_spec_problems_print(&shown, d, text, name, false);
        printf("%s\n", shown.p);
        return false;
    }
    return true;
}

static void the_references_documents_ask_for_nothing_unknown(void **state)
{
    assert_in_range(each(REFERENCE, false, only_not_yet), 14, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_document_gives_the_problems_written_beside_it),
        cmocka_unit_test(the_references_documents_ask_for_nothing_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
