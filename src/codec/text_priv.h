/* What the writers and readers of text share. Thread: any. Owns: nothing. Fails: never. */
#pragma once

#include <stddef.h>

/* The length of the UTF-8 sequence at s, of at most n bytes; 0 when it is none (RFC 3629). n is at least 1. */
size_t codec_utf8(const unsigned char *s, size_t n);
