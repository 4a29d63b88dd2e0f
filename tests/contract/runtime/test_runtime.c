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

static void a_first_process_out_of_memory_is_oom_killed_and_a_child_only_counts(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("alloc", "64", "exit", "0"));
    spec.limits.memory_bytes = 24 << 20;
    world_run(w, &spec);
    const struct zl_rt_outcome *o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_OOM_KILLED);
    assert_int_equal(o->code, 137);
    assert_int_equal(o->signal, SIGKILL);
    assert_int_equal(o->oom_kills, 1);

    world_spec(w, &spec, ARGV("child-alloc", "64", "exit", "3"));
    spec.limits.memory_bytes = 24 << 20;
    world_run(w, &spec);
    o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_EXITED);
    assert_int_equal(o->code, 3);
    assert_int_equal(o->oom_kills, 1);

    /* A child was, later the first process is killed by hand. */
    world_spec(w, &spec, ARGV("child-alloc", "64", "say", "survived", "forever"));
    spec.limits.memory_bytes = 24 << 20;
    world_run(w, &spec);
    world_says(w, spec.id, "survived");
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_SIGNAL);
    assert_int_equal(o->signal, SIGKILL);
    assert_int_equal(o->oom_kills, 1);
}

static void a_program_that_is_not_there_has_its_own_error_and_leaves_an_instance_to_remove_at_most(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *program;
        int code;
    } cases[] = { { "/no/such", ZL_E_NO_COMMAND },
                  { "nosuch", ZL_E_NO_COMMAND },
                  { "/not-executable", ZL_E_NOT_EXECUTABLE } };
    static struct answer a;
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        struct zl_rt_spec spec;
        const char *argv[] = { cases[i].program, NULL };
        world_spec(w, &spec, argv);
        int r = world_create(w, &spec, &a);
        if (r == 0) {
            r = world_start(w, spec.id, &a);
            assert_int_equal(world_outcome(w, spec.id)->reason, ZL_RT_REASON_RUNTIME_ERROR);
        }
        assert_int_equal(r, cases[i].code);
        assert_true(*a.err.text);
        assert_int_equal(world_remove(w, spec.id), 0);
    }
    world_list(w, &a);
    assert_int_equal(a.reply.list.n, 0);
}

static void pausing_shows_in_the_list_and_only_what_runs_has_processes(void **state)
{
    struct world *w = *state;
    static struct answer a;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    assert_int_equal(world_create(w, &spec, &a), 0);
    assert_int_equal(world_pause(w, spec.id, true), ZL_E_CONFLICT);
    assert_int_equal(world_top(w, spec.id, &a), ZL_E_CONFLICT);
    assert_int_equal(world_start(w, spec.id, &a), 0);
    world_says(w, spec.id, "ready");
    assert_int_equal(world_top(w, spec.id, &a), 0);
    assert_int_equal(a.reply.top.n, 1);
    assert_int_equal(a.reply.top.total, 1);
    assert_non_null(strstr(a.out, "/workload"));
    assert_int_equal(world_pause(w, spec.id, false), ZL_E_CONFLICT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(world_pause(w, spec.id, true), 0);
        assert_int_equal(world_pause(w, spec.id, true), ZL_E_CONFLICT);
        world_list(w, &a);
        assert_true(a.list[0].paused);
        assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
        if (i == 0)
            assert_int_equal(world_pause(w, spec.id, false), 0);
    }
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    (void)world_outcome(w, spec.id);
    world_list(w, &a);
    assert_false(a.list[0].paused);
    assert_int_equal(world_pause(w, spec.id, false), ZL_E_CONFLICT);
    assert_int_equal(world_pause(w, "00000000000000000000000000000000", true), ZL_E_NOT_FOUND);
}

static void list_gives_back_what_create_was_told(void **state)
{
    struct world *w = *state;
    static struct answer a;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    spec.address.s_addr = htonl(0x0ac80005);
    assert_int_equal(world_create(w, &spec, &a), 0);
    assert_int_equal(world_create(w, &spec, &a), ZL_E_EXISTS);
    world_list(w, &a);
    assert_int_equal(a.reply.list.n, 1);
    assert_string_equal(a.list[0].id, spec.id);
    assert_int_equal(a.list[0].state, ZL_RT_CREATED);
    assert_string_equal(a.list[0].deployment, "shop");
    assert_string_equal(a.list[0].service, "web");
    assert_string_equal(a.list[0].image, "img:1");
    assert_string_equal(a.list[0].note, "{\"mine\":true}");
    assert_int_equal(a.list[0].slot, 1);
    assert_int_equal(a.list[0].generation, 7);
    assert_int_equal(a.list[0].address.s_addr, htonl(0x0ac80005));
    assert_int_equal(world_start(w, spec.id, &a), 0);
    assert_int_equal(world_start(w, spec.id, &a), ZL_E_CONFLICT);
    world_list(w, &a);
    assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
    assert_true(a.list[0].pid > 0);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, false), 0);
    (void)world_outcome(w, spec.id);
    world_list(w, &a);
    assert_int_equal(a.reply.list.n, 1);
    assert_int_equal(a.list[0].state, ZL_RT_EXITED);
    assert_int_equal(a.list[0].outcome.signal, SIGKILL);
    assert_int_equal(w->nevents, 1);
}

static void remove_ends_what_runs_and_takes_unknown_ids(void **state)
{
    struct world *w = *state;
    static struct answer a;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("forever"));
    assert_int_equal(world_remove(w, spec.id), 0);
    world_run(w, &spec);
    assert_int_equal(world_remove(w, spec.id), 0);
    assert_int_equal(w->nevents, 1);
    world_spec(w, &spec, ARGV("forever"));
    assert_int_equal(world_create(w, &spec, &a), 0); /* not started */
    assert_int_equal(world_remove(w, spec.id), 0);
    world_list(w, &a);
    assert_int_equal(a.reply.list.n, 0);
    assert_int_equal(world_start(w, spec.id, &a), ZL_E_NOT_FOUND);
    assert_int_equal(world_kill(w, spec.id, SIGTERM, true), ZL_E_NOT_FOUND);
    assert_int_equal(world_kill(w, "nonsense", SIGTERM, true), ZL_E_INVALID);
}

static void exec_gives_code_and_both_streams(void **state)
{
    struct world *w = *state;
    static struct answer a;
    struct zl_rt_spec spec;
    const char *const argv[] = { "/workload", "say", "to out", "err", "to err", "exit", "5" };
    const char *const missing[] = { "/no/such" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = ZL_ARRAY_LEN(argv) };
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    assert_int_equal(world_create(w, &spec, &a), 0);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_CONFLICT); /* not running yet */
    assert_int_equal(world_start(w, spec.id, &a), 0);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(a.reply.exec.code, 5);
    assert_string_equal(a.out, "to out\n");
    assert_string_equal(a.errs, "to err\n");
    exec = (struct zl_rt_exec){ .argv = missing, .nargv = 1 };
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_NO_COMMAND);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    (void)world_outcome(w, spec.id);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_CONFLICT);
}

static void stats_are_of_the_limits_that_were_asked(void **state)
{
    struct world *w = *state;
    static struct answer a;
    struct zl_rt_spec spec;
    world_spec(w, &spec, ARGV("forever"));
    spec.limits.memory_bytes = 64 << 20;
    world_run(w, &spec);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_int_equal(a.reply.stats.memory_limit, 64 << 20);
    assert_int_equal(a.reply.stats.pids, 1);
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
        T(a_first_process_out_of_memory_is_oom_killed_and_a_child_only_counts),
        T(a_program_that_is_not_there_has_its_own_error_and_leaves_an_instance_to_remove_at_most),
        T(pausing_shows_in_the_list_and_only_what_runs_has_processes),
        T(list_gives_back_what_create_was_told),
        T(remove_ends_what_runs_and_takes_unknown_ids),
        T(exec_gives_code_and_both_streams),
        T(stats_are_of_the_limits_that_were_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
