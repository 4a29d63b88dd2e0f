/* Bytes of a snapshot: what decodes must encode to something that decodes to the same bytes. */
#include "cluster/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_state *s, *again;
    if (zl_state_decode(zl_str_n((const char *)data, size), &s, NULL) != 0)
        return 0;
    zl_auto_buf one = ZL_BUF_INIT, two = ZL_BUF_INIT;
    zl_state_encode(&one, s);
    if (zl_state_decode(zl_buf_view(&one), &again, NULL) != 0)
        abort();
    zl_state_encode(&two, again);
    if (!zl_str_eq(zl_buf_view(&one), zl_buf_view(&two)))
        abort();
    zl_state_free(s);
    zl_state_free(again);
    return 0;
}
