/*
 * The mark: how far the state had come, rewritten after each apply and never synced. A store that loads less than its
 * mark, or another history, has lost acknowledged commands. 78 bytes of text: version, commands applied, raft's term,
 * hash chain, checksum. A mark that does not check (a power cut may leave it torn or empty) is no evidence of loss.
 * Thread: any. Owns: nothing. Fails: ZL_E_PARSE (no mark), ZL_E_STORE_NEWER.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"

enum { ZL_MARK_SIZE = 78 };

struct zl_mark {
    uint64_t applied, term, chain;
};

void zl_mark_encode(char ret[ZL_MARK_SIZE + 1], const struct zl_mark *m);
int zl_mark_decode(struct zl_str bytes, struct zl_mark *ret, struct zl_err *err) ZL_MUST;
