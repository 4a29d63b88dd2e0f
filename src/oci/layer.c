#include "oci/layer.h"

#include <errno.h>

int zl_oci_layer_path(const char *in, char ret[ZL_OCI_PATH_SIZE])
{
    struct zl_str rest = zl_str(in);
    size_t n = 0;
    int depth = 0;
    ret[0] = 0;
    while (rest.p) {
        struct zl_str part = zl_str_cut(rest, '/', &rest);
        if (part.n == 0 || zl_str_is(part, "."))
            continue;
        if (zl_str_is(part, "..") || part.n > 255 || ++depth > ZL_OCI_DEPTH_MAX || n + part.n + 2 > ZL_OCI_PATH_SIZE)
            return -EINVAL;
        if (n)
            ret[n++] = '/';
        memcpy(ret + n, part.p, part.n);
        n += part.n;
        ret[n] = 0;
    }
    return 0;
}

enum zl_oci_whiteout zl_oci_whiteout_of(const char *name)
{
    if (!zl_str_starts(zl_str(name), ZL_STR(".wh.")))
        return ZL_OCI_PLAIN;
    if (zl_streq(name, ".wh..wh..opq"))
        return ZL_OCI_OPAQUE;
    if (zl_str_starts(zl_str(name), ZL_STR(".wh..wh.")))
        return ZL_OCI_AUFS;
    const char *of = name + 4;
    return *of == 0 || zl_streq(of, ".") || zl_streq(of, "..") ? ZL_OCI_MALFORMED : ZL_OCI_WHITEOUT;
}
