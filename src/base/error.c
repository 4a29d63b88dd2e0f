#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *text;
    short http, retryable, exit_code;
} table[] = {
#define X(name, text, http, retry, exit) { text, http, retry, exit },
    ZL_ERRORS(X)
#undef X
};

static int row(int code)
{
    int i = -10000 - code;
    return i >= 0 && i < (int)ZL_ARRAY_LEN(table) ? i : -1;
}

const char *zl_error_name(int code)
{
    int i = row(code);
    if (i >= 0)
        return table[i].text;
    const char *name = code < 0 && code > -4096 ? strerrorname_np(-code) : NULL;
    return name ? name : "unknown";
}

int zl_error_by_name(const char *name)
{
    for (int i = 0; i < (int)ZL_ARRAY_LEN(table); i++)
        if (strcmp(table[i].text, name) == 0)
            return -10000 - i;
    return 0;
}

const char *zl_error_text(int code)
{
    int i = row(code);
    if (i >= 0)
        return table[i].text;
    const char *text = code < 0 && code > -4096 ? strerrordesc_np(-code) : NULL;
    return text ? text : "unknown error";
}

int zl_error_http(int code)
{
    int i = row(code);
    return i >= 0 ? table[i].http : 500;
}

int zl_error_exit(int code)
{
    int i = row(code);
    return i >= 0 ? table[i].exit_code : 1;
}

int zl_error_retryable(int code)
{
    int i = row(code);
    return i >= 0 ? table[i].retryable : 0;
}

static void fill(struct zl_err *err, int code, int cause, const char *origin, const char *fmt, va_list ap)
    ZL_PRINTF(5, 0);
static void fill(struct zl_err *err, int code, int cause, const char *origin, const char *fmt, va_list ap)
{
    err->code = code;
    err->cause = cause;
    err->origin = origin;
    err->hint[0] = 0;
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    if (cause && n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", zl_error_text(cause));
}

int zl_fail_at(struct zl_err *err, int code, const char *origin, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, code > -4096 ? code : 0, origin, fmt, ap);
    va_end(ap);
    return code;
}

int zl_fail_errno_at(struct zl_err *err, int code, int cause, const char *origin, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, cause, origin, fmt, ap);
    va_end(ap);
    return code;
}

int zl_wrap(struct zl_err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return code;
}

int zl_hint(struct zl_err *err, int code, const char *fmt, ...)
{
    if (!err || err->hint[0])
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->hint, sizeof err->hint, fmt, ap);
    va_end(ap);
    return code;
}
