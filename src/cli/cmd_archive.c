/* image save, export, load: archives of images. */
#include "base/fd.h"
#include "cli/commands.h"
#include "cli/imagework.h"
#include "cli/output.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct save_options {
    struct zl_strings images;
    const char *output;
    int format;
    bool gzip;
};

/* The absolute path of a file that need not be there yet: of its folder, and its name. */
static int absolute(struct zl_cli *cli, const char *path, const char **ret, struct zl_err *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    zl_auto_free char *above = slash ? zl_xstrndup(path, (size_t)(slash - path) + 1) : zl_xstrdup(".");
    struct stat there;
    bool is_there = stat(path, &there) == 0;
    if (!*name || (is_there && S_ISDIR(there.st_mode)))
        return zl_fail(err, ZL_E_USAGE, "--output '%.200s' is a folder, not a file", path);
    if (is_there ? !S_ISREG(there.st_mode) : lstat(path, &there) == 0)
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "--output '%.200s' is no regular file", path),
                       "into a pipe or a device an archive goes by way of standard output: -o -");
    if (is_there && realpath(path, folder)) { /* a link stays one */
        *ret = zl_arena_strdup(&cli->arena, folder);
        return 0;
    }
    if (!realpath(above, folder))
        return zl_fail_errno(err, errno == ENOENT ? ZL_E_NOT_FOUND : -errno, -errno, "can't write '%.200s'", path);
    *ret = zl_arena_printf(&cli->arena, "%s/%s", zl_streq(folder, "/") ? "" : folder, name);
    return 0;
}

static int run_save(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct save_options *o = options;
    const struct zl_value *done = NULL;
    struct zl_image_request request = {
        .verb = ZL_IMAGE_SAVE, .references = o->images, .format = o->format, .gzip = o->gzip
    };
    if (!o->output)
        return zl_fail(err, ZL_E_USAGE, "--output is missing: a file, or - for standard output");
    bool to_stdout = zl_streq(o->output, "-") || zl_streq(o->output, "/dev/stdout"); /* which no file may replace */
    if (to_stdout && isatty(STDOUT_FILENO))
        return zl_fail(err, ZL_E_USAGE, "an archive is nothing for a terminal: write it to a file or into a pipe");
    size_t n = strlen(o->output);
    request.gzip |= (n > 3 && zl_streq(o->output + n - 3, ".gz")) || (n > 4 && zl_streq(o->output + n - 4, ".tgz"));
    int e = to_stdout ? 0 : absolute(cli, o->output, &request.target, err);
    if (e < 0)
        return e;
    struct zl_image_work_options how = { .descriptor = to_stdout ? STDOUT_FILENO : -EBADF };
    e = zl_image_work_with(cli, &request, &how, &done, err);
    if (e < 0 || to_stdout || (done && zl_output_object(cli, done)))
        return e;
    zl_auto_buf size = ZL_BUF_INIT;
    zl_size_text(&size, zl_value_u64(done, "bytes", 0));
    zl_note(cli, "wrote %s: %u image%s, %s", o->output, o->images.n, o->images.n == 1 ? "" : "s", size.p);
    return 0;
}

struct load_options {
    const char *archive, *tag;
};

static void print_loaded_size(const struct zl_cli *cli, struct zl_buf *out, const struct zl_value *row)
{
    (void)cli;
    zl_size_text(out, zl_value_u64(row, "size_bytes", 0));
}

static int run_load(struct zl_cli *cli, void *options, struct zl_err *err)
{
    static const struct zl_column columns[] = { { "REFERENCE", "reference", ZL_COLUMN_CUT, NULL },
                                                { "DIGEST", "digest", 0, NULL },
                                                { "SIZE", NULL, ZL_COLUMN_RIGHT, print_loaded_size } };
    static const struct zl_listing listing = { columns, ZL_ARRAY_LEN(columns), "reference", NULL };
    const struct load_options *o = options;
    char source[PATH_MAX] = "/proc/self/fd/3";
    bool from_stdin = zl_streq(o->archive, "-");
    if (from_stdin && isatty(STDIN_FILENO))
        return zl_fail(err, ZL_E_USAGE, "an archive does not come from a terminal: name a file, or pipe one in");
    if (!from_stdin && !realpath(o->archive, source))
        return zl_fail_errno(err, errno == ENOENT ? ZL_E_NOT_FOUND : -errno, -errno, "can't load '%.200s'", o->archive);
    struct zl_image_request request = { .verb = ZL_IMAGE_LOAD, .source = source, .reference = o->tag };
    struct zl_image_work_options how = { .rows = zl_value_new(&cli->arena, ZL_LIST),
                                         .descriptor = from_stdin ? STDIN_FILENO : -EBADF };
    const struct zl_value *done;
    int e = zl_image_work_with(cli, &request, &how, &done, err);
    if (e >= 0 || how.rows->count) /* what was loaded before is here */
        zl_output_list(cli, &listing, how.rows);
    if (e >= 0 && *zl_value_cstr(done, "warning"))
        zl_warn(cli, "%s: %s", o->archive, zl_value_cstr(done, "warning"));
    return e;
}

#define AT(type, field) offsetof(struct type, field)
static const char *const formats[] = { "oci", "docker", NULL };
static const struct zl_opt save_options[] = {
    { "output", 'o', ZL_OPT_STRING, AT(save_options, output), "FILE", "the archive; - is standard output",
      .complete = ZL_COMPLETE_FILES },
    { "format", 0, ZL_OPT_ENUM, AT(save_options, format), "FORMAT",
      "an OCI layout, which keeps every byte of the manifests, or what `docker load` of all versions reads",
      .choices = formats, .fallback = "oci" },
    { "gzip", 0, ZL_OPT_FLAG, AT(save_options, gzip), NULL,
      "compress the archive; also by the ending .gz or .tgz of its name" },
};
static const struct zl_arg save_args[] = {
    { "IMAGE", AT(save_options, images), ZL_ARG_MANY, "references", .complete = ZL_COMPLETE_IMAGES },
};
static const struct zl_example save_examples[] = {
    { "zlayer image save -o web.tar web:1 web:2", "two images in one archive" },
    { "zlayer image save --format docker -o - web:1 | ssh host docker load", "for a docker elsewhere" },
};
#define SAVE(symbol, name_)                                                                         \
    const struct zl_cmd symbol = {                                                                  \
        .name = name_,                                                                              \
        .summary = "Write images into an archive",                                                  \
        .details = "Each blob is verified while it is written; the file appears when it is whole.", \
        .group = ZL_GROUP_IMAGES,                                                                   \
        ZL_CMD_EXAMPLES(save_examples),                                                             \
        ZL_CMD_OPTIONS(save_options),                                                               \
        ZL_CMD_ARGS(save_args),                                                                     \
        .size = sizeof(struct save_options),                                                        \
        .run = run_save,                                                                            \
    }
SAVE(zl_cmd_image_save, "save");
SAVE(zl_cmd_image_export, "export");

static const struct zl_opt load_options[] = {
    { "tag", 't', ZL_OPT_STRING, AT(load_options, tag), "NAME", "the name of the archive's one image" },
};
static const struct zl_arg load_args[] = {
    { "ARCHIVE", AT(load_options, archive), 0,
      "a tar file, plain or compressed, or the folder of an OCI layout; - is standard input",
      .complete = ZL_COMPLETE_FILES },
};
static const struct zl_example load_examples[] = {
    { "zlayer image load web.tar", "of `zlayer image save`, `docker save`, `podman save`, skopeo" },
    { "docker save web:1 | zlayer image load -", "from a pipe" },
};
const struct zl_cmd zl_cmd_image_load = {
    .name = "load",
    .summary = "Take the images of an archive",
    .details = "Reads OCI layouts and docker archives, and all images in them.",
    .group = ZL_GROUP_IMAGES,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(load_examples),
    ZL_CMD_OPTIONS(load_options),
    ZL_CMD_ARGS(load_args),
    .size = sizeof(struct load_options),
    .run = run_load,
};
