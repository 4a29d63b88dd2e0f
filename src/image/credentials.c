#include "image/credentials.h"

#include "base/fd.h"
#include "codec/base64.h"
#include "codec/value.h"
#include "image/helper.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum { PATH_SIZE = 4096, FILE_MAX = 1 << 20 };

/* ---- where ---- */

static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] == '/' ? v : NULL;
}

static const char *home(void)
{
    const char *h = variable("HOME");
    const struct passwd *user = h ? NULL : getpwuid(geteuid());
    return h ? h : user ? user->pw_dir : NULL;
}

static bool join(char *ret, const char *folder, const char *name)
{
    return folder && (size_t)snprintf(ret, PATH_SIZE, "%s/%s", folder, name) < PATH_SIZE;
}

bool zl_config_file(const char *name, char *ret)
{
    char below[PATH_SIZE];
    const char *folder = variable("ZLAYER_CONFIG_DIR");
    if (!folder && geteuid() == 0)
        folder = "/etc/zlayer";
    if (folder)
        return join(ret, folder, name);
    if ((size_t)snprintf(below, sizeof below, "zlayer/%s", name) >= sizeof below)
        return false;
    if (variable("XDG_CONFIG_HOME"))
        return join(ret, variable("XDG_CONFIG_HOME"), below);
    snprintf(below, sizeof below, ".config/zlayer/%s", name);
    return join(ret, home(), below);
}

void zl_config_export(void)
{
    char folder[PATH_SIZE];
    if (geteuid() != 0 && !variable("ZLAYER_CONFIG_DIR") && zl_config_file("", folder)) {
        folder[strlen(folder) - 1] = 0;               /* the slash before no name */
        (void)setenv("ZLAYER_CONFIG_DIR", folder, 1); /* without memory the job looks in root's folder */
    }
}

bool zl_credentials_file(char *ret)
{
    const char *file = variable("ZLAYER_AUTH_FILE");
    return file ? (size_t)snprintf(ret, PATH_SIZE, "%s", file) < PATH_SIZE : zl_config_file("auth.json", ret);
}

enum { FILES = 4, DOCKERS_FILE = 1, HEADERS_MAX = 32, HEADER_MAX = 4096 };

static bool nth_file(unsigned i, char *ret)
{
    switch (i) {
    case 0:
        return zl_credentials_file(ret);
    case 1:
        return variable("DOCKER_CONFIG") ? join(ret, variable("DOCKER_CONFIG"), "config.json")
                                         : join(ret, home(), ".docker/config.json");
    case 2:
        if (variable("REGISTRY_AUTH_FILE"))
            return (size_t)snprintf(ret, PATH_SIZE, "%s", variable("REGISTRY_AUTH_FILE")) < PATH_SIZE;
        return join(ret, variable("XDG_RUNTIME_DIR"), "containers/auth.json");
    default:
        if (variable("XDG_CONFIG_HOME"))
            return join(ret, variable("XDG_CONFIG_HOME"), "containers/auth.json");
        return join(ret, home(), ".config/containers/auth.json");
    }
}

/* ---- reading ---- */

/* docker.io is kept under the address of an API that is long gone. */
static const char hub_key[] = "https://index.docker.io/v1/";

static const char *key_of(const char *registry)
{
    return zl_streq(registry, "docker.io") ? hub_key : registry;
}

static bool same_host(struct zl_str host, const char *registry)
{
    if (zl_streq(registry, "docker.io"))
        return zl_str_is(host, "index.docker.io") || zl_str_is(host, "docker.io") ||
               zl_str_is(host, "registry-1.docker.io");
    return zl_str_eq_nocase(host, zl_str(registry));
}

/* How well a key stands for a repository: 0 not at all, else longer is better. Keys are hosts, URLs as older clients
 * wrote them (their path says nothing), or a host with the beginning of a repository. */
static size_t match(struct zl_str key, const char *registry, const char *repository)
{
    struct zl_str path, rest;
    bool url = zl_str_starts(key, ZL_STR("https://")) || zl_str_starts(key, ZL_STR("http://"));
    if (url) {
        struct zl_str skipped = zl_str_cut(key, '/', &rest);
        ZL_IGNORE(skipped.n);
        key = zl_str_n(rest.p + 1, rest.n - 1);
    }
    struct zl_str host = zl_str_cut(key, '/', &path);
    if (!same_host(host, registry))
        return 0;
    if (url || !path.p || path.n == 0 || zl_str_is(path, "v1/") || zl_str_is(path, "v2/"))
        return 1;
    size_t n = path.n;
    bool begins = zl_str_starts(zl_str(repository), path) && (repository[n] == 0 || repository[n] == '/');
    return begins ? 1 + n : 0;
}

static void copy(char *ret, size_t size, struct zl_str s)
{
    snprintf(ret, size, "%.*s", (int)(s.n < size ? s.n : 0), s.p ? s.p : "");
}

static void read_entry(const struct zl_value *entry, struct zl_credentials *ret)
{
    struct zl_str password, auth = zl_value_str(entry, "auth");
    zl_auto_buf text = ZL_BUF_INIT;
    if (auth.n && zl_base64_decode(&text, auth) == 0) {
        struct zl_str user = zl_str_cut(zl_buf_view(&text), ':', &password);
        while (password.n && password.p[password.n - 1] == 0) /* older clients padded it */
            password.n--;
        copy(ret->user, sizeof ret->user, password.p ? user : ZL_STR(""));
        copy(ret->password, sizeof ret->password, password);
        explicit_bzero(text.p, text.n);
    } else {
        copy(ret->user, sizeof ret->user, zl_value_str(entry, "username"));
        copy(ret->password, sizeof ret->password, zl_value_str(entry, "password"));
    }
    copy(ret->identity_token, sizeof ret->identity_token, zl_value_str(entry, "identitytoken"));
    copy(ret->registry_token, sizeof ret->registry_token, zl_value_str(entry, "registrytoken"));
}

/* The helper of a file for a registry, or NULL. */
static const char *helper_of(const struct zl_value *file, const char *registry)
{
    const struct zl_value *helpers = zl_value_get(file, "credHelpers");
    for (const struct zl_value *i = helpers && helpers->kind == ZL_MAP ? helpers->first : NULL; i; i = i->next)
        if (match(i->key->text, registry, "") && i->kind == ZL_STRING)
            return i->text.p;
    const char *store = zl_value_cstr(file, "credsStore");
    return *store ? store : NULL;
}

static int ask_helper(const char *helper, const char *registry, struct zl_credentials *ret, struct zl_err *err)
{
    struct zl_arena arena;
    struct zl_value *v;
    struct zl_parse_error pe;
    zl_auto_buf out = ZL_BUF_INIT;
    int r = zl_helper_run(helper, "get", zl_str(key_of(registry)), &out, err);
    if (r < 0)
        return r;
    zl_arena_init(&arena);
    if (zl_json_parse(&arena, zl_buf_view(&out), &zl_limits_document, &v, &pe) < 0 || !*zl_value_cstr(v, "Secret")) {
        r = zl_fail(err, ZL_E_INVALID, "the credential helper %.60s wrote no credentials", helper);
    } else if (zl_streq(zl_value_cstr(v, "Username"), "<token>")) {
        copy(ret->identity_token, sizeof ret->identity_token, zl_value_str(v, "Secret"));
    } else {
        copy(ret->user, sizeof ret->user, zl_value_str(v, "Username"));
        copy(ret->password, sizeof ret->password, zl_value_str(v, "Secret"));
    }
    zl_arena_done(&arena);
    explicit_bzero(out.p, out.n);
    return r;
}

/* 0, also for a file that is not there (*ret NULL); the text holds secrets and is the caller's to wipe. */
static int load(const char *file, struct zl_arena *arena, struct zl_buf *text, struct zl_value **ret,
                struct zl_err *err)
{
    struct zl_parse_error pe;
    *ret = NULL;
    int r = zl_read_file(AT_FDCWD, file, FILE_MAX, text);
    if (r == -ENOENT || r == -ENOTDIR || (r == 0 && zl_str_trim(zl_buf_view(text)).n == 0))
        return 0;
    if (r < 0)
        return zl_fail(err, r, "read %.150s", file);
    if (zl_json_parse(arena, zl_buf_view(text), &zl_limits_document, ret, &pe) < 0)
        return zl_fail(err, ZL_E_PARSE, "%.150s:%u:%u: %s", file, pe.line, pe.column, pe.text);
    if ((*ret)->kind != ZL_MAP) {
        *ret = NULL;
        return zl_fail(err, ZL_E_PARSE, "%.150s is no JSON object", file);
    }
    return 0;
}

static int find_in(const struct zl_value *file, const char *registry, const char *repository,
                   struct zl_credentials *ret, struct zl_err *err)
{
    const char *helper = helper_of(file, registry);
    int r = helper ? ask_helper(helper, registry, ret, err) : 0;
    if (r < 0 && r != ZL_E_NOT_FOUND)
        return r;
    const struct zl_value *auths = zl_value_get(file, "auths"), *best = NULL;
    size_t best_match = 0;
    if (zl_credentials_any(ret))
        return 0;
    for (const struct zl_value *i = auths && auths->kind == ZL_MAP ? auths->first : NULL; i; i = i->next) {
        size_t m = match(i->key->text, registry, repository);
        if (m > best_match) {
            best = i;
            best_match = m;
        }
    }
    if (best)
        read_entry(best, ret);
    return 0;
}

void zl_credentials_find(const char *registry, const char *repository, struct zl_credentials *ret)
{
    *ret = (struct zl_credentials){ 0 };
    for (unsigned i = 0; i < FILES && !zl_credentials_any(ret); i++) {
        char file[PATH_SIZE];
        struct zl_arena arena;
        struct zl_value *v;
        struct zl_err err = { 0 };
        zl_auto_buf text = ZL_BUF_INIT;
        if (!nth_file(i, file))
            continue;
        zl_arena_init(&arena);
        int r = load(file, &arena, &text, &v, &err);
        r = r < 0 || !v ? r : find_in(v, registry, repository, ret, &err);
        if (r < 0 && !ret->problem[0])
            snprintf(ret->problem, sizeof ret->problem, "%.250s", err.text);
        zl_arena_done(&arena);
        if (text.n)
            explicit_bzero(text.p, text.n);
    }
}

/* A header that may go along: a name of its own kind, and a value of one line. */
static bool may_be_sent(struct zl_str name, struct zl_str value)
{
    static const char *const ours[] = { "accept",
                                        "authorization",
                                        "connection",
                                        "content-length",
                                        "content-range",
                                        "expect",
                                        "content-type",
                                        "cookie",
                                        "proxy-authorization",
                                        "host",
                                        "range",
                                        "te",
                                        "trailer",
                                        "transfer-encoding",
                                        "upgrade",
                                        "user-agent" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(ours); i++)
        if (zl_str_eq_nocase(name, zl_str(ours[i])))
            return false;
    for (size_t i = 0; i < name.n; i++)
        if (!strchr("!#$%&'*+-.^_`|~", name.p[i]) && !(name.p[i] >= '0' && name.p[i] <= '9') &&
            !(name.p[i] >= 'A' && name.p[i] <= 'Z') && !(name.p[i] >= 'a' && name.p[i] <= 'z'))
            return false;
    for (size_t i = 0; i < value.n; i++)
        if ((unsigned char)value.p[i] < 0x20 || value.p[i] == 0x7f)
            return false;
    return name.n > 0 && name.n <= 100 && value.n > 0 && value.n <= HEADER_MAX;
}

void zl_credentials_headers(struct zl_arena *arena, struct zl_strings *ret)
{
    char file[PATH_SIZE];
    struct zl_arena own;
    struct zl_value *v;
    zl_auto_buf text = ZL_BUF_INIT;
    *ret = (struct zl_strings){ .v = zl_arena_alloc(arena, HEADERS_MAX * sizeof *ret->v) };
    zl_arena_init(&own);
    if (nth_file(DOCKERS_FILE, file) && load(file, &own, &text, &v, NULL) == 0) {
        const struct zl_value *map = zl_value_get(v, "HttpHeaders");
        for (const struct zl_value *i = map && map->kind == ZL_MAP ? map->first : NULL; i; i = i->next)
            if (ret->n < HEADERS_MAX && i->kind == ZL_STRING && may_be_sent(i->key->text, zl_str_trim(i->text)))
                ret->v[ret->n++] = zl_arena_printf(arena, "%s: %s", i->key->text.p, i->text.p);
    }
    zl_arena_done(&own);
    if (text.n)
        explicit_bzero(text.p, text.n);
}

bool zl_credentials_any(const struct zl_credentials *c)
{
    return c->user[0] || c->identity_token[0] || c->registry_token[0];
}

void zl_credentials_done(struct zl_credentials *c)
{
    explicit_bzero(c, sizeof *c);
}

/* ---- writing ---- */

/* The map at `key`, made when it is missing. */
static struct zl_value *map_at(struct zl_arena *arena, struct zl_value *file, const char *key)
{
    struct zl_value *v = zl_value_get(file, key);
    if (v && v->kind == ZL_MAP)
        return v;
    struct zl_value *made = zl_value_new(arena, ZL_MAP);
    zl_value_set(arena, file, key, made);
    return made;
}

/* Takes out the entries that stand for exactly this registry; those for its parts stay. */
static bool drop(struct zl_value *map, const char *registry)
{
    bool any = false;
    struct zl_value *first = map->first;
    map->first = map->last = NULL;
    map->count = 0;
    for (struct zl_value *i = first, *next; i; i = next) {
        next = i->next;
        i->next = NULL;
        if (match(i->key->text, registry, ""))
            any = true;
        else
            zl_value_append(map, i);
    }
    return any;
}

static struct zl_value *entry_of(struct zl_arena *arena, const struct zl_credentials *c)
{
    struct zl_value *entry = zl_value_new(arena, ZL_MAP);
    zl_auto_buf plain = ZL_BUF_INIT, coded = ZL_BUF_INIT;
    zl_buf_printf(&plain, "%s:%s", c->user, c->password);
    zl_base64_encode(&coded, zl_buf_view(&plain));
    zl_value_set(arena, entry, "auth", zl_value_string(arena, zl_buf_view(&coded)));
    if (c->identity_token[0])
        zl_value_set(arena, entry, "identitytoken", zl_value_string(arena, zl_str(c->identity_token)));
    explicit_bzero(plain.p, plain.n);
    explicit_bzero(coded.p, coded.n);
    return entry;
}

static int give_to_helper(const char *helper, const char *registry, const struct zl_credentials *c, struct zl_err *err)
{
    zl_auto_buf in = ZL_BUF_INIT, out = ZL_BUF_INIT;
    bool token = c->identity_token[0];
    zl_buf_puts(&in, "{\"ServerURL\":");
    zl_json_string(&in, zl_str(key_of(registry)));
    zl_buf_puts(&in, ",\"Username\":");
    zl_json_string(&in, zl_str(token ? "<token>" : c->user));
    zl_buf_puts(&in, ",\"Secret\":");
    zl_json_string(&in, zl_str(token ? c->identity_token : c->password));
    zl_buf_puts(&in, "}");
    int r = zl_helper_run(helper, "store", zl_buf_view(&in), &out, err);
    explicit_bzero(in.p, in.n);
    return r;
}

/* The change itself: `c` NULL forgets. */
static int change(struct zl_arena *arena, struct zl_value *file, const char *registry, const struct zl_credentials *c,
                  bool *was_there, struct zl_err *err)
{
    const char *helper = helper_of(file, registry);
    *was_there = false;
    if (helper) {
        zl_auto_buf out = ZL_BUF_INIT;
        int r = c ? give_to_helper(helper, registry, c, err)
                  : zl_helper_run(helper, "erase", zl_str(key_of(registry)), &out, err);
        if (r < 0 && (c || r != ZL_E_NOT_FOUND))
            return r;
        *was_there = r == 0;
    }
    struct zl_value *auths = zl_value_get(file, "auths");
    if (auths && auths->kind == ZL_MAP)
        *was_there |= drop(auths, registry);
    if (c) /* docker lists a helper's registries here, without their secrets */
        zl_value_set(arena, map_at(arena, file, "auths"), key_of(registry),
                     helper ? zl_value_new(arena, ZL_MAP) : entry_of(arena, c));
    return 0;
}

static int rewrite(const char *folder, const char *name, const char *registry, const struct zl_credentials *c,
                   bool *was_there, struct zl_err *err)
{
    char file[PATH_SIZE];
    struct zl_arena arena;
    struct zl_value *v;
    zl_auto_buf text = ZL_BUF_INIT, out = ZL_BUF_INIT;
    zl_auto_close int dir = zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0 || flock(dir, LOCK_EX) < 0) /* two logins at once are one after the other */
        return zl_fail(err, dir < 0 ? dir : -errno, "open the folder %.200s", folder);
    if (!join(file, folder, name))
        return zl_fail(err, -ENAMETOOLONG, "open %.200s", name);
    zl_arena_init(&arena);
    int r = load(file, &arena, &text, &v, err);
    if (r == 0 && !v)
        v = zl_value_new(&arena, ZL_MAP);
    r = r < 0 ? r : change(&arena, v, registry, c, was_there, err);
    if (r == 0 && (c || *was_there)) {
        zl_json_print(&out, v, 2);
        zl_buf_putc(&out, '\n');
        r = zl_write_file_atomic(dir, name, out.p, out.n, 0600, ZL_POWER_PROOF);
        if (r < 0)
            zl_fail(err, r, "write %.200s", file);
    }
    zl_arena_done(&arena);
    if (text.n)
        explicit_bzero(text.p, text.n);
    if (out.n)
        explicit_bzero(out.p, out.n);
    return r;
}

static int split_and_rewrite(const char *file, const char *registry, const struct zl_credentials *c, bool *was_there,
                             struct zl_err *err)
{
    char folder[PATH_SIZE], real[PATH_SIZE];
    /* A file that is a link (as dotfiles are) goes on being one. */
    if (!realpath(file, real) && (size_t)snprintf(real, sizeof real, "%s", file) >= sizeof real)
        return zl_fail(err, -ENAMETOOLONG, "open %.200s", file);
    snprintf(folder, sizeof folder, "%s", real);
    char *slash = strrchr(folder, '/');
    if (!slash || !slash[1])
        return zl_fail(err, ZL_E_INVALID, "'%.200s' is no absolute path of a file", file);
    *slash = 0;
    const char *name = slash + 1;
    int r = folder[0] ? zl_mkdir_p(folder, 0700) : 0;
    if (r < 0)
        return zl_fail(err, r, "make the folder %.200s", folder);
    return rewrite(folder[0] ? folder : "/", name, registry, c, was_there, err);
}

int zl_credentials_keep(const char *file, const char *registry, const struct zl_credentials *c, struct zl_err *err)
{
    bool was_there;
    return split_and_rewrite(file, registry, c, &was_there, err);
}

int zl_credentials_forget(const char *file, const char *registry, struct zl_err *err)
{
    bool was_there = false;
    if (access(file, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    int r = split_and_rewrite(file, registry, NULL, &was_there, err);
    return r < 0 ? r : was_there;
}
