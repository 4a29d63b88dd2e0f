/* The kernel's packet filter, as far as this room looks at it. Thread: any. Owns: nothing. Fails: -errno. */
#pragma once

#include "base/macros.h"

#include <stddef.h>

/* Where the program nft is, or NULL. Static storage. */
const char *zl_nft_program(void);
/* Whether nftables answers. */
int zl_nft_probe(void) ZL_MUST;
/* The number of other programs' IPv4 chains on the forward hook. In ret (may be NULL) those whose policy is to drop, as
 * "family table/chain, …". */
int zl_nft_forward_chains(char *ret, size_t size) ZL_MUST;
