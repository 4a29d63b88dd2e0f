/*
 * Where a node keeps its state and its socket. Thread: any. Owns: the place owns its strings.
 * Fails: ZL_E_INVALID for a path that can't be one.
 */
#pragma once

#include "base/error.h"

struct zl_place {
    char *data;       /* absolute: --data-dir, ZLAYER_DATA_DIR, or the default */
    char *run;        /* /var/run/zlayer for /var/lib/zlayer, of an ordinary user's default $XDG_RUNTIME_DIR/zlayer when
                         that is this user's, else <data>/run */
    char *socket;     /* <run>/zlayer.sock */
    const char *from; /* how data was chosen: "--data-dir", "ZLAYER_DATA_DIR", "default" */
};

/* `data_dir` NULL: the variable, or the default of this user. Nothing is made. */
int zl_place_find(struct zl_place *ret, const char *data_dir, struct zl_err *err) ZL_MUST;
void zl_place_done(struct zl_place *place);
#define ZL_DEFAULT_DATA_DIR "/var/lib/zlayer"
#define ZL_DEFAULT_RUN_DIR  "/var/run/zlayer"

/* The absolute path of a program of ours: beside the running one, or in ../libexec/zlayer. The caller frees *ret. */
int zl_program_find(const char *name, char **ret, struct zl_err *err) ZL_MUST;
