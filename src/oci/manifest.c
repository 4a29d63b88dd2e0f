#include "oci/manifest.h"
#include "oci/read_priv.h"

#include <stdio.h>

const char zl_oci_manifest_accept[] = "application/vnd.oci.image.index.v1+json, "
                                      "application/vnd.oci.image.manifest.v1+json, "
                                      "application/vnd.docker.distribution.manifest.list.v2+json, "
                                      "application/vnd.docker.distribution.manifest.v2+json";

enum media { MEDIA_UNKNOWN, MEDIA_GENERIC, MEDIA_MANIFEST, MEDIA_INDEX, MEDIA_SCHEMA1, MEDIA_CONFIG, MEDIA_LAYER };

static const struct {
    const char *name;
    enum media media;
} media_types[] = {
    { "application/vnd.oci.image.manifest.v1+json", MEDIA_MANIFEST },
    { "application/vnd.docker.distribution.manifest.v2+json", MEDIA_MANIFEST },
    { "application/vnd.oci.image.index.v1+json", MEDIA_INDEX },
    { "application/vnd.docker.distribution.manifest.list.v2+json", MEDIA_INDEX },
    { "application/vnd.docker.distribution.manifest.v1+json", MEDIA_SCHEMA1 },
    { "application/vnd.docker.distribution.manifest.v1+prettyjws", MEDIA_SCHEMA1 },
    { "application/vnd.oci.image.config.v1+json", MEDIA_CONFIG },
    { "application/vnd.docker.container.image.v1+json", MEDIA_CONFIG },
    { "application/vnd.oci.image.layer.v1.tar", MEDIA_LAYER },
    { "application/vnd.oci.image.layer.v1.tar+gzip", MEDIA_LAYER },
    { "application/vnd.oci.image.layer.v1.tar+zstd", MEDIA_LAYER },
    { "application/vnd.oci.image.layer.nondistributable.v1.tar", MEDIA_LAYER },
    { "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", MEDIA_LAYER },
    { "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", MEDIA_LAYER },
    { "application/vnd.docker.image.rootfs.diff.tar", MEDIA_LAYER },
    { "application/vnd.docker.image.rootfs.diff.tar.gzip", MEDIA_LAYER },
    { "application/vnd.docker.image.rootfs.diff.tar.zstd", MEDIA_LAYER },
    { "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", MEDIA_LAYER },
    /* What servers say that know nothing about the bytes: then the document's own words count. */
    { "application/json", MEDIA_GENERIC },
    { "application/octet-stream", MEDIA_GENERIC },
    { "text/plain", MEDIA_GENERIC },
    { "", MEDIA_GENERIC },
};

/* A content type without its parameters. */
static struct zl_str bare(const char *s)
{
    struct zl_str rest;
    return zl_str_trim(zl_str_cut(zl_str(s ? s : ""), ';', &rest));
}

static enum media media_of(struct zl_str name)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(media_types); i++)
        if (zl_str_eq_nocase(name, zl_str(media_types[i].name)))
            return media_types[i].media;
    return MEDIA_UNKNOWN;
}

bool zl_oci_digest_valid(struct zl_str d)
{
    if (d.n != 71 || !zl_str_starts(d, ZL_STR("sha256:")))
        return false;
    for (size_t i = 7; i < d.n; i++)
        if (!((d.p[i] >= '0' && d.p[i] <= '9') || (d.p[i] >= 'a' && d.p[i] <= 'f')))
            return false;
    return true;
}

const struct zl_parse_limits zl_oci_limits = { .bytes = ZL_OCI_DOCUMENT_MAX, .depth = 32, .nodes = ZL_OCI_NODES_MAX };

int zl_oci_json(struct zl_arena *arena, struct zl_str text, const char *what, struct zl_value **ret, struct zl_err *err)
{
    struct zl_parse_error pe;
    struct zl_value *v;
    if (zl_json_parse(arena, text, &zl_oci_limits, &v, &pe) < 0)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is no JSON: %s (line %u, column %u)", what, pe.text, pe.line,
                       pe.column);
    if (v->kind != ZL_MAP)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is %s, not a JSON object", what, zl_value_kind_name(v->kind));
    *ret = v;
    return 0;
}

int zl_oci_member(const struct zl_value *map, const char *key, enum zl_value_kind kind, const char *what,
                  const struct zl_value **ret, struct zl_err *err)
{
    const struct zl_value *v = zl_value_get(map, key);
    *ret = NULL;
    if (!v || v->kind == ZL_NULL)
        return 0;
    if (v->kind != kind)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s: '%s' is %s, not %s", what, key, zl_value_kind_name(v->kind),
                       zl_value_kind_name(kind));
    *ret = v;
    return 0;
}

int zl_oci_text(struct zl_arena *arena, const struct zl_value *map, const char *key, const char *what, const char **ret,
                struct zl_err *err)
{
    const struct zl_value *v;
    int r = zl_oci_member(map, key, ZL_STRING, what, &v, err);
    if (r == 0)
        *ret = v && v->text.n ? zl_arena_strdup(arena, v->text.p) : "";
    return r;
}

int zl_oci_strings(struct zl_arena *arena, const struct zl_value *map, const char *key, const char *what,
                   struct zl_strings *ret, struct zl_err *err)
{
    const struct zl_value *v;
    int r = zl_oci_member(map, key, ZL_LIST, what, &v, err);
    *ret = (struct zl_strings){ 0 };
    if (r < 0 || !v || v->count == 0)
        return r;
    ret->v = zl_arena_alloc(arena, v->count * sizeof *ret->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        if (i->kind != ZL_STRING)
            return zl_fail(err, ZL_E_BAD_IMAGE, "%s: '%s' holds %s, not only strings", what, key,
                           zl_value_kind_name(i->kind));
        ret->v[ret->n++] = zl_arena_strdup(arena, i->text.p);
    }
    return 0;
}

static int read_platform(struct zl_arena *arena, const struct zl_value *v, struct zl_oci_platform *ret,
                         struct zl_err *err)
{
    static const char what[] = "a platform";
    int r = zl_oci_text(arena, v, "os", what, &ret->os, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "architecture", what, &ret->architecture, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "variant", what, &ret->variant, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "os.version", what, &ret->os_version, err);
    return r < 0 ? r : zl_oci_strings(arena, v, "os.features", what, &ret->features, err);
}

static int read_descriptor(struct zl_arena *arena, const struct zl_value *v, const char *what,
                           struct zl_oci_descriptor *ret, struct zl_err *err)
{
    const struct zl_value *size, *platform;
    if (v->kind != ZL_MAP)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s is %s, not a descriptor", what, zl_value_kind_name(v->kind));
    int r = zl_oci_text(arena, v, "mediaType", what, &ret->media_type, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "digest", what, &ret->digest, err);
    r = r < 0 ? r : zl_oci_member(v, "size", ZL_INT, what, &size, err);
    r = r < 0 ? r : zl_oci_member(v, "platform", ZL_MAP, what, &platform, err);
    if (r < 0)
        return r;
    if (!zl_oci_digest_valid(zl_str(ret->digest)))
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s: '%.100s' is no sha256 digest", what, ret->digest);
    if (!size || size->integer < 0 || size->integer > (INT64_C(1) << 48))
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s: its size is missing or out of range", what);
    r = zl_oci_strings(arena, v, "urls", what, &ret->urls, err);
    if (r < 0)
        return r;
    ret->size = size->integer;
    ret->foreign = strstr(ret->media_type, ".nondistributable.") || strstr(ret->media_type, ".foreign.");
    ret->platform = (struct zl_oci_platform){ .os = "", .architecture = "", .variant = "" };
    return platform ? read_platform(arena, platform, &ret->platform, err) : 0;
}

static int read_items(struct zl_arena *arena, const struct zl_value *list, unsigned max, const char *what,
                      struct zl_oci_manifest *m, struct zl_err *err)
{
    if (list->count > max)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%u entries are more than the %u that are allowed", list->count, max);
    m->items = zl_arena_alloc(arena, (list->count + 1) * sizeof *m->items);
    for (const struct zl_value *i = list->first; i; i = i->next) {
        char name[32];
        snprintf(name, sizeof name, "%s %u", what, m->n + 1);
        int r = read_descriptor(arena, i, name, &m->items[m->n], err);
        if (r < 0)
            return r;
        m->n++;
    }
    return 0;
}

static int read_manifest(struct zl_arena *arena, const struct zl_value *v, struct zl_oci_manifest *m,
                         struct zl_err *err)
{
    const struct zl_value *config, *layers;
    int r = zl_oci_member(v, "config", ZL_MAP, "the manifest", &config, err);
    r = r < 0 ? r : zl_oci_member(v, "layers", ZL_LIST, "the manifest", &layers, err);
    if (r < 0)
        return r;
    if (!config || !layers)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the manifest has no '%s'", config ? "layers" : "config");
    m->kind = ZL_OCI_MANIFEST;
    r = read_descriptor(arena, config, "the config", &m->config, err);
    r = r < 0 ? r : read_items(arena, layers, ZL_OCI_LAYERS_MAX, "layer", m, err);
    if (r < 0)
        return r;
    m->artifact = media_of(bare(m->config.media_type)) != MEDIA_CONFIG;
    if (!m->artifact && m->config.size > ZL_OCI_DOCUMENT_MAX)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the config is larger than 4 MiB");
    for (unsigned i = 0; i < m->n && !m->artifact; i++)
        if (media_of(bare(m->items[i].media_type)) != MEDIA_LAYER)
            return zl_fail(err, ZL_E_BAD_IMAGE, "layer %u is of the unknown type '%.100s'", i + 1,
                           m->items[i].media_type);
    return 0;
}

static int read_subject(struct zl_arena *arena, const struct zl_value *v, struct zl_oci_manifest *m, struct zl_err *err)
{
    const struct zl_value *subject;
    struct zl_oci_descriptor d;
    m->subject = "";
    int r = zl_oci_text(arena, v, "artifactType", "the manifest", &m->artifact_type, err);
    r = r < 0 ? r : zl_oci_member(v, "subject", ZL_MAP, "the manifest", &subject, err);
    if (r < 0 || !subject)
        return r;
    r = read_descriptor(arena, subject, "the subject", &d, err);
    if (r == 0)
        m->subject = d.digest;
    return r;
}

/* What a document that does not name its type is sent as: only OCI's need not. */
static const char *type_of(struct zl_arena *arena, const struct zl_value *v, const struct zl_oci_manifest *m)
{
    const char *own = zl_value_cstr(v, "mediaType");
    return *own                      ? zl_arena_strdup(arena, own)
           : m->kind == ZL_OCI_INDEX ? "application/vnd.oci.image.index.v1+json"
                                     : "application/vnd.oci.image.manifest.v1+json";
}

/* What the document is, by what it and the server say about it. */
static int decide(struct zl_arena *arena, const struct zl_value *v, const char *content_type, enum media *ret,
                  struct zl_err *err)
{
    const struct zl_value *version;
    const char *own = "";
    int r = zl_oci_member(v, "schemaVersion", ZL_INT, "the manifest", &version, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "mediaType", "the manifest", &own, err);
    if (r < 0)
        return r;
    enum media said = media_of(bare(content_type)), is = media_of(bare(own));
    if ((version && version->integer == 1) || said == MEDIA_SCHEMA1 || is == MEDIA_SCHEMA1)
        return zl_hint(err,
                       zl_fail(err, ZL_E_BAD_IMAGE, "its manifest is of the old schema 1, which can't be verified"),
                       "push it again with a tool of this decade, or ask who publishes it to");
    if (*own && said != MEDIA_GENERIC && !zl_str_eq_nocase(bare(own), bare(content_type)))
        return zl_fail(err, ZL_E_BAD_IMAGE, "the manifest calls itself '%.80s', the registry calls it '%.80s'", own,
                       content_type);
    bool manifests = zl_value_get(v, "manifests"), layers = zl_value_get(v, "layers") || zl_value_get(v, "config");
    if (manifests && layers)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the manifest is an image and an index at once");
    enum media m = *own ? is : said != MEDIA_GENERIC ? said : manifests ? MEDIA_INDEX : MEDIA_MANIFEST;
    if (m != MEDIA_INDEX && m != MEDIA_MANIFEST)
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is no manifest that can be read", *own ? own : content_type);
    if ((m == MEDIA_INDEX) != manifests || !version || version->integer != 2)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the manifest does not have the fields of its type");
    *ret = m;
    return 0;
}

static int read_document(struct zl_arena *arena, const struct zl_value *v, const char *content_type,
                         struct zl_oci_manifest *ret, struct zl_err *err)
{
    struct zl_oci_manifest m = { 0 };
    enum media media;
    int r = decide(arena, v, content_type, &media, err);
    if (r < 0)
        return r;
    if (media == MEDIA_MANIFEST) {
        r = read_manifest(arena, v, &m, err);
    } else {
        const struct zl_value *list;
        m.kind = ZL_OCI_INDEX;
        r = zl_oci_member(v, "manifests", ZL_LIST, "the index", &list, err);
        if (r == 0 && !list)
            r = zl_fail(err, ZL_E_BAD_IMAGE, "the index has no list of manifests");
        r = r < 0 ? r : read_items(arena, list, ZL_OCI_ENTRIES_MAX, "manifest", &m, err);
    }
    r = r < 0 ? r : read_subject(arena, v, &m, err);
    m.media_type = r < 0 ? NULL : type_of(arena, v, &m);
    if (r == 0)
        *ret = m;
    return r;
}

int zl_oci_manifest_parse(struct zl_arena *arena, struct zl_str text, const char *content_type,
                          struct zl_oci_manifest *ret, struct zl_err *err)
{
    struct zl_arena tree;
    struct zl_value *v;
    zl_arena_init(&tree);
    int r = zl_oci_json(&tree, text, "the manifest", &v, err);
    r = r < 0 ? r : read_document(arena, v, content_type, ret, err);
    zl_arena_done(&tree);
    return r;
}

bool zl_oci_is_manifest_type(const char *media_type)
{
    enum media m = media_of(bare(media_type));
    return m == MEDIA_MANIFEST || m == MEDIA_INDEX || !*media_type;
}
