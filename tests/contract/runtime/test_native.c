/* What only the native back end has: confinement, limits from inside and outside, logs, adoption, faults. Root. */
#include "world.h"

#include "base/clock.h"
#include "base/fd.h"
#include "runtime/logs.h"
#include "sys/cgroup.h"
#include "sys/netlink.h"
#include "sys/ns.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char *workload, *probe, *shim;

#define ARGV(...)                      \
    (const char *const[])              \
    {                                  \
        "/workload", __VA_ARGS__, NULL \
    }

static int setup(void **state)
{
    static struct world w;
    world_open(&w, true, workload, shim);
    zl_auto_free char *to = zl_xasprintf("%s/probe", w.layer);
    zl_auto_free char *device = zl_xasprintf("%s/layer-device", w.layer);
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, probe, 16 << 20, &b), 0);
    zl_auto_close int fd = zl_openat(AT_FDCWD, to, O_WRONLY | O_CREAT | O_EXCL, 0755);
    assert_int_equal(zl_write_full(fd, b.p, b.n), 0);
    (void)mknod(device, S_IFCHR | 0666, makedev(1, 5));
    (void)chmod(device, 0666);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

static void has(const struct zl_buf *log, const char *line)
{
    zl_auto_free char *whole = zl_xasprintf("\n%s\n", line);
    if (!log->p || (!strstr(log->p, whole) && strncmp(log->p, whole + 1, strlen(whole) - 1) != 0))
        fail_msg("no line '%s' in:\n%s", line, log->p ? log->p : "");
}

static void the_first_process_is_confined(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    zl_auto_buf log = ZL_BUF_INIT;
    const char *const argv[] = { "probe", NULL };
    const char *const env[] = { "X=from env", "PATH=/nowhere:/" };
    const struct zl_rt_file files[] = { { "hosts", ZL_STR("127.0.0.1 localhost\n") },
                                        { "hostname", ZL_STR("web-1\n") } };
    world_spec(w, &spec, argv);
    spec.env = env;
    spec.nenv = 2;
    spec.files = files;
    spec.nfiles = 2;
    spec.cwd = "/made/for-it";
    spec.limits = (struct zl_rt_limits){ .memory_bytes = 64 << 20, .cpu_millis = 500, .pids = 20 };
    world_run(w, &spec);
    const struct zl_rt_outcome *o = world_outcome(w, spec.id);
    assert_int_equal(o->code, 0);
    world_log(w, spec.id, &log);
    static const char *const facts[] = {
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "host web-1",
        "pid 1",
        "uid 0",
        "gid 0",
        "cwd /made/for-it",
        "HOME /root",
        "PATH /nowhere:/",
        "X from env",
        "fds 0 1 2",
        "/proc/interrupts null",
        "/dev/null null",
        "write /proc/sys EROFS",
        "write /sys EROFS",
        "mount EPERM",
        "unshare EPERM",
        "setns EPERM",
        "clone3 ENOSYS",
        "bpf EPERM",
        "keyctl EPERM",
        "mknod EPERM",
        "raw socket EPERM",
        "ping socket ok",
        "layer's device EACCES",
        "write / ok",
        "write /dev/shm ok",
        "/etc/hosts: 127.0.0.1 localhost",
        "/etc/hostname: web-1",
    };
    for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
        has(&log, facts[i]);
    /* CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP */
    has(&log, "CapPrm:\t00000000800405fb");
    has(&log, "CapEff:\t00000000800405fb");
    has(&log, "CapBnd:\t00000000800405fb");
    has(&log, "CapInh:\t0000000000000000");
    has(&log, "CapAmb:\t0000000000000000");
    struct zl_cgroup g;
    assert_int_equal(zl_cgroup_find("x", "y", &g), 0);
    if (g.layout == ZL_CGROUP_V2) {
        has(&log, "/sys/fs/cgroup/memory.max: 67108864");
        has(&log, "/sys/fs/cgroup/cpu.max: 50000 100000");
        has(&log, "/sys/fs/cgroup/pids.max: 20");
    } else {
        has(&log, "/sys/fs/cgroup/memory/memory.limit_in_bytes: 67108864");
        has(&log, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us: 50000");
        has(&log, "/sys/fs/cgroup/pids/pids.max: 20");
    }
}

static void a_named_user_is_resolved_in_the_image_and_has_no_capabilities(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    zl_auto_buf log = ZL_BUF_INIT;
    static struct answer a;
    const char *const argv[] = { "/probe", NULL };
    world_spec(w, &spec, argv);
    spec.user = "web";
    world_run(w, &spec);
    assert_int_equal(world_outcome(w, spec.id)->code, 0);
    world_log(w, spec.id, &log);
    static const char *const facts[] = { "uid 1000",
                                         "gid 1001",
                                         "group 2000",
                                         "HOME /home/web",
                                         "CapEff:\t0000000000000000",
                                         "CapPrm:\t0000000000000000",
                                         "write / EACCES" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
        has(&log, facts[i]);
    world_spec(w, &spec, argv);
    spec.user = "nobody-here";
    int r = world_create(w, &spec, &a);
    r = r < 0 ? r : world_start(w, spec.id, &a);
    assert_int_equal(r, ZL_E_INVALID);
    assert_non_null(strstr(a.err.text, "nobody-here"));
}

static void the_cpu_limit_holds_as_seen_from_outside(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    world_spec(w, &spec, ARGV("burn", "60000"));
    spec.limits.cpu_millis = 200;
    world_run(w, &spec);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    uint64_t before = a.reply.stats.cpu_usec, from = zl_clock_mono_ms();
    world_pass(w, 1000);
    assert_int_equal(world_stats(w, spec.id, &a), 0);
    uint64_t used_ms = (a.reply.stats.cpu_usec - before) / 1000, passed = zl_clock_mono_ms() - from;
    assert_in_range(used_ms, 10, passed * 30 / 100);
}

static void logs_keep_streams_long_lines_and_order_and_rotate(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    zl_auto_buf log = ZL_BUF_INIT;
    zl_auto_free char *big = zl_xmalloc(40001);
    memset(big, 'x', 40000);
    big[40000] = 0;
    world_spec(w, &spec, ARGV("say", "one", "say", big, "err", "two", "say", "end"));
    world_run(w, &spec);
    (void)world_outcome(w, spec.id);
    world_log(w, spec.id, &log);
    has(&log, "one");
    has(&log, "E:two");
    has(&log, big);
    has(&log, "end");

    world_spec(w, &spec, ARGV("lines", "10000", "sleep", "700", "exit", "0"));
    spec.log_max_bytes = 65536;
    spec.log_max_files = 50;
    world_run(w, &spec);
    (void)world_outcome(w, spec.id);
    struct zl_log_reader *r;
    struct zl_log_entry e;
    struct zl_log_cursor middle = { 0, 0 };
    zl_auto_close int dir = zl_openat(AT_FDCWD, w->containers, O_RDONLY | O_DIRECTORY, 0);
    uint64_t n = 0, at = 0;
    assert_int_equal(zl_log_reader_open(dir, spec.id, &r), 0);
    while (zl_log_reader_next(r, &e) > 0) {
        char expected[40];
        if (e.partial)
            continue; /* the line that was being written when the process ended */
        snprintf(expected, sizeof expected, "line %llu", (unsigned long long)++n);
        assert_true(zl_str_is(e.text, expected));
        if (n == 2345) {
            middle = e.cursor;
            at = n;
        }
    }
    assert_true(zl_log_reader_ended(r));
    assert_true(n > 3000);
    assert_true(middle.generation > 1);
    zl_log_reader_seek(r, middle);
    for (uint64_t k = at; zl_log_reader_next(r, &e) > 0 && !e.partial;) {
        char expected[40];
        snprintf(expected, sizeof expected, "line %llu", (unsigned long long)++k);
        assert_true(zl_str_is(e.text, expected));
    }
    static const unsigned lasts[] = { 0, 1, 10, 2000, 1000000 };
    for (size_t i = 0; i < ZL_ARRAY_LEN(lasts); i++) {
        uint64_t got = 0;
        assert_int_equal(zl_log_reader_seek_last(r, lasts[i]), 0);
        while (zl_log_reader_next(r, &e) > 0)
            got += !e.partial;
        assert_int_equal(got, ZL_MIN((uint64_t)lasts[i], n));
    }
    zl_log_reader_free(r);
}

/* Checks what comes against what `workload` writes: `line` of 1 MiB, `hex`, then numbered lines. */
struct follower {
    struct zl_log_cursor cursor;
    uint64_t long_bytes, numbered;
    bool binary, torn; /* torn: the last line, of a program that was killed in it */
};

static void check_entry(struct follower *f, const struct zl_log_entry *e)
{
    char expected[40];
    f->cursor = e->cursor;
    if (f->long_bytes < 1 << 20) {
        for (size_t i = 0; i < e->text.n; i++) {
            unsigned byte = (unsigned)((f->long_bytes + i) % 251);
            assert_int_equal((unsigned char)e->text.p[i], byte == '\n' ? 255 : byte);
        }
        f->long_bytes += e->text.n;
        assert_int_equal(e->partial, f->long_bytes < 1 << 20);
        return;
    }
    if (!f->binary) {
        assert_int_equal(e->text.n, 8);
        assert_memory_equal(e->text.p, "\0\xff\xc0\x80\r\x1b[\0", 8);
        f->binary = true;
        return;
    }
    if (e->partial) {
        f->torn = true;
        return;
    }
    snprintf(expected, sizeof expected, "line %llu", (unsigned long long)++f->numbered);
    if (!zl_str_is(e->text, expected))
        fail_msg("not '%s' but '%.*s'", expected, ZL_STR_FMT(e->text));
}

static void a_follower_misses_nothing_over_rotation_and_agents(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    struct follower f = { .long_bytes = 0 };
    struct zl_log_entry e;
    struct zl_log_reader *r = NULL;
    world_spec(w, &spec,
               ARGV("line", "1024", "hex", "00ffc0800d1b5b000a", "lines", "20000", "sleep", "1500", "exit", "0"));
    spec.log_max_bytes = 65536;
    spec.log_max_files = 200;
    world_run(w, &spec);
    zl_auto_close int dir = zl_openat(AT_FDCWD, w->containers, O_RDONLY | O_DIRECTORY, 0);
    uint64_t first = 0;
    for (int round = 0; w->nevents == 0 || round == 0; round++) {
        assert_int_equal(zl_log_reader_open(dir, spec.id, &r), 0); /* a new one each time, from the last cursor */
        zl_log_reader_seek(r, f.cursor);
        int n = 0;
        while (n < 1 + round * 37 % 500 && zl_log_reader_next(r, &e) > 0) {
            check_entry(&f, &e);
            n++;
        }
        zl_log_reader_free(r);
        first = first ? first : f.cursor.generation;
        world_pass(w, 5);
        if (round % 40 == 20 && w->nevents == 0) {
            world_reopen(w);
            static struct answer a;
            world_list(w, &a);
        }
        if (w->nevents == 0 && round > 2000)
            fail_msg("it does not end");
        static struct answer a;
        world_list(w, &a);
        if (a.list[0].state == ZL_RT_EXITED)
            break;
    }
    assert_int_equal(zl_log_reader_open(dir, spec.id, &r), 0);
    zl_log_reader_seek(r, f.cursor);
    while (zl_log_reader_next(r, &e) > 0)
        check_entry(&f, &e);
    assert_true(zl_log_reader_ended(r));
    zl_log_reader_free(r);
    assert_int_equal(f.long_bytes, 1 << 20);
    assert_true(f.binary && f.numbered > 10000);
    assert_true(f.cursor.generation > first + 5);
}

static void containers_outlive_the_agent_and_are_adopted(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec runs, ends, waits;
    static struct answer a;
    const char *const argv[] = { "/workload", "say", "still here" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = ZL_ARRAY_LEN(argv) };
    world_spec(w, &runs, ARGV("say", "ready", "forever"));
    world_spec(w, &ends, ARGV("sleep", "150", "exit", "42"));
    world_spec(w, &waits, ARGV("exit", "0"));
    world_run(w, &runs);
    world_run(w, &ends);
    assert_int_equal(world_create(w, &waits, &a), 0);
    world_says(w, runs.id, "ready");
    world_reopen(w);
    struct timespec ts = { 0, 400000000 };
    (void)nanosleep(&ts, NULL); /* what happens while no agent is there */
    world_list(w, &a);
    assert_int_equal(a.reply.list.n, 3);
    for (unsigned i = 0; i < 3; i++) {
        const struct zl_rt_instance *in = &a.list[i];
        if (zl_streq(in->id, runs.id)) {
            assert_int_equal(in->state, ZL_RT_RUNNING);
            assert_true(in->pid > 0);
        } else if (zl_streq(in->id, ends.id)) {
            assert_int_equal(in->state, ZL_RT_EXITED);
            assert_int_equal(in->outcome.reason, ZL_RT_REASON_EXITED);
            assert_int_equal(in->outcome.code, 42);
        } else { /* its gate closed: never started, ended by itself */
            assert_int_equal(in->state, ZL_RT_EXITED);
            assert_int_equal(in->outcome.reason, ZL_RT_REASON_RUNTIME_ERROR);
        }
    }
    assert_int_equal(world_exec(w, runs.id, &exec, &a), 0);
    assert_string_equal(a.out, "still here\n");
    assert_int_equal(world_kill(w, runs.id, SIGTERM, false), 0);
    assert_int_equal(world_outcome(w, runs.id)->reason, ZL_RT_REASON_EXITED);
}

static pid_t shim_of(struct world *w, const char *id)
{
    zl_auto_free char *path = zl_xasprintf("%s/%s/state", w->containers, id);
    zl_auto_buf b = ZL_BUF_INIT;
    assert_int_equal(zl_read_file(AT_FDCWD, path, 4096, &b), 0);
    const char *at = strstr(b.p, "\"shim_pid\":");
    assert_non_null(at);
    return (pid_t)strtol(at + 11, NULL, 10);
}

struct fetch {
    struct in_addr to;
    char got[256];
};

static int add_local(void *arg)
{
    const struct in_addr *local = arg;
    zl_auto_close int nl = zl_netlink_open();
    return zl_addr_add(nl, (unsigned)zl_link_index(nl, "lo"), *local, 32);
}

/* Inside the node's namespace: one request to port 80 of a replica. */
static int fetch(void *arg)
{
    struct fetch *f = arg;
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr = f->to };
    for (uint64_t end = zl_clock_mono_ms() + 5000; zl_clock_mono_ms() < end;) {
        zl_auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
            int r = zl_write_full(fd, request, strlen(request));
            ssize_t n = r < 0 ? r : recv(fd, f->got, sizeof f->got - 1, 0);
            return n < 0 ? -errno : 0;
        }
        struct timespec ts = { 0, 2000000 };
        (void)nanosleep(&ts, NULL);
    }
    return -ETIMEDOUT;
}

static int link_is_there(void *arg)
{
    zl_auto_close int nl = zl_netlink_open();
    return zl_link_index(nl, arg) > 0;
}

static void a_replica_is_reached_in_the_nodes_namespace_and_its_link_goes_with_it(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    char link[ZL_RT_LINK_SIZE];
    zl_auto_free char *path = zl_xasprintf("%s/netns", w->dir);
    assert_int_equal(zl_netns_make(path), 0);
    zl_auto_close int netns = zl_netns_open(path);
    struct in_addr local = { htonl(0x0ac80001) };
    assert_int_equal(zl_netns_run(netns, add_local, &local), 0);
    for (int round = 0; round < 2; round++) { /* the address is free again at once */
        struct fetch f = { .to = { htonl(0x0ac80005) } };
        world_spec(w, &spec, ARGV("serve", "80"));
        spec.netns = path;
        spec.address = f.to;
        spec.node_address.s_addr = htonl(0x0ac80001);
        world_run(w, &spec);
        zl_rt_link_name(spec.id, link);
        assert_int_equal(zl_netns_run(netns, link_is_there, link), 1);
        assert_int_equal(zl_netns_run(netns, fetch, &f), 0);
        assert_non_null(strstr(f.got, "web-1 1"));
        assert_int_equal(world_kill(w, spec.id, SIGKILL, true), 0);
        (void)world_outcome(w, spec.id);
        assert_int_equal(zl_netns_run(netns, link_is_there, link), 0);
    }
    world_spec(w, &spec, ARGV("forever"));
    spec.netns = path;
    spec.address.s_addr = htonl(0x0ac80006);
    spec.node_address.s_addr = htonl(0x0ac80001);
    world_run(w, &spec);
    zl_rt_link_name(spec.id, link);
    assert_int_equal(kill(shim_of(w, spec.id), SIGKILL), 0);
    (void)world_outcome(w, spec.id);
    assert_int_equal(zl_netns_run(netns, link_is_there, link), 0);
    assert_int_equal(zl_netns_unpin(path), 0);
}

static void exec_changes_user_folder_and_environment_and_output_is_bounded(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    const char *const argv[] = { "probe" };
    const char *const env[] = { "X=of exec", "PATH=/" };
    struct zl_rt_exec exec = { .argv = argv, .nargv = 1, .env = env, .nenv = 2, .cwd = "/etc", .user = "web" };
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    world_run(w, &spec);
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    static const char *const facts[] = { "uid 1000\n",
                                         "gid 1001\n",
                                         "cwd /etc\n",
                                         "X of exec\n",
                                         "fds 0 1 2\n",
                                         "host web-1\n",
                                         "CapEff:\t0000000000000000\n",
                                         "Seccomp:\t2\n",
                                         "NoNewPrivs:\t1\n" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
        if (!strstr(a.out, facts[i]))
            fail_msg("no '%s' in:\n%s", facts[i], a.out);
    assert_null(strstr(a.out, "\npid 1\n"));
    exec.output_max_bytes = 10;
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(strlen(a.out), 10);
    assert_true(a.reply.exec.truncated);
    exec.user = "nobody-here";
    assert_int_equal(world_exec(w, spec.id, &exec, &a), ZL_E_INVALID);
    const char *const killed[] = { "/workload", "signal", "9" };
    exec = (struct zl_rt_exec){ .argv = killed, .nargv = 3 };
    assert_int_equal(world_exec(w, spec.id, &exec, &a), 0);
    assert_int_equal(a.reply.exec.signal, SIGKILL);
    assert_int_equal(a.reply.exec.code, 137);
}

static bool cgroup_is_gone(struct world *w, const char *id)
{
    struct zl_cgroup g;
    assert_int_equal(zl_cgroup_find(w->cgroup_parent, id, &g), 0);
    for (int c = 0; c < ZL_CONTROLLER_COUNT; c++)
        if (g.dir[c][0] && access(g.dir[c], F_OK) == 0)
            return false;
    return true;
}

static void a_killed_shim_is_a_runtime_error_and_nothing_of_it_lives_on(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    static struct answer a;
    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    world_run(w, &spec);
    world_says(w, spec.id, "ready");
    assert_int_equal(kill(shim_of(w, spec.id), SIGKILL), 0);
    assert_int_equal(world_outcome(w, spec.id)->reason, ZL_RT_REASON_RUNTIME_ERROR);
    assert_true(cgroup_is_gone(w, spec.id));

    world_spec(w, &spec, ARGV("say", "ready", "forever"));
    world_run(w, &spec);
    world_says(w, spec.id, "ready");
    pid_t pid = shim_of(w, spec.id);
    w->rt = zl_runtime_close(w->rt);
    assert_int_equal(kill(pid, SIGKILL), 0);
    siginfo_t dead;
    assert_int_equal(waitid(P_PID, (id_t)pid, &dead, WEXITED | WNOWAIT), 0); /* its lock is free from then on */
    world_reopen(w);
    world_list(w, &a);
    for (unsigned i = 0; i < a.reply.list.n; i++) {
        assert_int_equal(a.list[i].state, ZL_RT_EXITED);
        assert_int_equal(a.list[i].outcome.reason, ZL_RT_REASON_RUNTIME_ERROR);
        assert_true(cgroup_is_gone(w, a.list[i].id));
    }
}

static void a_shim_killed_in_any_phase_leaves_nothing_and_is_told(void **state)
{
    struct world *w = *state;
    static const char *const phases[] = { "shim.loaded",  "shim.attached", "shim.created", "shim.starting",
                                          "shim.started", "shim.exited",   "shim.cleaned", "shim.recorded" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(phases); i++) {
        struct zl_rt_spec spec;
        static struct answer a;
        world_spec(w, &spec, ARGV("exit", "9"));
        assert_int_equal(setenv("ZLAYER_CRASH_AT", phases[i], 1), 0);
        int r = world_create(w, &spec, &a);
        assert_int_equal(unsetenv("ZLAYER_CRASH_AT"), 0);
        if (i < 3 && r < 0) { /* before CREATED was said */
            assert_int_equal(r, ZL_E_CREATE_FAILED);
        } else {
            assert_int_equal(r, 0);
            r = world_start(w, spec.id, &a);
            const struct zl_rt_outcome *o = world_outcome(w, spec.id);
            bool recorded = zl_streq(phases[i], "shim.recorded");
            assert_int_equal(o->reason, recorded ? ZL_RT_REASON_EXITED : ZL_RT_REASON_RUNTIME_ERROR);
            assert_int_equal(o->code, recorded ? 9 : 255);
        }
        assert_true(cgroup_is_gone(w, spec.id));
        assert_int_equal(world_remove(w, spec.id), 0);
    }
}

static void a_full_disk_drops_log_lines_and_never_blocks_the_container(void **state)
{
    struct world *w = *state;
    struct zl_rt_spec spec;
    zl_auto_buf log = ZL_BUF_INIT;
    assert_int_equal(zl_mkdir_p(w->containers, 0711), 0);
    w->rt = zl_runtime_close(w->rt);
    if (mount("tmpfs", w->containers, "tmpfs", 0, "size=256k") < 0)
        fail_msg("mount a small tmpfs");
    world_reopen(w);
    world_spec(w, &spec, ARGV("lines", "20000", "sleep", "600", "exit", "7"));
    world_run(w, &spec);
    const struct zl_rt_outcome *o = world_outcome(w, spec.id);
    assert_int_equal(o->reason, ZL_RT_REASON_EXITED);
    assert_int_equal(o->code, 7);
    world_log(w, spec.id, &log);
    has(&log, "line 1");
    for (const char *p = log.p; p && *p;) { /* only whole lines */
        assert_true(strncmp(p, "line ", 5) == 0 || strstr(p, "zlayer:"));
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    assert_int_equal(world_remove(w, spec.id), 0);
    w->rt = zl_runtime_close(w->rt);
    assert_int_equal(umount2(w->containers, MNT_DETACH), 0);
    world_reopen(w);
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void a_hundred_lives_leave_no_descriptor(void **state)
{
    struct world *w = *state;
    unsigned before = 0;
    for (int i = 0; i < 30; i++) {
        struct zl_rt_spec spec;
        world_spec(w, &spec, ARGV("exit", "0"));
        world_run(w, &spec);
        (void)world_outcome(w, spec.id);
        assert_int_equal(world_remove(w, spec.id), 0);
        w->nevents = 0;
        if (i == 5)
            before = descriptors();
    }
    world_pass(w, 20);
    assert_in_range(descriptors(), 1, before);
}

int main(int argc, char **argv)
{
    workload = argc > 1 ? argv[1] : "";
    probe = argc > 2 ? argv[2] : "";
    shim = argc > 3 ? argv[3] : "";
    if (argc > 4)
        cmocka_set_test_filter(argv[4]);
    if (geteuid() != 0) {
        fprintf(stderr, "containers need root\n");
        return 77;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_first_process_is_confined),
        T(a_named_user_is_resolved_in_the_image_and_has_no_capabilities),
        T(the_cpu_limit_holds_as_seen_from_outside),
        T(logs_keep_streams_long_lines_and_order_and_rotate),
        T(a_follower_misses_nothing_over_rotation_and_agents),
        T(containers_outlive_the_agent_and_are_adopted),
        T(a_replica_is_reached_in_the_nodes_namespace_and_its_link_goes_with_it),
        T(exec_changes_user_folder_and_environment_and_output_is_bounded),
        T(a_killed_shim_is_a_runtime_error_and_nothing_of_it_lives_on),
        T(a_shim_killed_in_any_phase_leaves_nothing_and_is_told),
        T(a_full_disk_drops_log_lines_and_never_blocks_the_container),
        T(a_hundred_lives_leave_no_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
