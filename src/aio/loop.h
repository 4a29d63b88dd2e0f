/*
 * The control loop: one thread, timers, descriptor watches, signals, deferred calls. libuv is behind it and is seen
 * only here and by cluster's raft back end. A *_free call never frees the object whose callback is running: the memory
 * goes at the loop's end of turn, so a callback may free its own handle.
 * Thread: the loop's own, except zl_loop_wake. Owns: the caller owns handles until it frees them.
 * Fails: *_new abort when memory is out; zl_watch_new gives -errno for a descriptor that can't be polled.
 */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stdint.h>

struct zl_loop;
struct zl_timer;
struct zl_watch;
struct zl_signal;

struct zl_loop *zl_loop_new(void);
/* Closes what is left; all handles must have been freed. Returns NULL. */
struct zl_loop *zl_loop_free(struct zl_loop *loop);
void zl_loop_run(struct zl_loop *loop);
void zl_loop_stop(struct zl_loop *loop);
uint64_t zl_loop_now_ms(struct zl_loop *loop);
/* The uv_loop_t behind it, for libraries built on libuv. */
void *zl_loop_uv(struct zl_loop *loop);
/* Runs fn at the end of this turn of the loop. */
void zl_loop_defer(struct zl_loop *loop, void (*fn)(void *arg), void *arg);

struct zl_timer *zl_timer_new(struct zl_loop *loop, void (*fn)(void *arg), void *arg);
void zl_timer_set(struct zl_timer *t, uint64_t delay_ms); /* once; replaces an earlier one */
void zl_timer_stop(struct zl_timer *t);
struct zl_timer *zl_timer_free(struct zl_timer *t);

enum { ZL_READABLE = 1, ZL_WRITABLE = 2 };
/* The descriptor stays the caller's and must outlive the watch. events 0: paused. */
int zl_watch_new(struct zl_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg,
                 struct zl_watch **ret) ZL_MUST;
void zl_watch_set(struct zl_watch *w, int events);
struct zl_watch *zl_watch_free(struct zl_watch *w);

struct zl_signal *zl_signal_new(struct zl_loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg);
struct zl_signal *zl_signal_free(struct zl_signal *s);
