#include "cli/document.h"

#include "base/fd.h"
#include "cli/output.h"

#include <fcntl.h>
#include <unistd.h>

static int read_stdin(struct zl_buf *text)
{
    for (;;) {
        zl_buf_reserve(text, 65536);
        ssize_t n = zl_read_full(STDIN_FILENO, text->p + text->n, 65536);
        if (n < 0)
            return (int)n;
        text->n += (size_t)n;
        text->p[text->n] = 0;
        if (text->n > zl_limits_document.bytes)
            return -EFBIG;
        if (n < 65536)
            return 0;
    }
}

int zl_document_load(struct zl_cli *cli, const char *file, struct zl_document *ret, struct zl_err *err)
{
    zl_auto_free char *found = NULL;
    if (!file) {
        int e = zl_spec_find(&found, err);
        if (e < 0)
            return e;
        file = zl_arena_strdup(&cli->arena, found);
    }
    zl_auto_buf text = ZL_BUF_INIT;
    bool from_stdin = zl_streq(file, "-");
    int e = from_stdin ? read_stdin(&text) : zl_read_file(AT_FDCWD, file, zl_limits_document.bytes, &text);
    if (e == -ENOENT)
        return zl_hint(err, zl_fail_errno(err, ZL_E_NOT_FOUND, e, "can't read '%s'", file),
                       "name a document, or create .zlayer.yml in this folder");
    if (e < 0)
        return zl_fail(err, e, "can't read '%s'", from_stdin ? "stdin" : file);
    ret->file = from_stdin ? "stdin" : file;
    ret->text.p = zl_arena_strndup(&cli->arena, text.p ? text.p : "", text.n);
    ret->text.n = text.n;

    struct zl_decoder d;
    zl_decoder_init(&d, &cli->arena);
    e = zl_spec_parse(&d, ret->text, &ret->spec, err);
    if (d.count) {
        zl_auto_buf out = ZL_BUF_INIT;
        zl_spec_problems_print(&out, &d, ret->text, ret->file, cli->err.colour);
        zl_term_write(&cli->err, zl_buf_view(&out));
    }
    zl_decoder_done(&d);
    return e;
}

int zl_document_name(struct zl_cli *cli, const char *name, const char **ret, struct zl_err *err)
{
    if (name) {
        *ret = name;
        return 0;
    }
    struct zl_document doc;
    int e = zl_document_load(cli, NULL, &doc, err);
    if (e < 0)
        return e == ZL_E_NOT_FOUND ? zl_hint(err, e, "name the deployment, or run this where its document is") : e;
    *ret = doc.spec->deployment;
    return 0;
}
