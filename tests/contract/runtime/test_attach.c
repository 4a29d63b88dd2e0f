/* Clients attached to the native back end's containers, pausing, and the shim's size. Root. */
#include "talk.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char *workload, *shim;

#define ARGV(...)                      \
    (const char *const[])              \
    {                                  \
        "/workload", __VA_ARGS__, NULL \
    }

static int setup(void **state)
{
    static struct world w;
    world_open(&w, true, workload, shim);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

static void many_attach_a_slow_one_loses_and_all_hear_the_end(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk one, two, slow;
    static struct answer a;
    world_spec(w, &spec, ARGV("echo", "err", "finished", "exit", "6"));
    spec.open_stdin = true;
    spec.log_max_bytes = 16 << 20;
    assert_int_equal(world_create(w, &spec, &a), 0);
    struct zl_rt_session_spec plain = { 0 }, input = { .input = true };
    begin(w, &one, spec.id, &input); /* before the start: nothing is missed */
    begin(w, &two, spec.id, &plain);
    begin(w, &slow, spec.id, &plain);
    world_until(w, &one.opened, 5000);
    world_until(w, &two.opened, 5000);
    world_until(w, &slow.opened, 5000);
    assert_int_equal(world_start(w, spec.id, &a), 0);
    zl_rt_session_hold(slow.s, true);
    write_text(&one, "hello\n");
    until_says(&one, "hello\n");
    until_says(&two, "hello\n");
    enum { BLOCK = 32768, BLOCKS = 100 };
    static char block[BLOCK];
    memset(block, 'b', BLOCK);
    for (int i = 0; i < BLOCKS; i++) {
        while (zl_rt_session_write(one.s, zl_str_n(block, BLOCK)) < 0)
            world_pass(w, 1);
        world_pass(w, 1);
    }
    for (uint64_t end = zl_clock_mono_ms() + 10000; one.n + one.lost < 6 + BLOCK * BLOCKS && zl_clock_mono_ms() < end;)
        world_pass(w, 5);
    assert_int_equal(one.n + one.lost, 6 + BLOCK * BLOCKS);
    assert_at_most(own_kib(shim_of(w, spec.id)), 640);
    zl_rt_session_hold(slow.s, false);
    write_text(&one, "last\n");
    zl_rt_session_end_input(one.s);
    until_over(&one);
    until_over(&two);
    until_over(&slow);
    const struct talk *all[] = { &one, &two, &slow };
    for (size_t i = 0; i < ZL_ARRAY_LEN(all); i++) {
        assert_string_equal(all[i]->err.text, "");
        assert_int_equal(all[i]->end.code, 6);
        assert_non_null(strstr(all[i]->errs.p, "finished\n"));
        assert_int_equal(all[i]->out.n + all[i]->errs.n + all[i]->lost, 6 + BLOCK * BLOCKS + 5 + 4 + 9);
    }
    assert_true(slow.lost > 0);
    done(&one);
    done(&two);
    done(&slow);
    /* The log has everything. */
    zl_auto_buf log = ZL_BUF_INIT;
    world_log(w, spec.id, &log);
    size_t bs = 0;
    for (size_t i = 0; i < log.n; i++)
        bs += log.p[i] == 'b';
    assert_int_equal(bs, BLOCK * BLOCKS);
}

static void detaching_changes_nothing_and_input_must_be_open(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    world_spec(w, &spec, ARGV("say", "ready", "echo", "exit", "0"));
    spec.open_stdin = true;
    world_run(w, &spec);
    for (int i = 0; i < 3; i++) {
        begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
        world_until(w, &t.opened, 5000);
        write_text(&t, "ping\n");
        until_says(&t, "ping\n");
        done(&t);
    }
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    assert_int_equal(world_outcome(w, spec.id)->signal, SIGKILL);
    forever(w, &spec);
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
    until_over(&t);
    assert_int_equal(t.err.code, ZL_E_CONFLICT);
    done(&t);
}

static void however_many_attach_it_can_be_asked_and_killed(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk many[40];
    static struct answer a;
    unsigned refused = 0;
    forever(w, &spec);
    for (size_t i = 0; i < ZL_ARRAY_LEN(many); i++) {
        begin(w, &many[i], spec.id, &(struct zl_rt_session_spec){ 0 });
        while (!many[i].opened && !many[i].over)
            world_pass(w, 1);
        refused += many[i].over && many[i].err.code == ZL_E_LIMIT;
    }
    assert_int_equal(refused, ZL_ARRAY_LEN(many) - 24);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_int_equal(world_pause(w, spec.id, true), 0);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    for (size_t i = 0; i < ZL_ARRAY_LEN(many); i++) {
        until_over(&many[i]);
        assert_true(many[i].err.code == ZL_E_LIMIT || many[i].end.signal == SIGKILL);
        done(&many[i]);
    }
}

static void a_container_may_have_a_terminal(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static struct answer a;
    world_spec(w, &spec, ARGV("tty", "say", "logged", "echo", "size"));
    spec.tty = spec.open_stdin = true;
    spec.rows = 10;
    spec.columns = 20;
    assert_int_equal(world_create(w, &spec, &a), 0);
    begin(w, &t, spec.id, &(struct zl_rt_session_spec){ .input = true });
    world_until(w, &t.opened, 5000);
    assert_int_equal(world_start(w, spec.id, &a), 0);
    until_says(&t, "tty 1 1 1 controlling yes leader yes owner 0\r\n");
    until_says(&t, "size 0 10 20\r\n");
    world_says(w, spec.id, "logged");
    write_text(&t, "keys\n\004"); /* its end-of-file character ends the echo, not the input */
    until_says(&t, "keys\r\nkeys\r\nend\r\n");
    zl_rt_session_resize(t.s, 33, 44);
    until_says(&t, "size 0 33 44\r\n");
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    until_over(&t);
    assert_int_equal(t.end.signal, SIGKILL);
    done(&t);
}

static void a_paused_container_stands_still_and_can_be_killed(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct talk t;
    static struct answer a;
    const char *const argv[] = { "/workload", "exit", "0" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 3 };
    world_spec(w, &spec, ARGV("burn", "60000"));
    world_run(w, &spec);
    run(w, &t, spec.id, ARGV("say", "in", "forever"), (struct zl_rt_session_spec){ 0 });
    until_says(&t, "in");
    assert_int_equal(world_pause(w, spec.id, true), 0);
    assert_int_equal(world_pause(w, spec.id, true), ZL_E_CONFLICT);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    uint64_t used = a.reply.stats.cpu_total_ns;
    world_pass(w, 200);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_in_range(a.reply.stats.cpu_total_ns - used, 0, 20000000);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_CONFLICT);
    assert_int_equal(processes(w, spec.id, &a), 2);
    done(&t); /* the shim must not wait for a frozen command */
    world_reopen(w);
    world_list(w, &a);
    world_pass(w, 50);
    world_list(w, &a);
    assert_true(a.list[0].paused);
    assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
    assert_int_equal(world_pause(w, spec.id, false), 0);
    assert_int_equal(world_pause(w, spec.id, false), ZL_E_CONFLICT);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(world_pause(w, spec.id, true), 0);
    assert_int_equal(world_kill(w, spec.id, SIGTERM, false), 0); /* waits */
    world_pass(w, 50);
    world_list(w, &a);
    assert_int_equal(a.list[0].state, ZL_RT_RUNNING);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, false), 0);
    assert_int_equal(world_outcome(w, spec.id)->reason, ZL_RT_REASON_SIGNAL);
}

static void a_shim_with_a_container_is_small(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    for (int i = 0; i < 20; i++) {
        const char *const argv[] = { "/workload", "fill", "200" };
        struct zl_rt_exec exec = { .argv = argv, .nargv = 3 };
        assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
        assert_int_equal(world_top(w, spec.id, &a), 0);
        assert_int_equal(world_stats(w, spec.id, &a), 0);
    }
    world_pass(w, 50);
    long own = own_kib(pid), sum = 0;
    pid_t shims[8];
    for (size_t i = 0; i < ZL_ARRAY_LEN(shims); i++) {
        forever(w, &spec);
        shims[i] = shim_of(w, spec.id);
    }
    for (size_t i = 0; i < ZL_ARRAY_LEN(shims); i++)
        sum += memory_kib(shims[i], "Pss");
    print_message("a shim: %ld KiB of its own after use, proportional set size %ld KiB beside %zu others\n", own,
                  sum / (long)ZL_ARRAY_LEN(shims), ZL_ARRAY_LEN(shims));
    assert_at_most(own, 320);
    assert_at_most(sum / (long)ZL_ARRAY_LEN(shims), 384);
}

int main(int argc, char **argv)
{
    workload = argc > 1 ? argv[1] : "";
    shim = argc > 2 ? argv[2] : "";
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    if (geteuid() != 0) {
        fprintf(stderr, "containers need root\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(many_attach_a_slow_one_loses_and_all_hear_the_end), T(detaching_changes_nothing_and_input_must_be_open),
        T(however_many_attach_it_can_be_asked_and_killed),    T(a_container_may_have_a_terminal),
        T(a_paused_container_stands_still_and_can_be_killed), T(a_shim_with_a_container_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
