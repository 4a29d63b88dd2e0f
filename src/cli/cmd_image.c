#include "cli/commands.h"
#include "cli/imagework.h"
#include "cli/node.h"
#include "cli/output.h"
#include "image/store.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- reading: the agent's list, or the store's own ---- */

static int open_store(struct zl_cli *cli, struct zl_store *store, bool *there, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    zl_auto_free char *images = zl_xasprintf("%s/images", c->place.data);
    *there = access(images, F_OK) == 0; /* looking makes nothing */
    return *there ? zl_store_open(c->place.data, store, err) : 0;
}

static int list_images(struct zl_cli *cli, const struct zl_value **ret, struct zl_err *err)
{
    if (zl_agent_runs(cli)) {
        struct zl_value *reply;
        int e = zl_cli_call(cli, ZL_NEVER_START, "GET", "/api/v1/images", NULL, &reply, err);
        *ret = e < 0 ? NULL : zl_reply_list(reply, "images");
        return e;
    }
    struct zl_store store;
    bool there;
    struct zl_value *list = zl_value_new(&cli->arena, ZL_LIST);
    int e = open_store(cli, &store, &there, err);
    if (e >= 0 && there) {
        struct zl_items items;
        e = zl_store_list(&store, &cli->arena, &items, err);
        for (unsigned i = 0; e >= 0 && i < items.n; i++)
            zl_value_append(list, zl_print(&cli->arena, &zl_type_image_record, items.v[i]));
        zl_store_close(&store);
    }
    *ret = list;
    return e;
}

static void print_digest(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    const char *d = zl_value_cstr(row, "digest");
    if (strncmp(d, "sha256:", 7) == 0 && !cli->globals.no_trunc)
        zl_buf_printf(out, "%.12s", d + 7);
    else
        zl_buf_puts(out, d);
}

static void print_size(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_size_text(out, zl_value_u64(row, "size_bytes", 0));
}

static void print_platform(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_buf_printf(out, "%s/%s", zl_value_cstr(row, "os"), zl_value_cstr(row, "architecture"));
}

static const struct zl_column image_columns[] = {
    { "REFERENCE", "reference", ZL_COLUMN_CUT, NULL },
    { "DIGEST", NULL, 0, print_digest },
    { "SIZE", NULL, ZL_COLUMN_RIGHT, print_size },
    { "PLATFORM", NULL, ZL_COLUMN_WIDE, print_platform },
};
static const struct zl_listing images = { image_columns, ZL_ARRAY_LEN(image_columns), "reference", "no images here" };

static int run_ls(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)options;
    const struct zl_value *list;
    int e = list_images(cli, &list, err);
    if (e >= 0)
        zl_output_list(cli, &images, list);
    return e;
}

struct references_options {
    struct zl_strings references;
    bool force;
};

static int inspect_one(struct zl_cli *cli, const char *reference, struct zl_value **ret, struct zl_err *err)
{
    int e;
    if (zl_agent_runs(cli)) {
        zl_auto_buf path = ZL_BUF_INIT;
        zl_buf_puts(&path, "/api/v1/images/");
        zl_path_segment(&path, reference);
        e = zl_cli_call(cli, ZL_NEVER_START, "GET", path.p, NULL, ret, err);
    } else {
        struct zl_store store;
        struct zl_image_record *r;
        bool there;
        e = open_store(cli, &store, &there, err);
        if (e >= 0 && !there)
            e = zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "there is no image '%.200s'", reference);
        if (e >= 0 && there) {
            e = zl_store_find(&store, &cli->arena, reference, &r, err);
            if (e >= 0)
                *ret = zl_print(&cli->arena, &zl_type_image_record, r);
            zl_store_close(&store);
        }
    }
    return e < 0 ? zl_hint(err, e, "'zlayer image ls' shows what is here") : 0;
}

/* Of several, each failure is told at once and the others go on: the exit code is that of the first. */
static int tell(struct zl_cli *cli, const struct zl_err *err, int code, int so_far)
{
    zl_report(&cli->err, err);
    return so_far ? so_far : zl_error_exit(code);
}

static int run_inspect(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct references_options *o = options;
    struct zl_value *list = zl_value_new(&cli->arena, ZL_LIST);
    int result = 0;
    for (unsigned i = 0; i < o->references.n; i++) {
        struct zl_value *image = NULL;
        struct zl_err one = { 0 };
        int e = inspect_one(cli, o->references.v[i], &image, &one);
        if (e >= 0) {
            zl_value_append(list, image);
        } else if (o->references.n == 1) {
            *err = one;
            return e;
        } else {
            result = tell(cli, &one, e, result);
        }
    }
    const struct zl_value *what = o->references.n == 1 ? list->first : list;
    if (!zl_output_object(cli, what))
        zl_output_yaml(cli, what);
    return result;
}

static int rm_one(struct zl_cli *cli, const char *reference, bool force, struct zl_err *err)
{
    struct zl_image_request request = { .verb = ZL_IMAGE_REMOVE, .reference = reference, .force = force };
    const struct zl_value *done;
    int e = zl_image_work(cli, &request, &done, err);
    if (e < 0)
        return e;
    zl_auto_buf freed = ZL_BUF_INIT;
    zl_size_text(&freed, zl_value_u64(done, "freed_bytes", 0));
    zl_note(cli, "removed %s, %s freed", reference, freed.p);
    return 0;
}

static int run_rm(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct references_options *o = options;
    if (o->references.n == 1)
        return rm_one(cli, o->references.v[0], o->force, err);
    int result = 0;
    for (unsigned i = 0; i < o->references.n; i++) {
        struct zl_err one = { 0 };
        int e = rm_one(cli, o->references.v[i], o->force, &one);
        if (e < 0)
            result = tell(cli, &one, e, result);
    }
    return result;
}

/* ---- making ---- */

struct import_options {
    const char *source, *tag, *workdir, *user;
    struct zl_strings cmd, entrypoint, env, ports;
};

/* `--cmd '["a", "b"]'`, or one word an option: `--cmd /web --cmd -v`. */
static int words(struct zl_cli *cli, const char *option, struct zl_strings *s, struct zl_err *err)
{
    if (s->n != 1 || s->v[0][0] != '[')
        return 0;
    struct zl_value *list;
    struct zl_parse_error pe;
    if (zl_json_parse(&cli->arena, zl_str(s->v[0]), &zl_limits_document, &list, &pe) < 0)
        return zl_fail(err, ZL_E_USAGE, "--%s begins like a JSON list and is none: %s", option, pe.text);
    const char **v = zl_arena_alloc(&cli->arena, (list->count + 1u) * sizeof *v);
    unsigned n = 0;
    for (const struct zl_value *i = list->first; i; i = i->next) {
        if (i->kind != ZL_STRING)
            return zl_fail(err, ZL_E_USAGE, "--%s is a list of strings", option);
        v[n++] = i->text.p;
    }
    *s = (struct zl_strings){ v, n };
    return 0;
}

static int run_import(struct zl_cli *cli, void *options, struct zl_err *err)
{
    struct import_options *o = options;
    char source[PATH_MAX];
    if (!o->tag)
        return zl_fail(err, ZL_E_USAGE, "--tag is missing: how is the image to be called?");
    if (!realpath(o->source, source))
        return zl_fail_errno(err, errno == ENOENT ? ZL_E_NOT_FOUND : -errno, -errno, "can't import '%s'", o->source);
    int e = words(cli, "cmd", &o->cmd, err);
    if (e >= 0)
        e = words(cli, "entrypoint", &o->entrypoint, err);
    if (e < 0)
        return e;
    for (unsigned i = 0; i < o->env.n; i++)
        if (!strchr(o->env.v[i], '='))
            return zl_fail(err, ZL_E_USAGE, "--env takes KEY=VALUE, not '%.60s'", o->env.v[i]);
    struct zl_image_request request = { .verb = ZL_IMAGE_IMPORT,
                                        .reference = o->tag,
                                        .source = source,
                                        .cmd = o->cmd,
                                        .entrypoint = o->entrypoint,
                                        .env = o->env,
                                        .ports = o->ports,
                                        .workdir = o->workdir,
                                        .user = o->user };
    const struct zl_value *done;
    e = zl_image_work(cli, &request, &done, err);
    if (e < 0)
        return e;
    if (*zl_value_cstr(done, "warning"))
        zl_warn(cli, "%s: %s", o->tag, zl_value_cstr(done, "warning"));
    if (done && zl_output_object(cli, done))
        return 0;
    zl_say(cli, "%s %s", zl_value_cstr(done, "reference"), zl_value_cstr(done, "digest"));
    return 0;
}

/* ---- tables ---- */

static const struct zl_example ls_examples[] = {
    { "zlayer image ls", "what is in the store" },
    { "zlayer image ls -o json", "for programs" },
};
static const struct zl_cmd ls = {
    .name = "ls",
    .summary = "List the images in the store",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(ls_examples),
    .run = run_ls,
};

static const struct zl_arg references_args[] = {
    { "IMAGE", offsetof(struct references_options, references), ZL_ARG_MANY, "references",
      .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example inspect_examples[] = { { "zlayer image inspect hello:latest",
                                                        "its config and layers" } };
static const struct zl_cmd inspect = {
    .name = "inspect",
    .summary = "Show an image's digests, layers and config",
    .details = "Of several images it is a list; what is not here is told, and the others are shown.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(inspect_examples),
    ZL_CMD_ARGS(references_args),
    .size = sizeof(struct references_options),
    .run = run_inspect,
};

static const struct zl_opt rm_options[] = {
    { "force", 'f', ZL_OPT_FLAG, offsetof(struct references_options, force), NULL,
      "even if a container uses it, or several names have the digest" },
};
static const struct zl_example rm_examples[] = {
    { "zlayer image rm hello:latest", "and what only it needed" },
    { "zlayer image rm 0123456789ab", "by the digest that `image ls` shows" },
    { "zlayer image rm web:1 web:2", "several; one that can't be removed does not keep the others" },
};
static const struct zl_cmd rm = {
    .name = "rm",
    .summary = "Remove images",
    .group = ZL_GROUP_IMAGES,
    ZL_CMD_EXAMPLES(rm_examples),
    ZL_CMD_OPTIONS(rm_options),
    ZL_CMD_ARGS(references_args),
    .size = sizeof(struct references_options),
    .run = run_rm,
};

#define AT(field) offsetof(struct import_options, field)
static const struct zl_opt import_options[] = {
    { "tag", 't', ZL_OPT_STRING, AT(tag), "NAME", "the image's reference" },
    { "cmd", 0, ZL_OPT_LIST, AT(cmd), "WORD", "the default command: one word each, or a JSON list" },
    { "entrypoint", 0, ZL_OPT_LIST, AT(entrypoint), "WORD",
      "the program that always runs: one word each, or a JSON list" },
    { "env", 'e', ZL_OPT_LIST, AT(env), "KEY=VALUE", "a variable" },
    { "port", 'p', ZL_OPT_LIST, AT(ports), "PORT", "a port that it listens on" },
    { "workdir", 'w', ZL_OPT_STRING, AT(workdir), "DIR", "the working directory" },
    { "user", 'u', ZL_OPT_STRING, AT(user), "USER", "who it runs as" },
};
static const struct zl_arg import_args[] = {
    { "ROOTFS", AT(source), 0, "a root filesystem: a tar file or a folder", .complete = ZL_COMPLETE_FILES },
};
static const struct zl_example import_examples[] = {
    { "zlayer image import rootfs.tar -t hello --cmd /web", "an image of one layer" },
    { "zlayer image import ./rootfs -t hello --entrypoint '[\"/web\", \"-v\"]'", "from a folder" },
};
static const struct zl_cmd import = {
    .name = "import",
    .summary = "Make an image of a root filesystem",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(import_examples),
    ZL_CMD_OPTIONS(import_options),
    ZL_CMD_ARGS(import_args),
    .size = sizeof(struct import_options),
    .run = run_import,
};

static const struct zl_cmd *const commands[] = { &ls,
                                                 &inspect,
                                                 &zl_cmd_image_history,
                                                 &zl_cmd_image_referrers,
                                                 &zl_cmd_image_tag,
                                                 &rm,
                                                 &zl_cmd_image_prune,
                                                 &zl_cmd_image_df,
                                                 &zl_cmd_image_diff,
                                                 &zl_cmd_image_fsck,
                                                 &zl_cmd_image_save,
                                                 &zl_cmd_image_export,
                                                 &zl_cmd_image_load,
                                                 &import,
                                                 NULL };
const struct zl_cmd zl_cmd_image = {
    .name = "image",
    .summary = "Work on the images of this node",
    .group = ZL_GROUP_IMAGES,
    ZL_CMD_EXAMPLES(ls_examples),
    .commands = commands,
};
