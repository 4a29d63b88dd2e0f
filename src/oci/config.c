#include "oci/config.h"

#include "oci/read_priv.h"

static const char what[] = "the image config";

/* The keys of a map, or "key=value" of its strings. */
static int read_map(struct zl_arena *arena, const struct zl_value *map, const char *key, bool values,
                    struct zl_strings *ret, struct zl_err *err)
{
    const struct zl_value *v;
    int r = zl_oci_member(map, key, ZL_MAP, what, &v, err);
    *ret = (struct zl_strings){ 0 };
    if (r < 0 || !v || v->count == 0)
        return r;
    ret->v = zl_arena_alloc(arena, v->count * sizeof *ret->v);
    for (const struct zl_value *i = v->first; i; i = i->next) {
        if (values && i->kind != ZL_STRING)
            return zl_fail(err, ZL_E_BAD_IMAGE, "%s: '%s' holds %s, not only strings", what, key,
                           zl_value_kind_name(i->kind));
        ret->v[ret->n++] = values ? zl_arena_printf(arena, "%s=%s", i->key->text.p, i->text.p)
                                  : zl_arena_strdup(arena, i->key->text.p);
    }
    return 0;
}

/* Entries without '=' or without a name set nothing and are dropped. */
static void tidy_env(struct zl_strings *env)
{
    unsigned n = 0;
    for (unsigned i = 0; i < env->n; i++)
        if (env->v[i][0] != '=' && strchr(env->v[i], '='))
            env->v[n++] = env->v[i];
    env->n = n;
}

static int read_config(struct zl_arena *arena, const struct zl_value *c, struct zl_oci_config *ret, struct zl_err *err)
{
    static const struct {
        const char *key;
        size_t offset;
    } texts[] = { { "WorkingDir", offsetof(struct zl_oci_config, workdir) },
                  { "User", offsetof(struct zl_oci_config, user) },
                  { "StopSignal", offsetof(struct zl_oci_config, stop_signal) } };
    int r = zl_oci_strings(arena, c, "Entrypoint", what, &ret->entrypoint, err);
    r = r < 0 ? r : zl_oci_strings(arena, c, "Cmd", what, &ret->cmd, err);
    r = r < 0 ? r : zl_oci_strings(arena, c, "Env", what, &ret->env, err);
    r = r < 0 ? r : read_map(arena, c, "ExposedPorts", false, &ret->ports, err);
    r = r < 0 ? r : read_map(arena, c, "Labels", true, &ret->labels, err);
    for (size_t i = 0; r == 0 && i < ZL_ARRAY_LEN(texts); i++) {
        const char *text;
        r = zl_oci_text(arena, c, texts[i].key, what, &text, err);
        if (r == 0 && *text)
            *(const char **)(void *)((char *)ret + texts[i].offset) = text;
    }
    tidy_env(&ret->env);
    return r;
}

static int read_rootfs(struct zl_arena *arena, const struct zl_value *v, struct zl_strings *ret, struct zl_err *err)
{
    const struct zl_value *rootfs;
    const char *type;
    int r = zl_oci_member(v, "rootfs", ZL_MAP, what, &rootfs, err);
    if (r == 0 && !rootfs)
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s has no 'rootfs'", what);
    r = r < 0 ? r : zl_oci_text(arena, rootfs, "type", what, &type, err);
    r = r < 0 ? r : zl_oci_strings(arena, rootfs, "diff_ids", what, ret, err);
    if (r < 0)
        return r;
    if (!zl_streq(type, "layers"))
        return zl_fail(err, ZL_E_BAD_IMAGE, "%s: its root is of the unknown type '%.60s'", what, type);
    for (unsigned i = 0; i < ret->n; i++)
        if (!zl_oci_digest_valid(zl_str(ret->v[i])))
            return zl_fail(err, ZL_E_BAD_IMAGE, "%s: diff id %u is no sha256 digest", what, i + 1);
    return 0;
}

static int read_document(struct zl_arena *arena, const struct zl_value *v, struct zl_oci_config *ret,
                         struct zl_err *err)
{
    struct zl_oci_config c = { 0 };
    const struct zl_value *config;
    int r = zl_oci_text(arena, v, "os", what, &c.platform.os, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "architecture", what, &c.platform.architecture, err);
    r = r < 0 ? r : zl_oci_text(arena, v, "variant", what, &c.platform.variant, err);
    r = r < 0 ? r : read_rootfs(arena, v, &c.diff_ids, err);
    r = r < 0 ? r : zl_oci_member(v, "config", ZL_MAP, what, &config, err);
    if (r == 0 && config)
        r = read_config(arena, config, &c, err);
    if (r == 0)
        *ret = c;
    return r;
}

int zl_oci_config_parse(struct zl_arena *arena, struct zl_str text, struct zl_oci_config *ret, struct zl_err *err)
{
    struct zl_arena tree;
    struct zl_value *v;
    zl_arena_init(&tree);
    int r = zl_oci_json(&tree, text, what, &v, err);
    r = r < 0 ? r : read_document(arena, v, ret, err);
    zl_arena_done(&tree);
    return r;
}
