#include "oci/platform.h"

#include <sys/utsname.h>

struct zl_oci_platform zl_oci_platform_host(void)
{
    static const char *const names[][3] = {
        { "x86_64", "amd64", "" },    { "aarch64", "arm64", "v8" },     { "armv7l", "arm", "v7" },
        { "armv6l", "arm", "v6" },    { "armv5tel", "arm", "v5" },      { "i686", "386", "" },
        { "i386", "386", "" },        { "ppc64le", "ppc64le", "" },     { "s390x", "s390x", "" },
        { "riscv64", "riscv64", "" }, { "loongarch64", "loong64", "" },
    };
    struct zl_oci_platform p = { .os = "linux", .architecture = "unknown", .variant = "" };
    struct utsname u;
    if (uname(&u) == 0)
        for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++)
            if (zl_streq(u.machine, names[i][0])) {
                p.architecture = names[i][1];
                p.variant = names[i][2];
            }
    return p;
}

/* "v7" is 7; no variant stands for the architecture's first: v8 of arm64, v7 of arm (as Docker has it), v1 of amd64. */
static unsigned variant_number(const struct zl_oci_platform *p)
{
    const char *v = p->variant;
    if (v[0] == 'v' && v[1] >= '1' && v[1] <= '9' && v[2] == 0)
        return (unsigned)(v[1] - '0');
    if (v[0])
        return 0;
    return zl_streq(p->architecture, "arm64") ? 8 : zl_streq(p->architecture, "arm") ? 7 : 1;
}

unsigned zl_oci_platform_fit(const struct zl_oci_platform *host, const struct zl_oci_platform *offer)
{
    if (offer->special || !zl_streq(host->os, offer->os) || !zl_streq(host->architecture, offer->architecture))
        return 0;
    unsigned has = variant_number(host), wants = variant_number(offer);
    return wants == 0 || wants > has ? 0 : wants;
}

const struct zl_oci_descriptor *zl_oci_platform_choose(const struct zl_oci_manifest *index,
                                                       const struct zl_oci_platform *host)
{
    const struct zl_oci_descriptor *best = NULL;
    unsigned best_fit = 0;
    for (unsigned i = 0; i < index->n; i++) {
        unsigned fit = zl_oci_platform_fit(host, &index->items[i].platform);
        if (fit > best_fit) {
            best_fit = fit;
            best = &index->items[i];
        }
    }
    return best;
}

void zl_oci_platform_print(const struct zl_oci_platform *p, struct zl_buf *out)
{
    zl_buf_printf(out, "%s/%s%s%s", p->os[0] ? p->os : "unknown", p->architecture[0] ? p->architecture : "unknown",
                  p->variant[0] ? "/" : "", p->variant);
}
