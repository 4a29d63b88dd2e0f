/*
 * The control thread: the agent's socket, the listeners handed over, snapshots made into tables, tables freed when all
 * workers are past them, probes. It is the program's first thread.
 * Thread: its own. Owns: every listener's descriptor, the board, the snapshot. Fails: control_run returns only to end.
 */
#pragma once

#include "proxyd/worker_priv.h"

/* `listen_fd`: the control socket. Returns the program's exit code: 0 after QUIT. */
int control_run(struct shared *shared, int listen_fd);
