/*
 * Image configs (OCI image-spec, config.md), cut down to what runs a container. Thread: any.
 * Owns: what is parsed belongs to the arena. Fails: ZL_E_BAD_IMAGE with a message that names the field.
 */
#pragma once

#include "codec/fields.h"
#include "oci/manifest.h"

struct zl_oci_config {
    struct zl_oci_platform platform;
    struct zl_strings diff_ids; /* valid digests, lowest layer first */
    struct zl_strings entrypoint, cmd, env, ports;
    struct zl_strings labels;                 /* "key=value" */
    const char *workdir, *user, *stop_signal; /* NULL when not said */
};

int zl_oci_config_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_config *ret,
                        struct zl_err *err) ZL_MUST;
