/* state.json, as a later call finds it: a pid from it is signalled, its annotations are printed. */
#include "base/assert.h"
#include "ocirun/ocirun.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ocirun r = { 0 };
    struct ocirun_state *s;
    zl_arena_init(&r.arena);
    int e = ocirun_parse_state(&r.arena, zl_str_n((const char *)data, size), &s, &r.err);
    if (e == 0) {
        zl_auto_buf text = ZL_BUF_INIT;
        zl_assert(s->pid >= 0 && s->pid <= INT32_MAX && s->controllers >= 0);
        zl_assert(s->id && s->version && s->bundle && s->rootfs && s->cgroup_parent && s->cgroup_name && s->created &&
                  s->boot_id);
        zl_json_print(&text, ocirun_show_as(&r, s, "running", s->pid), 0);
        zl_assert(text.n > 0);
    } else {
        zl_assert(e == ZL_E_RUNTIME && r.err.text[0]);
    }
    zl_arena_done(&r.arena);
    return 0;
}
