/*
 * Which of an index's images fits a machine, or what a user asks for. Thread: any. Owns: nothing; the host's names are
 * static. Fails: -EINVAL for what is no platform.
 */
#pragma once

#include "oci/manifest.h"

/* Of the machine this runs on; amd64 with the level of its processor (v1 to v3). */
struct zl_oci_platform zl_oci_platform_host(void);
/* "linux/arm64", "arm64", "linux/arm/v7", "windows(10.0.17763+win32k)/amd64": os, version, features, architecture,
 * variant. What is absent is the host's. */
int zl_oci_platform_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_platform *ret) ZL_MUST;
/* How well `offer` fits what is wanted: 0 not at all, else higher is better. Variants go downward: arm v7 runs v6 and
 * v5. An os.version must begin with the wanted one; each os.feature of the offer must be among the wanted. */
unsigned zl_oci_platform_fit(const struct zl_oci_platform *wanted, const struct zl_oci_platform *offer);
/* The best entry, the first among equals; NULL when none fits. Of an index that names no platform at all, which need
 * not be named (image-spec, image-index.md), the first: its config or its own index says more. */
const struct zl_oci_descriptor *zl_oci_platform_choose(const struct zl_oci_manifest *index,
                                                       const struct zl_oci_platform *wanted);
/* "linux/arm/v7", "windows(10.0.17763+win32k)/amd64". */
void zl_oci_platform_print(const struct zl_oci_platform *p, struct zl_buf *out);
