/* What a shim says, as the agent takes it: every frame as each kind of answer. */
#include "base/assert.h"
#include "runtime/native/protocol.h"
#include "runtime/native/replies.h"

enum { PROCESSES = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool within(struct zl_str part, struct zl_str whole)
{
    return part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static void take(struct zl_str body)
{
    struct zl_err err = { 0 };
    struct zl_rt_outcome o;
    struct zl_rt_stats s;
    struct zl_sh_info info;
    struct zl_sh_output out;
    uint64_t total;
    zl_sh_take_error(body, ZL_E_RUNTIME, &err);
    zl_assert(err.code < 0 && err.text[0]);
    zl_sh_take_outcome(body, &o);
    zl_assert(o.code >= 0 && o.code <= 255 && o.signal >= 0 && o.signal <= 127);
    zl_assert(o.reason <= ZL_RT_REASON_RUNTIME_ERROR);
    zl_sh_take_stats(body, &s);
    zl_sh_take_info(body, &info);
    zl_assert(info.pid >= 0);
    zl_sh_take_output(body, &out);
    zl_assert(out.data.p && within(out.data, body));
    struct zl_rt_process *v = zl_xcalloc(PROCESSES, sizeof *v);
    unsigned n = zl_sh_take_processes(body, v, PROCESSES, &total);
    zl_assert(n <= PROCESSES && total >= n);
    for (unsigned i = 0; i < n; i++)
        zl_assert(v[i].pid >= 0 && v[i].ppid >= 0 && v[i].command.p && within(v[i].command, body));
    free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str in = zl_str_n((const char *)data, size);
    struct zl_frame f;
    ssize_t n;
    while ((n = zl_frame_parse(in, ZL_SH_MAGIC, ZL_SH_REPLY_MAX, &f)) > 0) {
        take(f.body);
        in = zl_str_n(in.p + n, in.n - (size_t)n);
    }
    return 0;
}
