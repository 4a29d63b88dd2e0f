/* The parts of the survey that ask the kernel's packet filter. Thread: any. Fails: -errno. */
#pragma once

#include "base/macros.h"

#include <stddef.h>

/* Whether nftables answers. */
int zl_nft_probe(void) ZL_MUST;
/* Chains on the forward hook that drop what they don't know, as "family table/chain, …" in ret; their number. */
int zl_nft_forward_drops(char *ret, size_t size) ZL_MUST;
