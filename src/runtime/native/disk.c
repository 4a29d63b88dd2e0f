#include "runtime/native/disk.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/phase.h"
#include "codec/value.h"
#include "runtime/native/job.h"
#include "runtime/native/replies.h"
#include "sys/inside.h"
#include "sys/netlink.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/usage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_MAX = 64 * 1024, SETTLE_MS = 10000 };

void zl_rt_meta_print(struct zl_buf *out, const struct zl_rt_spec *spec, uint64_t created_at_ms)
{
    struct zl_arena arena;
    char address[INET_ADDRSTRLEN] = "";
    zl_arena_init(&arena);
    struct zl_value *m = zl_value_new(&arena, ZL_MAP);
    const struct {
        const char *key, *value;
    } texts[] = { { "deployment", spec->deployment },
                  { "service", spec->service },
                  { "image", spec->image },
                  { "note", spec->note },
                  { "address",
                    spec->address.s_addr ? inet_ntop(AF_INET, &spec->address, address, sizeof address) : "" } };
    zl_value_set(&arena, m, "version", zl_value_int(&arena, 1));
    for (size_t i = 0; i < ZL_ARRAY_LEN(texts); i++)
        zl_value_set(&arena, m, texts[i].key, zl_value_string(&arena, zl_str(texts[i].value ? texts[i].value : "")));
    zl_value_set(&arena, m, "slot", zl_value_int(&arena, spec->slot));
    zl_value_set(&arena, m, "generation", zl_value_int(&arena, (int64_t)spec->generation));
    zl_value_set(&arena, m, "created_ms", zl_value_int(&arena, (int64_t)created_at_ms));
    zl_json_print(out, m, 0);
    zl_buf_putc(out, '\n');
    zl_arena_done(&arena);
}

/* A record that is not there, or too long to be one, reads as an empty one. */
static struct zl_str read_record(int dir, const char *name, struct zl_buf *text)
{
    return zl_read_file(dir, name, RECORD_MAX, text) < 0 ? ZL_STR("") : zl_buf_view(text);
}

static bool read_exit(int dir, struct zl_rt_outcome *ret)
{
    struct zl_arena arena;
    zl_auto_buf text = ZL_BUF_INIT;
    zl_arena_init(&arena);
    bool there = zl_sh_take_exit(read_record(dir, "exit", &text), &arena, ret);
    zl_arena_done(&arena);
    return there;
}

static int write_lost(int dir, struct zl_rt_outcome *o)
{
    zl_auto_buf b = ZL_BUF_INIT;
    char boot[ZL_BOOT_ID_SIZE] = "", time[ZL_TIME_TEXT_SIZE];
    ZL_IGNORE(zl_boot_id(boot)); /* an exit record is true in every boot */
    *o = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR, .code = 255, .oom_kills = o->oom_kills };
    o->finished_at_ms = zl_clock_wall_ms();
    zl_buf_printf(&b,
                  "{\"version\":1,\"reason\":\"runtime_error\",\"code\":255,\"signal\":0,\"oom_kills\":%llu,"
                  "\"finished_at\":\"%s\",\"finished_at_ms\":%llu,\"boot_id\":\"%s\"}\n",
                  (unsigned long long)o->oom_kills, zl_time_text_s(o->finished_at_ms, time),
                  (unsigned long long)o->finished_at_ms, boot);
    return zl_write_file_atomic(dir, "exit", b.p, b.n, 0640, ZL_KILL_PROOF);
}

/* Runs inside the node's namespace. */
static int delete_inside(void *arg)
{
    zl_auto_close int nl = zl_netlink_open();
    return nl < 0 ? nl : zl_link_delete(nl, arg);
}

/* The node's end of its link, by the job that it was made from; an unreadable job means there was none. */
static void remove_link(int dir)
{
    struct zl_arena arena;
    struct zl_job job;
    zl_auto_buf bytes = ZL_BUF_INIT;
    zl_arena_init(&arena);
    if (zl_read_file(dir, "job", ZL_JOB_MAX, &bytes) == 0 && zl_job_decode(&arena, zl_buf_view(&bytes), &job) == 0 &&
        job.netns[0]) {
        zl_auto_close int netns = zl_netns_open(job.netns);
        if (netns >= 0)
            ZL_IGNORE(zl_netns_run(netns, delete_inside, (void *)(uintptr_t)job.link));
    }
    zl_arena_done(&arena);
}

/*
 * Without groups: the first process, as the shim has recorded it. When it has ended, nothing is left of its process
 * namespace (the kernel sees to that first), and so of the container. A process that waits at the start gate is in no
 * record yet and ends with its shim.
 */
static int end_recorded(int dir, int timeout_ms)
{
    struct zl_arena arena;
    zl_auto_buf text = ZL_BUF_INIT;
    char boot[ZL_BOOT_ID_SIZE] = "";
    uint64_t started = 0;
    struct zl_sh_process p;
    zl_arena_init(&arena);
    bool known = zl_sh_take_process(read_record(dir, "state", &text), &arena, &p) && zl_boot_id(boot) == 0 &&
                 zl_streq(boot, p.boot_id);
    zl_arena_done(&arena);
    zl_auto_close int fd = known ? zl_pidfd_open(p.pid) : -ESRCH;
    if (fd < 0) /* ended and reaped, or of another boot */
        return fd == -ESRCH || fd == -EINVAL ? 0 : fd;
    if (zl_process_start_time(p.pid, &started) < 0 || started != p.start_time)
        return 0; /* another one has its number */
    if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return -errno;
    struct pollfd gone = { .fd = fd, .events = POLLIN };
    return poll(&gone, 1, timeout_ms) == 1 ? 0 : -EBUSY;
}

/*
 * The groups of an instance: below the agent's; an ordinary user's agents may differ in where that is, or whether there
 * are any, so that each container's job says it.
 */
static int find_groups(const struct zl_rt_disk *d, int dir, const char *id, struct zl_cgroup *g)
{
    struct zl_arena arena;
    struct zl_job job;
    zl_auto_buf bytes = ZL_BUF_INIT;
    if (!d->inside)
        return zl_usage_find_group(d->cgroup_parent, id, g);
    zl_arena_init(&arena);
    bool known =
        zl_read_file(dir, "job", ZL_JOB_MAX, &bytes) == 0 && zl_job_decode(&arena, zl_buf_view(&bytes), &job) == 0;
    int r = zl_usage_find_group(known ? job.cgroup_parent : "", id, g);
    zl_arena_done(&arena);
    return r;
}

/* Files of other ids, of an ordinary user, are removed by a process that has them. */
static int remove_trees(const struct zl_rt_disk *d, int dir, const char *const *names)
{
    int r = 0;
    for (const char *const *n = names; *n; n++) {
        int one = zl_remove_tree(dir, *n);
        r = one < 0 ? one : r;
    }
    return r < 0 && d->inside ? zl_inside_remove(d->inside, dir, names) : r;
}

/* Ends what a dead shim left: first everything that runs, so that nothing can undo what follows. */
static int settle(const struct zl_rt_disk *d, int dir, const char *id, struct zl_rt_outcome *o, struct zl_err *err)
{
    static const char *const rest[] = { "upper", "work", "merged", "shim.sock", "log.new", NULL };
    struct zl_cgroup g;
    int r = find_groups(d, dir, id, &g);
    if (r == 0 && zl_cgroup_oom_kills(&g, &o->oom_kills) < 0)
        o->oom_kills = 0;
    r = r < 0 || !d->inside ? r : end_recorded(dir, SETTLE_MS);
    r = r < 0 ? r : zl_cgroup_destroy(&g, SETTLE_MS);
    if (r < 0)
        return zl_fail_errno(err, ZL_E_RUNTIME, r, "end what is left of instance %s", id);
    if (!d->inside) /* an ordinary user's goes with the container's network, which only its shim could hurry */
        remove_link(dir);
    zl_phase("settle.ended");
    bool recorded = read_exit(dir, o);
    ZL_IGNORE(remove_trees(d, dir, rest)); /* what stays goes with the folder */
    if (!recorded && (r = write_lost(dir, o)) < 0)
        return zl_fail(err, r, "record the end of instance %s", id);
    return 0;
}

/* Whoever could take the lock knows that no shim has it; it is given back at once, as a shim never gets a second one.
 */
static int lock_free(int dir)
{
    zl_auto_close int fd = zl_openat(dir, "lock", O_RDWR, 0);
    if (fd == -ENOENT)
        return 1;
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 1;
    return errno == EWOULDBLOCK ? 0 : -errno;
}

int zl_rt_disk_lock_free(const struct zl_rt_disk *d, const char *id)
{
    zl_auto_close int dir = zl_openat(d->containers, id, O_PATH | O_DIRECTORY, 0);
    if (dir < 0)
        return dir == -ENOENT ? 1 : dir;
    return lock_free(dir);
}

int zl_rt_disk_load(const struct zl_rt_disk *d, const char *id, struct zl_arena *arena, struct zl_rt_instance *ret,
                    bool *ret_alive, struct zl_err *err)
{
    struct zl_rt_instance i = { .state = ZL_RT_EXITED };
    zl_auto_close int dir = zl_openat(d->containers, id, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return zl_fail(err, dir, "open instance %s", id);
    snprintf(i.id, sizeof i.id, "%s", id);
    zl_auto_buf meta = ZL_BUF_INIT;
    zl_auto_buf state = ZL_BUF_INIT;
    zl_sh_take_meta(read_record(dir, "meta.json", &meta), arena, &i);
    int dead = lock_free(dir);
    if (dead < 0)
        return zl_fail(err, dead, "look at the lock of instance %s", id);
    if (!dead && read_exit(dir, &i.outcome)) { /* written when nothing of it is left: its shim is about to end, too */
        *ret = i;
        *ret_alive = false;
        return 0;
    }
    if (dead) {
        int r = settle(d, dir, id, &i.outcome, err);
        if (r < 0)
            return r;
    } else {
        zl_sh_take_state(read_record(dir, "state", &state), arena, &i);
    }
    *ret = i;
    *ret_alive = !dead;
    return 0;
}

void zl_rt_disk_sweep(const struct zl_rt_disk *d, const char *name)
{
    const char *const names[] = { name, NULL };
    if (zl_str_starts(zl_str(name), ZL_STR("gone.")))
        ZL_IGNORE(remove_trees(d, d->containers, names)); /* tried again at the next start */
}

int zl_rt_disk_remove(const struct zl_rt_disk *d, const char *id, unsigned timeout_ms, struct zl_rt_outcome *ret,
                      struct zl_err *err)
{
    struct zl_rt_outcome o = { 0 };
    struct zl_cgroup g;
    zl_auto_close int dir = zl_openat(d->containers, id, O_RDONLY | O_DIRECTORY, 0);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return zl_fail(err, dir, "open instance %s", id);
    uint64_t deadline = zl_clock_mono_ms() + timeout_ms;
    int r = find_groups(d, dir, id, &g), dead;
    if (r < 0)
        return zl_fail(err, r, "find the cgroup of instance %s", id);
    for (unsigned pause_us = 200; (dead = lock_free(dir)) == 0; pause_us = ZL_MIN(pause_us * 2, 20000u)) {
        (void)zl_cgroup_kill(&g); /* its shim ends by itself then */
        if (d->inside)
            ZL_IGNORE(end_recorded(dir, 0)); /* waited for by the lock */
        if (zl_clock_mono_ms() > deadline)
            return zl_fail(err, ZL_E_RUNTIME, "the shim of instance %s does not end", id);
        struct timespec ts = { 0, (long)pause_us * 1000 };
        (void)nanosleep(&ts, NULL);
    }
    r = dead < 0 ? zl_fail(err, dead, "look at the lock of instance %s", id) : settle(d, dir, id, &o, err);
    if (r < 0)
        return r;
    *ret = o;
    zl_phase("remove.settled");
    /* Out of sight in one step: a folder that lost half its files would read as an instance of nobody. */
    char gone[ZL_ID_HEX_SIZE + 8];
    snprintf(gone, sizeof gone, "gone.%s", id);
    const char *const names[] = { gone, NULL };
    r = renameat(d->containers, id, d->containers, gone) < 0 ? -errno : 0;
    zl_phase("remove.unseen");
    r = r < 0 ? r : remove_trees(d, d->containers, names);
    return r < 0 ? zl_fail(err, r, "remove the folder of instance %s", id) : 0;
}
