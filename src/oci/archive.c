#include "oci/archive.h"

#include "oci/read_priv.h"

#include <stdio.h>

int zl_oci_layout_check(struct zl_arena *arena, struct zl_str text, struct zl_err *err)
{
    struct zl_value *v;
    const char *version;
    int r = zl_oci_json(arena, text, "the file oci-layout", &v, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "imageLayoutVersion", "the file oci-layout", &version, err);
    if (r == 0 && !zl_str_starts(zl_str(version), ZL_STR("1.0.")))
        return zl_fail(err, ZL_E_BAD_IMAGE, "the archive has the layout version '%.20s', this reads 1.0.0", version);
    return r;
}

/* What an entry's annotations call it: containerd's full name before the reference name of the specification. */
static int name_of(struct zl_arena *arena, const struct zl_value *entry, const char **ret, struct zl_err *err)
{
    static const char *const keys[] = { "io.containerd.image.name", "org.opencontainers.image.ref.name" };
    static const char what[] = "the archive's index.json";
    const struct zl_value *notes;
    int r = zl_oci_member(entry, "annotations", ZL_MAP, what, &notes, err);
    *ret = "";
    for (size_t i = 0; r == 0 && notes && !**ret && i < ZL_ARRAY_LEN(keys); i++)
        r = zl_oci_text(arena, notes, keys[i], what, ret, err);
    return r;
}

int zl_oci_layout_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_layout *ret, struct zl_err *err)
{
    static const char what[] = "the archive's index.json";
    struct zl_value *v;
    const struct zl_value *list;
    int r = zl_oci_manifest_parse(arena, text, "application/vnd.oci.image.index.v1+json", &ret->index, err);
    r = r < 0 ? zl_wrap(err, r, "%s", what) : zl_oci_json(arena, text, what, &v, err);
    r = r < 0 ? r : zl_oci_member(v, "manifests", ZL_LIST, what, &list, err);
    if (r < 0)
        return r;
    if (ret->index.kind != ZL_OCI_INDEX || !list || list->count != ret->index.n)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is no index", what);
    ret->names = zl_arena_alloc(arena, (ret->index.n + 1) * sizeof *ret->names);
    unsigned n = 0;
    for (const struct zl_value *i = list->first; r == 0 && i; i = i->next)
        r = name_of(arena, i, &ret->names[n++], err);
    return r;
}

static int read_docker_image(struct zl_arena *arena, const struct zl_value *v, struct zl_docker_image *ret,
                             struct zl_err *err)
{
    static const char what[] = "the archive's manifest.json";
    if (v->kind != ZL_MAP)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s holds %s, not only objects", what, zl_value_kind_name(v->kind));
    int r = zl_oci_text(arena, v, "Config", what, &ret->config, err);
    r = r < 0 ? r : zl_oci_strings(arena, v, "Layers", what, &ret->layers, err);
    r = r < 0 ? r : zl_oci_strings(arena, v, "RepoTags", what, &ret->tags, err);
    if (r == 0 && !*ret->config)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s: an image has no 'Config'", what);
    if (r == 0 && ret->layers.n > ZL_OCI_LAYERS_MAX)
        return zl_fail(err, ZL_E_LIMIT, "%s: an image has more than %d layers", what, ZL_OCI_LAYERS_MAX);
    return r;
}

int zl_docker_archive_parse(struct zl_arena *arena, struct zl_str text, struct zl_items *ret, struct zl_err *err)
{
    static const char what[] = "the archive's manifest.json";
    struct zl_parse_error pe;
    struct zl_value *v;
    if (zl_json_parse(arena, text, &zl_oci_limits, &v, &pe) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is no JSON: %s (line %u, column %u)", what, pe.text, pe.line,
                       pe.column);
    if (v->kind != ZL_LIST || v->count == 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is no list of images", what);
    if (v->count > ZL_OCI_ARCHIVE_IMAGES_MAX)
        return zl_fail(err, ZL_E_LIMIT, "%s names more than %d images", what, ZL_OCI_ARCHIVE_IMAGES_MAX);
    struct zl_items items = { .v = zl_arena_alloc(arena, v->count * sizeof(void *)) };
    int r = 0;
    for (const struct zl_value *i = v->first; r == 0 && i; i = i->next) {
        struct zl_docker_image *image = zl_arena_alloc(arena, sizeof *image);
        r = read_docker_image(arena, i, image, err);
        items.v[items.n++] = image;
    }
    if (r == 0)
        *ret = items;
    return r;
}

bool zl_oci_blob_name(const char *path, char digest[72])
{
    struct zl_str p = zl_str(path), prefix = ZL_STR("blobs/sha256/");
    if (!zl_str_starts(p, prefix) || p.n != prefix.n + 64)
        return false;
    snprintf(digest, 72, "sha256:%s", path + prefix.n);
    return zl_oci_digest_valid(zl_str(digest));
}
