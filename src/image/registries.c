#include "image/registries.h"

#include "base/fd.h"
#include "image/credentials.h"
#include "spec/reference.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

enum { FILE_MAX = 1 << 20, MIRRORS_MAX = 8 };

static const char *const versions[] = { "v1", NULL };
static const char *const tls_names[] = { "-not said", "verify", "unverified", "none", NULL };

#define AT(member) offsetof(struct zl_registry_settings, member)
/* clang-format off */
static const struct zl_field settings_fields[] = {
    { .name = "mirrors", .kind = ZL_K_STRINGS, .offset = AT(mirrors), .flags = ZL_F_OMIT, .doc = "host[:port][/prefix], asked first" },
    { .name = "tls", .kind = ZL_K_ENUM, .offset = AT(tls), .flags = ZL_F_OMIT, .names = tls_names, .doc = "verify, unverified or none" },
    { .name = "ca", .kind = ZL_K_STRING, .offset = AT(ca), .flags = ZL_F_OMIT | ZL_F_NONEMPTY, .doc = "authorities to trust beside the system's" },
    { .name = "client_certificate", .kind = ZL_K_STRING, .offset = AT(client_certificate), .flags = ZL_F_OMIT | ZL_F_NONEMPTY, .doc = "what this node shows" },
    { .name = "client_key", .kind = ZL_K_STRING, .offset = AT(client_key), .flags = ZL_F_OMIT | ZL_F_NONEMPTY, .doc = "its key" },
};
/* clang-format on */
#undef AT

static const struct zl_value *member(const struct zl_value *v, const char *key)
{
    const struct zl_value *at = zl_value_get(v, key);
    return at ? at : v;
}

static bool mirror_valid(const char *text)
{
    char prefix[256];
    struct zl_str path, host = zl_str_cut(zl_str(text), '/', &path);
    struct zl_reference ref;
    const char *why;
    if (!zl_reference_host_valid(host))
        return false;
    if (!path.p)
        return true;
    /* Any repository below the prefix must be a name. */
    return (size_t)snprintf(prefix, sizeof prefix, "h.x/%.*s/x", ZL_STR_FMT(path)) < sizeof prefix - 128 &&
           zl_reference_parse(zl_str(prefix), &ref, &why) == 0;
}

static void check_settings(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const struct zl_registry_settings *s = object;
    if (s->mirrors.n > MIRRORS_MAX)
        zl_problem_add(d, member(v, "mirrors"), "yaml_error", NULL, "more than %d mirrors", MIRRORS_MAX);
    for (unsigned i = 0; i < s->mirrors.n; i++)
        if (!mirror_valid(s->mirrors.v[i]))
            zl_problem_add(d, member(v, "mirrors"), "yaml_error",
                           "write it without https://; how it is reached is said under its own name",
                           "the mirror '%.100s' is not of the form host[:port][/prefix]", s->mirrors.v[i]);
    const struct {
        const char *key, *path;
    } files[] = { { "ca", s->ca }, { "client_certificate", s->client_certificate }, { "client_key", s->client_key } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(files); i++)
        if (files[i].path && files[i].path[0] != '/')
            zl_problem_add(d, member(v, files[i].key), "yaml_error", NULL, "'%s' must be an absolute path",
                           files[i].key);
        else if (files[i].path && s->tls == ZL_TLS_NONE)
            zl_problem_add(d, member(v, files[i].key), "yaml_error", NULL, "'%s' means nothing with tls: none",
                           files[i].key);
    if (!s->client_certificate != !s->client_key)
        zl_problem_add(d, member(v, s->client_key ? "client_key" : "client_certificate"), "yaml_error", NULL,
                       "client_certificate and client_key belong together");
}

static const struct zl_type settings_type =
    ZL_TYPE("a registry", struct zl_registry_settings, settings_fields, .check = check_settings,
            .key_offset = offsetof(struct zl_registry_settings, host));

static void decode_version(struct zl_decoder *d, const struct zl_value *v, void *field)
{
    if (v->kind != ZL_STRING || !zl_str_is(v->text, versions[0]))
        zl_problem_add(d, v, "yaml_error", "write version: v1", "this version of the format is not known");
    *(const char **)field = versions[0];
}

static const struct zl_field file_fields[] = {
    { .name = "version",
      .kind = ZL_K_CUSTOM,
      .offset = offsetof(struct zl_registries, version),
      .flags = ZL_F_REQUIRED,
      .decode = decode_version,
      .doc = "v1" },
    { .name = "registries",
      .kind = ZL_K_MAP,
      .offset = offsetof(struct zl_registries, list),
      .type = &settings_type,
      .doc = "settings by host" },
};

/* The hosts: their names, in one spelling, and that each is there once. (A map's item knows its key only now.) */
static void check_file(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const struct zl_registries *r = object;
    const struct zl_value *map = zl_value_get(v, "registries"), *item = map && map->kind == ZL_MAP ? map->first : NULL;
    for (unsigned i = 0; i < r->list.n && item; i++, item = item->next) {
        struct zl_registry_settings *s = r->list.v[i];
        char host[256];
        if (!zl_reference_host_valid(zl_str(s->host))) {
            zl_problem_add(d, item->key, "yaml_error", "write it as image references do, without https://",
                           "'%.100s' is no host with an optional port", s->host);
            continue;
        }
        zl_reference_host(zl_str(s->host), host);
        s->host = zl_arena_strdup(d->arena, host);
        for (unsigned k = 0; k < i; k++)
            if (zl_streq(((const struct zl_registry_settings *)r->list.v[k])->host, host))
                zl_problem_add(d, item->key, "yaml_error", NULL, "'%.100s' is there twice", host);
    }
}

static const struct zl_type file_type =
    ZL_TYPE("registries.yml", struct zl_registries, file_fields, .check = check_file);

int zl_registries_parse(struct zl_arena *arena, struct zl_str text, const char *file, struct zl_registries **ret,
                        struct zl_err *err)
{
    struct zl_decoder d;
    struct zl_value *v;
    struct zl_parse_error pe;
    if (zl_yaml_parse(arena, text, &zl_limits_document, &v, &pe) < 0)
        return zl_fail(err, ZL_E_PARSE, "%.200s:%u:%u: %s", file, pe.line, pe.column, pe.text);
    zl_decoder_init(&d, arena);
    *ret = zl_decode(&d, &file_type, v);
    int r = d.count ? ZL_E_INVALID : 0;
    if (r < 0) {
        const struct zl_problem *p = d.first;
        zl_fail(err, r, "%.200s:%u:%u: %s%s%s", file, p->line, p->column, p->path && *p->path ? p->path : "",
                p->path && *p->path ? ": " : "", p->message);
        zl_hint(err, r, "%s", p->hint ? p->hint : "");
    }
    zl_decoder_done(&d);
    return r;
}

int zl_registries_load(struct zl_arena *arena, struct zl_registries **ret, struct zl_err *err)
{
    char file[4096];
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_registries *none = zl_arena_alloc(arena, sizeof *none);
    *ret = none;
    if (!zl_config_file("registries.yml", file))
        return 0;
    int r = zl_read_file(AT_FDCWD, file, FILE_MAX, &text);
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    if (r < 0)
        return zl_fail(err, r, "read %.200s", file);
    return zl_registries_parse(arena, zl_buf_view(&text), file, ret, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The files of a folder with this ending, in alphabetical order, so that nothing changes by chance. */
static struct zl_strings files_with(struct zl_arena *arena, const char *folder, const char *ending)
{
    const char **v = NULL;
    unsigned n = 0, cap = 0;
    DIR *d = opendir(folder);
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.' && zl_str_ends(zl_str(e->d_name), zl_str(ending))) {
            ZL_GROW(v, n, cap);
            v[n++] = zl_arena_printf(arena, "%s/%s", folder, e->d_name);
        }
    if (d)
        closedir(d);
    if (n)
        qsort(v, n, sizeof *v, by_name);
    struct zl_strings ret = { zl_arena_alloc(arena, (n + 1) * sizeof *ret.v), n };
    for (unsigned i = 0; i < n; i++)
        ret.v[i] = v[i];
    free(v);
    return ret;
}

static void look_in_folders(struct zl_arena *arena, struct zl_registry_settings *s)
{
    static const char *const folders[] = { "/etc/containers/certs.d", "/etc/docker/certs.d" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(folders) && s->tls != ZL_TLS_NONE; i++) {
        char folder[320];
        snprintf(folder, sizeof folder, "%s/%s", folders[i], s->host);
        if (!s->authorities.n)
            s->authorities = files_with(arena, folder, ".crt");
        if (!s->client_certificate) {
            struct zl_strings all = files_with(arena, folder, ".cert");
            const char *cert = s->client_certificate = all.n ? all.v[0] : NULL;
            if (cert) /* its own; another's may be beside it */
                s->client_key = zl_arena_printf(arena, "%.*s.key", (int)(strlen(cert) - strlen(".cert")), cert);
        }
    }
}

const struct zl_registry_settings *zl_registries_of(struct zl_arena *arena, const struct zl_registries *r,
                                                    const char *host)
{
    struct zl_registry_settings *s = zl_arena_alloc(arena, sizeof *s);
    s->host = zl_arena_strdup(arena, host);
    for (unsigned i = 0; i < r->list.n; i++) {
        const struct zl_registry_settings *one = r->list.v[i];
        if (zl_streq(one->host, host))
            *s = *one;
    }
    if (s->ca) {
        s->authorities.v = zl_arena_alloc(arena, sizeof *s->authorities.v);
        s->authorities.v[s->authorities.n++] = s->ca;
    }
    look_in_folders(arena, s);
    return s;
}

void zl_registry_mirror_split(const char *mirror, char host[256], char prefix[256])
{
    struct zl_str path;
    zl_reference_host(zl_str_cut(zl_str(mirror), '/', &path), host);
    snprintf(prefix, 256, "%.*s", (int)(path.p ? path.n : 0), path.p ? path.p : "");
}
