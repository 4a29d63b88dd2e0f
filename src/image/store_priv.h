/* What the files of the store share. Thread: any. Fails: never. */
#pragma once

#include <stddef.h>

/* A canonical reference as the name of its record's file. */
void zl_store_escape(const char *reference, char *ret, size_t size);
