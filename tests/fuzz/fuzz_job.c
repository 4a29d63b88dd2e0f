/* The set-up job's decoder: the shim reads it as root. */
#include "runtime/native/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_job job;
    zl_arena_init(&arena);
    if (zl_job_decode(&arena, zl_str_n((const char *)data, size), &job) == 0) {
        zl_auto_buf again = ZL_BUF_INIT;
        zl_job_encode(&again, &job);
    }
    zl_arena_done(&arena);
    return 0;
}
