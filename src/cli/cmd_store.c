/* image history, tag, prune, df, diff, fsck. */
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/imagework.h"
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>

/* Does the work; the rows are there also when it fails. */
static int work(struct zl_cli *cli, const struct zl_image_request *request, struct zl_value **rows,
                const struct zl_value **done, struct zl_err *err)
{
    struct zl_image_work_options o = { .rows = zl_value_new(&cli->arena, ZL_LIST), .descriptor = -EBADF };
    *rows = o.rows;
    *done = NULL;
    return zl_image_work_with(cli, request, &o, done, err);
}

/* The counts that the job says at the end, and the rows under a name. */
static struct zl_value *with_rows(struct zl_cli *cli, const struct zl_value *done, const char *name,
                                  struct zl_value *rows)
{
    struct zl_value *v = zl_value_new(&cli->arena, ZL_MAP);
    zl_value_set(&cli->arena, v, name, rows);
    for (const struct zl_value *i = done ? done->first : NULL; i; i = i->next)
        if (i->kind == ZL_INT)
            zl_value_set(&cli->arena, v, i->key->text.p, zl_value_int(&cli->arena, i->integer));
    return v;
}

static void size_of(struct zl_buf *out, const struct zl_value *row, const char *key)
{
    if (zl_value_get(row, key))
        zl_size_text(out, zl_value_u64(row, key, 0));
}

#define SIZE_COLUMN(name, key)                                                                         \
    static void print_##name(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row) \
    {                                                                                                  \
        (void)cli;                                                                                     \
        size_of(out, row, key);                                                                        \
    }
SIZE_COLUMN(size_bytes, "size_bytes")
SIZE_COLUMN(bytes, "bytes")
SIZE_COLUMN(unique, "unique_bytes")
SIZE_COLUMN(shared, "shared_bytes")

/* ---- history ---- */

static void print_by(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    enum { SHORT = 60 };
    struct zl_str by = zl_value_str(row, "created_by"), shown = by;
    if (!cli->globals.no_trunc && by.n > SHORT)
        for (shown.n = SHORT; shown.n > 0 && ((unsigned char)by.p[shown.n] & 0xc0) == 0x80;) /* whole characters */
            shown.n--;
    zl_auto_buf line = ZL_BUF_INIT;
    for (size_t i = 0; i < shown.n; i++) /* one line a step */
        zl_buf_putc(&line, (unsigned char)shown.p[i] < ' ' ? ' ' : shown.p[i]);
    zl_term_clean(out, zl_buf_view(&line));
    if (shown.n < by.n)
        zl_buf_puts(out, "…");
}

static const struct zl_column history_columns[] = {
    { "CREATED", "created", 0, NULL },
    { "CREATED BY", NULL, ZL_COLUMN_CUT, print_by },
    { "SIZE", NULL, ZL_COLUMN_RIGHT, print_size_bytes },
    { "LAYER", "layer", ZL_COLUMN_WIDE, NULL },
};
static const struct zl_listing history = { history_columns, ZL_ARRAY_LEN(history_columns), "layer",
                                           "the image says nothing of its history" };

struct two_options {
    const char *image, *other;
};

static int run_history(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct two_options *o = options;
    struct zl_value *rows;
    const struct zl_value *done;
    int e = work(cli, &(struct zl_image_request){ .verb = ZL_IMAGE_HISTORY, .reference = o->image }, &rows, &done, err);
    if (e >= 0)
        zl_output_list(cli, &history, rows);
    return e;
}

/* ---- tag ---- */

static int run_tag(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct two_options *o = options;
    struct zl_value *rows;
    const struct zl_value *done;
    int e = work(cli, &(struct zl_image_request){ .verb = ZL_IMAGE_TAG, .reference = o->image, .target = o->other },
                 &rows, &done, err);
    if (e >= 0)
        zl_note(cli, "%s is %s", zl_value_cstr(done, "reference"), zl_value_cstr(done, "digest"));
    return e;
}

/* ---- prune ---- */

struct prune_options {
    bool all, dry_run;
    struct zl_strings filters;
};

static const struct zl_column gone_columns[] = {
    { "KIND", "kind", 0, NULL },
    { "NAME", "name", ZL_COLUMN_CUT, NULL },
    { "SIZE", NULL, ZL_COLUMN_RIGHT, print_bytes },
};
static const struct zl_listing gone = { gone_columns, ZL_ARRAY_LEN(gone_columns), "name", "nothing to remove" };

static int run_prune(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct prune_options *o = options;
    struct zl_value *rows;
    const struct zl_value *done;
    for (unsigned i = 0; i < o->filters.n; i++) {
        int64_t before;
        const char *label;
        if (zl_prune_filter(o->filters.v[i], 0, &before, &label) < 0)
            return zl_fail(err, ZL_E_USAGE, "--filter takes until=24h, label=KEY or label=KEY=VALUE, not '%.60s'",
                           o->filters.v[i]);
    }
    if (o->filters.n && !o->all)
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "--filter chooses among images, which go with --all only"),
                       "add --all");
    struct zl_image_request request = {
        .verb = ZL_IMAGE_PRUNE, .all = o->all, .dry_run = o->dry_run, .filters = o->filters
    };
    int e = work(cli, &request, &rows, &done, err);
    if (e < 0 || zl_output_object(cli, with_rows(cli, done, "deleted", rows)))
        return e;
    zl_output_list(cli, &gone, rows);
    zl_auto_buf size = ZL_BUF_INIT;
    zl_size_text(&size, zl_value_u64(done, "freed_bytes", 0));
    if (rows->first)
        zl_note(cli, o->dry_run ? "%s would be freed" : "%s freed", size.p);
    return 0;
}

/* ---- df ---- */

static const struct zl_column df_columns[] = {
    { "REFERENCE", "reference", ZL_COLUMN_CUT, NULL },
    { "SIZE", NULL, ZL_COLUMN_RIGHT, print_bytes },
    { "SHARED", NULL, ZL_COLUMN_RIGHT, print_shared },
    { "UNIQUE", NULL, ZL_COLUMN_RIGHT, print_unique },
    { "IN USE", "in_use", 0, NULL },
};
static const struct zl_listing df = { df_columns, ZL_ARRAY_LEN(df_columns), "reference", "no images here" };

static int run_df(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)options;
    struct zl_value *rows;
    const struct zl_value *done;
    int e = work(cli, &(struct zl_image_request){ .verb = ZL_IMAGE_DF }, &rows, &done, err);
    if (e < 0 || zl_output_object(cli, with_rows(cli, done, "images", rows)))
        return e;
    zl_output_list(cli, &df, rows);
    zl_auto_buf blobs = ZL_BUF_INIT, layers = ZL_BUF_INIT, free_ = ZL_BUF_INIT;
    zl_size_text(&blobs, zl_value_u64(done, "blob_bytes", 0));
    zl_size_text(&layers, zl_value_u64(done, "layer_bytes", 0));
    zl_size_text(&free_, zl_value_u64(done, "reclaimable_bytes", 0));
    zl_note(cli, "%llu blobs of %s, %llu layers of %s; %s can be freed by `zlayer image prune`",
            (unsigned long long)zl_value_u64(done, "blobs", 0), blobs.p,
            (unsigned long long)zl_value_u64(done, "layers", 0), layers.p, free_.p);
    return 0;
}

/* ---- diff ---- */

static void print_change(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    const char *change = zl_value_cstr(row, "change");
    (void)cli;
    zl_buf_putc(out, *change == 'a' ? 'A' : *change == 'r' ? 'D' : 'C');
}

static void print_what(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    const struct zl_value *what = zl_value_get(row, "what");
    (void)cli;
    for (const struct zl_value *i = what ? what->first : NULL; i; i = i->next)
        zl_buf_printf(out, "%s%s", i == what->first ? "" : ", ", i->text.p);
}

static const struct zl_column diff_columns[] = {
    { "CHANGE", NULL, 0, print_change },
    { "PATH", "path", ZL_COLUMN_CUT, NULL },
    { "WHAT", NULL, 0, print_what },
};
static const struct zl_listing diff = { diff_columns, ZL_ARRAY_LEN(diff_columns), "path", "both have the same files" };

static int run_diff(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct two_options *o = options;
    struct zl_value *rows;
    const struct zl_value *done;
    int e = work(cli, &(struct zl_image_request){ .verb = ZL_IMAGE_DIFF, .reference = o->image, .other = o->other },
                 &rows, &done, err);
    if (e >= 0)
        zl_output_list(cli, &diff, rows);
    return e;
}

/* ---- fsck ---- */

struct fsck_options {
    bool repair, quick;
};

static const struct zl_column problem_columns[] = {
    { "KIND", "kind", 0, NULL },
    { "NAME", "name", ZL_COLUMN_CUT, NULL },
    { "PROBLEM", "message", 0, NULL },
};
static const struct zl_listing problems = { problem_columns, ZL_ARRAY_LEN(problem_columns), "name", NULL };

static int run_fsck(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct fsck_options *o = options;
    struct zl_value *rows;
    const struct zl_value *done;
    struct zl_image_request request = { .verb = ZL_IMAGE_FSCK, .repair = o->repair, .quick = o->quick };
    int e = work(cli, &request, &rows, &done, err);
    if (e < 0 && e != ZL_E_STORE_DAMAGED)
        return e;
    if (zl_output_object(cli, with_rows(cli, done, "problems", rows)))
        return e;
    if (rows->first)
        zl_output_list(cli, &problems, rows);
    if (e >= 0)
        zl_note(cli, "%llu blobs, %llu layers, %llu images; %llu problems, %llu things dropped",
                (unsigned long long)zl_value_u64(done, "blobs", 0), (unsigned long long)zl_value_u64(done, "layers", 0),
                (unsigned long long)zl_value_u64(done, "images", 0), (unsigned long long)zl_value_u64(done, "found", 0),
                (unsigned long long)zl_value_u64(done, "dropped", 0));
    return e;
}

/* ---- tables ---- */

#define AT(type, field) offsetof(struct type, field)

static const struct zl_arg image_args[] = {
    { "IMAGE", AT(two_options, image), 0, "a reference", .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example history_examples[] = { { "zlayer image history web:1", "the steps that made it" } };
const struct zl_cmd zl_cmd_image_history = {
    .name = "history",
    .summary = "Show the steps that made an image",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(history_examples),
    ZL_CMD_ARGS(image_args),
    .size = sizeof(struct two_options),
    .run = run_history,
};

static const struct zl_arg tag_args[] = {
    { "IMAGE", AT(two_options, image), 0, "a reference", .complete = ZL_COMPLETE_IMAGES },
    { "NAME", AT(two_options, other), 0, "its other name" },
};
static const struct zl_example tag_examples[] = { { "zlayer image tag web:1 registry.example/web:1",
                                                    "the same image under a name more" } };
const struct zl_cmd zl_cmd_image_tag = {
    .name = "tag",
    .summary = "Give an image another name",
    .group = ZL_GROUP_IMAGES,
    ZL_CMD_EXAMPLES(tag_examples),
    ZL_CMD_ARGS(tag_args),
    .size = sizeof(struct two_options),
    .run = run_tag,
};

static const struct zl_opt prune_options[] = {
    { "all", 'a', ZL_OPT_FLAG, AT(prune_options, all), NULL, "also every image that no container uses" },
    { "dry-run", 0, ZL_OPT_FLAG, AT(prune_options, dry_run), NULL, "only say what would go" },
    { "filter", 0, ZL_OPT_LIST, AT(prune_options, filters), "FILTER",
      "with --all only images that came before (until=24h), or have a label (label=KEY, label=KEY=VALUE)" },
};
static const struct zl_example prune_examples[] = {
    { "zlayer image prune", "blobs and layers that no image names any more" },
    { "zlayer image prune --all --filter until=7d --dry-run", "what a week's cleaning would free" },
};
const struct zl_cmd zl_cmd_image_prune = {
    .name = "prune",
    .summary = "Remove what is not needed",
    .details = "What a container, a pull or another job at work needs stays.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(prune_examples),
    ZL_CMD_OPTIONS(prune_options),
    .size = sizeof(struct prune_options),
    .run = run_prune,
};

static const struct zl_example df_examples[] = { { "zlayer image df", "each image, and what it shares" } };
const struct zl_cmd zl_cmd_image_df = {
    .name = "df",
    .summary = "Show what images take on the disk",
    .details =
        "Sizes are those of blobs and unpacked layers on the disk. What several images share is counted for each of "
        "them as shared, and once in the totals.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(df_examples),
    .run = run_df,
};

static const struct zl_arg diff_args[] = {
    { "IMAGE", AT(two_options, image), 0, "a reference", .complete = ZL_COMPLETE_IMAGES },
    { "OTHER", AT(two_options, other), 0, "the image that it is compared with", .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example diff_examples[] = { { "zlayer image diff web:1 web:2", "A added, C changed, D gone" } };
const struct zl_cmd zl_cmd_image_diff = {
    .name = "diff",
    .summary = "Show how the files of two images differ",
    .details = "A folder that only one of them has is one line.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(diff_examples),
    ZL_CMD_ARGS(diff_args),
    .size = sizeof(struct two_options),
    .run = run_diff,
};

static const struct zl_opt fsck_options[] = {
    { "repair", 0, ZL_OPT_FLAG, AT(fsck_options, repair), NULL,
      "drop what is broken, and images that lack something with it" },
    { "quick", 0, ZL_OPT_FLAG, AT(fsck_options, quick), NULL, "digests only: layers are not unpacked again" },
};
static const struct zl_example fsck_examples[] = {
    { "zlayer image fsck", "every digest, and every layer beside its blob" },
    { "zlayer image fsck --repair && zlayer pull", "drop what is broken and fetch it again" },
};
const struct zl_cmd zl_cmd_image_fsck = {
    .name = "fsck",
    .summary = "Check the image store",
    .details = "Recomputes the digest of every blob and the ChainIDs of every image, and compares each layer's files "
               "with what "
               "its blob unpacks to. Exits 1 when something is broken and stays.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(fsck_examples),
    ZL_CMD_OPTIONS(fsck_options),
    .size = sizeof(struct fsck_options),
    .run = run_fsck,
};
