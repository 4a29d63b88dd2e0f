/*
 * Runs the program nft with commands (nft(8)) and takes its output. The commands of one call are one transaction. A
 * call costs about 5 ms, for which it blocks; what changes with every container goes by sets_priv.h. Thread: any. Owns:
 * the caller owns *ret. Fails: ZL_E_PERMISSION, ZL_E_NETWORK with what nft said.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"
#include "codec/value.h"
#include "sys/inside.h"

/* In a namespace, or with netns -1 in the caller's own. With ret the output comes as JSON. */
int zl_nft_run(int netns, const char *commands, struct zl_buf *ret, struct zl_err *err) ZL_MUST;
/* In the network that an ordinary user's holder keeps. */
int zl_nft_run_inside(const struct zl_inside *in, const char *commands, struct zl_err *err) ZL_MUST;

/* Of that JSON: a host may have tens of thousands of rules of its own. */
extern const struct zl_parse_limits zl_nft_limits;
