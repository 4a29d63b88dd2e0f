/*
 * Sessions in tests: one that keeps what it hears, and looks at the shim behind it. For worlds of the native back end.
 */
#pragma once

#include "world.h"

/* One session and all that it said. */
struct talk {
    struct world *w;
    struct zl_rt_session *s;
    struct zl_buf out, errs;
    uint64_t lost;
    bool opened, over, writable;
    struct zl_err err;
    struct zl_rt_session_end end;
    bool checks; /* output is workload's `fill`: looked at, not kept */
    uint64_t n;
};

void begin(struct world *w, struct talk *t, const char *id, const struct zl_rt_session_spec *spec);
/* A command of these words, NULL at the end. */
void run(struct world *w, struct talk *t, const char *id, const char *const *argv, struct zl_rt_session_spec spec);
void done(struct talk *t);
void until_over(struct talk *t);
void until_says(struct talk *t, const char *text);
void write_text(struct talk *t, const char *text);

/* A container that says "ready" and stays. */
void forever(struct world *w, struct zl_rt_spec *spec);
pid_t shim_of(struct world *w, const char *id);
/* Of smaps_rollup: "Pss" counts what is shared in part, "Anonymous" is a process's own alone. */
long memory_kib(pid_t pid, const char *what);
long own_kib(pid_t pid);
/* A sanitizer's own memory is not looked at. */
void assert_at_most(long kib, long max);
unsigned processes(struct world *w, const char *id, struct answer *a);
void until_processes(struct world *w, const char *id, unsigned n);
