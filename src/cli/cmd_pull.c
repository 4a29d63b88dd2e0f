#include "cli/commands.h"
#include "cli/document.h"
#include "cli/imagework.h"
#include "cli/output.h"

struct pull_options {
    const char *image, *platform;
    int policy;
};

static int pull_one(struct zl_cli *cli, const struct pull_options *o, const char *image, struct zl_value *results,
                    struct zl_err *err)
{
    struct zl_arena *a = &cli->arena;
    struct zl_image_request request = {
        .verb = ZL_IMAGE_PULL, .reference = image, .policy = o->policy, .platform = o->platform
    };
    const struct zl_value *done;
    int e = zl_image_work(cli, &request, &done, err);
    if (e < 0)
        return e;
    if (*zl_value_cstr(done, "warning"))
        zl_warn(cli, "%s: %s", image, zl_value_cstr(done, "warning"));
    struct zl_value *row = zl_value_new(a, ZL_MAP);
    zl_value_set(a, row, "reference", zl_value_string(a, zl_value_str(done, "reference")));
    zl_value_set(a, row, "digest", zl_value_string(a, zl_value_str(done, "digest")));
    if (zl_value_true(done, "stale"))
        zl_value_set(a, row, "stale", zl_value_bool(a, true));
    zl_value_append(results, row);
    return 0;
}

static int run_pull(struct zl_cli *cli, void *options, struct zl_err *err)
{
    static const struct zl_column columns[] = { { "REFERENCE", "reference", ZL_COLUMN_CUT, NULL },
                                                { "DIGEST", "digest", 0, NULL } };
    static const struct zl_listing listing = { columns, ZL_ARRAY_LEN(columns), "reference", NULL };
    const struct pull_options *o = options;
    struct zl_value *results = zl_value_new(&cli->arena, ZL_LIST);
    struct zl_document doc = { 0 };
    int e = 0;
    if (o->image)
        e = pull_one(cli, o, o->image, results, err);
    else
        e = zl_document_load(cli, NULL, &doc, err);
    for (unsigned i = 0; e >= 0 && doc.spec && i < doc.spec->services.n; i++) {
        const struct zl_service *s = doc.spec->services.v[i];
        bool again = false; /* services may share an image */
        for (unsigned k = 0; k < i; k++)
            again |= zl_streq(((struct zl_service *)doc.spec->services.v[k])->image.name, s->image.name);
        if (!again)
            e = pull_one(cli, o, s->image.name, results, err);
    }
    if (e >= 0)
        zl_output_list(cli, &listing, results);
    return e;
}

struct push_options {
    const char *image, *destination;
};

static int run_push(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct push_options *o = options;
    struct zl_image_request request = { .verb = ZL_IMAGE_PUSH, .reference = o->image, .destination = o->destination };
    const struct zl_value *done;
    int e = zl_image_work(cli, &request, &done, err);
    if (e < 0)
        return e;
    if (*zl_value_cstr(done, "warning"))
        zl_warn(cli, "%s: %s", o->image, zl_value_cstr(done, "warning"));
    if (done && zl_output_object(cli, done))
        return 0;
    zl_say(cli, "%s %s", zl_value_cstr(done, "reference"), zl_value_cstr(done, "digest"));
    return 0;
}

/* ---- what refers to an image ---- */

static void print_short(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    const char *d = zl_value_cstr(row, "digest");
    zl_buf_printf(out, cli->globals.no_trunc ? "%s" : "%.12s", cli->globals.no_trunc ? d : d + strlen("sha256:"));
}

static void print_type(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    const char *type = zl_value_cstr(row, "artifactType");
    zl_term_clean(out, zl_str(*type ? type : zl_value_cstr(row, "mediaType")));
}

static void print_size(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_size_text(out, zl_value_u64(row, "size", 0));
}

static int run_referrers(struct zl_cli *cli, void *options, struct zl_err *err)
{
    static const struct zl_column columns[] = { { "DIGEST", NULL, 0, print_short },
                                                { "TYPE", NULL, ZL_COLUMN_CUT, print_type },
                                                { "MANIFEST", NULL, ZL_COLUMN_RIGHT, print_size } };
    static const struct zl_listing listing = { columns, ZL_ARRAY_LEN(columns), "digest", "nothing refers to it" };
    const struct push_options *o = options;
    struct zl_image_request request = { .verb = ZL_IMAGE_REFERRERS, .reference = o->image };
    struct zl_value *rows = zl_value_new(&cli->arena, ZL_LIST);
    int e = zl_image_remote(cli, &request, rows, err);
    if (e >= 0)
        zl_output_list(cli, &listing, rows);
    return e;
}

#define AT(field) offsetof(struct pull_options, field)
static const struct zl_opt pull_options[] = {
    { "policy", 0, ZL_OPT_ENUM, AT(policy), "WHEN", "when to ask the registry", zl_pull_policies,
      .fallback = "always" },
    { "platform", 0, ZL_OPT_STRING, AT(platform), "OS/ARCH",
      "the image for another machine: linux/arm64, linux/arm/v7" },
};
#undef AT
static const struct zl_arg pull_args[] = {
    { "IMAGE", offsetof(struct pull_options, image), ZL_ARG_OPTIONAL,
      "a reference; without it every image of the document of this folder", .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example pull_examples[] = {
    { "zlayer pull nginx:1.27", "one image" },
    { "zlayer pull", "all that .zlayer.yml names" },
    { "zlayer pull --policy newer nginx:1.27", "what is here when the registry is away" },
};
const struct zl_cmd zl_cmd_pull = {
    .name = "pull",
    .summary = "Pull images from their registries",
    .details = "Every byte is verified against its digest before it is used. Policies: always asks the registry and "
               "fails when it can't; newer uses the image that is here when the registry is away; if_not_present asks "
               "only without an image here; never touches no network.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(pull_examples),
    ZL_CMD_OPTIONS(pull_options),
    ZL_CMD_ARGS(pull_args),
    .size = sizeof(struct pull_options),
    .run = run_pull,
};

static const struct zl_arg push_args[] = {
    { "IMAGE", offsetof(struct push_options, image), 0, "a reference that is here", .complete = ZL_COMPLETE_IMAGES },
    { "DESTINATION", offsetof(struct push_options, destination), ZL_ARG_OPTIONAL,
      "where to, when not where its name says", .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example push_examples[] = {
    { "zlayer push registry.example.com/team/app:1", "where its name says" },
    { "zlayer push hello registry.example.com/team/hello:1", "under another name" },
};
const struct zl_cmd zl_cmd_push = {
    .name = "push",
    .summary = "Push an image to a registry",
    .details = "Blobs that the registry has are not sent, those that another of its repositories has are mounted; what "
               "is sent goes on after a break. Manifests arrive byte for byte, so digests stay.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(push_examples),
    ZL_CMD_ARGS(push_args),
    .size = sizeof(struct push_options),
    .run = run_push,
};

static const struct zl_arg referrers_args[] = {
    { "IMAGE", offsetof(struct push_options, image), 0, "a reference, as its registry knows it",
      .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example referrers_examples[] = {
    { "zlayer image referrers registry.example.com/team/app:1", "its signatures and SBOMs" },
    { "zlayer pull registry.example.com/team/app@sha256:…", "one of them, by its digest" },
};
const struct zl_cmd zl_cmd_image_referrers = {
    .name = "referrers",
    .summary = "List what refers to an image in its registry",
    .details =
        "Signatures, SBOMs and other artifacts whose subject it is. Where a registry keeps no such lists, the index "
        "at the tag that stands for them is read.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(referrers_examples),
    ZL_CMD_ARGS(referrers_args),
    .size = sizeof(struct push_options),
    .run = run_referrers,
};
