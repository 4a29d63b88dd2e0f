/* Bytes of a command: decoded, applied to a state, encoded again: the second decoding must agree. */
#include "cluster/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_command c, again;
    struct zl_err err;
    zl_arena_init(&arena);
    if (zl_command_decode(&arena, zl_str_n((const char *)data, size), &c, &err) == 0) {
        zl_auto_buf bytes = ZL_BUF_INIT;
        zl_command_encode(&bytes, &c);
        if (zl_command_decode(&arena, zl_buf_view(&bytes), &again, &err) != 0 || again.kind != c.kind)
            abort();
        ZL_AUTO(zl_state) s = zl_state_new();
        struct zl_state_result r;
        s->ranges = (struct zl_ranges){ 0x0AC80000, 0x0AC90000, 0x0ACA0000 };
        for (int i = 0; i < 2; i++)
            zl_state_apply(s, &again, zl_buf_view(&bytes), &r);
    }
    zl_arena_done(&arena);
    return 0;
}
