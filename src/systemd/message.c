#include "systemd/systemd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TYPE_MAX = 64 };

/* How long one complete type is; 0: it is none that is known here. */
static size_t type_length(const char *s)
{
    if (*s == 'a') {
        size_t n = type_length(s + 1);
        return n ? n + 1 : 0;
    }
    if (*s != '(')
        return *s && strchr("bynqiuxtds", *s) ? 1 : 0;
    size_t at = 1;
    while (s[at] && s[at] != ')') {
        size_t n = type_length(s + at);
        if (!n)
            return 0;
        at += n;
    }
    return s[at] == ')' && at > 1 ? at + 1 : 0;
}

/* Numbers over those of JSON come as text. */
static int append_number(sd_bus_message *m, char type, const struct zl_value *v)
{
    static const struct {
        char type;
        int64_t min;
        uint64_t max;
    } ranges[] = { { 'y', 0, UINT8_MAX },         { 'n', INT16_MIN, INT16_MAX }, { 'q', 0, UINT16_MAX },
                   { 'i', INT32_MIN, INT32_MAX }, { 'u', 0, UINT32_MAX },        { 'x', INT64_MIN, INT64_MAX },
                   { 't', 0, UINT64_MAX } };
    size_t i = 0;
    int64_t number;
    uint64_t large;
    while (ranges[i].type != type)
        i++;
    if (v->kind != ZL_INT && v->kind != ZL_STRING)
        return -EINVAL;
    if (ranges[i].min == 0) {
        if (zl_parse_u64(v->text, 0, ranges[i].max, &large) < 0)
            return -EINVAL;
    } else {
        if (zl_parse_i64(v->text, ranges[i].min, (int64_t)ranges[i].max, &number) < 0)
            return -EINVAL;
        large = (uint64_t)number;
    }
    /* Little-endian or not, each type is read from a variable of its size. */
    uint8_t u8 = (uint8_t)large;
    uint16_t u16 = (uint16_t)large;
    uint32_t u32 = (uint32_t)large;
    return sd_bus_message_append_basic(m, type,
                                       type == 'y'                  ? (void *)&u8
                                       : type == 'n' || type == 'q' ? (void *)&u16
                                       : type == 'i' || type == 'u' ? (void *)&u32
                                                                    : (void *)&large);
}

static int append_basic(sd_bus_message *m, char type, const struct zl_value *v)
{
    int boolean = v->kind == ZL_BOOL && v->boolean;
    double real = v->kind == ZL_DOUBLE ? v->real : v->kind == ZL_INT ? (double)v->integer : 0;
    switch (type) {
    case 'b':
        return v->kind == ZL_BOOL ? sd_bus_message_append_basic(m, type, &boolean) : -EINVAL;
    case 's':
        if (v->kind != ZL_STRING || strlen(v->text.p) != v->text.n)
            return -EINVAL;
        return sd_bus_message_append_basic(m, type, v->text.p);
    case 'd':
        if (v->kind != ZL_DOUBLE && v->kind != ZL_INT)
            return -EINVAL;
        return sd_bus_message_append_basic(m, type, &real);
    default:
        return append_number(m, type, v);
    }
}

int systemd_append(sd_bus_message *m, const char *signature, const struct zl_value *v, const char **rest)
{
    char inside[TYPE_MAX];
    size_t n = type_length(signature);
    if (!n || n >= sizeof inside || !v)
        return -EINVAL;
    *rest = signature + n;
    bool array = signature[0] == 'a';
    if (!array && signature[0] != '(')
        return append_basic(m, signature[0], v);
    if (v->kind != ZL_LIST)
        return -EINVAL;
    snprintf(inside, sizeof inside, "%.*s", (int)(array ? n - 1 : n - 2), signature + 1);
    int r = sd_bus_message_open_container(m, array ? 'a' : 'r', inside);
    const char *type = inside;
    for (const struct zl_value *item = v->first; r >= 0 && item; item = item->next) {
        type = array ? inside : type;
        r = *type ? systemd_append(m, type, item, &type) : -EINVAL;
    }
    if (r >= 0 && !array && *type)
        r = -EINVAL;
    return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_property(sd_bus_message *m, const struct zl_value *p, const char **bad)
{
    const struct zl_value *name = p->kind == ZL_LIST && p->count == 3 ? p->first : NULL;
    const struct zl_value *signature = name ? name->next : NULL;
    const char *rest;
    if (!name || name->kind != ZL_STRING || signature->kind != ZL_STRING)
        return -EINVAL;
    *bad = name->text.p;
    int r = sd_bus_message_open_container(m, 'r', "sv");
    r = r < 0 ? r : sd_bus_message_append_basic(m, 's', name->text.p);
    r = r < 0 ? r : sd_bus_message_open_container(m, 'v', signature->text.p);
    r = r < 0 ? r : systemd_append(m, signature->text.p, signature->next, &rest);
    if (r >= 0 && *rest)
        r = -EINVAL;
    r = r < 0 ? r : sd_bus_message_close_container(m);
    return r < 0 ? r : sd_bus_message_close_container(m);
}

int systemd_append_properties(sd_bus_message *m, const struct zl_value *list, const char **bad)
{
    *bad = "(the list)";
    if (list->kind != ZL_LIST)
        return -EINVAL;
    int r = sd_bus_message_open_container(m, 'a', "(sv)");
    for (const struct zl_value *p = list->first; r >= 0 && p; p = p->next)
        r = append_property(m, p, bad);
    return r < 0 ? r : sd_bus_message_close_container(m);
}
