/*
 * The members as a sorted table, and the changes of the kernel's sets that lead from one table to another. Pure.
 * Thread: one at a time a table. Owns: the table owns its rows.
 */
#pragma once

#include "base/str.h"
#include "net/overlay/sets_priv.h"

struct zl_members {
    struct zl_net_member *rows; /* by address in network order as a number, each address once */
    uint32_t *numbers;          /* of the rows' deployments, from 1 */
    size_t n, cap;
};

void zl_members_done(struct zl_members *m);
#define zl_auto_members ZL_CLEANUP(zl_members_done) struct zl_members
void zl_members_copy(struct zl_members *to, const struct zl_members *from);
/* The row of an address, or NULL. */
const struct zl_net_member *zl_members_find(const struct zl_members *m, struct in_addr addr);
/* Adds or moves; numbers are given later. -EINVAL for a name that no deployment can have. */
int zl_members_put(struct zl_members *m, const struct zl_net_member *member) ZL_MUST;
void zl_members_remove(struct zl_members *m, struct in_addr addr);
/* A deployment that `old` knows keeps its number, a new one gets one that neither has. */
void zl_members_number(struct zl_members *m, const struct zl_members *old);
/* A row with the number that the kernel's set says; -EINVAL for what is none of ours. */
int zl_members_restore(struct zl_members *m, uint32_t number, const struct zl_net_member *member) ZL_MUST;
/* What is deleted comes first; the caller frees *ret. */
size_t zl_members_diff(const struct zl_members *old, const struct zl_members *now, struct zl_set_change **ret);
