#include "../testing.h"

#include "base/alloc.h"

#include <string.h>

static void arena_gives_zeroed_aligned_memory(void **state)
{
    struct zl_arena a;
    zl_arena_init(&a);
    for (size_t size = 1; size < 20000; size = size * 3 + 1) {
        unsigned char *p = zl_arena_alloc(&a, size);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, size);
    }
    assert_string_equal(zl_arena_printf(&a, "%s-%d", "x", 7), "x-7");
    zl_arena_done(&a);
    assert_null(a.chunks);
}

static void the_nth_try_fails_once(void **state)
{
    zl_try_fail_after(2);
    void *first = zl_try_malloc(1), *second = zl_try_malloc(1), *third = zl_try_malloc(1);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    free(first);
    free(third);
}

static void grow_makes_the_index_valid(void **state)
{
    int *a = NULL, cap = 0;
    for (int i = 0; i < 1000; i++) {
        ZL_GROW(a, i, cap);
        assert_true(cap > i);
        a[i] = i;
    }
    assert_int_equal(a[999], 999);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(the_nth_try_fails_once),
        cmocka_unit_test(grow_makes_the_index_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
