/* Times of replies (RFC 3339 in UTC) as ages. Thread: any. Owns: nothing. Fails: a text that is no time has no age. */
#pragma once

#include "base/str.h"

/* Seconds since the epoch; -EINVAL. */
int zl_time_parse(const char *text, int64_t *ret) ZL_MUST;
/* How long ago that was: "3m"; nothing for what is no time. */
void zl_since_text(struct zl_buf *out, const char *text);
