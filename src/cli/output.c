#include "cli/output.h"

#include <stdio.h>

static void print_to(const struct zl_term *t, struct zl_buf *b)
{
    zl_term_write(t, zl_buf_view(b));
}

void zl_say(const struct zl_cli *cli, const char *fmt, ...)
{
    zl_auto_buf b = ZL_BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(&b, fmt, ap);
    va_end(ap);
    zl_buf_putc(&b, '\n');
    print_to(&cli->out, &b);
}

void zl_note(const struct zl_cli *cli, const char *fmt, ...)
{
    if (cli->globals.quiet)
        return;
    zl_auto_buf b = ZL_BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(&b, fmt, ap);
    va_end(ap);
    zl_buf_putc(&b, '\n');
    print_to(&cli->err, &b);
}

void zl_warn(const struct zl_cli *cli, const char *fmt, ...)
{
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "%swarning:%s ", zl_style(&cli->err, ZL_YELLOW), zl_style(&cli->err, ZL_PLAIN));
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(&b, fmt, ap);
    va_end(ap);
    zl_buf_putc(&b, '\n');
    print_to(&cli->err, &b);
}

void zl_warn_each(const struct zl_cli *cli, const struct zl_value *deployment)
{
    const struct zl_value *list = zl_value_get(deployment, "warnings");
    for (const struct zl_value *w = list ? list->first : NULL; w; w = w->next)
        zl_warn(cli, "%.*s", ZL_STR_FMT(w->text));
}

void zl_report(const struct zl_term *t, const struct zl_err *err)
{
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "%serror:%s ", zl_style(t, ZL_RED), zl_style(t, ZL_PLAIN));
    zl_term_clean(&b, zl_str(err->text[0] ? err->text : zl_error_text(err->code)));
    zl_buf_putc(&b, '\n');
    if (err->hint[0]) {
        zl_buf_printf(&b, "%shint:%s ", zl_style(t, ZL_CYAN), zl_style(t, ZL_PLAIN));
        zl_term_clean(&b, zl_str(err->hint));
        zl_buf_putc(&b, '\n');
    }
    print_to(t, &b);
}

void zl_output_json(const struct zl_cli *cli, const struct zl_value *v)
{
    zl_auto_buf b = ZL_BUF_INIT;
    zl_json_print(&b, v, 2);
    if (!b.n || b.p[b.n - 1] != '\n')
        zl_buf_putc(&b, '\n');
    print_to(&cli->out, &b);
}

void zl_output_yaml(const struct zl_cli *cli, const struct zl_value *v)
{
    zl_auto_buf b = ZL_BUF_INIT;
    zl_yaml_print(&b, v);
    print_to(&cli->out, &b);
}

bool zl_output_object(const struct zl_cli *cli, const struct zl_value *object)
{
    if (cli->globals.format == ZL_FORMAT_JSON)
        zl_output_json(cli, object);
    else if (cli->globals.format == ZL_FORMAT_YAML)
        zl_output_yaml(cli, object);
    else
        return false;
    return true;
}

void zl_cell(struct zl_buf *out, const struct zl_value *v)
{
    if (!v || v->kind == ZL_NULL)
        return;
    switch (v->kind) {
    case ZL_BOOL:
        zl_buf_puts(out, v->boolean ? "yes" : "no");
        break;
    case ZL_INT:
        zl_buf_printf(out, "%lld", (long long)v->integer);
        break;
    case ZL_DOUBLE:
        zl_buf_printf(out, "%.15g", v->real);
        break;
    case ZL_STRING:
        zl_term_clean(out, v->text);
        break;
    case ZL_LIST:
        for (const struct zl_value *i = v->first; i; i = i->next) {
            zl_cell(out, i);
            if (i->next)
                zl_buf_puts(out, ", ");
        }
        break;
    case ZL_MAP:
    case ZL_NULL:
        break;
    }
}

void zl_age_text(struct zl_buf *out, uint64_t seconds)
{
    if (seconds < 120)
        zl_buf_printf(out, "%llus", (unsigned long long)seconds);
    else if (seconds < 2 * 3600)
        zl_buf_printf(out, "%llum", (unsigned long long)(seconds / 60));
    else if (seconds < UINT64_C(2) * 86400)
        zl_buf_printf(out, "%lluh", (unsigned long long)(seconds / 3600));
    else
        zl_buf_printf(out, "%llud", (unsigned long long)(seconds / 86400));
}

void zl_size_text(struct zl_buf *out, uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
    if (bytes < 1024) {
        zl_buf_printf(out, "%llu B", (unsigned long long)bytes);
        return;
    }
    double v = (double)bytes / 1024;
    unsigned u = 0;
    for (; v >= 1024 && u + 1 < ZL_ARRAY_LEN(units); u++)
        v /= 1024;
    zl_buf_printf(out, v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

enum zl_style zl_state_style(struct zl_str s)
{
    static const struct {
        const char *name;
        enum zl_style style;
    } rows[] = { { "ready", ZL_GREEN },     { "running", ZL_GREEN },     { "healthy", ZL_GREEN },
                 { "ok", ZL_GREEN },        { "yes", ZL_GREEN },         { "failed", ZL_RED },
                 { "unhealthy", ZL_RED },   { "error", ZL_RED },         { "no", ZL_RED },
                 { "unreachable", ZL_RED }, { "pending", ZL_YELLOW },    { "pulling", ZL_YELLOW },
                 { "creating", ZL_YELLOW }, { "starting", ZL_YELLOW },   { "stopping", ZL_YELLOW },
                 { "warning", ZL_YELLOW },  { "warn", ZL_YELLOW },       { "fail", ZL_RED },
                 { "pull_failed", ZL_RED }, { "depend_failed", ZL_RED }, { "backoff", ZL_RED },
                 { "degraded", ZL_YELLOW }, { "exited", ZL_DIM },        { "stopped", ZL_DIM } };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(rows); i++)
        if (zl_str_is(s, rows[i].name))
            return rows[i].style;
    return ZL_PLAIN;
}

static void add_cell(const struct zl_cli *cli, struct zl_buf *out, const struct zl_column *c,
                     const struct zl_value *row)
{
    size_t before = out->n;
    if (c->print)
        c->print(cli, out, row);
    else
        zl_cell(out, zl_value_get(row, c->key));
    if (out->n == before)
        zl_buf_putc(out, '-');
}

/* The texts of a table, row by row, and the width of each column. */
struct grid {
    struct zl_buf text;
    size_t *ends; /* of each cell in text */
    size_t widths[24];
    const struct zl_column *columns[24];
    unsigned n_columns, n_rows;
};

static struct zl_str cell(const struct grid *g, unsigned row, unsigned column)
{
    unsigned i = row * g->n_columns + column;
    size_t from = i ? g->ends[i - 1] : 0;
    return zl_str_n(g->text.p + from, g->ends[i] - from);
}

/* Takes the columns that are too many from those that may be cut, the widest first. */
static void fit(struct grid *g, unsigned width)
{
    size_t total = 0;
    for (unsigned c = 0; c < g->n_columns; c++)
        total += g->widths[c] + (c ? 2 : 0);
    while (total > width) {
        int widest = -1;
        for (unsigned c = 0; c < g->n_columns; c++)
            if ((g->columns[c]->flags & ZL_COLUMN_CUT) && g->widths[c] > 10 &&
                (widest < 0 || g->widths[c] > g->widths[widest]))
                widest = (int)c;
        if (widest < 0)
            return;
        g->widths[widest]--;
        total--;
    }
}

static void add_row(const struct zl_cli *cli, struct zl_buf *out, const struct grid *g, unsigned row, bool header)
{
    for (unsigned c = 0; c < g->n_columns; c++) {
        struct zl_str s = cell(g, row, c);
        size_t columns = zl_term_columns(s), width = g->widths[c];
        const char *more = "";
        if (columns > width) { /* cut at a code point, and say so */
            more = cli->out.utf8 ? "\xe2\x80\xa6" : "~";
            size_t n = 0, i = 0;
            for (; i < s.n; i++)
                if (((unsigned char)s.p[i] & 0xc0) != 0x80 && n++ == width - 1)
                    break;
            s.n = i;
            columns = width;
        }
        bool last = c + 1 == g->n_columns, right = g->columns[c]->flags & ZL_COLUMN_RIGHT;
        enum zl_style style = header ? ZL_BOLD : g->columns[c]->flags & ZL_COLUMN_STATE ? zl_state_style(s) : ZL_PLAIN;
        const char *on = style == ZL_PLAIN ? "" : zl_style(&cli->out, style);
        const char *off = on[0] ? zl_style(&cli->out, ZL_PLAIN) : "";
        int pad = (int)(width - columns);
        zl_buf_printf(out, "%*s%s%.*s%s%s", right ? pad : 0, "", on, ZL_STR_FMT(s), more, off);
        if (!last)
            zl_buf_printf(out, "%*s", (right ? 0 : pad) + 2, "");
    }
    zl_buf_putc(out, '\n');
}

static void print_table(const struct zl_cli *cli, const struct zl_listing *l, const struct zl_value *list)
{
    struct grid g = { .text = ZL_BUF_INIT };
    bool titles = !cli->globals.no_headers;
    for (unsigned i = 0; i < l->n && g.n_columns < ZL_ARRAY_LEN(g.columns); i++)
        if (!(l->columns[i].flags & ZL_COLUMN_WIDE) || cli->globals.format == ZL_FORMAT_WIDE)
            g.columns[g.n_columns++] = &l->columns[i];
    g.n_rows = list->count + titles;
    g.ends = zl_xcalloc((size_t)g.n_rows * g.n_columns + 1, sizeof *g.ends);
    size_t at = 0;
    for (unsigned c = 0; titles && c < g.n_columns; c++) {
        zl_buf_puts(&g.text, g.columns[c]->title);
        g.ends[at++] = g.text.n;
    }
    for (const struct zl_value *row = list->first; row; row = row->next) {
        for (unsigned c = 0; c < g.n_columns; c++) {
            add_cell(cli, &g.text, g.columns[c], row);
            g.ends[at++] = g.text.n;
        }
    }
    for (unsigned r = 0; r < g.n_rows; r++)
        for (unsigned c = 0; c < g.n_columns; c++)
            g.widths[c] = ZL_MAX(g.widths[c], zl_term_columns(cell(&g, r, c)));
    if (cli->out.width && !cli->globals.no_trunc)
        fit(&g, cli->out.width);
    zl_auto_buf out = ZL_BUF_INIT;
    for (unsigned r = 0; r < g.n_rows; r++)
        add_row(cli, &out, &g, r, titles && r == 0);
    print_to(&cli->out, &out);
    free(g.ends);
    zl_buf_done(&g.text);
}

void zl_output_list(const struct zl_cli *cli, const struct zl_listing *l, const struct zl_value *list)
{
    static const struct zl_value empty = { .kind = ZL_LIST };
    if (!list || list->kind != ZL_LIST)
        list = &empty;
    if (zl_output_object(cli, list))
        return;
    if (cli->globals.format == ZL_FORMAT_NAME || cli->globals.quiet) {
        zl_auto_buf out = ZL_BUF_INIT;
        for (const struct zl_value *row = list->first; row; row = row->next) {
            zl_cell(&out, zl_value_get(row, l->name));
            zl_buf_putc(&out, '\n');
        }
        print_to(&cli->out, &out);
    } else if (!list->first && l->none) {
        zl_note(cli, "%s", l->none);
    } else {
        print_table(cli, l, list);
    }
}
