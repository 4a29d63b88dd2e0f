#include "codec/value.h"
#include "net/overlay/nft_priv.h"
#include "net/overlay/rules_priv.h"
#include "sys/nft.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * An accept in a table of ours does not help against a drop in another one: every base chain of a hook has its say. So
 * where a firewall (docker, ufw, firewalld) drops what is forwarded, our rule must stand in its chain. It is written
 * with the matches that iptables itself uses, so that `iptables -S` shows it and goes on working. Both directions are
 * accepted without conntrack: what comes in unasked is dropped at the namespace's own end of the link.
 */
struct chain {
    const char *family, *table, *name;
};

/* What nft reads back as a name; anything else could not be addressed, and must not end up in a command. */
static bool is_name(const char *s)
{
    static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
    return *s && strspn(s, ok) == strlen(s);
}

static bool in_chain(const struct zl_value *rule, const struct chain *c)
{
    return strcmp(zl_value_cstr(rule, "family"), c->family) == 0 &&
           strcmp(zl_value_cstr(rule, "table"), c->table) == 0 && strcmp(zl_value_cstr(rule, "chain"), c->name) == 0;
}

static bool drops(const struct zl_value *rule)
{
    const struct zl_value *exprs = zl_value_get(rule, "expr");
    for (const struct zl_value *e = exprs ? exprs->first : NULL; e; e = e->next)
        if (zl_value_get(e, "drop") || zl_value_get(e, "reject"))
            return true;
    return false;
}

static void plan_chain(const struct zl_value *items, const struct zl_value *chain, const char *tag, const char *link,
                       bool accept, struct zl_buf *ret)
{
    struct chain c = { zl_value_cstr(chain, "family"), zl_value_cstr(chain, "table"), zl_value_cstr(chain, "name") };
    bool v4 = strcmp(c.family, "ip") == 0 || strcmp(c.family, "inet") == 0;
    if (!v4 || strncmp(c.table, "zlayer", 6) == 0 || !is_name(c.table) || !is_name(c.name))
        return;
    char mark[64];
    snprintf(mark, sizeof mark, "zlayer_%s", tag);
    bool needed = strcmp(zl_value_cstr(chain, "policy"), "drop") == 0;
    unsigned ours = 0;
    for (const struct zl_value *item = items->first; item; item = item->next) {
        const struct zl_value *rule = zl_value_get(item, "rule");
        if (!rule || !in_chain(rule, &c))
            continue;
        if (strcmp(zl_value_cstr(rule, "comment"), mark) == 0)
            ours++;
        else
            needed = needed || drops(rule);
    }
    needed = needed && accept;
    if (needed && ours == 2)
        return;
    for (const struct zl_value *item = items->first; item; item = item->next) {
        const struct zl_value *rule = zl_value_get(item, "rule");
        if (rule && in_chain(rule, &c) && strcmp(zl_value_cstr(rule, "comment"), mark) == 0)
            zl_buf_printf(ret, "delete rule %s %s %s handle %llu\n", c.family, c.table, c.name,
                          (unsigned long long)zl_value_u64(rule, "handle", 0));
    }
    static const char *const sides[] = { "iifname", "oifname" };
    for (size_t i = 0; needed && i < ZL_ARRAY_LEN(sides); i++)
        zl_buf_printf(ret, "insert rule %s %s %s %s \"%s\" counter accept comment \"%s\"\n", c.family, c.table, c.name,
                      sides[i], link, mark);
}

int zl_foreign_plan(struct zl_str json, const char *tag, const char *link, bool accept, struct zl_buf *ret)
{
    struct zl_arena arena;
    struct zl_parse_error error;
    struct zl_value *root = NULL;
    zl_arena_init(&arena);
    int r = zl_json_parse(&arena, json, &zl_nft_limits, &root, &error);
    const struct zl_value *items = r < 0 ? NULL : zl_value_get(root, "nftables");
    r = items && items->kind == ZL_LIST ? 0 : -EPROTO;
    for (const struct zl_value *item = r == 0 ? items->first : NULL; item; item = item->next) {
        const struct zl_value *chain = zl_value_get(item, "chain");
        if (chain && strcmp(zl_value_cstr(chain, "hook"), "forward") == 0)
            plan_chain(items, chain, tag, link, accept, ret);
    }
    zl_arena_done(&arena);
    return r;
}

static int change(const char *tag, const char *link, bool accept, struct zl_err *err)
{
    zl_auto_buf json = ZL_BUF_INIT, commands = ZL_BUF_INIT;
    if (zl_nft_forward_chains(NULL, 0) == 0) /* the usual case; on a failure nft says what is wrong */
        return 0;
    int r = zl_nft_run(-1, "list ruleset", &json, err);
    if (r < 0)
        return r;
    if (zl_foreign_plan(zl_buf_view(&json), tag, link, accept, &commands) < 0)
        return zl_fail(err, ZL_E_NETWORK, "read the host's firewall rules: nft's output is not understood");
    return commands.n ? zl_nft_run(-1, commands.p, NULL, err) : 0;
}

int zl_foreign_accept(const char *tag, const struct zl_uplink *uplink, struct zl_err *err)
{
    return change(tag, uplink->name, true, err);
}

int zl_foreign_forget(const char *tag, struct zl_err *err)
{
    return change(tag, "", false, err);
}
