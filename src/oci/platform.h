/*
 * Which of an index's images fits a machine. Thread: any. Owns: nothing; the host's names are static. Fails: never.
 */
#pragma once

#include "oci/manifest.h"

/* Of the machine this runs on. */
struct zl_oci_platform zl_oci_platform_host(void);
/* How well `offer` fits: 0 not at all, else higher is better. Variants go downward: arm v7 runs v6 and v5. */
unsigned zl_oci_platform_fit(const struct zl_oci_platform *host, const struct zl_oci_platform *offer);
/* The best entry, the first among equals; NULL when none fits. */
const struct zl_oci_descriptor *zl_oci_platform_choose(const struct zl_oci_manifest *index,
                                                       const struct zl_oci_platform *host);
/* "linux/arm/v7". */
void zl_oci_platform_print(const struct zl_oci_platform *p, struct zl_buf *out);
