/*
 * Named scenarios with the whole course written down: time in ms, then what the plan of that moment said.
 * create:b.1/0 is slot 1 of service b, try 0; publish:2 is a snapshot with two instances.
 */
#include "../unit/testing.h"

#include "world.h"

static struct world w;

static void start(void)
{
    world_init(&w, 1);
    w.exact = true;
    w.now = 1000;
}

static void expect(const char *trace)
{
    if (strcmp(w.trace.p ? w.trace.p : "", trace) != 0)
        print_error("the trace is\n%s", w.trace.p);
    assert_string_equal(w.trace.p ? w.trace.p : "", trace);
    zl_buf_clear(&w.trace);
}

static struct w_deployment *ready_deployment(unsigned services, unsigned replicas)
{
    start();
    struct w_deployment *d = world_deploy(&w, "x", services, replicas);
    world_settle(&w, 100000);
    zl_buf_clear(&w.trace);
    return d;
}

static void a_service_starts_when_what_it_depends_on_is_healthy(void **state)
{
    start();
    struct w_deployment *d = world_deploy(&w, "x", 2, 1);
    world_depend(d, 1, 0, ZL_DEPEND_HEALTHY, ZL_DEPEND_FAIL, 60000);
    world_settle(&w, 100000);
    expect("1000 pull:a pull:b\n"
           "1100 create:a.1/0\n"
           "1120 start:a.1(i1)\n"
           "1120 publish:1\n"
           "1170 create:b.1/0\n"
           "1190 start:b.1(i2)\n"
           "1190 publish:2\n");
    world_done(&w);
}

static void a_replacement_is_ready_before_its_predecessor_drains(void **state)
{
    struct w_deployment *d = ready_deployment(1, 2);
    world_put(&w, d, 1);
    world_settle(&w, 100000);
    expect("101000 pull:a\n"
           "101100 create:a.1/0\n"
           "101120 start:a.1(i3)\n"
           "101120 publish:3\n"
           "101170 drain:a.1(i1) publish:2\n"
           "101210 term:a.1(i1)\n"
           "101230 create:a.2/0\n"
           "101250 start:a.2(i4)\n"
           "101250 publish:3\n"
           "101300 drain:a.2(i2) publish:2\n"
           "101340 term:a.2(i2)\n");
    world_done(&w);
}

static void scaling_down_takes_the_highest_slots(void **state)
{
    struct w_deployment *d = ready_deployment(1, 3);
    d->services[0].replicas = 1;
    world_settle(&w, 100000);
    expect("101000 drain:a.3(i3) drain:a.2(i2) publish:1\n"
           "101040 term:a.3(i3) term:a.2(i2)\n");
    world_done(&w);
}

static void a_crash_loop_backs_off_and_a_long_run_resets_it(void **state)
{
    (void)ready_deployment(1, 1);
    for (int i = 0; i < 9; i++) {
        world_crash(&w, world_instance(&w, "a", 1));
        world_run(&w, i == 7 ? 130000 : 60500);
    }
    expect("101000 publish:0\n"
           "102000 create:a.1/1\n"
           "102020 start:a.1(i2)\n"
           "102020 publish:1\n"
           "161500 publish:0\n"
           "163500 create:a.1/2\n"
           "163520 start:a.1(i3)\n"
           "163520 publish:1\n"
           "222000 publish:0\n"
           "226000 create:a.1/3\n"
           "226020 start:a.1(i4)\n"
           "226020 publish:1\n"
           "282500 remove:a.1(i1) publish:0\n"
           "290500 create:a.1/4\n"
           "290520 start:a.1(i5)\n"
           "290520 publish:1\n"
           "343000 remove:a.1(i2) publish:0\n"
           "359000 create:a.1/5\n"
           "359020 start:a.1(i6)\n"
           "359020 publish:1\n"
           "403500 remove:a.1(i3) publish:0\n"
           "435500 create:a.1/6\n"
           "435520 start:a.1(i7)\n"
           "435520 publish:1\n"
           "464000 remove:a.1(i4) publish:0\n"
           "524000 create:a.1/7\n"
           "524020 start:a.1(i8)\n"
           "524020 publish:1\n"
           "524500 remove:a.1(i5) publish:0\n"
           "584500 create:a.1/8\n"
           "584520 start:a.1(i9)\n"
           "584520 publish:1\n"
           "654500 remove:a.1(i6) publish:0\n"
           "655500 create:a.1/1\n"
           "655520 start:a.1(i10)\n"
           "655520 publish:1\n");
    world_done(&w);
}

static void a_deployment_stops_in_reverse_order(void **state)
{
    start();
    struct w_deployment *d = world_deploy(&w, "x", 3, 1);
    world_depend(d, 1, 0, ZL_DEPEND_STARTED, ZL_DEPEND_FAIL, 60000);
    world_depend(d, 2, 1, ZL_DEPEND_READY, ZL_DEPEND_FAIL, 60000);
    world_settle(&w, 100000);
    zl_buf_clear(&w.trace);
    d->d.stopping = true;
    world_settle(&w, 100000);
    expect("101000 drain:c.1(i3) publish:2\n"
           "101040 term:c.1(i3)\n"
           "101060 drain:b.1(i2) publish:1\n"
           "101100 term:b.1(i2)\n"
           "101120 drain:a.1(i1) publish:0\n"
           "101160 term:a.1(i1)\n"
           "101180 remove:a.1(i1) remove:b.1(i2) remove:c.1(i3)\n"
           "101180 forget\n");
    world_done(&w);
}

static void force_kills_everything_at_once(void **state)
{
    struct w_deployment *d = ready_deployment(2, 2);
    world_depend(d, 1, 0, ZL_DEPEND_STARTED, ZL_DEPEND_FAIL, 60000);
    d->d.stopping = d->d.force = true;
    world_settle(&w, 100000);
    expect("101000 kill:b.2(i4) kill:b.1(i3) kill:a.2(i2) kill:a.1(i1) publish:0\n"
           "101004 remove:a.1(i1) remove:a.2(i2) remove:b.1(i3) remove:b.2(i4)\n"
           "101004 forget\n");
    world_done(&w);
}

static void what_ignores_the_signal_is_killed_after_its_grace(void **state)
{
    struct w_deployment *d = ready_deployment(1, 1);
    world_instance(&w, "a", 1)->deaf = true;
    d->services[0].replicas = 0;
    world_settle(&w, 100000);
    expect("101000 drain:a.1(i1) publish:0\n"
           "101040 term:a.1(i1)\n"
           "106040 kill:a.1(i1)\n");
    world_done(&w);
}

static void a_new_agent_finishes_a_replacement_that_a_killed_one_began(void **state)
{
    struct w_deployment *d = ready_deployment(1, 2);
    world_put(&w, d, 1);
    world_run(&w, 210); /* the first new one is ready, the first old one drains */
    world_kill_agent(&w);
    world_settle(&w, 100000);
    expect("101000 pull:a\n"
           "101100 create:a.1/0\n"
           "101120 start:a.1(i3)\n"
           "101120 publish:3\n"
           "101170 drain:a.1(i1) publish:2\n"
           "101210 term:a.1(i1)\n"
           "101210 agent killed\n"
           "101210 drain:a.1(i1)\n"
           "101210 term:a.1(i1)\n"
           "101230 create:a.2/0\n"
           "101250 start:a.2(i4)\n"
           "101250 publish:3\n"
           "101300 drain:a.2(i2) publish:2\n"
           "101340 term:a.2(i2)\n");
    world_done(&w);
}

static void a_failing_pull_is_tried_again_more_and_more_rarely(void **state)
{
    start();
    (void)world_deploy(&w, "x", 1, 1);
    w.faults.pull = 1000;
    world_run(&w, 20000);
    w.faults.pull = 0;
    world_settle(&w, 100000);
    expect("1000 pull:a\n"
           "2100 pull:a\n"
           "4200 pull:a\n"
           "8300 pull:a\n"
           "16400 pull:a\n"
           "32500 pull:a\n"
           "32600 create:a.1/0\n"
           "32620 start:a.1(i1)\n"
           "32620 publish:1\n");
    world_done(&w);
}

static void an_overdue_dependency_fails_or_is_passed_by(void **state)
{
    start();
    struct w_deployment *d = world_deploy(&w, "x", 3, 1);
    d->services[0].replicas = 0;
    world_depend(d, 1, 0, ZL_DEPEND_HEALTHY, ZL_DEPEND_FAIL, 5000);
    world_depend(d, 2, 0, ZL_DEPEND_HEALTHY, ZL_DEPEND_WARN, 5000);
    world_run(&w, 20000);
    d->services[0].replicas = 1; /* the condition comes true late: better than never */
    world_settle(&w, 100000);
    expect("1000 pull:b pull:c\n"
           "6000 create:c.1/0\n"
           "6020 start:c.1(i1)\n"
           "6020 publish:1\n"
           "21000 pull:a\n"
           "21100 create:a.1/0\n"
           "21120 start:a.1(i2)\n"
           "21120 publish:2\n"
           "21170 create:b.1/0\n"
           "21190 start:b.1(i3)\n"
           "21190 publish:3\n");
    world_done(&w);
}

static void instances_of_no_document_end_and_leave_nothing(void **state)
{
    (void)ready_deployment(1, 1);
    struct w_instance *i = &w.instances[100];
    *i = (struct w_instance){ .used = true, .id = "stray", .deployment = "gone", .service = "s" };
    i->a = (struct zl_actual_instance){ .id = i->id,
                                        .deployment = i->deployment,
                                        .service = i->service,
                                        .slot = 1,
                                        .generation = 1,
                                        .state = ZL_ACTUAL_RUNNING,
                                        .routed = true };
    world_settle(&w, 100000);
    expect("101000 drain:s.1(stray) publish:1\n"
           "101040 term:s.1(stray)\n"
           "101060 remove:s.1(stray)\n");
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_service_starts_when_what_it_depends_on_is_healthy),
        cmocka_unit_test(a_replacement_is_ready_before_its_predecessor_drains),
        cmocka_unit_test(scaling_down_takes_the_highest_slots),
        cmocka_unit_test(a_crash_loop_backs_off_and_a_long_run_resets_it),
        cmocka_unit_test(a_deployment_stops_in_reverse_order),
        cmocka_unit_test(force_kills_everything_at_once),
        cmocka_unit_test(what_ignores_the_signal_is_killed_after_its_grace),
        cmocka_unit_test(a_new_agent_finishes_a_replacement_that_a_killed_one_began),
        cmocka_unit_test(a_failing_pull_is_tried_again_more_and_more_rarely),
        cmocka_unit_test(an_overdue_dependency_fails_or_is_passed_by),
        cmocka_unit_test(instances_of_no_document_end_and_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
