/* Base64 (RFC 4648, section 4) for bytes inside JSON. Thread: any. Fails: -EINVAL. Owns: the caller's buffer. */
#pragma once

#include "base/str.h"

void zl_base64_encode(struct zl_buf *out, struct zl_str bytes);
int zl_base64_decode(struct zl_buf *out, struct zl_str text) ZL_MUST;
