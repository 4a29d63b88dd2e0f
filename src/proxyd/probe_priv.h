/*
 * The prober: one probe a backend whose service asks for it, on the control thread's epoll. A backend that has not been
 * healthy yet is probed at growing pauses from 5 ms on, so that it serves as soon as it can; then at its interval.
 * Thread: the control thread's. Owns: copies of what it needs of a table. Fails: never; a probe that can't run has
 * failed.
 */
#pragma once

#include "proxyd/table_priv.h"

struct prober;

/* `changed` is called when the health of a backend has changed. */
struct prober *prober_new(int epoll, void (*changed)(void *arg), void *arg);
/* Follows a new table: new backends are probed at once, those that are gone or draining no more. */
void prober_update(struct prober *p, const struct table *t, uint64_t now_ms);
/* Runs what is due and looks at the requests for an early probe. Returns the time of the next one; UINT64_MAX: none. */
uint64_t prober_run(struct prober *p, uint64_t now_ms);
/* An event of a descriptor that the prober registered, with its data pointer. */
void prober_event(struct prober *p, void *ptr, uint32_t events, uint64_t now_ms);
