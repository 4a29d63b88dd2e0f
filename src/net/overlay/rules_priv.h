/*
 * The firewall rules as nft commands (pure), and the accept for our link where a foreign forward chain would drop it.
 * Thread: any. Fails: the pure ones never; the others report in err.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"
#include "net/overlay/ranges.h"
#include "net/overlay/uplink_priv.h"

/* Inside, table `inet zlayer`. Sets keep their elements: chains are emptied and filled in one transaction. */
void zl_rules_inside(struct zl_buf *b, const struct zl_net_ranges *ranges);
/* Outside, table `inet zlayer_<tag>`: the masquerade of the uplink. */
void zl_rules_outside(struct zl_buf *b, const char *tag, const struct zl_uplink *uplink);

/* Puts a tagged accept at the head of every foreign chain on the forward hook that may drop; once. */
int zl_foreign_accept(const char *tag, const struct zl_uplink *uplink, struct zl_err *err) ZL_MUST;
/* Takes our tagged rules out again. */
int zl_foreign_forget(const char *tag, struct zl_err *err) ZL_MUST;
/* The same from JSON of `nft list ruleset`, as commands in `ret`; pure, for tests. -EPROTO: not what nft writes. */
int zl_foreign_plan(struct zl_str json, const char *tag, const char *link, bool accept, struct zl_buf *ret) ZL_MUST;
