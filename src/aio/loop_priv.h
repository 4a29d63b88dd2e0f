/* What the files of this room share of the loop. Thread, owner, failures: as loop.h. */
#pragma once

#include "aio/loop.h"

#include <uv.h>

struct deferred;

struct zl_loop {
    uv_loop_t uv;
    uv_check_t check;
    uv_idle_t idle;
    struct deferred *deferred, **deferred_tail;
};
