/* What a request is answered at once: facts, signals, the freezer. */
#include "base/clock.h"
#include "shim/request.h"
#include "shim/shim.h"
#include "sys/usage.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

void shim_answer_info(struct shim *s, struct shim_conn *c)
{
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_INFO);
    zl_record_add_u64(&c->out, ZL_SH_R_PID, (uint64_t)s->setup.pid);
    zl_record_add_u64(&c->out, ZL_SH_R_START_TIME, s->setup.start_time);
    zl_record_add_str(&c->out, ZL_SH_R_PHASE, zl_str(shim_phase_name(s->phase)));
    zl_record_add_u64(&c->out, ZL_SH_R_SHIM_PID, (uint64_t)getpid());
    zl_record_add_u64(&c->out, ZL_SH_R_PAUSED, zl_cgroup_frozen(&s->setup.cgroup) > 0);
    zl_frame_end(&c->out, f);
}

void shim_answer_stats(struct shim *s, struct shim_conn *c)
{
    struct zl_cgroup_stats st = { 0 };
    struct zl_usage u = { 0 };
    uint64_t kills = s->oom_seen;
    bool groups = s->job.cgroup_parent[0];
    int r = groups ? zl_cgroup_stats(&s->setup.cgroup, &st) : 0;
    if (!groups)
        shim_top_count(s, &st);
    if (r < 0) {
        shim_conn_error(c, r, "read the cgroup's counters");
        return;
    }
    ZL_IGNORE(zl_cgroup_oom_kills(&s->setup.cgroup, &kills));
    zl_usage_read(&s->setup.cgroup, s->setup.pid, &u);
    if (!groups)
        u.cpu_total_ns = st.cpu_usec * 1000;
    const struct {
        uint16_t type;
        uint64_t value;
    } facts[] = { { ZL_SH_R_CPU_USEC, st.cpu_usec },
                  { ZL_SH_R_MEMORY, st.memory_bytes },
                  { ZL_SH_R_MEMORY_LIMIT, st.memory_limit },
                  { ZL_SH_R_PIDS, st.pids },
                  { ZL_SH_R_OOM_KILLS, kills },
                  { ZL_SH_R_CPU_TOTAL_NS, u.cpu_total_ns },
                  { ZL_SH_R_CPU_SYSTEM_NS, u.cpu_system_ns },
                  { ZL_SH_R_CPUS, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN) },
                  { ZL_SH_R_NET_RX, u.net_rx_bytes },
                  { ZL_SH_R_NET_TX, u.net_tx_bytes },
                  { ZL_SH_R_BLOCK_READ, u.block_read_bytes },
                  { ZL_SH_R_BLOCK_WRITE, u.block_write_bytes },
                  { ZL_SH_R_TAKEN_MS, zl_clock_wall_ms() } };
    size_t f = zl_frame_begin(&c->out, ZL_SH_MAGIC, ZL_SH_VERSION, ZL_SH_STATS);
    for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
        zl_record_add_u64(&c->out, facts[i].type, facts[i].value);
    if (u.pids_limit != UINT64_MAX)
        zl_record_add_u64(&c->out, ZL_SH_R_PIDS_LIMIT, u.pids_limit);
    zl_frame_end(&c->out, f);
}

static int send_signal(struct shim *s, const struct shim_request_kill *k)
{
    /* Without groups the first process stands for all: its end is that of every other one. */
    bool groups = s->job.cgroup_parent[0];
    if (k->all && groups)
        return k->signal == SIGKILL ? zl_cgroup_kill(&s->setup.cgroup) : zl_cgroup_signal(&s->setup.cgroup, k->signal);
    if (syscall(SYS_pidfd_send_signal, s->setup.pidfd, k->signal, NULL, 0) < 0 && errno != ESRCH)
        return -errno;
    return 0;
}

void shim_answer_kill(struct shim *s, struct shim_conn *c, struct zl_str body)
{
    struct shim_request_kill k;
    int r = shim_request_kill(body, &k);
    if (r < 0) {
        shim_conn_error(c, r, "send a signal: there is no such one");
        c->closing = r == ZL_E_PROTOCOL;
        return;
    }
    if (k.signal == SIGKILL) {
        shim_oom_look(s); /* what the kernel killed before us was not killed by us */
        s->killed = true;
    }
    r = send_signal(s, &k);
    /* Nothing dies while it is frozen; any other signal waits for the resume. */
    if (r >= 0 && k.signal == SIGKILL && zl_cgroup_frozen(&s->setup.cgroup) > 0)
        r = zl_cgroup_freeze(&s->setup.cgroup, false);
    if (r < 0)
        shim_conn_error(c, r, "send the signal");
    else
        shim_conn_reply(c, ZL_SH_OK);
}

void shim_answer_pause(struct shim *s, struct shim_conn *c, bool on)
{
    int frozen = zl_cgroup_frozen(&s->setup.cgroup);
    if (s->phase != SHIM_RUNNING || (frozen >= 0 && (frozen > 0) == on)) {
        shim_conn_error(c, ZL_E_CONFLICT,
                        s->phase != SHIM_RUNNING ? "do that: the container is not running"
                        : on                     ? "pause the container: it is paused already"
                                                 : "resume the container: it is not paused");
        return;
    }
    int r = zl_cgroup_freeze(&s->setup.cgroup, on);
    if (r < 0 && on)
        ZL_IGNORE(zl_cgroup_freeze(&s->setup.cgroup, false)); /* all of it or nothing */
    if (r < 0)
        shim_conn_error(c, r, on ? "pause the container" : "resume the container");
    else
        shim_conn_reply(c, ZL_SH_OK);
}
