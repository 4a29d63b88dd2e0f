#include "../testing.h"

#include "base/frame.h"

#include <errno.h>

enum { MAGIC = 0x544c5a21 };

static void a_frame_round_trips_from_any_number_of_bytes(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    size_t start = zl_frame_begin(&b, MAGIC, 3, 7);
    zl_record_add_str(&b, 1, ZL_STR("hello"));
    zl_record_add_u64(&b, 2, UINT64_C(1) << 40);
    zl_record_add(&b, 3, NULL, 0);
    zl_frame_end(&b, start);

    struct zl_frame f;
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(zl_frame_parse(zl_str_n(b.p, n), MAGIC, 1000, &f), 0);
    assert_int_equal(zl_frame_parse(zl_buf_view(&b), MAGIC, 1000, &f), b.n);
    assert_int_equal(f.version, 3);
    assert_int_equal(f.type, 7);

    struct zl_record r;
    uint64_t v;
    assert_int_equal(zl_record_next(&f.body, &r), 1);
    assert_true(zl_str_is(r.bytes, "hello"));
    assert_int_equal(zl_record_u64(&r, &v), -EPROTO);
    assert_int_equal(zl_record_next(&f.body, &r), 1);
    assert_int_equal(zl_record_u64(&r, &v), 0);
    assert_true(v == UINT64_C(1) << 40);
    assert_int_equal(zl_record_next(&f.body, &r), 1);
    assert_int_equal(r.bytes.n, 0);
    assert_int_equal(zl_record_next(&f.body, &r), 0);
}

static void lies_are_refused(void **state)
{
    zl_auto_buf b = ZL_BUF_INIT;
    size_t start = zl_frame_begin(&b, MAGIC, 1, 1);
    zl_record_add_str(&b, 1, ZL_STR("hello"));
    zl_frame_end(&b, start);
    struct zl_frame f;
    assert_int_equal(zl_frame_parse(zl_buf_view(&b), MAGIC + 1, 1000, &f), -EPROTO);
    assert_int_equal(zl_frame_parse(zl_buf_view(&b), MAGIC, 8, &f), -EMSGSIZE);
    assert_int_equal(zl_frame_parse(zl_buf_view(&b), MAGIC, 1000, &f), b.n);
    struct zl_str body = zl_str_n(f.body.p, f.body.n - 1); /* the padding is cut */
    struct zl_record r;
    assert_int_equal(zl_record_next(&body, &r), -EPROTO);
    body = zl_str_n(f.body.p, 7);
    assert_int_equal(zl_record_next(&body, &r), -EPROTO);
    static const char huge[8] = { 1, 0, 0, 0, (char)0xff, (char)0xff, (char)0xff, (char)0xff };
    body = zl_str_n(huge, sizeof huge);
    assert_int_equal(zl_record_next(&body, &r), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_round_trips_from_any_number_of_bytes),
        cmocka_unit_test(lies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
