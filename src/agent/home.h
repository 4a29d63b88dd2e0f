/*
 * The agent's place on disk: data dir, run dir, tag, version, and the one lock. Thread: the main one, at the start.
 * Owns: the caller, until zl_home_done. Fails: ZL_E_LOCKED (with the holder's pid), ZL_E_STORE_NEWER, ZL_E_PERMISSION,
 * ZL_E_DISK_FULL.
 */
#pragma once

#include "base/error.h"

struct zl_home {
    char data[4096], run[4096]; /* real paths */
    char tag[8];                /* 6 hex digits */
    char cgroup[24], netns[4120], socket[4120], containers[4120];
    int data_dir; /* descriptor */
    int lock;
};

/* run NULL: as docs/ARCHITECTURE.md says. */
int zl_home_open(const char *data, const char *run, struct zl_home *ret, struct zl_err *err) ZL_MUST;
void zl_home_done(struct zl_home *h);
/* The API socket, listening; a stale one is replaced. */
int zl_home_listen(const struct zl_home *h, struct zl_err *err) ZL_MUST;
void zl_home_unlink_socket(const struct zl_home *h);
/* Takes the socket's name away so that nobody new connects, and gives it back. -errno. */
int zl_home_hide_socket(const struct zl_home *h) ZL_MUST;
int zl_home_show_socket(const struct zl_home *h) ZL_MUST;
