/* Bytes of the mark and of a raft segment: read without a crash, and what a mark says it says again. */
#include "cluster/mark.h"
#include "cluster/segment.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_mark m;
    struct zl_str bytes = zl_str_n((const char *)data, size);
    bool rest;
    if (zl_mark_decode(bytes, &m, NULL) == 0) {
        char again[ZL_MARK_SIZE + 1];
        zl_mark_encode(again, &m);
        if (memcmp(again, data, ZL_MARK_SIZE) != 0)
            abort();
    }
    if (zl_segment_sound(bytes, &rest) > size)
        abort();
    return 0;
}
