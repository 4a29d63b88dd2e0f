#include "cli/progress.h"

#include "base/clock.h"
#include "cli/output.h"

#include <stdio.h>

/* The short bar leaves room for size, rate and time in 80 columns. */
enum { BAR_COLUMNS = 24, BAR_COLUMNS_SHORT = 10, BAR_WIDTH_MIN = 96, REDRAW_MS = 80, MARK_MS = 2000 };

void zl_progress_init(struct zl_progress *p, const struct zl_cli *cli)
{
    *p = (struct zl_progress){ .cli = cli, .mode = (enum zl_progress_mode)cli->globals.progress };
    const char *term = getenv("TERM");
    if (cli->globals.quiet)
        p->mode = ZL_PROGRESS_QUIET;
    else if (p->mode == ZL_PROGRESS_AUTO)
        p->mode = cli->err.tty && term && !zl_streq(term, "dumb") ? ZL_PROGRESS_TTY : ZL_PROGRESS_PLAIN;
}

static struct zl_progress_row *row(struct zl_progress *p, const char *key)
{
    for (unsigned i = 0; i < p->n; i++)
        if (zl_streq(p->rows[i].key, key))
            return &p->rows[i];
    ZL_GROW(p->rows, p->n, p->cap);
    struct zl_progress_row *r = &p->rows[p->n++];
    *r = (struct zl_progress_row){ 0 };
    snprintf(r->key, sizeof r->key, "%s", key);
    return r;
}

/* Moves the marks on; a row that begins, or begins again, is counted from where it is. */
static void mark(struct zl_progress_row *r, uint64_t current)
{
    uint64_t now = zl_clock_mono_ms();
    if (r->marks[0].ms == 0 || current < r->current) {
        r->marks[0].ms = r->marks[1].ms = now;
        r->marks[0].bytes = r->marks[1].bytes = current;
    } else if (now - r->marks[1].ms >= MARK_MS) {
        r->marks[0] = r->marks[1];
        r->marks[1].ms = now;
        r->marks[1].bytes = current;
    }
}

static void add_bar(const struct zl_progress *p, struct zl_buf *b, const struct zl_progress_row *r)
{
    bool utf8 = p->cli->err.utf8;
    unsigned columns = p->cli->err.width >= BAR_WIDTH_MIN ? BAR_COLUMNS : BAR_COLUMNS_SHORT;
    unsigned full = (unsigned)(ZL_MIN(r->current, r->total) * columns / r->total);
    zl_buf_puts(b, utf8 ? " " : " [");
    for (unsigned i = 0; i < columns; i++)
        zl_buf_puts(b, utf8 ? i < full ? "\xe2\x94\x81" : "\xe2\x94\x80" : i < full ? "#" : "-");
    zl_buf_puts(b, utf8 ? " " : "] ");
    zl_size_text(b, r->current);
    zl_buf_puts(b, " of ");
    zl_size_text(b, r->total);
    uint64_t ms = zl_clock_mono_ms() - r->marks[0].ms;
    uint64_t bytes = r->current > r->marks[0].bytes ? r->current - r->marks[0].bytes : 0;
    uint64_t rate = ms ? bytes * 1000 / ms : 0;
    if (!r->done && rate) {
        zl_buf_puts(b, ", ");
        zl_size_text(b, rate);
        zl_buf_puts(b, "/s");
        if (r->total > r->current) {
            zl_buf_puts(b, ", ");
            zl_age_text(b, (r->total - r->current) / rate + 1);
            zl_buf_puts(b, " left");
        }
    }
}

void zl_progress_clear(struct zl_progress *p)
{
    if (p->mode != ZL_PROGRESS_TTY || !p->drawn)
        return;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "\033[%uA\r\033[J", p->drawn);
    zl_term_write(&p->cli->err, zl_buf_view(&b));
    p->drawn = 0;
    p->drawn_ms = 0;
}

static void draw(struct zl_progress *p)
{
    uint64_t now = zl_clock_mono_ms();
    if (p->mode != ZL_PROGRESS_TTY || now - p->drawn_ms < REDRAW_MS)
        return;
    zl_auto_buf b = ZL_BUF_INIT;
    if (p->drawn)
        zl_buf_printf(&b, "\033[%uA\r", p->drawn);
    p->drawn = 0;
    unsigned width = p->cli->err.width ? p->cli->err.width : 80;
    for (unsigned i = p->n > 20 ? p->n - 20 : 0; i < p->n; i++, p->drawn++) {
        zl_auto_buf line = ZL_BUF_INIT;
        const struct zl_progress_row *r = &p->rows[i];
        zl_buf_printf(&line, "%-14.40s %s", r->key, r->text); /* so that 80 columns hold the time that is left */
        if (r->total)
            add_bar(p, &line, r);
        size_t n = 0, end = 0; /* a line that wraps would be counted wrongly */
        for (; end < line.n; end++)
            if (((unsigned char)line.p[end] & 0xc0) != 0x80 && ++n >= width)
                break;
        zl_buf_add(&b, line.p, end);
        zl_buf_puts(&b, "\033[K\n");
    }
    zl_term_write(&p->cli->err, zl_buf_view(&b));
    p->drawn_ms = now;
}

static void plain(struct zl_progress *p, const struct zl_progress_row *r)
{
    if (p->mode != ZL_PROGRESS_PLAIN)
        return;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_printf(&b, "%s: %s", r->key, r->text);
    if (r->total) {
        zl_buf_puts(&b, "done, ");
        zl_size_text(&b, r->total);
    }
    zl_buf_putc(&b, '\n');
    zl_term_write(&p->cli->err, zl_buf_view(&b));
}

void zl_progress_text(struct zl_progress *p, const char *key, const char *fmt, ...)
{
    struct zl_progress_row *r = row(p, key);
    char text[sizeof r->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    if (zl_streq(text, r->text))
        return;
    memcpy(r->text, text, sizeof text);
    r->total = 0;
    plain(p, r);
    p->drawn_ms = 0;
    draw(p);
}

void zl_progress_bytes(struct zl_progress *p, const char *key, uint64_t current, uint64_t total)
{
    struct zl_progress_row *r = row(p, key);
    bool was_done = r->done;
    mark(r, current);
    r->current = current;
    r->total = total;
    r->done = total && current >= total;
    if (r->done && !was_done) {
        plain(p, r);
        p->drawn_ms = 0;
    }
    draw(p);
}

void zl_progress_note(struct zl_progress *p, const char *fmt, ...)
{
    if (p->mode == ZL_PROGRESS_QUIET)
        return;
    zl_progress_clear(p);
    zl_auto_buf b = ZL_BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    zl_buf_vprintf(&b, fmt, ap);
    va_end(ap);
    zl_buf_putc(&b, '\n');
    zl_term_write(&p->cli->err, zl_buf_view(&b));
    draw(p);
}

void zl_progress_done(struct zl_progress *p)
{
    zl_progress_clear(p);
    free(ZL_TAKE(p->rows));
    p->n = p->cap = 0;
}
