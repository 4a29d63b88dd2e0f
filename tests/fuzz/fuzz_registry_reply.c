/* What registries and token servers answer beside documents: headers, tokens, error bodies; and platforms as users
 * write them. What comes out must be able to stand in a header, a URL or on a terminal. */
#include "base/assert.h"
#include "oci/challenge.h"
#include "oci/platform.h"
#include "oci/reply.h"

static void check_challenge(struct zl_str text)
{
    struct zl_oci_challenge c = { 0 };
    if (zl_oci_challenge_parse(text, &c) < 0 || c.scheme == ZL_OCI_AUTH_NONE)
        return;
    for (const char *p = c.realm; *p; p++)
        zl_assert((unsigned char)*p >= 0x20 && *p != 0x7f);
    zl_assert(strlen(c.realm) < sizeof c.realm && strlen(c.scope) < sizeof c.scope);
}

static void check_positions(struct zl_str text)
{
    struct zl_str next;
    uint64_t n;
    if (zl_oci_link_next(text, &next) == 0)
        zl_assert(next.n > 0 && next.p > text.p && next.p + next.n < text.p + text.n && !memchr(next.p, '>', next.n));
    if (zl_oci_upload_range(text, &n) == 0)
        zl_assert(n != 1 && n <= (uint64_t)INT64_MAX + 1);
    if (zl_oci_content_range(text, &n) == 0)
        zl_assert(n <= INT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_oci_token token;
    struct zl_oci_platform platform;
    struct zl_str text = zl_str_n((const char *)data, size);
    char said[64];
    zl_arena_init(&arena);
    check_challenge(text);
    check_positions(text);
    if (zl_oci_token_parse(&arena, text, &token) == 0) {
        zl_assert(token.token[0] && token.expires_s >= 1 && token.expires_s <= 86400);
        for (const char *p = token.token; *p; p++)
            zl_assert((unsigned char)*p > 0x20 && (unsigned char)*p < 0x7f);
    }
    for (const char *p = zl_oci_error_text(text, said, sizeof said); *p; p++)
        zl_assert((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
    if (zl_oci_platform_parse(&arena, text, &platform) == 0)
        zl_assert(platform.os[0] && platform.architecture[0] && zl_oci_platform_fit(&platform, &platform) > 0);
    zl_arena_done(&arena);
    return 0;
}
