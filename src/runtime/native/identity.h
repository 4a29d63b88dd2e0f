/*
 * Who a program runs as: "user[:group]" looked up in the text of an image's passwd(5) and group(5), which are hostile:
 * a line that is none is passed over. Pure. Owner: the caller; thread: any.
 */
#pragma once

#include "base/str.h"

#include <stdint.h>
#include <sys/types.h>

enum { ZL_IDENTITY_GROUPS = 64 };

struct zl_identity {
    uint64_t uid, gid;
    gid_t groups[ZL_IDENTITY_GROUPS];
    size_t ngroups;
    char home[256];
};

/* NULL, or the file in which something is missing: "passwd", "group". An empty spec is root. */
const char *zl_identity_resolve(struct zl_identity *ret, const char *spec, struct zl_str passwd, struct zl_str group);
/* The home of the user with that number, "/" where none is said. */
void zl_identity_home(struct zl_identity *id, struct zl_str uid, struct zl_str passwd);
