#include "cli/logview.h"

#include "cli/output.h"
#include "client/client.h"

#include <stdio.h>

enum { FLUSH_BYTES = 64 * 1024 };

void zl_logview_init(struct zl_logview *v, const struct zl_cli *cli)
{
    *v = (struct zl_logview){ .cli = cli, .prefix = true };
}

void zl_logview_flush(struct zl_logview *v)
{
    zl_term_write(&v->cli->out, zl_buf_view(&v->out));
    zl_term_write(&v->cli->err, zl_buf_view(&v->err));
    zl_buf_clear(&v->out);
    zl_buf_clear(&v->err);
}

void zl_logview_done(struct zl_logview *v)
{
    zl_logview_flush(v);
    free(ZL_TAKE(v->cursors));
    zl_buf_done(&v->out);
    zl_buf_done(&v->err);
}

static void note_cursor(struct zl_logview *v, const struct zl_value *line)
{
    const char *instance = zl_value_cstr(line, "instance"), *cursor = zl_value_cstr(line, "cursor");
    if (!instance[0] || !cursor[0])
        return;
    unsigned i = v->last;
    if (i >= v->n || !zl_streq(v->cursors[i].instance, instance)) /* mostly the same replica as before */
        for (i = 0; i < v->n && !zl_streq(v->cursors[i].instance, instance); i++)
            ;
    if (i == v->n) {
        ZL_GROW(v->cursors, v->n, v->cap);
        v->n++;
        snprintf(v->cursors[i].instance, sizeof v->cursors[i].instance, "%s", instance);
    }
    snprintf(v->cursors[i].cursor, sizeof v->cursors[i].cursor, "%s", cursor);
    v->last = i;
}

static void show(struct zl_logview *v, const struct zl_value *line)
{
    const struct zl_cli *cli = v->cli;
    bool is_err = v->split && zl_streq(zl_value_cstr(line, "stream"), "stderr");
    const struct zl_term *t = is_err ? &cli->err : &cli->out;
    struct zl_buf *b = is_err ? &v->err : &v->out;
    if (v->prefix) {
        char name[96];
        const char *service = zl_value_cstr(line, "service");
        int n = snprintf(name, sizeof name, "%s-%llu", service, (unsigned long long)zl_value_u64(line, "slot", 0));
        v->width = ZL_MAX(v->width, (unsigned)ZL_MIN(ZL_MAX(n, 0), 30));
        zl_buf_printf(b, "%s%-*s |%s ", zl_style_of_name(t, service), (int)v->width, name, zl_style(t, ZL_PLAIN));
    }
    if (v->times)
        zl_buf_printf(b, "%s%s%s ", zl_style(t, ZL_DIM), zl_value_cstr(line, "time"), zl_style(t, ZL_PLAIN));
    struct zl_str text = zl_value_str(line, "text");
    /* On a terminal a container's text may colour itself, but not steer anything else; a pipe gets every byte. */
    if (t->tty && !t->colour)
        zl_term_clean(b, text);
    else
        zl_buf_add_str(b, text);
    if (v->prefix && t->colour && text.n && memchr(text.p, '\033', text.n))
        zl_buf_puts(b, zl_style(t, ZL_PLAIN));
    zl_buf_putc(b, '\n');
    if (b->n > FLUSH_BYTES)
        zl_logview_flush(v);
}

static void take(struct zl_logview *v, struct zl_str text, bool shown)
{
    if (!zl_str_trim(text).n)
        return; /* an empty line keeps the stream alive */
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_value *line;
    struct zl_parse_error pe;
    if (zl_json_parse(&arena, text, &zl_limits_document, &line, &pe) < 0) {
        zl_term_clean(&v->err, text);
        zl_buf_putc(&v->err, '\n');
    } else {
        note_cursor(v, line);
        if (shown)
            show(v, line);
    }
    zl_arena_done(&arena);
}

void zl_logview_add(struct zl_logview *v, struct zl_str line)
{
    take(v, line, true);
}

void zl_logview_skip(struct zl_logview *v, struct zl_str line)
{
    take(v, line, false);
}

void zl_logview_query(const struct zl_logview *v, struct zl_buf *path)
{
    for (unsigned i = 0; i < v->n; i++) {
        zl_buf_puts(path, i ? "," : "&cursor=");
        zl_path_segment(path, v->cursors[i].cursor);
    }
}
