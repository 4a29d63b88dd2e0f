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

#define ZL_CAT2_(a, b) a##b
#define ZL_CAT_(a, b)  ZL_CAT2_(a, b)
#define ZL_PICK_(a, op, b, x, y) \
    ({                           \
        __typeof__(a) x = (a);   \
        __typeof__(b) y = (b);   \
        x op y ? x : y;          \
    })
/* Each use has variables of its own, so that uses nest. */
#define ZL_MIN(a, b) ZL_PICK_(a, <, b, ZL_CAT_(x_, __COUNTER__), ZL_CAT_(y_, __COUNTER__))
#define ZL_MAX(a, b) ZL_PICK_(a, >, b, ZL_CAT_(x_, __COUNTER__), ZL_CAT_(y_, __COUNTER__))

/* Whether this is a build for AddressSanitizer or ThreadSanitizer, which need more of the system than the program. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZL_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ZL_SANITIZED 1
#endif
#endif
#ifndef ZL_SANITIZED
#define ZL_SANITIZED 0
#endif

/* Drops a result on purpose; the reason stands beside it. (GCC does not take a cast to void for that.) */
#define ZL_IGNORE(call)                               \
    do {                                              \
        __typeof__(call) ZL_UNUSED ignored_ = (call); \
    } while (0)

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
