#include "oci/platform.h"

#include <errno.h>
#include <sys/utsname.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

/* The level of the x86-64 psABI that the processor reaches: what images for amd64 name as their variant. */
static const char *amd64_level(void)
{
#ifdef __x86_64__
    unsigned a, b, c = 0, d, b7 = 0, c7, d7, ext_a, ext_b, ext_c = 0, ext_d;
    /* SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT */
    const unsigned v2 = (1u << 0) | (1u << 9) | (1u << 13) | (1u << 19) | (1u << 20) | (1u << 23);
    /* FMA, MOVBE, OSXSAVE, AVX, F16C; of leaf 7 BMI1, AVX2, BMI2; LZCNT */
    const unsigned v3 = (1u << 12) | (1u << 22) | (1u << 27) | (1u << 28) | (1u << 29);
    const unsigned v3_7 = (1u << 3) | (1u << 5) | (1u << 8), lzcnt = 1u << 5, lahf = 1u << 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid(0x80000001, &ext_a, &ext_b, &ext_c, &ext_d))
        return "";
    if ((c & v2) != v2 || !(ext_c & lahf))
        return "";
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        b7 = 0;
    return (c & v3) == v3 && (b7 & v3_7) == v3_7 && (ext_c & lzcnt) ? "v3" : "v2";
#else
    return "";
#endif
}

struct zl_oci_platform zl_oci_platform_host(void)
{
    static const char *const names[][3] = {
        { "x86_64", "amd64", "" },    { "aarch64", "arm64", "v8" },     { "armv7l", "arm", "v7" },
        { "armv6l", "arm", "v6" },    { "armv5tel", "arm", "v5" },      { "i686", "386", "" },
        { "i386", "386", "" },        { "ppc64le", "ppc64le", "" },     { "s390x", "s390x", "" },
        { "riscv64", "riscv64", "" }, { "loongarch64", "loong64", "" },
    };
    struct zl_oci_platform p = { .os = "linux", .architecture = "unknown", .variant = "", .os_version = "" };
    struct utsname u;
    if (uname(&u) == 0)
        for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++)
            if (zl_streq(u.machine, names[i][0])) {
                p.architecture = names[i][1];
                p.variant = names[i][2];
            }
    if (zl_streq(p.architecture, "amd64"))
        p.variant = amd64_level();
    return p;
}

static bool name_valid(struct zl_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= 'A' && s.p[i] <= 'Z') ||
              (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '_' || s.p[i] == '.' || s.p[i] == '-'))
            return false;
    return s.n > 0 && s.n <= 64;
}

/* "10.0.17763+win32k+other" of windows(10.0.17763+win32k+other). */
static int parse_version(struct zl_arena *arena, struct zl_str s, struct zl_oci_platform *p)
{
    struct zl_str rest, version = zl_str_cut(s, '+', &rest);
    if (!name_valid(version))
        return -EINVAL;
    p->os_version = zl_arena_strndup(arena, version.p, version.n);
    p->features.v = zl_arena_alloc(arena, (s.n / 2 + 1) * sizeof *p->features.v);
    while (rest.p) {
        struct zl_str feature = zl_str_cut(rest, '+', &rest);
        if (!name_valid(feature))
            return -EINVAL;
        p->features.v[p->features.n++] = zl_arena_strndup(arena, feature.p, feature.n);
    }
    return 0;
}

/* What other tools write for the same architecture. */
static const char *usual_name(struct zl_arena *arena, struct zl_str s)
{
    static const char *const names[][2] = { { "x86_64", "amd64" }, { "x86-64", "amd64" }, { "aarch64", "arm64" },
                                            { "i386", "386" },     { "i686", "386" },     { "armhf", "arm" } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++)
        if (zl_str_is(s, names[i][0]))
            return names[i][1];
    return zl_arena_strndup(arena, s.p, s.n);
}

int zl_oci_platform_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_platform *ret)
{
    struct zl_oci_platform host = zl_oci_platform_host(), p = { .os = host.os, .variant = "", .os_version = "" };
    struct zl_str rest, variant = { NULL, 0 }, more = { NULL, 0 }, first = zl_str_cut(text, '/', &rest);
    if (rest.p) { /* os/architecture[/variant]; a single word is the architecture */
        struct zl_str version, os = zl_str_cut(first, '(', &version);
        if (version.p &&
            (!zl_str_ends(version, ZL_STR(")")) || parse_version(arena, zl_str_n(version.p, version.n - 1), &p) < 0))
            return -EINVAL;
        if (!name_valid(os))
            return -EINVAL;
        p.os = zl_arena_strndup(arena, os.p, os.n);
        first = zl_str_cut(rest, '/', &variant);
        if (variant.p)
            variant = zl_str_cut(variant, '/', &more);
    }
    if (!name_valid(first) || more.p || (variant.p && !name_valid(variant)))
        return -EINVAL;
    p.architecture = usual_name(arena, first);
    if (variant.p)
        p.variant = zl_arena_strndup(arena, variant.p, variant.n);
    else if (zl_streq(p.architecture, host.architecture) && zl_streq(p.os, host.os))
        p.variant = host.variant;
    *ret = p;
    return 0;
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

/* "10.0.17763" fits "10.0.17763.1397"; nothing wanted fits nothing said. */
static bool version_fits(const struct zl_oci_platform *wanted, const struct zl_oci_platform *offer)
{
    const char *w = wanted->os_version ? wanted->os_version : "", *o = offer->os_version ? offer->os_version : "";
    size_t n = strlen(w);
    return n == 0 ? !*o : strncmp(w, o, n) == 0 && (o[n] == 0 || o[n] == '.');
}

static bool features_fit(const struct zl_oci_platform *wanted, const struct zl_oci_platform *offer)
{
    for (unsigned i = 0; i < offer->features.n; i++) {
        bool has = false;
        for (unsigned k = 0; k < wanted->features.n && !has; k++)
            has = zl_streq(offer->features.v[i], wanted->features.v[k]);
        if (!has)
            return false;
    }
    return true;
}

unsigned zl_oci_platform_fit(const struct zl_oci_platform *wanted, const struct zl_oci_platform *offer)
{
    if (!zl_streq(wanted->os, offer->os) || !zl_streq(wanted->architecture, offer->architecture) ||
        !version_fits(wanted, offer) || !features_fit(wanted, offer))
        return 0;
    if (offer->variant[0] && zl_streq(wanted->variant, offer->variant))
        return 10; /* also one that has no number */
    unsigned has = variant_number(wanted), wants = variant_number(offer);
    return wants == 0 || wants > has ? 0 : wants;
}

const struct zl_oci_descriptor *zl_oci_platform_choose(const struct zl_oci_manifest *index,
                                                       const struct zl_oci_platform *wanted)
{
    const struct zl_oci_descriptor *best = NULL, *unsaid = NULL;
    unsigned best_fit = 0, said = 0;
    for (unsigned i = 0; i < index->n; i++) {
        const struct zl_oci_descriptor *d = &index->items[i];
        unsigned fit = zl_oci_is_manifest_type(d->media_type) ? zl_oci_platform_fit(wanted, &d->platform) : 0;
        if (fit > best_fit) {
            best_fit = fit;
            best = d;
        }
        said += *d->platform.os && !zl_streq(d->platform.os, "unknown");
        if (!unsaid && zl_oci_is_manifest_type(d->media_type) && !*d->platform.os && !*d->platform.architecture)
            unsaid = d;
    }
    return best || said ? best : unsaid;
}

void zl_oci_platform_print(const struct zl_oci_platform *p, struct zl_buf *out)
{
    bool more = (p->os_version && *p->os_version) || p->features.n;
    zl_buf_printf(out, "%s%s%s", p->os[0] ? p->os : "unknown", more ? "(" : "",
                  more && p->os_version ? p->os_version : "");
    for (unsigned i = 0; i < p->features.n; i++)
        zl_buf_printf(out, "+%s", p->features.v[i]);
    zl_buf_printf(out, "%s/%s%s%s", more ? ")" : "", p->architecture[0] ? p->architecture : "unknown",
                  p->variant[0] ? "/" : "", p->variant);
}
