#include "apidef/bodies.h"

#include "base/id.h"

#include <errno.h>
#include <string.h>

#define AT(type, member) offsetof(struct type, member)
#define STRING(type, member, ...)                                                                        \
    {                                                                                                    \
        .name = #member, .kind = ZL_K_STRING, .offset = AT(type, member), .flags = ZL_F_OMIT __VA_ARGS__ \
    }
#define STRINGS(type, member, ...)                                                                        \
    {                                                                                                     \
        .name = #member, .kind = ZL_K_STRINGS, .offset = AT(type, member), .flags = ZL_F_OMIT __VA_ARGS__ \
    }
#define SECONDS_MAX 86400

/* clang-format off */
static const char *const pulls[] = { "-as the document says", "if_not_present", "always", "never", "newer", NULL };
static const char *const verbs[] = { "pull", "import", "remove", "push",    "login", "load", "save",
                                     "tag",  "history", "prune", "fsck", "diff", "df", "referrers", NULL };
static const char *const formats[] = { "oci", "docker", NULL };

static const struct zl_field deploy_fields[] = {
    STRING(zl_deploy_request, spec, | ZL_F_REQUIRED, .doc = "the document's text"),
    STRING(zl_deploy_request, file, , .doc = "where it is from"),
    STRING(zl_deploy_request, owner, , .doc = "who holds its lease"),
    { .name = "pull", .kind = ZL_K_ENUM, .offset = AT(zl_deploy_request, pull), .flags = ZL_F_OMIT, .names = pulls,
      .doc = "instead of each image's pull_policy" },
    { .name = "dry_run", .kind = ZL_K_BOOL, .offset = AT(zl_deploy_request, dry_run), .flags = ZL_F_OMIT, .doc = "only the plan" },
};

static const struct zl_field stop_fields[] = {
    STRING(zl_stop_request, service, , .doc = "only this one"),
    { .name = "timeout_s", .kind = ZL_K_INT, .offset = AT(zl_stop_request, timeout_s), .max = SECONDS_MAX, .fallback = "30",
      .doc = "how long a container may take to end" },
};

static const struct zl_field exec_fields[] = {
    STRING(zl_exec_request, service, , .doc = "in which service"),
    { .name = "replica", .kind = ZL_K_INT, .offset = AT(zl_exec_request, replica), .flags = ZL_F_OMIT, .max = 999999,
      .doc = "in which replica" },
    STRINGS(zl_exec_request, command, | ZL_F_REQUIRED | ZL_F_NONEMPTY, .doc = "the program and its arguments"),
};

#define REFERENCE STRING(zl_image_request, reference, | ZL_F_REQUIRED | ZL_F_NONEMPTY, .doc = "the image's name")
#define CREDENTIALS \
    STRING(zl_image_request, username, , .doc = "for the registry"), \
    STRING(zl_image_request, password, , .doc = "of that user"), \
    STRING(zl_image_request, identity_token, , .doc = "for the registry's token server"), \
    STRING(zl_image_request, registry_token, , .doc = "for the registry, as it is")
#define OF_PUSH \
    STRING(zl_image_request, destination, , .doc = "where to, when not where its name says")
#define OF_PULL \
    STRING(zl_image_request, platform, , .doc = "os/architecture[/variant] instead of this machine's"), \
    { .name = "policy", .kind = ZL_K_ENUM, .offset = AT(zl_image_request, policy), .names = zl_pull_policies, \
      .fallback = "always", .doc = "when to ask the registry" }
#define OF_IMPORT \
    STRING(zl_image_request, source, , .doc = "a tar file or a folder"), \
    STRINGS(zl_image_request, cmd, , .doc = "arguments"), \
    STRINGS(zl_image_request, entrypoint, , .doc = "the program"), \
    STRINGS(zl_image_request, env, , .doc = "NAME=VALUE"), \
    STRINGS(zl_image_request, ports, , .doc = "8080 or 53/udp"), \
    STRING(zl_image_request, workdir, , .doc = "where the program starts"), \
    STRING(zl_image_request, user, , .doc = "as whom")

#define FLAG(member, text) \
    { .name = #member, .kind = ZL_K_BOOL, .offset = AT(zl_image_request, member), .flags = ZL_F_OMIT, .doc = text }
#define NAMED STRING(zl_image_request, reference, , .doc = "the image's name")
#define SOURCE STRING(zl_image_request, source, , .doc = "the archive, or the folder of an OCI layout")
#define TARGET STRING(zl_image_request, target, , .doc = "where to")
#define OTHER STRING(zl_image_request, other, , .doc = "the image that it is compared with")
#define OF_SAVE \
    STRINGS(zl_image_request, references, , .doc = "the images' names"), \
    { .name = "format", .kind = ZL_K_ENUM, .offset = AT(zl_image_request, format), .names = formats, .fallback = "oci", \
      .doc = "of the archive" }, \
    FLAG(gzip, "compress the archive")
#define OF_PRUNE \
    FLAG(all, "all images that no container uses"), FLAG(dry_run, "only tell"), \
    STRINGS(zl_image_request, filters, , .doc = "until=24h, label=key, label=key=value")
#define OF_FSCK FLAG(repair, "drop what is broken"), FLAG(quick, "layers are not compared with their blobs")

static const struct zl_field load_fields[] = { NAMED, SOURCE };
static const struct zl_field save_fields[] = { OF_SAVE, TARGET };
static const struct zl_field tag_fields[] = { REFERENCE, TARGET };
static const struct zl_field prune_fields[] = { OF_PRUNE };
static const struct zl_field fsck_fields[] = { OF_FSCK };
static const struct zl_field diff_fields[] = { REFERENCE, OTHER };
static const struct zl_field pull_fields[] = { REFERENCE, OF_PULL, CREDENTIALS };
static const struct zl_field push_fields[] = { REFERENCE, OF_PUSH, CREDENTIALS };
static const struct zl_field import_fields[] = { REFERENCE, OF_IMPORT };
static const struct zl_field image_fields[] = {
    { .name = "verb", .kind = ZL_K_ENUM, .offset = AT(zl_image_request, verb), .flags = ZL_F_REQUIRED, .names = verbs,
      .doc = "what to do" },
    NAMED, OF_PULL, OF_IMPORT, OF_PUSH, TARGET, OTHER, OF_SAVE, OF_PRUNE, OF_FSCK, CREDENTIALS,
    { .name = "stall_s", .kind = ZL_K_INT, .offset = AT(zl_image_request, stall_s), .flags = ZL_F_OMIT, .min = 1, .max = 3600, .fallback = "30",
      .doc = "how long a registry may send nothing" },
    { .name = "chunk_bytes", .kind = ZL_K_INT, .offset = AT(zl_image_request, chunk_bytes), .flags = ZL_F_OMIT, .min = 1, .max = INT64_C(1) << 40,
      .fallback = "67108864", .doc = "how much of a blob goes in one request" },
    { .name = "force", .kind = ZL_K_BOOL, .offset = AT(zl_image_request, force), .flags = ZL_F_OMIT, .doc = "though it is in use" },
    FLAG(quiet, "tell no progress"),
};
/* clang-format on */

static const struct zl_value *key_of(const struct zl_value *v, const char *key)
{
    const struct zl_value *at = zl_value_get(v, key);
    return at ? at : v;
}

static void check_deploy(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const struct zl_deploy_request *q = object;
    if (q->owner && !zl_id_valid(q->owner))
        zl_problem_add(d, key_of(v, "owner"), "yaml_error", NULL, "'owner' must be 32 hex digits");
}

/* PORT or PORT/PROTOCOL, as an image's config has it (image-spec, config.md, ExposedPorts). */
static bool is_port(const char *text)
{
    struct zl_str protocol, number = zl_str_cut(zl_str(text), '/', &protocol);
    uint64_t n;
    return zl_parse_u64(number, 1, 65535, &n) == 0 &&
           (!protocol.p || zl_str_is(protocol, "tcp") || zl_str_is(protocol, "udp") || zl_str_is(protocol, "sctp"));
}

static void need_path(struct zl_decoder *d, const struct zl_value *v, const char *key, const char *path)
{
    if (!(path && path[0] == '/'))
        zl_problem_add(d, key_of(v, key), "yaml_error", NULL, "'%s' must be an absolute path", key);
}

static void need_name(struct zl_decoder *d, const struct zl_value *v, const char *key, const char *name)
{
    if (!name)
        zl_problem_add(d, v, "yaml_error", NULL, "the request needs the key '%s'", key);
    else if (!name[0])
        zl_problem_add(d, key_of(v, key), "yaml_error", NULL, "'%s' must not be empty", key);
}

int zl_prune_filter(const char *text, uint64_t now_ms, int64_t *before_ms, const char **label)
{
    struct zl_str value, key = zl_str_cut(zl_str(text), '=', &value);
    uint64_t ms;
    *before_ms = 0;
    *label = NULL;
    if (zl_str_is(key, "label") && value.n) {
        *label = value.p;
        return 0;
    }
    if (!zl_str_is(key, "until") || !value.p || zl_parse_duration_ms(value, &ms) < 0)
        return -EINVAL;
    *before_ms = now_ms > ms ? (int64_t)(now_ms - ms) : 1;
    return 0;
}

static void check_prune(struct zl_decoder *d, const struct zl_value *v, const struct zl_image_request *q)
{
    for (unsigned i = 0; i < q->filters.n; i++) {
        int64_t before;
        const char *label;
        if (zl_prune_filter(q->filters.v[i], 0, &before, &label) < 0)
            zl_problem_add(d, key_of(v, "filters"), "yaml_error", NULL,
                           "'%.60s' is no filter such as until=24h, label=key or label=key=value", q->filters.v[i]);
    }
    if (q->filters.n && !q->all)
        zl_problem_add(d, key_of(v, "filters"), "yaml_error", "add --all",
                       "filters choose among images, which go with 'all' only");
}

static void check_image(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    const struct zl_image_request *q = object;
    for (unsigned i = 0; i < q->ports.n; i++)
        if (!is_port(q->ports.v[i]))
            zl_problem_add(d, key_of(v, "ports"), "yaml_error", NULL, "'%.60s' is no port such as 8080 or 53/udp",
                           q->ports.v[i]);
    for (unsigned i = 0; i < q->env.n; i++)
        if (!strchr(q->env.v[i], '=') || q->env.v[i][0] == '=')
            zl_problem_add(d, key_of(v, "env"), "yaml_error", NULL, "'%.60s' is not of the form NAME=VALUE",
                           q->env.v[i]);
    if (q->verb == ZL_IMAGE_IMPORT || q->verb == ZL_IMAGE_LOAD || zl_value_get(v, "source"))
        need_path(d, v, "source", q->source);
    if (q->verb == ZL_IMAGE_SAVE && q->references.n == 0)
        zl_problem_add(d, key_of(v, "references"), "yaml_error", NULL, "'references' must not be empty");
    if (q->verb == ZL_IMAGE_SAVE && q->target)
        need_path(d, v, "target", q->target);
    if (q->verb == ZL_IMAGE_TAG)
        need_name(d, v, "target", q->target);
    if (q->verb == ZL_IMAGE_DIFF)
        need_name(d, v, "other", q->other);
    if (q->verb != ZL_IMAGE_LOAD && q->verb != ZL_IMAGE_SAVE && q->verb != ZL_IMAGE_PRUNE && q->verb != ZL_IMAGE_FSCK &&
        q->verb != ZL_IMAGE_DF)
        need_name(d, v, "reference", q->reference);
    check_prune(d, v, q);
}

static void check_import(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    ((struct zl_image_request *)object)->verb = ZL_IMAGE_IMPORT;
    check_image(d, v, object);
}

#define CHECK(name, what)                                                                  \
    static void check_##name(struct zl_decoder *d, const struct zl_value *v, void *object) \
    {                                                                                      \
        ((struct zl_image_request *)object)->verb = what;                                  \
        check_image(d, v, object);                                                         \
    }
CHECK(load, ZL_IMAGE_LOAD)
CHECK(tag, ZL_IMAGE_TAG)
CHECK(pruning, ZL_IMAGE_PRUNE)
CHECK(fsck, ZL_IMAGE_FSCK)
CHECK(diff, ZL_IMAGE_DIFF)

static void check_save(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    struct zl_image_request *q = object;
    q->verb = ZL_IMAGE_SAVE;
    if (!q->target) /* the descriptor is the agent's business alone */
        need_path(d, v, "target", q->target);
    check_image(d, v, object);
}

#define IMAGE_TYPE(name, check_)              \
    static const struct zl_type type_##name = \
        ZL_TYPE("the request", struct zl_image_request, name##_fields, .check = check_)
IMAGE_TYPE(load, check_load);
IMAGE_TYPE(save, check_save);
IMAGE_TYPE(tag, check_tag);
IMAGE_TYPE(prune, check_pruning);
IMAGE_TYPE(fsck, check_fsck);
IMAGE_TYPE(diff, check_diff);
static const struct zl_type type_deploy =
    ZL_TYPE("the request", struct zl_deploy_request, deploy_fields, .check = check_deploy);
static const struct zl_type type_stop = ZL_TYPE("the request", struct zl_stop_request, stop_fields);
static const struct zl_type type_exec = ZL_TYPE("the request", struct zl_exec_request, exec_fields);
static const struct zl_type type_pull = ZL_TYPE("the request", struct zl_image_request, pull_fields);
static void check_push(struct zl_decoder *d, const struct zl_value *v, void *object)
{
    ((struct zl_image_request *)object)->verb = ZL_IMAGE_PUSH;
    check_image(d, v, object);
}

static const struct zl_type type_push =
    ZL_TYPE("the request", struct zl_image_request, push_fields, .check = check_push);
static const struct zl_type type_import =
    ZL_TYPE("the request", struct zl_image_request, import_fields, .check = check_import);
const struct zl_type zl_type_image_request =
    ZL_TYPE("the request", struct zl_image_request, image_fields, .check = check_image);

const struct zl_type *const zl_body_types[ZL_BODY_COUNT] = {
    [ZL_BODY_DEPLOY] = &type_deploy, [ZL_BODY_STOP] = &type_stop,     [ZL_BODY_EXEC] = &type_exec,
    [ZL_BODY_PULL] = &type_pull,     [ZL_BODY_IMPORT] = &type_import, [ZL_BODY_LOAD] = &type_load,
    [ZL_BODY_SAVE] = &type_save,     [ZL_BODY_TAG] = &type_tag,       [ZL_BODY_PRUNE] = &type_prune,
    [ZL_BODY_FSCK] = &type_fsck,     [ZL_BODY_DIFF] = &type_diff,     [ZL_BODY_PUSH] = &type_push,
};

int zl_body_decode(struct zl_decoder *d, const struct zl_type *type, struct zl_str text, void **ret, struct zl_err *err)
{
    struct zl_value empty = { .kind = ZL_MAP }, *v = &empty;
    struct zl_parse_error pe;
    if (text.n && zl_json_parse(d->arena, text, &zl_limits_document, &v, &pe) < 0)
        return zl_fail(err, ZL_E_PARSE, "the request is no JSON: %s", pe.text);
    *ret = zl_decode(d, type, v);
    if (d->count == 0)
        return 0;
    zl_fail(err, ZL_E_INVALID, "%s%s", d->first->message, d->count > 1 ? " …" : "");
    return zl_hint(err, err->code, "%s", d->first->hint);
}
