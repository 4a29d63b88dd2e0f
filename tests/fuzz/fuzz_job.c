/* The set-up job's decoder: the shim reads it as root. */
#include "base/assert.h"
#include "runtime/native/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_job job;
    zl_arena_init(&arena);
    if (zl_job_decode(&arena, zl_str_n((const char *)data, size), &job) == 0) {
        zl_auto_buf again = ZL_BUF_INIT, third = ZL_BUF_INIT;
        zl_job_encode(&again, &job);
        if (again.n <= ZL_JOB_MAX) {
            zl_assert(zl_job_decode(&arena, zl_buf_view(&again), &job) == 0);
            zl_job_encode(&third, &job);
            zl_assert(zl_str_eq(zl_buf_view(&again), zl_buf_view(&third)));
        }
    }
    zl_arena_done(&arena);
    return 0;
}
