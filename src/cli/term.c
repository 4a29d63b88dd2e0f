#include "cli/term.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"

static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static bool wants_colour(int fd, int color)
{
    if (color != ZL_TERM_COLOR_AUTO)
        return color == ZL_TERM_COLOR_ALWAYS;
    if (variable("NO_COLOR"))
        return false;
    const char *force = variable("CLICOLOR_FORCE");
    if (!force)
        force = variable("FORCE_COLOR");
    if (force && !zl_streq(force, "0"))
        return true;
    const char *term = variable("TERM");
    return term && !zl_streq(term, "dumb") && isatty(fd);
}

static bool locale_is_utf8(void)
{
    const char *v = variable("LC_ALL");
    if (!v)
        v = variable("LC_CTYPE");
    if (!v)
        v = variable("LANG");
    const char *dot = v ? strchr(v, '.') : NULL;
    if (!dot)
        return false;
    struct zl_str charset = zl_str_cut(zl_str(dot + 1), '@', &(struct zl_str){ 0 });
    return zl_str_eq_nocase(charset, ZL_STR("UTF-8")) || zl_str_eq_nocase(charset, ZL_STR("utf8"));
}

void zl_term_resize(struct zl_term *t)
{
    struct winsize size;
    t->width = 0;
    if (!t->tty)
        return;
    t->width = ioctl(t->fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void zl_term_init(struct zl_term *t, int fd, int color)
{
    t->fd = fd;
    t->failed = NULL;
    t->tty = isatty(fd);
    t->colour = wants_colour(fd, color);
    t->utf8 = locale_is_utf8();
    zl_term_resize(t);
}

const char *zl_style(const struct zl_term *t, enum zl_style style)
{
    static const char *const codes[] = {
        [ZL_PLAIN] = "\033[0m",  [ZL_BOLD] = "\033[1m",    [ZL_DIM] = "\033[2m",  [ZL_RED] = "\033[31m",
        [ZL_GREEN] = "\033[32m", [ZL_YELLOW] = "\033[33m", [ZL_CYAN] = "\033[36m"
    };
    return t->colour ? codes[style] : "";
}

const char *zl_style_of_name(const struct zl_term *t, const char *name)
{
    static const char *const codes[] = { "\033[36m", "\033[33m", "\033[32m", "\033[35m", "\033[34m",
                                         "\033[96m", "\033[93m", "\033[92m", "\033[95m", "\033[94m" };
    unsigned hash = 5381;
    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    return t->colour ? codes[hash % ZL_ARRAY_LEN(codes)] : "";
}

/* U+202A to U+202E and U+2066 to U+2069 show what follows in another order than it has. */
static bool reorders(const char *p, size_t n)
{
    unsigned char last = n >= 3 ? (unsigned char)p[2] : 0;
    return (n >= 3 && memcmp(p, "\xe2\x80", 2) == 0 && last >= 0xaa && last <= 0xae) ||
           (n >= 3 && memcmp(p, "\xe2\x81", 2) == 0 && last >= 0xa6 && last <= 0xa9);
}

void zl_term_clean(struct zl_buf *out, struct zl_str text)
{
    size_t from = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        /* C1 controls as UTF-8 (0xc2 0x80..0x9f) steer some terminals as ESC does. */
        size_t more = c == 0xc2 && i + 1 < text.n && ((unsigned char)text.p[i + 1] & 0xe0) == 0x80 ? 1
                      : reorders(text.p + i, text.n - i)                                           ? 2
                                                                                                   : 0;
        if ((c >= ' ' && c != 0x7f && !more) || c == '\t')
            continue;
        zl_buf_add(out, text.p + from, i - from);
        zl_buf_putc(out, '?');
        i += more;
        from = i + 1;
    }
    if (from < text.n)
        zl_buf_add(out, text.p + from, text.n - from);
}

size_t zl_term_columns(struct zl_str text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++)
        n += ((unsigned char)text.p[i] & 0xc0) != 0x80;
    return n;
}

void zl_term_write(const struct zl_term *t, struct zl_str text)
{
    if (t->failed && *t->failed < 0)
        return;
    int r = text.n ? zl_write_full(t->fd, text.p, text.n) : 0;
    if (r < 0 && t->failed)
        *t->failed = r;
    if (r != -EPIPE) /* what can't be told on stderr nobody is told */
        return;
    (void)signal(SIGPIPE, SIG_DFL);
    (void)raise(SIGPIPE);
    _exit(128 + SIGPIPE);
}
