/*
 * Checks for programming errors; kept in release builds, never used for input. A failure prints where it was and
 * aborts. Thread: any. Owns: nothing.
 */
#pragma once

#include "base/macros.h"

ZL_NORETURN void zl_assert_failed(const char *expr, const char *file, int line, const char *func);

#define zl_assert(expr)                                            \
    do {                                                           \
        if (__builtin_expect(!(expr), 0))                          \
            zl_assert_failed(#expr, __FILE__, __LINE__, __func__); \
    } while (0)
