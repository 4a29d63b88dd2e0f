/* The records in an instance's folder, as an agent finds them at its start: meta.json, state, exit. */
#include "base/assert.h"
#include "runtime/native/replies.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str text = zl_str_n((const char *)data, size);
    struct zl_rt_instance i = { .state = ZL_RT_EXITED };
    struct zl_rt_outcome o = { 0 };
    struct zl_arena arena;
    zl_arena_init(&arena);
    zl_sh_take_meta(text, &arena, &i);
    zl_assert(i.deployment && i.service && i.image && i.note);
    zl_sh_take_state(text, &arena, &i);
    zl_assert(i.pid >= 0 && (i.state == ZL_RT_RUNNING || i.state == ZL_RT_CREATED));
    if (zl_sh_take_exit(text, &arena, &o)) {
        zl_assert(o.code >= 0 && o.code <= 255 && o.signal >= 0 && o.signal <= 127);
        zl_assert(o.reason <= ZL_RT_REASON_RUNTIME_ERROR);
    }
    zl_arena_done(&arena);
    return 0;
}
