/* The Runtime's contract, over every back end: `test_runtime fake`, `test_runtime native WORKLOAD SHIM` (root). */
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static bool native;
static const char *workload, *shim;

#define ARGV(...)                      \
    (const char *const[])              \
    {                                  \
        "/workload", __VA_ARGS__, NULL \
    }

static int setup(void **state)
{
    static struct world w;
    world_open(&w, native, workload, shim);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

static void exits_read_as_exited_with_their_code(void **state)
{
    struct world *w = *state;
    static const char *const codes[] = { "0", "3", "137" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(codes); i++) {
        struct zl_rt_spec spec;
        world_spec(w, &spec, ARGV("say", "hello", "exit", codes[i]));
        world_run(w, &spec);
        const struct zl_rt_outcome *o = world_outcome(w, spec.id);
        assert_int_equal(o->reason, ZL_RT_REASON_EXITED);
        assert_int_equal(o->code, strtol(codes[i], NULL, 10));
        assert_int_equal(o->signal, 0);
        assert_int_equal(o->oom_kills, 0);
        if (w->native)
            assert_true(o->finished_at_ms > 0);
    }
}

static void a_kill_reads_as_signal_and_sigterm_reaches_the_program(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("forever"));
    world_run(w, &spec);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    const struct zl_rt_outcome *o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_SIGNAL);
    assert_int_equal(o->signal, SIGKILL);
    assert_int_equal(o->code, 137);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0); /* of an ended one: nothing to do */

    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    world_run(w, &spec);
    world_says(w, spec.id, "ready");
    assert_int_equal(world_kill(w, spec.id, SIGTERM, false), 0);
    o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_EXITED);
    assert_int_equal(o->code, 0);
}

int main(int argc, char **argv)
{
    native = argc > 1 && zl_streq(argv[1], "native");
    workload = argc > 2 ? argv[2] : "";
    shim = argc > 3 ? argv[3] : "";
    if (native && geteuid() != 0) {
        fprintf(stderr, "containers need root\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(exits_read_as_exited_with_their_code),
        T(a_kill_reads_as_signal_and_sigterm_reaches_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
