#include "imagejob/referrers.h"

#include "imagejob/digest.h"
#include "imagejob/registry_priv.h"
#include "imagejob/upload.h"

#include <stdio.h>

/* ---- the tag that stands for the list ---- */

/* The index of a subject's referrers, or a new one. */
static int referrers_of(struct zl_registry *r, const char *tag, struct zl_arena *arena, struct zl_value **ret,
                        struct zl_err *err)
{
    struct zl_registry_manifest m;
    struct zl_parse_error pe;
    int x = zl_registry_manifest(r, tag, false, &m, err);
    if (x < 0 && x != ZL_E_IMAGE_NOT_FOUND)
        return x;
    if (x == 0) {
        x = zl_json_parse(arena, zl_buf_view(&m.body), &zl_oci_limits, ret, &pe);
        const struct zl_value *list = x < 0 ? NULL : zl_value_get(*ret, "manifests");
        zl_buf_done(&m.body);
        return list && list->kind == ZL_LIST
                   ? 0
                   : zl_fail(err, ZL_E_REGISTRY, "what stands at the tag %s is no index of referrers", tag);
    }
    *err = (struct zl_err){ 0 };
    struct zl_value *index = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, index, "schemaVersion", zl_value_int(arena, 2));
    zl_value_set(arena, index, "mediaType", zl_value_string(arena, ZL_STR("application/vnd.oci.image.index.v1+json")));
    zl_value_set(arena, index, "manifests", zl_value_new(arena, ZL_LIST));
    *ret = index;
    return 0;
}

static struct zl_value *descriptor_of(struct zl_arena *arena, const struct zl_oci_manifest *m, const char *digest,
                                      struct zl_str body)
{
    struct zl_value *document, *d = zl_value_new(arena, ZL_MAP);
    struct zl_parse_error pe;
    const char *type = *m->artifact_type || m->kind == ZL_OCI_INDEX ? m->artifact_type : m->config.media_type;
    zl_value_set(arena, d, "mediaType", zl_value_string(arena, zl_str(m->media_type)));
    zl_value_set(arena, d, "digest", zl_value_string(arena, zl_str(digest)));
    zl_value_set(arena, d, "size", zl_value_int(arena, (int64_t)body.n));
    if (*type)
        zl_value_set(arena, d, "artifactType", zl_value_string(arena, zl_str(type)));
    if (zl_json_parse(arena, body, &zl_oci_limits, &document, &pe) == 0) {
        struct zl_value *annotations = zl_value_get(document, "annotations");
        if (annotations && annotations->kind == ZL_MAP) {
            annotations->next = NULL;
            zl_value_set(arena, d, "annotations", annotations);
        }
    }
    return d;
}

static int add_referrer(struct zl_registry *r, struct zl_arena *arena, const struct zl_oci_manifest *m,
                        const char *digest, struct zl_str body, struct zl_err *err)
{
    char tag[100], sent[ZL_DIGEST_SIZE];
    struct zl_value *index;
    zl_auto_buf text = ZL_BUF_INIT;
    bool subject;
    snprintf(tag, sizeof tag, "sha256-%s", m->subject + 7);
    int x = referrers_of(r, tag, arena, &index, err);
    if (x < 0)
        return x;
    struct zl_value *list = zl_value_get(index, "manifests");
    for (const struct zl_value *i = list->first; i; i = i->next)
        if (zl_streq(zl_value_cstr(i, "digest"), digest))
            return 0;
    zl_value_append(list, descriptor_of(arena, m, digest, body));
    zl_json_print(&text, index, 0);
    return zl_registry_push_manifest(r, tag, "application/vnd.oci.image.index.v1+json", zl_buf_view(&text),
                                     zl_digest_of(text.p, text.n, sent), &subject, err);
}

int zl_registry_add_referrer(struct zl_registry *r, const struct zl_oci_manifest *m, const char *digest,
                             struct zl_str body, struct zl_err *err)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    int x = add_referrer(r, &arena, m, digest, body, err);
    zl_arena_done(&arena);
    return x < 0 ? zl_wrap(err, x, "add it to the referrers of %.19s…", m->subject) : 0;
}

/* ---- reading ---- */

enum { PAGES_MAX = 50, REFERRERS_MAX = 5000 };

/* Takes the descriptors of one page; what is none is the registry's mistake, and told. */
static int take_page(struct zl_arena *arena, const struct zl_value *page, struct zl_value *list, struct zl_err *err)
{
    const struct zl_value *manifests = zl_value_get(page, "manifests");
    if (!manifests || manifests->kind != ZL_LIST)
        return zl_fail(err, ZL_E_REGISTRY, "the list of referrers is no index");
    for (const struct zl_value *i = manifests->first; i; i = i->next) {
        if (!zl_oci_digest_valid(zl_value_str(i, "digest")))
            return zl_fail(err, ZL_E_REGISTRY, "a referrer has no digest that can be read");
        struct zl_value *row = zl_value_new(arena, ZL_MAP), *annotations = zl_value_get(i, "annotations");
        static const char *const texts[] = { "digest", "artifactType", "mediaType" };
        for (size_t k = 0; k < ZL_ARRAY_LEN(texts); k++)
            if (zl_value_str(i, texts[k]).n)
                zl_value_set(arena, row, texts[k], zl_value_string(arena, zl_value_str(i, texts[k])));
        zl_value_set(arena, row, "size", zl_value_int(arena, (int64_t)zl_value_u64(i, "size", 0)));
        if (annotations && annotations->kind == ZL_MAP) {
            struct zl_value *copy = zl_value_new(arena, ZL_MAP);
            *copy = *annotations;
            copy->next = NULL;
            zl_value_set(arena, row, "annotations", copy);
        }
        zl_value_append(list, row);
    }
    return list->count > REFERRERS_MAX ? zl_fail(err, ZL_E_LIMIT, "more than %d manifests refer to it", REFERRERS_MAX)
                                       : 0;
}

/* One page into *list; *next is where the next one is, "" behind the last. 1: the registry keeps no such lists. */
static int fetch_page(struct zl_endpoint *at, struct zl_arena *arena, char *url, size_t url_size, bool first,
                      struct zl_value *list, struct zl_err *err)
{
    struct zl_fetch_reply reply = { 0 };
    struct zl_value *page;
    struct zl_parse_error pe;
    zl_auto_buf body = ZL_BUF_INIT;
    int x;
    for (unsigned tried = 0;; tried++) {
        struct zl_text_sink sink = { &body, ZL_OCI_DOCUMENT_MAX };
        struct zl_fetch f = { .url = url,
                              .accept = "application/vnd.oci.image.index.v1+json",
                              .total_s = ZL_REGISTRY_DOCUMENT_S,
                              .sink = zl_text_sink_add,
                              .arg = &sink };
        zl_buf_clear(&body);
        x = zl_endpoint_request(at, &f, &reply, err);
        if (x == 0 && reply.status != 200 && !(first && reply.status == 404))
            x = zl_endpoint_refuse(at, &reply, err);
        if (x == 0 || !reply.transient || tried + 1 == ZL_REGISTRY_TRIES ||
            zl_endpoint_back_off(at, tried, &reply, err) < 0)
            break;
    }
    if (x == 0 && reply.status == 404)
        x = 1;
    else if (x == 0 && zl_json_parse(arena, zl_buf_view(&body), &zl_oci_limits, &page, &pe) < 0)
        x = zl_fail(err, ZL_E_REGISTRY, "the list of referrers is no JSON: %s", pe.text);
    else if (x == 0)
        x = take_page(arena, page, list, err);
    snprintf(url, url_size, "%s", reply.link);
    zl_fetch_reply_done(&reply);
    return x;
}

int zl_registry_referrers(struct zl_registry *r, const char *digest, struct zl_arena *arena, struct zl_value **ret,
                          struct zl_err *err)
{
    struct zl_endpoint *at = zl_registry_itself(r);
    char url[4096], tag[100];
    struct zl_value *index, *list = zl_value_new(arena, ZL_LIST);
    snprintf(url, sizeof url, "%s/v2/%s/referrers/%s", at->base, at->repository, digest);
    int x = 0;
    for (unsigned page = 0; x == 0 && url[0]; page++) {
        if (page == PAGES_MAX)
            return zl_fail(err, ZL_E_LIMIT, "the list of referrers has more than %d pages", PAGES_MAX);
        x = fetch_page(at, arena, url, sizeof url, page == 0, list, err);
    }
    if (x == 1) {
        snprintf(tag, sizeof tag, "sha256-%s", digest + 7);
        x = referrers_of(r, tag, arena, &index, err);
        x = x < 0 ? x : take_page(arena, index, list, err);
    }
    if (x == 0)
        *ret = list;
    return x < 0 ? zl_wrap(err, x, "list what refers to %.19s…", digest) : 0;
}
