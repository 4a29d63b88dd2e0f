/* Limits as they were: an update that fails half way is taken back, as far as the kernel lets it. */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <fcntl.h>

enum { VALUE_MAX = 4096 };

struct saved_value {
    const char *dir, *file, *text;
};

struct ocirun_saved {
    struct saved_value *v;
    unsigned n;
};

/* Files of one line, which is what is written to them; lists of devices are not. */
static void save(struct ocirun *r, struct ocirun_saved *s, const char *dir, const char *file)
{
    zl_auto_buf b = ZL_BUF_INIT;
    if (!dir[0] || !file || zl_read_file(AT_FDCWD, zl_arena_printf(&r->arena, "%s/%s", dir, file), VALUE_MAX, &b) < 0)
        return;
    size_t line = b.n ? strcspn(b.p, "\n") : 0;
    if (line && line + 1 >= b.n)
        s->v[s->n++] = (struct saved_value){ dir, file, zl_arena_printf(&r->arena, "%.*s", (int)line, b.p) };
}

struct ocirun_saved *ocirun_save_limits(struct ocirun *r, const struct zl_cgroup *g, const struct ocirun_values *values)
{
    static const struct {
        enum zl_controller c;
        const char *v1, *v2;
    } files[] = { { ZL_CONTROLLER_MEMORY, "memory.limit_in_bytes", "memory.max" },
                  { ZL_CONTROLLER_MEMORY, "memory.memsw.limit_in_bytes", "memory.swap.max" },
                  { ZL_CONTROLLER_CPU, "cpu.cfs_quota_us", "cpu.max" },
                  { ZL_CONTROLLER_CPU, "cpu.cfs_period_us", NULL },
                  { ZL_CONTROLLER_CPU, "cpu.shares", "cpu.weight" },
                  { ZL_CONTROLLER_PIDS, "pids.max", "pids.max" } };
    struct ocirun_saved *s = zl_arena_alloc(&r->arena, sizeof *s);
    s->v = zl_arena_alloc(&r->arena, (ZL_ARRAY_LEN(files) + values->n) * sizeof *s->v);
    for (size_t i = 0; i < ZL_ARRAY_LEN(files); i++) {
        bool v1 = g->dir[files[i].c][0] != 0;
        save(r, s, g->dir[v1 ? files[i].c : ZL_CONTROLLER_UNIFIED], v1 ? files[i].v1 : files[i].v2);
    }
    for (unsigned i = 0; i < values->n; i++) {
        const struct zl_cgroup_value *v = &values->v[i];
        bool v1 = v->controller != ZL_CONTROLLER_UNIFIED && g->dir[v->controller][0];
        save(r, s, g->dir[v1 ? v->controller : ZL_CONTROLLER_UNIFIED], v1 ? v->v1 : v->v2);
    }
    return s;
}

void ocirun_restore_limits(const struct ocirun_saved *s)
{
    enum { ROUNDS = 2 }; /* one limit may stand in another's way until that is back */
    for (int round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < s->n; i++)
            ZL_IGNORE(zl_cgroup_write(s->v[i].dir, s->v[i].file, s->v[i].text));
}
