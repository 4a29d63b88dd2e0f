#include "runtime/native/replies.h"

#include "codec/value.h"
#include "runtime/native/protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

static const struct zl_parse_limits record_limits = { 64 * 1024, 8, 1000 };

void zl_sh_take_error(struct zl_str body, int fallback, struct zl_err *err)
{
    struct zl_record r;
    struct zl_str text = ZL_STR("do what was asked");
    uint64_t code = 0;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_CODE && zl_record_u64(&r, &code) < 0)
            code = 0;
        if (r.type == ZL_SH_R_TEXT)
            text = zl_str_n(r.bytes.p, ZL_MIN(r.bytes.n, (size_t)200));
    }
    int c = (int)(int64_t)code;
    if (c == -ENOSPC || c == -EDQUOT)
        (void)zl_fail_errno(err, ZL_E_DISK_FULL, c, "could not %.*s", ZL_STR_FMT(text));
    else if (c < 0 && c > -4096)
        (void)zl_fail_errno(err, fallback, c, "could not %.*s", ZL_STR_FMT(text));
    else
        (void)zl_fail(err, c < -4096 ? c : fallback, "could not %.*s", ZL_STR_FMT(text));
}

static bool reason_of(struct zl_str name, enum zl_rt_reason *ret)
{
    for (int k = ZL_RT_REASON_EXITED; k <= (int)ZL_RT_REASON_RUNTIME_ERROR; k++) {
        if (zl_str_is(name, zl_rt_reason_name((enum zl_rt_reason)k))) {
            *ret = (enum zl_rt_reason)k;
            return true;
        }
    }
    return false;
}

void zl_sh_take_end(struct zl_str body, int *ret_code, int *ret_signal)
{
    struct zl_record r;
    uint64_t v;
    *ret_code = 255;
    *ret_signal = 0;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_CODE && zl_record_u64(&r, &v) == 0)
            *ret_code = (int)(v & 0xff);
        else if (r.type == ZL_SH_R_SIGNAL && zl_record_u64(&r, &v) == 0)
            *ret_signal = (int)(v & 0x7f);
    }
}

void zl_sh_take_outcome(struct zl_str body, struct zl_rt_outcome *ret)
{
    struct zl_record r;
    uint64_t v;
    *ret = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR };
    zl_sh_take_end(body, &ret->code, &ret->signal);
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_REASON)
            (void)reason_of(r.bytes, &ret->reason);
        else if (r.type == ZL_SH_R_OOM_KILLS && zl_record_u64(&r, &v) == 0)
            ret->oom_kills = v;
        else if (r.type == ZL_SH_R_FINISHED_MS && zl_record_u64(&r, &v) == 0)
            ret->finished_at_ms = v;
    }
}

void zl_sh_take_stats(struct zl_str body, struct zl_rt_stats *s)
{
    struct zl_record r;
    uint64_t v;
    *s = (struct zl_rt_stats){ .memory_limit = UINT64_MAX, .pids_limit = UINT64_MAX };
    uint64_t cpus = 0;
    const struct {
        uint16_t type;
        uint64_t *to;
    } facts[] = { { ZL_SH_R_CPU_USEC, &s->cpu_usec },
                  { ZL_SH_R_MEMORY, &s->memory_bytes },
                  { ZL_SH_R_MEMORY_LIMIT, &s->memory_limit },
                  { ZL_SH_R_PIDS, &s->pids },
                  { ZL_SH_R_PIDS_LIMIT, &s->pids_limit },
                  { ZL_SH_R_OOM_KILLS, &s->oom_kills },
                  { ZL_SH_R_CPU_TOTAL_NS, &s->cpu_total_ns },
                  { ZL_SH_R_CPU_SYSTEM_NS, &s->cpu_system_ns },
                  { ZL_SH_R_CPUS, &cpus },
                  { ZL_SH_R_NET_RX, &s->net_rx_bytes },
                  { ZL_SH_R_NET_TX, &s->net_tx_bytes },
                  { ZL_SH_R_BLOCK_READ, &s->block_read_bytes },
                  { ZL_SH_R_BLOCK_WRITE, &s->block_write_bytes },
                  { ZL_SH_R_TAKEN_MS, &s->taken_at_ms } };
    while (zl_record_next(&body, &r) > 0) {
        if (zl_record_u64(&r, &v) < 0)
            continue;
        for (size_t i = 0; i < ZL_ARRAY_LEN(facts); i++)
            if (facts[i].type == r.type)
                *facts[i].to = v;
    }
    if (s->cpu_total_ns == 0) /* a shim of before it was told in nanoseconds */
        s->cpu_total_ns = s->cpu_usec * 1000;
    s->online_cpus = (uint32_t)ZL_MIN(cpus, (uint64_t)UINT32_MAX);
}

void zl_sh_take_info(struct zl_str body, struct zl_sh_info *ret)
{
    struct zl_record r;
    uint64_t v;
    *ret = (struct zl_sh_info){ 0 };
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_PID && zl_record_u64(&r, &v) == 0 && v <= INT32_MAX)
            ret->pid = (pid_t)v;
        else if (r.type == ZL_SH_R_PHASE)
            ret->running = zl_str_is(r.bytes, "running");
        else if (r.type == ZL_SH_R_PAUSED && zl_record_u64(&r, &v) == 0)
            ret->paused = v == 1;
    }
}

void zl_sh_take_output(struct zl_str body, struct zl_sh_output *ret)
{
    struct zl_record r;
    uint64_t v;
    *ret = (struct zl_sh_output){ .data = ZL_STR("") };
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_STREAM && zl_record_u64(&r, &v) == 0)
            ret->is_stderr = v == 2;
        else if (r.type == ZL_SH_R_DATA && r.bytes.n)
            ret->data = r.bytes;
        else if (r.type == ZL_SH_R_COUNT && zl_record_u64(&r, &v) == 0)
            ret->lost = v;
    }
}

static void take_process(struct zl_str body, struct zl_rt_process *p)
{
    struct zl_record r;
    uint64_t v;
    *p = (struct zl_rt_process){ .command = ZL_STR("") };
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_TEXT && r.bytes.n)
            p->command = r.bytes;
        if (zl_record_u64(&r, &v) < 0)
            continue;
        if (r.type == ZL_SH_R_PID && v <= INT32_MAX)
            p->pid = (pid_t)v;
        else if (r.type == ZL_SH_R_PPID && v <= INT32_MAX)
            p->ppid = (pid_t)v;
        else if (r.type == ZL_SH_R_UID && v <= UINT32_MAX)
            p->uid = (uid_t)v;
        else if (r.type == ZL_SH_R_STARTED_MS)
            p->started_at_ms = v;
        else if (r.type == ZL_SH_R_CPU_TOTAL_NS)
            p->cpu_ns = v;
        else if (r.type == ZL_SH_R_MEMORY)
            p->memory_bytes = v;
    }
}

unsigned zl_sh_take_processes(struct zl_str body, struct zl_rt_process *v, unsigned max, uint64_t *ret_total)
{
    struct zl_record r;
    unsigned n = 0;
    uint64_t total = 0;
    while (zl_record_next(&body, &r) > 0) {
        if (r.type == ZL_SH_R_PROCESS && n < max)
            take_process(r.bytes, &v[n++]);
        else if (r.type == ZL_SH_R_COUNT && zl_record_u64(&r, &total) < 0)
            total = 0;
    }
    *ret_total = ZL_MAX(total, (uint64_t)n);
    return n;
}

static struct zl_value *parse(struct zl_str text, struct zl_arena *arena)
{
    struct zl_parse_error bad;
    struct zl_value *v;
    return text.n == 0 || zl_json_parse(arena, text, &record_limits, &v, &bad) < 0 ? NULL : v;
}

void zl_sh_take_meta(struct zl_str text, struct zl_arena *arena, struct zl_rt_instance *i)
{
    struct zl_value *m = parse(text, arena);
    i->deployment = zl_value_cstr(m, "deployment");
    i->service = zl_value_cstr(m, "service");
    i->image = zl_value_cstr(m, "image");
    i->note = zl_value_cstr(m, "note");
    i->slot = (unsigned)zl_value_u64(m, "slot", 0);
    i->generation = zl_value_u64(m, "generation", 0);
    i->created_at_ms = zl_value_u64(m, "created_ms", 0);
    if (inet_pton(AF_INET, zl_value_cstr(m, "address"), &i->address) != 1)
        i->address.s_addr = 0;
}

void zl_sh_take_state(struct zl_str text, struct zl_arena *arena, struct zl_rt_instance *i)
{
    struct zl_value *s = parse(text, arena);
    uint64_t pid = zl_value_u64(s, "pid", 0);
    i->state = zl_streq(zl_value_cstr(s, "phase"), "running") ? ZL_RT_RUNNING : ZL_RT_CREATED;
    i->pid = pid <= INT32_MAX ? (pid_t)pid : 0;
}

bool zl_sh_take_process(struct zl_str text, struct zl_arena *arena, struct zl_sh_process *ret)
{
    struct zl_value *s = parse(text, arena);
    uint64_t pid = zl_value_u64(s, "pid", 0);
    *ret = (struct zl_sh_process){ .pid = pid <= INT32_MAX ? (pid_t)pid : 0,
                                   .start_time = zl_value_u64(s, "start_time", 0) };
    snprintf(ret->boot_id, sizeof ret->boot_id, "%s", zl_value_cstr(s, "boot_id"));
    return ret->pid > 0 && ret->start_time > 0;
}

bool zl_sh_take_exit(struct zl_str text, struct zl_arena *arena, struct zl_rt_outcome *ret)
{
    struct zl_value *m = parse(text, arena);
    if (!m)
        return false;
    *ret = (struct zl_rt_outcome){ .reason = ZL_RT_REASON_RUNTIME_ERROR };
    (void)reason_of(zl_str(zl_value_cstr(m, "reason")), &ret->reason);
    ret->code = (int)(zl_value_u64(m, "code", 255) & 0xff);
    ret->signal = (int)(zl_value_u64(m, "signal", 0) & 0x7f);
    ret->oom_kills = zl_value_u64(m, "oom_kills", 0);
    ret->finished_at_ms = zl_value_u64(m, "finished_at_ms", 0);
    return true;
}
