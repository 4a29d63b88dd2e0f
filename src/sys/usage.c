#include "sys/usage.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>

enum { FILE_MAX = 256 * 1024, PATH_SIZE = 512 };

static struct zl_str trim(struct zl_str s)
{
    while (s.n && (*s.p == ' ' || *s.p == '\t'))
        s = zl_str_n(s.p + 1, s.n - 1);
    return s;
}

/* The next word between blanks; .p NULL at the end. */
static struct zl_str word(struct zl_str *rest)
{
    struct zl_str s = rest->p ? trim(*rest) : *rest;
    if (!s.p || !s.n)
        return (struct zl_str){ NULL, 0 };
    return zl_str_cut(s, ' ', rest);
}

static uint64_t number(struct zl_str s)
{
    uint64_t v = 0;
    return s.p && zl_parse_u64(s, 0, UINT64_MAX, &v) == 0 ? v : 0;
}

/* The number behind `key` at the start of a line. */
static uint64_t value_of(struct zl_str text, const char *key)
{
    while (text.p && text.n) {
        struct zl_str line = zl_str_cut(text, '\n', &text);
        if (zl_str_is(word(&line), key))
            return number(word(&line));
    }
    return 0;
}

void zl_usage_take_net(struct zl_str text, struct zl_usage *u)
{
    enum { RX = 0, TX = 8 };
    while (text.p && text.n) {
        struct zl_str rest = zl_str_cut(text, '\n', &text), name = trim(zl_str_cut(rest, ':', &rest));
        if (!rest.p || zl_str_is(name, "lo"))
            continue; /* no link's line, or what does not leave the container */
        for (int i = 0; i <= TX; i++) {
            uint64_t v = number(word(&rest));
            if (i == RX)
                u->net_rx_bytes += v;
            else if (i == TX)
                u->net_tx_bytes += v;
        }
    }
}

void zl_usage_take_io_stat(struct zl_str text, struct zl_usage *u)
{
    while (text.p && text.n) {
        struct zl_str line = zl_str_cut(text, '\n', &text), w;
        while ((w = word(&line)).p) {
            struct zl_str value, key = zl_str_cut(w, '=', &value);
            if (zl_str_is(key, "rbytes"))
                u->block_read_bytes += number(value);
            else if (zl_str_is(key, "wbytes"))
                u->block_write_bytes += number(value);
        }
    }
}

void zl_usage_take_service_bytes(struct zl_str text, struct zl_usage *u)
{
    while (text.p && text.n) { /* "8:0 Read 4096" */
        struct zl_str line = zl_str_cut(text, '\n', &text), device = word(&line), what = word(&line);
        if (!device.p || !what.p)
            continue;
        if (zl_str_is(what, "Read"))
            u->block_read_bytes += number(word(&line));
        else if (zl_str_is(what, "Write"))
            u->block_write_bytes += number(word(&line));
    }
}

static struct zl_str read_in(const char *dir, const char *file, struct zl_buf *b)
{
    char path[PATH_SIZE];
    if (!dir[0] || snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path ||
        zl_read_file(AT_FDCWD, path, FILE_MAX, b) < 0)
        return (struct zl_str){ "", 0 };
    return zl_buf_view(b);
}

static uint64_t first_number(struct zl_str s, uint64_t otherwise)
{
    uint64_t v;
    struct zl_str rest;
    return zl_parse_u64(zl_str_cut(s, '\n', &rest), 0, UINT64_MAX, &v) == 0 ? v : otherwise;
}

int zl_usage_find_group(const char *parent, const char *id, struct zl_cgroup *ret)
{
    if (!parent[0]) {
        *ret = (struct zl_cgroup){ 0 };
        return 0;
    }
    int r = zl_cgroup_find_all(parent, id, UINT32_C(1) << ZL_CONTROLLER_BLKIO, ret);
    if (r == 0)
        ret->dir[ZL_CONTROLLER_DEVICES][0] = 0;
    return r;
}

void zl_usage_read(const struct zl_cgroup *g, pid_t pid, struct zl_usage *ret)
{
    enum { US = 1000 };
    struct zl_usage u = { .pids_limit = UINT64_MAX };
    zl_auto_buf b = ZL_BUF_INIT;
    const char *unified = g->dir[ZL_CONTROLLER_UNIFIED], *cpuacct = g->dir[ZL_CONTROLLER_CPUACCT];
    char net[64];
    if (cpuacct[0]) {
        u.cpu_total_ns = first_number(read_in(cpuacct, "cpuacct.usage", &b), 0);
        u.cpu_system_ns = first_number(read_in(cpuacct, "cpuacct.usage_sys", &b), 0);
    } else {
        struct zl_str stat = read_in(unified, "cpu.stat", &b);
        u.cpu_total_ns = value_of(stat, "usage_usec") * US;
        u.cpu_system_ns = value_of(stat, "system_usec") * US;
    }
    const char *pids = g->dir[ZL_CONTROLLER_PIDS][0] ? g->dir[ZL_CONTROLLER_PIDS] : unified;
    u.pids_limit = first_number(read_in(pids, "pids.max", &b), UINT64_MAX);
    if (g->layout == ZL_CGROUP_V2)
        zl_usage_take_io_stat(read_in(unified, "io.stat", &b), &u);
    else
        zl_usage_take_service_bytes(
            read_in(g->dir[ZL_CONTROLLER_BLKIO], "blkio.throttle.io_service_bytes_recursive", &b), &u);
    snprintf(net, sizeof net, "/proc/%d/net", (int)pid);
    zl_usage_take_net(read_in(net, "dev", &b), &u);
    *ret = u;
}
