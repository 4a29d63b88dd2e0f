/* Attributes and small macros used everywhere. Thread: any. Fails: never. Owns: nothing. */
#pragma once

#include <stddef.h>

#define ZL_MUST              __attribute__((warn_unused_result))
#define ZL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ZL_NORETURN          __attribute__((noreturn))
#define ZL_UNUSED            __attribute__((unused))
#define ZL_CLEANUP(fn)       __attribute__((cleanup(fn)))

#define ZL_ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define ZL_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define ZL_MIN(a, b)            \
    ({                          \
        __typeof__(a) a_ = (a); \
        __typeof__(b) b_ = (b); \
        a_ < b_ ? a_ : b_;      \
    })
#define ZL_MAX(a, b)            \
    ({                          \
        __typeof__(a) c_ = (a); \
        __typeof__(b) d_ = (b); \
        c_ > d_ ? c_ : d_;      \
    })

/* Hands a pointer over: its value is returned and the variable is left NULL. */
#define ZL_TAKE(p)              \
    ({                          \
        __typeof__(p) p_ = (p); \
        (p) = NULL;             \
        p_;                     \
    })

/* Defines the function behind ZL_AUTO(name): `struct name *` freed by `name_free` at scope end. */
#define ZL_DEFINE_AUTO(name, free_fn)                \
    static inline void name##_auto_(struct name **p) \
    {                                                \
        if (*p)                                      \
            (void)free_fn(*p);                       \
    }
#define ZL_AUTO(name) ZL_CLEANUP(name##_auto_) struct name *
