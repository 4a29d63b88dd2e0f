/* Manifests, indexes, image configs and authentication challenges from the same bytes. */
#include "oci/challenge.h"
#include "oci/config.h"
#include "oci/layer.h"
#include "oci/platform.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_oci_manifest m;
    struct zl_oci_config c;
    struct zl_oci_challenge challenge = { 0 };
    struct zl_err err;
    struct zl_str text = zl_str_n((const char *)data, size);
    zl_arena_init(&arena);
    if (zl_oci_manifest_parse(&arena, text, NULL, &m, &err) == 0 && m.kind == ZL_OCI_INDEX) {
        struct zl_oci_platform host = zl_oci_platform_host();
        (void)zl_oci_platform_choose(&m, &host);
    }
    ZL_IGNORE(zl_oci_config_parse(&arena, text, &c, &err));
    ZL_IGNORE(zl_oci_challenge_parse(text, &challenge));
    char *name = zl_arena_strndup(&arena, text.p, text.n), path[ZL_OCI_PATH_SIZE];
    if (zl_oci_layer_path(name, path) == 0 && (path[0] == '/' || strstr(path, "/../") || zl_streq(path, "..")))
        abort();
    zl_arena_done(&arena);
    return 0;
}
