#include "http/chunked.h"

#include "http/message.h"

#include <errno.h>
#include <stdbool.h>

enum state {
    SIZE,      /* hex digits */
    EXTENSION, /* up to CR */
    SIZE_LF,   /* LF of a size line */
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* at the start of a trailer line */
    NAME,
    VALUE,
    VALUE_LF,
    END_LF, /* LF of the empty line */
    END,
};

void zl_chunked_init(struct zl_chunked *c)
{
    memset(c, 0, sizeof *c);
}

static int hex(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    if (ch >= 'a' && ch <= 'f')
        return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F')
        return ch - 'A' + 10;
    return -1;
}

/* A trailer that would change how a message is framed or routed is an attack, not metadata. */
static bool name_is_forbidden(struct zl_str name)
{
    static const char *const names[] = { "content-length", "transfer-encoding", "host", "connection", "upgrade", "te",
                                         "trailer" };
    for (unsigned i = 0; i < ZL_ARRAY_LEN(names); i++)
        if (zl_str_eq_nocase(name, zl_str(names[i])))
            return true;
    return false;
}

static bool is_value_byte(char ch)
{
    return zl_http_is_value(zl_str_n(&ch, 1));
}

static int size_byte(struct zl_chunked *c, char ch)
{
    if (++c->line > ZL_CHUNKED_LINE_MAX)
        return -EMSGSIZE;
    int d = hex(ch);
    if (d >= 0) {
        if (++c->digits > 15)
            return -EBADMSG;
        c->left = c->left * 16 + (uint64_t)d;
        return 0;
    }
    if (c->digits == 0 || (ch != '\r' && ch != ';'))
        return -EBADMSG;
    c->state = ch == ';' ? EXTENSION : SIZE_LF;
    return 0;
}

static int trailer_byte(struct zl_chunked *c, char ch)
{
    if (++c->trailer > ZL_CHUNKED_TRAILER_MAX)
        return -EMSGSIZE;
    if (c->state == NAME && ch == ':') {
        if (name_is_forbidden(zl_str_n(c->name, c->name_n)))
            return -EBADMSG;
        c->state = VALUE;
        return 0;
    }
    if (c->state == VALUE) {
        if (ch == '\r')
            c->state = VALUE_LF;
        else if (!is_value_byte(ch))
            return -EBADMSG;
        return 0;
    }
    if (!zl_http_is_token(zl_str_n(&ch, 1)))
        return -EBADMSG;
    if (c->name_n < sizeof c->name)
        c->name[c->name_n++] = ch;
    return 0;
}

static int expect(struct zl_chunked *c, char ch, char want, enum state next)
{
    if (ch != want)
        return -EBADMSG;
    c->state = (uint8_t)next;
    return 0;
}

/* One byte of anything but data. */
static int step(struct zl_chunked *c, char ch)
{
    switch ((enum state)c->state) {
    case SIZE:
        return size_byte(c, ch);
    case EXTENSION:
        if (++c->line > ZL_CHUNKED_LINE_MAX)
            return -EMSGSIZE;
        if (ch == '\r')
            c->state = SIZE_LF;
        else if (!is_value_byte(ch))
            return -EBADMSG;
        return 0;
    case SIZE_LF:
        c->line = c->digits = 0;
        return expect(c, ch, '\n', c->left ? DATA : TRAILER);
    case DATA_CR:
        return expect(c, ch, '\r', DATA_LF);
    case DATA_LF:
        return expect(c, ch, '\n', SIZE);
    case TRAILER:
        if (ch == '\r') {
            c->state = END_LF;
            return 0;
        }
        c->name_n = 0;
        c->state = NAME;
        return trailer_byte(c, ch == ':' ? ' ' : ch); /* an empty name is as wrong as a space */
    case NAME:
    case VALUE:
        return trailer_byte(c, ch);
    case VALUE_LF:
        return expect(c, ch, '\n', TRAILER);
    case END_LF:
        return expect(c, ch, '\n', END);
    case DATA:
    case END:
        break;
    }
    return -EBADMSG;
}

int zl_chunked_next(struct zl_chunked *c, struct zl_str *in, struct zl_str *ret_data)
{
    while (in->n && c->state != END) {
        if (c->state == DATA) {
            size_t n = in->n < c->left ? in->n : (size_t)c->left;
            *ret_data = zl_str_n(in->p, n);
            *in = zl_str_n(in->p + n, in->n - n);
            c->left -= n;
            if (c->left == 0)
                c->state = DATA_CR;
            return ZL_CHUNKED_DATA;
        }
        int r = step(c, in->p[0]);
        if (r < 0)
            return r;
        *in = zl_str_n(in->p + 1, in->n - 1);
    }
    return c->state == END ? ZL_CHUNKED_END : ZL_CHUNKED_MORE;
}

size_t zl_chunked_head(char ret[ZL_CHUNKED_HEAD_SIZE], uint64_t n)
{
    static const char digits[] = "0123456789abcdef";
    char text[16];
    size_t i = 0, out = 0;
    for (; n; n >>= 4)
        text[i++] = digits[n & 15];
    while (i)
        ret[out++] = text[--i];
    ret[out++] = '\r';
    ret[out++] = '\n';
    return out;
}
