/*
 * Random 128-bit ids as 32 lower-case hex digits (instances, leases, requests), from the kernel. Thread: any.
 * Fails: never (getrandom does not fail once the machine is up; it aborts if it does).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ZL_ID_HEX_LEN = 32, ZL_ID_HEX_SIZE = 33 };

void zl_random_bytes(void *p, size_t n);
uint64_t zl_random_u64(void);
void zl_id_make(char ret[ZL_ID_HEX_SIZE]);
/* Exactly 32 lower-case hex digits. */
bool zl_id_valid(const char *s);
