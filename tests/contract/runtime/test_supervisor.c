/* The shim as supervisor: how ends are told apart, statistics, processes, what it reaps, and agents that break off.
 * Root. */
#include "talk.h"

#include "base/clock.h"
#include "base/fd.h"
#include "runtime/native/native_priv.h"
#include "runtime/native/protocol.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
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

static unsigned events_of(const struct world *w, const char *id)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->nevents; i++)
        n += zl_streq(w->events[i].id, id);
    return n;
}

/* What the next agent reads of it is what this one was told. */
static void same_to_the_next_agent(struct world *w, const char *id, struct zl_rt_outcome o)
{
    static struct answer a;
    assert_int_equal(events_of(w, id), 1);
    world_reopen(w);
    world_list(w, &a);
    bool found = false;
    for (unsigned i = 0; i < a.reply.list.n; i++) {
        if (!zl_streq(a.list[i].id, id))
            continue;
        found = true;
        assert_int_equal(a.list[i].state, ZL_RT_EXITED);
        assert_int_equal(a.list[i].outcome.reason, o.reason);
        assert_int_equal(a.list[i].outcome.code, o.code);
        assert_int_equal(a.list[i].outcome.signal, o.signal);
        assert_int_equal(a.list[i].outcome.oom_kills, o.oom_kills);
        assert_int_equal(a.list[i].outcome.finished_at_ms, o.finished_at_ms);
    }
    assert_true(found);
    assert_int_equal(events_of(w, id), 1);
}

static void count_done(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply)
{
    unsigned *n = arg;
    (void)reply;
    assert_int_equal(err->code, 0);
    ++*n;
}

static void kills_at_once_and_an_exit_beside_them_give_one_true_end(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 12; i++) {
        struct zl_rt_spec spec;
        unsigned answered = 0;
        bool races = i >= 4;
        if (races) {
            world_spec(w, &spec, ARGV("sleep", "15", "exit", "4"));
            world_run(w, &spec);
            world_pass(w, (unsigned)(8 + i));
        } else {
            forever(w, &spec);
        }
        uint64_t before = zl_clock_wall_ms();
        (void)zl_runtime_kill(w->rt, spec.id, i % 2 ? SIGTERM : SIGKILL, true, count_done, &answered);
        (void)zl_runtime_kill(w->rt, spec.id, SIGKILL, false, count_done, &answered);
        (void)zl_runtime_kill(w->rt, spec.id, SIGKILL, true, count_done, &answered);
        struct zl_rt_outcome o = *world_outcome(w, spec.id);
        for (uint64_t end = before + 5000; answered < 3 && zl_clock_wall_ms() < end;)
            world_pass(w, 2);
        assert_int_equal(answered, 3);
        if (o.reason == ZL_RT_REASON_EXITED) {
            assert_true((races && o.code == 4) || (i % 2 && o.code == 0) || (races && i % 2));
            assert_int_equal(o.signal, 0);
        } else {
            assert_int_equal(o.reason, ZL_RT_REASON_SIGNAL);
            assert_int_equal(o.signal, SIGKILL);
            assert_int_equal(o.code, 137);
        }
        assert_int_equal(o.oom_kills, 0);
        assert_in_range(o.finished_at_ms, before - 1000, zl_clock_wall_ms());
        same_to_the_next_agent(w, spec.id, o);
    }
}

static void a_command_out_of_memory_is_not_the_containers_end(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    const char *const argv[] = { "/workload", "alloc", "64" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 3 };
    world_spec(w, &spec, ARGV("say", "ready", "until-term", "9"));
    spec.limits.memory_bytes = 24 << 20;
    world_run(w, &spec);
    world_says(w, spec.id, "ready");
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(a.reply.exec.code, 137);
    assert_int_equal(a.reply.exec.signal, SIGKILL);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_int_equal(a.reply.stats.oom_kills, 1);
    assert_int_equal(world_kill(w, spec.id, SIGTERM, false), 0);
    struct zl_rt_outcome o = *world_outcome(w, spec.id);
    assert_int_equal(o.reason, ZL_RT_REASON_EXITED);
    assert_int_equal(o.code, 9);
    assert_int_equal(o.oom_kills, 1);
    same_to_the_next_agent(w, spec.id, o);
}

static void ends_by_themselves_are_told_apart(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *verb, *arg;
        uint64_t memory;
        struct zl_rt_outcome o;
    } cases[] = {
        { "exit", "137", 0, { ZL_RT_REASON_EXITED, 137, 0, 0, 0 } }, /* a code is no signal */
        { "alloc", "64", 24 << 20, { ZL_RT_REASON_OOM_KILLED, 137, SIGKILL, 1, 0 } },
        { "child-alloc", "64", 24 << 20, { ZL_RT_REASON_EXITED, 0, 0, 1, 0 } },
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(cases); i++) {
        struct zl_rt_spec spec;
        world_spec(w, &spec, ARGV(cases[i].verb, cases[i].arg));
        spec.limits.memory_bytes = cases[i].memory;
        world_run(w, &spec);
        struct zl_rt_outcome o = *world_outcome(w, spec.id);
        assert_int_equal(o.reason, cases[i].o.reason);
        assert_int_equal(o.code, cases[i].o.code);
        assert_int_equal(o.signal, cases[i].o.signal);
        assert_int_equal(o.oom_kills, cases[i].o.oom_kills);
        same_to_the_next_agent(w, spec.id, o);
    }
}

static int add_local(void *arg)
{
    const struct in_addr *local = arg;
    zl_auto_close int nl = zl_netlink_open();
    return zl_addr_add(nl, (unsigned)zl_link_index(nl, "lo"), *local, 32);
}

/* Inside the node's namespace: connections to the replica, refused or not. */
static int knock(void *arg)
{
    const struct in_addr *to = arg;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(1), .sin_addr = *to };
    for (int i = 0; i < 20; i++) {
        zl_auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)connect(fd, (struct sockaddr *)&a, sizeof a);
    }
    return 0;
}

static void statistics_are_in_their_units(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    zl_auto_free char *path = zl_xasprintf("%s/netns", w->dir);
    struct in_addr local = { htonl(0x0ac80001) }, address = { htonl(0x0ac80005) };
    assert_int_equal(zl_netns_make(path), 0);
    zl_auto_close int netns = zl_netns_open(path);
    assert_int_equal(zl_netns_run(netns, add_local, &local), 0);
    world_spec(w, &spec, ARGV("alloc", "8", "burn", "300", "say", "burnt", "forever"));
    spec.netns = path;
    spec.address = address;
    spec.node_address = local;
    spec.limits = (struct zl_rt_limits){ .memory_bytes = 64 << 20, .pids = 33 };
    world_run(w, &spec);
    world_says(w, spec.id, "burnt");
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    struct zl_rt_stats before = a.reply.stats;
    assert_in_range(before.cpu_total_ns, 20000000, UINT64_C(5000000000)); /* others want processors, too */
    assert_in_range(before.cpu_total_ns / 1000000 + 100, before.cpu_usec / 1000, before.cpu_usec / 1000 + 200);
    assert_true(before.cpu_system_ns <= before.cpu_total_ns);
    assert_int_equal(before.online_cpus, sysconf(_SC_NPROCESSORS_ONLN));
    assert_in_range(before.memory_bytes, 8 << 20, 64 << 20);
    assert_int_equal(before.memory_limit, 64 << 20);
    assert_int_equal(before.pids, 1);
    assert_int_equal(before.pids_limit, 33);
    assert_in_range(before.taken_at_ms, zl_clock_wall_ms() - 5000, zl_clock_wall_ms());
    assert_int_equal(zl_netns_run(netns, knock, &address), 0);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_true(a.reply.stats.net_rx_bytes >= before.net_rx_bytes + 20 * 40);
    assert_true(a.reply.stats.net_tx_bytes >= before.net_tx_bytes + 20 * 40);
    forever(w, &spec); /* without limits, without a network */
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    assert_true(a.reply.stats.memory_limit == UINT64_MAX);
    assert_true(a.reply.stats.pids_limit == UINT64_MAX);
    assert_int_equal(a.reply.stats.net_rx_bytes, 0);
    assert_int_equal(zl_netns_unpin(path), 0);
}

static void block_devices_are_counted_where_the_kernel_does(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    struct zl_cgroup g;
    zl_auto_buf log = ZL_BUF_INIT;
    world_spec(w, &spec, ARGV("direct", "4096", "say", "tried", "forever"));
    world_run(w, &spec);
    world_says(w, spec.id, "tried");
    world_log(w, spec.id, &log);
    assert_int_equal(zl_usage_find_group(w->cgroup_parent, spec.id, &g), 0);
    bool counted = g.layout == ZL_CGROUP_V2 || g.dir[ZL_CONTROLLER_BLKIO][0];
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    if (strstr(log.p, "direct: written") && counted && a.reply.stats.block_write_bytes > 0)
        assert_in_range(a.reply.stats.block_write_bytes, 4 << 20, 64 << 20);
    else
        print_message("no block device was written to: %s", log.p);
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    (void)world_outcome(w, spec.id);
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++)
        assert_true(!g.dir[c][0] || access(g.dir[c], F_OK) < 0);
}

static void the_process_list_is_whole_or_says_that_it_is_not(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    world_spec(w, &spec, ARGV("children", "300", "say", "made", "forever"));
    world_run(w, &spec);
    world_says(w, spec.id, "made");
    assert_int_equal(world_top(w, spec.id, &a), 0);
    assert_int_equal(a.reply.top.total, 301);
    assert_int_equal(a.reply.top.n, 256);
    assert_non_null(strstr(a.out, "/workload children 300 say made forever\n"));
    assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
    (void)world_outcome(w, spec.id);
    assert_int_equal(world_top(w, spec.id, &a), ZL_E_CONFLICT);
}

static unsigned children_of(pid_t pid)
{
    char path[64];
    zl_auto_buf b = ZL_BUF_INIT;
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    assert_int_equal(zl_read_file(AT_FDCWD, path, 65536, &b), 0);
    for (size_t i = 0; i < b.n; i++)
        n += b.p[i] == ' ';
    return n;
}

static unsigned descriptors_of(pid_t pid)
{
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void everything_is_reaped_and_closed(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    forever(w, &spec);
    pid_t pid = shim_of(w, spec.id);
    world_pass(w, 20);
    unsigned before = descriptors_of(pid);
    assert_int_equal(children_of(pid), 1);
    for (int i = 0; i < 40; i++) {
        const char *const commands[4][4] = { { "/workload", "orphan", "30", NULL },
                                             { "/workload", "signal", "9", NULL },
                                             { "/no-such", "x", "y", NULL },
                                             { "/workload", "exit", "1", NULL } };
        struct zl_rt_exec exec = { .argv = commands[i % 4], .nargv = 3 };
        (void)!world_exec(w, spec.id, &exec, &a);
        assert_int_equal(world_top(w, spec.id, &a), 0);
    }
    for (uint64_t end = zl_clock_mono_ms() + 5000; children_of(pid) > 1 && zl_clock_mono_ms() < end;)
        world_pass(w, 5);
    assert_int_equal(children_of(pid), 1);
    world_pass(w, 20);
    assert_in_range(descriptors_of(pid), 1, before);
}

static void an_agent_that_breaks_off_at_the_gate_leaves_nothing(void **state)
{
    struct world *w = *state;
    static const char noise[] = "neither a frame nor the start of one";
    for (int i = 0; i < 3; i++) {
        struct zl_rt_spec spec;
        static struct answer a;
        zl_auto_buf b = ZL_BUF_INIT;
        world_spec(w, &spec, ARGV("exit", "0"));
        assert_int_equal(world_create(w, &spec, &a), 0);
        struct instance *in = instance_find(ZL_CONTAINER_OF(w->rt, struct native, base), spec.id);
        assert_non_null(in);
        zl_frame_end(&b, zl_frame_begin(&b, ZL_SH_MAGIC, ZL_SH_VERSION, i == 1 ? ZL_SH_STATS : ZL_SH_START));
        if (i == 0) /* noise */
            assert_int_equal(send(in->gate, noise, sizeof noise, MSG_NOSIGNAL), sizeof noise);
        else if (i == 1) /* a frame that has no place there */
            assert_int_equal(send(in->gate, b.p, b.n, MSG_NOSIGNAL), (ssize_t)b.n);
        else { /* half a START, then nothing */
            assert_int_equal(send(in->gate, b.p, b.n / 2, MSG_NOSIGNAL), (ssize_t)(b.n / 2));
            world_reopen(w);
            world_list(w, &a);
        }
        a.list[0].state = ZL_RT_CREATED;
        for (uint64_t end = zl_clock_mono_ms() + 10000; a.list[0].state != ZL_RT_EXITED; world_list(w, &a)) {
            assert_true(zl_clock_mono_ms() < end);
            world_pass(w, 5);
        }
        assert_int_equal(a.reply.list.n, 1);
        assert_int_equal(a.list[0].outcome.reason, ZL_RT_REASON_RUNTIME_ERROR);
        assert_int_equal(world_remove(w, spec.id), 0);
    }
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
        T(kills_at_once_and_an_exit_beside_them_give_one_true_end),
        T(a_command_out_of_memory_is_not_the_containers_end),
        T(ends_by_themselves_are_told_apart),
        T(statistics_are_in_their_units),
        T(block_devices_are_counted_where_the_kernel_does),
        T(the_process_list_is_whole_or_says_that_it_is_not),
        T(everything_is_reaped_and_closed),
        T(an_agent_that_breaks_off_at_the_gate_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
