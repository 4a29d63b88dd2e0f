#include "base/phase.h"

#include "base/str.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static struct zl_str wanted;
static _Atomic uint64_t countdown;
static _Atomic int state; /* 0: not read yet, 1: off, 2: armed */

static int arm(void)
{
    const char *env = getenv("ZLAYER_CRASH_AT");
    if (!env || !*env)
        return 1;
    struct zl_str times;
    uint64_t n = 1;
    wanted = zl_str_cut(zl_str(env), ':', &times);
    if (times.p && zl_parse_u64(times, 1, 1000000, &n) < 0)
        return 1;
    atomic_store(&countdown, n);
    return 2;
}

void zl_phase(const char *name)
{
    int s = atomic_load_explicit(&state, memory_order_acquire);
    if (s == 1)
        return;
    if (s == 0) {
        s = arm();
        atomic_store_explicit(&state, s, memory_order_release);
    }
    if (s == 2 && zl_str_is(wanted, name) && atomic_fetch_sub(&countdown, 1) == 1)
        (void)kill(getpid(), SIGKILL);
}
