#include "imagejob/credentials.h"

#include "base/fd.h"
#include "codec/base64.h"
#include "codec/value.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { CONFIG_MAX = 1 << 20 };

bool zl_credentials_folder(char *ret, unsigned size)
{
    const char *folder = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    int n = folder && *folder ? snprintf(ret, size, "%s", folder)
            : home && *home   ? snprintf(ret, size, "%s/.docker", home)
                              : -1;
    return n > 0 && (unsigned)n < size;
}

/* Keys are host names, or what older clients wrote: URLs with a path. */
static bool matches(struct zl_str key, const char *registry)
{
    struct zl_str rest;
    if (zl_str_starts(key, ZL_STR("https://")))
        key = zl_str_n(key.p + 8, key.n - 8);
    else if (zl_str_starts(key, ZL_STR("http://")))
        key = zl_str_n(key.p + 7, key.n - 7);
    key = zl_str_cut(key, '/', &rest);
    if (zl_streq(registry, "docker.io"))
        return zl_str_is(key, "index.docker.io") || zl_str_is(key, "docker.io") ||
               zl_str_is(key, "registry-1.docker.io");
    return zl_str_is(key, registry);
}

static void read_entry(const struct zl_value *entry, struct zl_credentials *ret)
{
    struct zl_str auth = zl_value_str(entry, "auth"), password;
    zl_auto_buf text = ZL_BUF_INIT;
    if (auth.p && auth.n && zl_base64_decode(&text, auth) == 0) {
        struct zl_str user = zl_str_cut(zl_buf_view(&text), ':', &password);
        if (password.p && user.n < sizeof ret->user && password.n < sizeof ret->password) {
            snprintf(ret->user, sizeof ret->user, "%.*s", ZL_STR_FMT(user));
            snprintf(ret->password, sizeof ret->password, "%.*s", ZL_STR_FMT(password));
        }
        explicit_bzero(text.p, text.n);
        return;
    }
    const char *user = zl_value_cstr(entry, "username"), *secret = zl_value_cstr(entry, "password");
    if (*user && strlen(user) < sizeof ret->user && strlen(secret) < sizeof ret->password) {
        snprintf(ret->user, sizeof ret->user, "%s", user);
        snprintf(ret->password, sizeof ret->password, "%s", secret);
    }
}

void zl_credentials_load(const char *registry, struct zl_credentials *ret)
{
    char path[4096];
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_auto_buf text = ZL_BUF_INIT;
    *ret = (struct zl_credentials){ 0 };
    if (!zl_credentials_folder(path, sizeof path - 16))
        return;
    snprintf(path + strlen(path), 16, "/config.json");
    if (zl_read_file(AT_FDCWD, path, CONFIG_MAX, &text) < 0)
        return;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, zl_buf_view(&text), &zl_limits_document, &v, &pe) == 0) {
        const struct zl_value *auths = zl_value_get(v, "auths");
        for (const struct zl_value *i = auths && auths->kind == ZL_MAP ? auths->first : NULL; i && !ret->user[0];
             i = i->next)
            if (matches(i->key->text, registry))
                read_entry(i, ret);
    }
    zl_arena_done(&arena);
    if (text.n)
        explicit_bzero(text.p, text.n);
}

void zl_credentials_done(struct zl_credentials *c)
{
    explicit_bzero(c, sizeof *c);
}
